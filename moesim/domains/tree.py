"""The binary similarity tree of domains: what one domain's tokens are worth to another, in linear time.

Leaves are domains in order, padded to a power of two. Two leaves whose lowest common ancestor is h levels up have
similarity rho * decay^(h-1); a leaf has similarity 1 with itself. With decay = 1/2 every level of cousins together
weighs as much as one sibling.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np


def height(leaves: int) -> int:
    """Levels between a leaf and the root of a tree that holds that many leaves."""
    return max(leaves - 1, 0).bit_length()


def similarity(leaves: int, rho: float, decay: float, to: np.ndarray | None = None) -> np.ndarray:
    """The similarity matrix (leaf, leaf), or its columns `to`; `mix` multiplies by it without forming it."""
    index = np.arange(leaves)
    levels = np.frexp((index[:, None] ^ (index if to is None else to)).astype(float))[1]
    return np.where(levels == 0, 1.0, rho * decay ** np.maximum(levels - 1.0, 0.0))


def mix(values: np.ndarray, rho: float, decay: float, own: float = 1.0) -> np.ndarray:
    """Similarity matrix times `values` along axis 1: (seed, leaf, ...) -> (seed, leaf, ...).

    `own`: a leaf's similarity with itself. Small subtrees are multiplied out; what the rest of the tree lends is the
    same for all leaves of one, and comes from the tree of their sums, in which none lends to itself.
    """
    leaves = values.shape[1]
    if rho == 0.0 or leaves == 1:
        return values if own == 1.0 else own * values
    size = 2 ** min(height(leaves), _LEVELS)
    subtrees = _padded(values, -(-leaves // size) * size).reshape(len(values), -1, size, prod(values.shape[2:]))
    mixed = _multiplied_out(size, rho, decay, own, np.result_type(values, np.float32)) @ subtrees
    if leaves > size:
        mixed += mix(subtrees.sum(axis=2), rho * decay**_LEVELS, decay, 0.0)[:, :, None]
    return mixed.reshape(len(values), -1, *values.shape[2:])[:, :leaves]


_LEVELS = 3  # of a subtree that is multiplied out: with 8 leaves least is moved through memory


@lru_cache(maxsize=256)  # asked in every step
def _multiplied_out(size: int, rho: float, decay: float, own: float, dtype: np.dtype) -> np.ndarray:
    out = similarity(size, rho, decay)
    np.fill_diagonal(out, own)
    return out.astype(dtype)


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    if values.shape[1] == size:
        return values
    out = np.zeros((values.shape[0], size, *values.shape[2:]), values.dtype)
    out[:, : values.shape[1]] = values
    return out


def blocks(leaves: int) -> list[tuple[int, int]]:
    """(start, stop) of the leaves below every node except root, leaf level included, largest first."""
    size = 2 ** height(leaves)
    out = []
    while size > 1:
        size //= 2
        out += [(start, min(start + size, leaves)) for start in range(0, leaves, size)]
    return out


def best_cut(flow: np.ndarray) -> tuple[tuple[int, int], float]:
    """The node whose leaves hold the share of `flow` (leaf,) nearest to one half, and that share.

    The share says how divisible the flow is: near 1/2 two experts could halve it, near 0 or 1 one leaf holds it all.
    Of nodes as near, such as the two halves of the tree, it is the first, whatever the rounding.
    """
    total = np.concatenate([[0.0], np.cumsum(flow)])
    cuts = blocks(len(flow))
    if not cuts or total[-1] <= 0:
        return (0, len(flow)), 1.0
    shares = np.array([total[stop] - total[start] for start, stop in cuts]) / total[-1]
    off = np.abs(shares - 0.5)
    best = int(np.argmax(off <= off.min() + 1e-9))
    return cuts[best], float(shares[best])


def divisibility(share: float) -> float:
    """1 if a cut halves the flow, 0 if one side has nothing."""
    return 1.0 - abs(2.0 * share - 1.0)
