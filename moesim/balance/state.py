"""The immutable record that a balance step takes and returns, and the random streams beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

STREAMS = ("router", "tokens", "clones", "bandit", "placement")


@dataclass(frozen=True)
class Streams:
    """One Generator for each purpose and seed, so that two policies meet the same draws whatever else they draw."""

    seeds: tuple[int, ...]
    generators: dict[str, list[np.random.Generator]] = field(default_factory=dict)

    @classmethod
    def of(cls, seeds: tuple[int, ...]) -> Streams:
        """Fresh streams for these seeds."""
        return cls(seeds, {name: [np.random.default_rng([s, i]) for s in seeds] for i, name in enumerate(STREAMS)})

    def __getitem__(self, purpose: str) -> list[np.random.Generator]:
        return self.generators[purpose]


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


@dataclass(frozen=True)
class State:
    """Everything that one step hands to the next; arrays are never changed in place.

    `scores` (seed, domain, expert): router logits, -inf for an expert that is not there. `bias` (seed, expert).
    `learned` (seed, domain, expert): effective tokens an expert has had of a domain, but for those of the `pending`
    (seed, domain) tokens that are credited with the next update. `assigned`: token assignments of
    the last step, same shape. `probability`: share of a domain's assignments that an expert is meant to get.
    `loss` (seed, domain), `gain` (seed, domain, expert): loss removed by one more token. `seen` (seed, domain): tokens
    drawn. `load`, `mean_load` (seed, expert): of the last step and its moving average. `hot`: windows in a row that an
    expert was overloaded. `alive`, `frozen`, `parent`, `born`, `copies` (seed, expert). `mixture` (seed, domain): the
    sampling weights; `memory`: what the sampler remembers.
    """

    step: int
    scores: np.ndarray
    bias: np.ndarray
    learned: np.ndarray
    pending: np.ndarray
    assigned: np.ndarray
    probability: np.ndarray
    loss: np.ndarray
    expert_loss: np.ndarray
    seen: np.ndarray
    drawn: np.ndarray
    dropped: np.ndarray
    load: np.ndarray
    mean_load: np.ndarray
    hot: np.ndarray
    alive: np.ndarray
    frozen: np.ndarray
    parent: np.ndarray
    born: np.ndarray
    copies: np.ndarray
    mixture: np.ndarray
    placement: Placement
    splits: np.ndarray
    migrated: np.ndarray
    wall_clock: np.ndarray
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """How many runs go side by side."""
        return len(self.bias)
