"""A tree given to unequal machines: which leaves each trains, and how long the slowest takes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.models.operations import choose
from moesim.variables import POSITIVE, check


def _in_order(masses: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Machine of each leaf where machine i ends at the share ends[i] of the mass; leaves stay in the tree's order."""
    middle = (np.cumsum(masses) - masses / 2) / np.sum(masses)
    return np.minimum(np.searchsorted(ends, middle), len(ends) - 1)


def balanced(masses: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """Subtrees of as near equally many leaves as there are, whatever they hold: the levels of a balanced tree."""
    return _in_order(np.ones(len(masses)), np.arange(1, len(speeds) + 1) / len(speeds))


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


def huffman(masses: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """Huffman's subtrees: the two lightest are joined until one is left for each machine; the heaviest to the fastest.

    Each is at most twice the lightest, or a leaf: a tree whose depth follows the load has near equal parts.
    """
    heap = [(mass, leaf, [leaf]) for leaf, mass in enumerate(masses.tolist())]
    heapq.heapify(heap)
    while len(heap) > len(speeds):
        (a, name, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a + b, name, left + right))
    owner = np.zeros(len(masses), dtype=int)
    for machine, (_, _, leaves) in zip(np.argsort(-speeds, kind="stable"), sorted(heap, reverse=True), strict=False):
        owner[leaves] = machine
    return owner


CUTS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    each.__name__: each for each in (balanced, equal, proportional, longest_first, huffman)
}
"""The ways to give leaves to machines."""


def cut(masses: Any, speeds: Any, how: str = "longest_first") -> np.ndarray:
    """Machine of each leaf, for leaves of these masses in the tree's order; InputError for an unknown way."""
    m = np.atleast_1d(check("cut", "masses", masses, POSITIVE))
    s = np.atleast_1d(check("cut", "speeds", speeds, POSITIVE))
    return choose("cut", how, CUTS)(m, s)


def subtrees(masses: Any, levels: int) -> np.ndarray:
    """Masses (2^levels,) below the nodes that many levels down a balanced tree of leaves of these masses, in order."""
    m = np.atleast_1d(check("cut", "masses", masses, POSITIVE))
    if levels < 0 or len(m) % 2**levels:
        raise InputError(f"cut: {len(m)} leaves do not divide among the nodes of levels={levels}; give fewer levels")
    return m.reshape(2**levels, -1).sum(axis=1)


def part_masses(masses: Any, speeds: Any, how: str = "longest_first") -> np.ndarray:
    """Share of all mass that each machine trains (machine,); they add up to 1."""
    m, owner = np.atleast_1d(np.asarray(masses, dtype=float)), cut(masses, speeds, how)
    return np.bincount(owner, m, len(np.atleast_1d(speeds))) / np.sum(m)


def slowest_machine(masses: Any, speeds: Any, owner: np.ndarray) -> float:
    """Time of the slowest machine over that of a division without remainder, all mass over all speed; 1 or more."""
    m, s = np.atleast_1d(np.asarray(masses, dtype=float)), np.atleast_1d(np.asarray(speeds, dtype=float))
    loads = np.bincount(owner, m, len(s))
    return float(np.max(loads / s) / (np.sum(m) / np.sum(s)))
