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

    def together(self, experts: int, devices: int) -> np.ndarray:
        """How many copies share a device with an earlier copy of their expert (seed,): they balance nothing."""
        return self.copies(experts).sum(axis=1) - self.held(experts, devices).sum(axis=(1, 2))


def arrivals(before: Placement | None, after: Placement, experts: int, devices: int) -> np.ndarray:
    """Copies that each device has to fetch (seed, device) to go from one placement to the next; none at the start."""
    if before is None or np.array_equal(before.slots, after.slots):
        return np.zeros((len(after.slots), devices))
    fresh = after.held(experts, devices) & ~before.held(experts, devices)
    return fresh.sum(axis=1).astype(float)
