"""What training apart costs in loss: many replicas, few bits, parts that see their own data."""

from __future__ import annotations

from typing import Any

import numpy as np

MEASURED_STEPS = (10.0, 1000.0)
"""Steps between averages for which the effect of H is supported; outside it is extrapolated."""


def exponent(params: Any, steps: Any) -> Any:
    """beta of the multiplier M^beta of the loss for M replicas that average every H steps.

    1.0923 N^-.2342 ln H/ln 30: fitted to Charles et al. 2025 (arXiv:2503.09799, table 4, H = 30); the form in H agrees
    with Streaming DiLoCo's table 6 (arXiv:2501.18512, H 30 to 100: ratio 1.38, here 1.35).
    """
    return 1.0923 * np.asarray(params, dtype=float) ** -0.2342 * np.log(steps) / np.log(30.0)


def multiplier(replicas: Any, params: Any, steps: Any) -> Any:
    """Loss of `replicas` over that of one, M^beta; every step averaged is data parallel, which costs nothing."""
    return np.maximum(replicas, 1.0) ** exponent(params, steps)


_RATIOS, _KEPT = np.log10([1.0, 4.0, 16.0, 100.0, 500.0]), [1.0, 1.0, 0.99, 0.98, 0.95]


def kept(bits: Any) -> Any:
    """Effective share of the compute where a parameter is sent in `bits`; 1 to 4 bits, .95 at a 500th of 16.

    An engineering estimate (MIRI's expected case), linear in the logarithm, constant beyond.
    """
    return np.interp(np.log10(16.0 / np.asarray(bits, dtype=float)), _RATIOS, _KEPT)


PER_DOUBLING = 0.035
"""Nat of loss that parts trained on their own data gain for each doubling of their number (DiPaCo, arXiv:2403.10616,
table 1: (ln 16.23 - ln 14.62)/3 for 8 parts of 150M, each with all 88k steps, 24k of them shared); one model size."""
_SPLIT = 64 / 88


def parts_gain(parts: Any, apart: Any, per_doubling: Any = PER_DOUBLING) -> Any:
    """Nat that `parts` gain, `apart` the share of a part's own steps that it has trained alone (64/88 as measured)."""
    return per_doubling * np.log2(parts) * np.minimum(apart / _SPLIT, 1.0)


_FREE = 4.0  # passes over a shard that cost nothing


def overfitted(passes: Any, overfit: Any) -> Any:
    """Nat that a part loses to many passes over its shard: overfit ln(passes/4) beyond 4; nobody published a value."""
    return overfit * np.log(np.maximum(np.asarray(passes, dtype=float) / _FREE, 1.0))


def frozen_stem_time(shared: float, shares: Any, speeds: Any, centre: float) -> float:
    """Time of unit work of which `shared` is done by a centre, the rest by parts: f/S + (1 - f) max q_j/s_j."""
    slowest = np.max(np.asarray(shares, dtype=float) / np.asarray(speeds, dtype=float))
    return float(shared / centre + (1.0 - shared) * slowest)


def effective_share(loss: Any, factor: Any, floor: Any, slope: Any) -> Any:
    """Compute of the best run that has `factor` times the loss, over that of the one that has `loss`.

    Along best runs loss - floor falls as compute^-slope (alpha beta/(alpha + beta) of the law).
    """
    return ((loss * factor - floor) / (loss - floor)) ** (-1.0 / slope)
