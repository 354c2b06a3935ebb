"""A tree given to unequal machines: which leaves each trains, and how long the slowest takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moesim.models.operations import choose
from moesim.variables import POSITIVE, check


def _in_order(masses: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Machine of each leaf where machine i ends at the share ends[i] of the mass; leaves stay in the tree's order."""
    middle = (np.cumsum(masses) - masses / 2) / np.sum(masses)
    return np.minimum(np.searchsorted(ends, middle), len(ends) - 1)


def equal(masses: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """Subtrees of as near equal mass as leaves allow, whatever the speeds."""
    return _in_order(masses, np.arange(1, len(speeds) + 1) / len(speeds))


def proportional(masses: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """Subtrees in proportion to speed: each ends where the machines so far have their share of all speed."""
    return _in_order(masses, np.cumsum(speeds) / np.sum(speeds))


def longest_first(masses: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """LPT: each leaf in turn, the heaviest first, to the machine that would be done with it first."""
    owner, load = np.zeros(len(masses), dtype=int), np.zeros(len(speeds))
    for leaf in np.argsort(-masses, kind="stable"):
        owner[leaf] = np.argmin((load + masses[leaf]) / speeds)
        load[owner[leaf]] += masses[leaf]
    return owner


CUTS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "equal": equal,
    "proportional": proportional,
    "longest_first": longest_first,
}
"""The ways to give leaves to machines."""


def cut(masses: Any, speeds: Any, how: str = "longest_first") -> np.ndarray:
    """Machine of each leaf, for leaves of these masses in the tree's order; InputError for an unknown way."""
    m = np.atleast_1d(check("cut", "masses", masses, POSITIVE))
    s = np.atleast_1d(check("cut", "speeds", speeds, POSITIVE))
    return choose("cut", how, CUTS)(m, s)


def slowest_machine(masses: Any, speeds: Any, owner: np.ndarray) -> float:
    """Time of the slowest machine over that of a division without remainder, all mass over all speed; 1 or more."""
    m, s = np.atleast_1d(np.asarray(masses, dtype=float)), np.atleast_1d(np.asarray(speeds, dtype=float))
    loads = np.bincount(owner, m, len(s))
    return float(np.max(loads / s) / (np.sum(m) / np.sum(s)))
