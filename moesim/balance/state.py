"""The immutable record that a balance step takes and returns, and the random streams beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.hardware.placed import Placement

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
