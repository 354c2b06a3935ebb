"""Where the copies of experts live."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Placement:
    """Where experts live: `slots` (seed, slot) holds expert indices, -1 if empty; slots of a device are adjacent.

    `share` (seed, slot): the part of its expert's tokens that a slot serves; the shares of one expert sum to 1.
    """

    slots: np.ndarray
    share: np.ndarray

    def slot_loads(self, loads: np.ndarray) -> np.ndarray:
        """Load of each slot (seed, slot) under expert loads (seed, expert)."""
        return np.take_along_axis(loads, np.maximum(self.slots, 0), axis=1) * self.share

    def copies(self, experts: int) -> np.ndarray:
        """How many slots each expert has (seed, expert)."""
        out = np.zeros((len(self.slots), experts), dtype=np.int64)
        rows, columns = np.nonzero(self.slots >= 0)
        np.add.at(out, (rows, self.slots[rows, columns]), 1)
        return out

    def held(self, experts: int, devices: int) -> np.ndarray:
        """Whether a device holds a copy of an expert (seed, expert, device)."""
        rows, columns = np.nonzero(self.slots >= 0)
        out = np.zeros((len(self.slots), experts, devices), dtype=bool)
        out[rows, self.slots[rows, columns], columns // (self.slots.shape[1] // devices)] = True
        return out

    def served(self, experts: int, places: int) -> np.ndarray:
        """Part of an expert's tokens that is served at each of `places` groups of devices (seed, expert, place)."""
        seeds, slots = self.slots.shape
        row, column = np.nonzero(self.slots >= 0)
        index = (row * experts + self.slots[row, column]) * places + column // (slots // places)
        return np.bincount(index, self.share[row, column], seeds * experts * places).reshape(seeds, experts, places)

    def pace(self, experts: int, speed: np.ndarray) -> np.ndarray:
        """Mean `speed` (device,) that an expert's tokens meet, over that of all devices (seed, expert)."""
        if (speed == speed[0]).all():
            return np.ones((len(self.slots), experts))
        served = self.served(experts, len(speed))
        return np.where(served.sum(axis=2) > 0, served @ speed, speed.mean()) / speed.mean()

    def together(self, experts: int, devices: int) -> np.ndarray:
        """How many copies share a device with an earlier copy of their expert (seed,): they balance nothing."""
        return self.copies(experts).sum(axis=1) - self.held(experts, devices).sum(axis=(1, 2))


def arrivals(before: Placement | None, after: Placement, experts: int, devices: int) -> np.ndarray:
    """Copies that each device has to fetch (seed, device) to go from one placement to the next; none at the start."""
    if before is None or np.array_equal(before.slots, after.slots):
        return np.zeros((len(after.slots), devices))
    fresh = after.held(experts, devices) & ~before.held(experts, devices)
    return fresh.sum(axis=1).astype(float)


def arriving(placement: Placement, loads: np.ndarray, places: int, active: int, local: bool = True) -> np.ndarray:
    """Copies of an average token that each place (a device, or a node's devices) gets from others (seed, place).

    A token's `active` experts are distinct: with E experts a place that serves the part s of the assignments is missed
    by all of them with probability prod_j max(0, 1 - s E/(E - j)), j < active, exact for even loads; what goes to one
    place travels once. Tokens come from everywhere alike. Of those at a place as many stay as its copies serve if they
    prefer the copy there (`local`), else as many as chance has it.
    """
    served = placement.served(loads.shape[1], places)
    part = loads / np.maximum(loads.sum(axis=1, keepdims=True), 1e-300)
    experts = np.maximum((served.sum(axis=2) > 0).sum(axis=1), active)[:, None, None]
    share = (part[:, None, :] @ served)[:, 0]
    missed = np.maximum(1.0 - share[:, :, None] * experts / (experts - np.arange(active)), 0.0).prod(axis=2)
    stay = np.minimum(served, 1.0 / places) if local else served / places
    kept = (part[:, None, :] @ stay)[:, 0] / np.where(share > 0, share, 1.0)
    return (1.0 - missed) * (1.0 - kept)
