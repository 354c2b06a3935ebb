"""What there is to learn, and how it is shared among parts: leaves of a tree of domains, cut in some way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from moesim.domains.world import build
from moesim.sites.cut import cut
from moesim.variables import POSITIVE_OR_INF, check

_LEAVES = 64  # to a machine, of data without a world


def _all(tokens: Any, unique: Any) -> Any:
    return tokens


class Shards(NamedTuple):
    """Share of each leaf in the stream, in the order of the tree, its unique tokens, and what repeated ones are worth.

    Without leaves the data are even: as fine as anyone likes.
    """

    masses: np.ndarray | None
    unique: np.ndarray
    worth: Callable[[Any, Any], Any] = _all  # (tokens, unique tokens) -> effective tokens

    def learned(self, tokens: np.ndarray, unique: np.ndarray) -> np.ndarray:
        """Effective tokens of so many, of parts with these unique tokens; none where a part has no data."""
        return np.where(unique > 0, self.worth(tokens, np.where(unique > 0, unique, 1.0)), 0.0)

    def among(self, speeds: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
        """Share of the stream and unique tokens of the part of each machine, by a way of `cut.CUTS`."""
        leaves = _LEAVES * len(speeds)
        masses = np.full(leaves, 1.0 / leaves) if self.masses is None else self.masses
        unique = np.full(leaves, self.unique.sum() / leaves) if self.masses is None else self.unique
        owner = cut(masses, speeds, how)
        return tuple(np.bincount(owner, values, len(speeds)) for values in (masses, unique))  # type: ignore[return-value]


def even(unique_tokens: float = np.inf) -> Shards:
    """Data that are alike wherever they are cut, with so many unique tokens."""
    return Shards(None, np.atleast_1d(check("sites", "unique_tokens", unique_tokens, POSITIVE_OR_INF)))


def of_world(config: Mapping[str, Any], seed: int, tokens: float) -> Shards:
    """The domains of a world in the order of its tree; `tokens` of the run are what is unique unless it says more."""
    world = build(config, (seed,), tokens)
    there = world.natural[0] > 0
    return Shards(world.natural[0][there], world.unique[0][there], world.worth)
