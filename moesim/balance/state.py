"""The immutable record that a balance step takes and returns, and the random streams beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.domains.learning import Knowledge
from moesim.hardware.placed import Placement

if TYPE_CHECKING:
    from moesim.balance.branches import Branches

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

    `step`: steps done. Arrays are (seed, expert) unless said.

    Router: `scores` (seed, domain, expert), logits, -inf for an expert that is not there; `rest`, what they decay to (0
    but for experts that were split: the logarithm of their part); `bias` on them; `probability`
    (seed, domain, expert), the share of a domain's assignments that an expert is meant to get, rows sum to the active
    experts.

    Tokens of the step: `mixture` (seed, domain), the sampling weights; `drawn` (seed, domain), tokens; `assigned`
    (seed, domain, expert), token assignments that were kept, of the last update; `dropped` (seed,), those that were
    not; `load`, assignments of the step, `mean_load` their moving average. `memory`: what the sampler remembers.

    Learning: `seen` (seed, domain), tokens drawn so far, `made` of them generated; `learned`, `trained`,
    `common_learned`, `common_trained` as in `learning.Knowledge`, but for the `pending` effective and `waiting` tokens
    (seed, domain) that are credited with the next update; `loss` (seed, domain) and `expert_loss` (seed, domain,
    expert), nat/token, of the last update; `frozen`: experts without weight updates.

    Experts: `alive`; `copies`, slots that the structure wants; `hot`, windows in a row that one was overloaded;
    `parent` it was split from (-1: none), `born` in which step; `bond`, the expert whose place among the K chosen it
    shares until their data part (its own: none); `splits` (seed,), so far.

    `tree`: where experts stand as leaves, of a router that is one.

    Machine: `placement`; `migrated` (seed, device), copies to fetch in the next step, `planned` (seed,), s of
    deciding so; `wall_clock` (seed,), s.
    """

    step: int
    scores: np.ndarray
    rest: np.ndarray
    bias: np.ndarray
    probability: np.ndarray
    mixture: np.ndarray
    drawn: np.ndarray
    assigned: np.ndarray
    dropped: np.ndarray
    load: np.ndarray
    mean_load: np.ndarray
    seen: np.ndarray
    made: np.ndarray
    learned: np.ndarray
    trained: np.ndarray
    common_learned: np.ndarray
    common_trained: np.ndarray
    pending: np.ndarray
    waiting: np.ndarray
    loss: np.ndarray
    expert_loss: np.ndarray
    frozen: np.ndarray
    alive: np.ndarray
    copies: np.ndarray
    hot: np.ndarray
    parent: np.ndarray
    born: np.ndarray
    bond: np.ndarray
    splits: np.ndarray
    placement: Placement
    migrated: np.ndarray
    planned: np.ndarray
    wall_clock: np.ndarray
    tree: Branches | None = None
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> Knowledge:
        """What the experts know."""
        return Knowledge(self.learned, self.trained, self.common_learned, self.common_trained)

    @property
    def seeds(self) -> int:
        """How many runs go side by side."""
        return len(self.bias)
