"""How even, how busy, how well: numbers from loads and losses. Loads are (..., expert) or (..., device)."""

from __future__ import annotations

from typing import Any

import numpy as np


def max_over_mean(loads: Any) -> np.ndarray:
    """Largest load over the mean, along the last axis; 1 where there is none."""
    loads = np.asarray(loads, dtype=float)
    mean = loads.mean(axis=-1)
    return np.where(mean > 0, loads.max(axis=-1) / np.where(mean > 0, mean, 1.0), 1.0)


def max_violation(loads: Any) -> np.ndarray:
    """MaxVio: (max - mean) / mean."""
    return max_over_mean(loads) - 1.0


def balancedness(loads: Any) -> np.ndarray:
    """Mean over max, 1 if even."""
    return 1.0 / max_over_mean(loads)


def gini(loads: Any) -> np.ndarray:
    """Gini coefficient: 0 if even, (n - 1)/n if one has all."""
    ordered = np.sort(np.asarray(loads, dtype=float), axis=-1)
    n = ordered.shape[-1]
    rank = 2.0 * np.arange(1, n + 1) - n - 1
    return (ordered * rank).sum(axis=-1) / (n * np.maximum(ordered.sum(axis=-1), 1e-300))


def tail_loss(loss: np.ndarray, natural: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Mean loss (seed,) of the rarest tenth of the domains that occur, at least one; arguments (seed, domain)."""
    count = np.maximum(np.round(share * (natural > 0).sum(axis=1)), 1)
    order = np.argsort(np.where(natural > 0, natural, np.inf), axis=1, kind="stable")
    rare = np.arange(loss.shape[1]) < count[:, None]
    return (np.take_along_axis(loss, order, axis=1) * rare).sum(axis=1) / count


def over_there(values: np.ndarray, there: np.ndarray, measure: Any) -> np.ndarray:
    """A measure of the entries that are there, row by row: (seed,) of values and mask (seed, expert)."""
    return np.array([measure(row[mask]) for row, mask in zip(values, there, strict=True)])


def first_reach(values: np.ndarray, at: np.ndarray, target: float) -> np.ndarray:
    """Where (in `at`) a falling curve first reaches `target`, NaN if never. Arguments (seed, step)."""
    out = np.full(len(values), np.nan)
    for row, (curve, axis) in enumerate(zip(values, at, strict=True)):
        below = np.flatnonzero(curve <= target)
        if not len(below):
            continue
        i = below[0]
        if i == 0:
            out[row] = axis[0]
            continue
        part = (curve[i - 1] - target) / (curve[i - 1] - curve[i])
        out[row] = axis[i - 1] + part * (axis[i] - axis[i - 1])
    return out
