"""The immutable record that a balance step takes and returns, and the random streams beside it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.domains.learning import Knowledge
from moesim.hardware.placed import Placement

if TYPE_CHECKING:
    from moesim.balance.branches import Branches

STREAMS = ("router", "tokens", "clones", "bandit", "placement")


# What stands in an array of the state for an expert that is not there.
_ABSENT: dict[str, float] = {
    "scores": -np.inf,
    "parent": -1,
    **dict.fromkeys(("rest", "bias", "probability", "assigned", "learned", "trained", "expert_loss"), 0),
    **dict.fromkeys(("load", "mean_load", "frozen", "alive", "copies", "hot", "born"), 0),
}


def fitted(values: np.ndarray, experts: int, absent: float = 0) -> np.ndarray:
    """Values (..., expert) with `absent` for experts beyond those that they have; the array itself if none are."""
    if values.shape[-1] >= experts:
        return values
    out = np.full((*values.shape[:-1], experts), absent, values.dtype)
    out[..., : values.shape[-1]] = values
    return out


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

    `step`: steps done. Arrays are (seed, expert) unless said; they grow with the experts.

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

    def widened(self, experts: int) -> State:
        """The state with room for so many experts or more; those that it had none for are not there."""
        if experts <= self.experts:
            return self
        wide = {name: fitted(getattr(self, name), experts, absent) for name, absent in _ABSENT.items()}
        own = np.broadcast_to(np.arange(experts), (self.seeds, experts)).copy()
        own[:, : self.experts] = self.bond
        return replace(self, **wide, bond=own, tree=self.tree and self.tree.widened(experts))

    @property
    def experts(self) -> int:
        """Experts that there is room for; those that are not there yet cost nothing."""
        return self.bias.shape[1]

    @property
    def known(self) -> Knowledge:
        """What the experts know."""
        return Knowledge(self.learned, self.trained, self.common_learned, self.common_trained)

    @property
    def seeds(self) -> int:
        """How many runs go side by side."""
        return len(self.bias)
