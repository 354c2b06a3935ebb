"""What training apart costs in loss: many replicas, few bits, stale work, parts that see their own data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.settings import number, one_of, setting
from moesim.variables import NON_NEGATIVE, POSITIVE, REAL, Domain

MEASURED_STEPS = (10.0, 1000.0)
"""Steps between averages for which the effect of H is supported; outside it is extrapolated."""
MEASURED_REPLICAS = 64.0
"""Most replicas that anyone has averaged in public (DiLoCo, arXiv:2311.08105, table 3)."""
MEASURED_PARTS = 8
"""Most parts that train wholly alone without losing to their shards (DiPaCo, table 1; with 256 they overfit)."""
COMPRESSION = {
    "optimistic": (1.0, 1.0, 1.0, 1.0, 0.99),
    "expected": (1.0, 1.0, 0.99, 0.98, 0.95),
    "conservative": (1.0, 0.99, 0.95, 0.90, 0.75),
}
"""Effective share of the compute where parameters are sent 1, 4, 16, 100 and 500 times smaller than in 16 bits: MIRI's
three engineering estimates. Observed: 4 bits lossless to 15B; 146 times competitive at 72B."""
EVIDENCE = {
    "loss_factor": (
        1.0,
        "replicas: fitted to Charles et al. 2025, table 4 (35M to 2.4B, H = 30); in H to Streaming DiLoCo, table 6",
    ),
    "parts_gain": (0.0, "parts: DiPaCo, table 1, one series of 150M models with up to 8 independent parts"),
}
"""What the loss rests on where a variable of the result is not this number."""
_RATIOS = np.log10([1.0, 4.0, 16.0, 100.0, 500.0])
_SPLIT = 64 / 88  # share of a part's steps alone, in DiPaCo's table
_BELOW = Domain("0 or more and below 1", 0, 1, lower_open=False)


@dataclass(frozen=True)
class Quality:
    """The coefficients of what training apart does to the loss, all open; none is measured well.

    Replicas M that average every H steps: the loss times M^beta, beta = scale N^-size_exponent ln H/ln reference_steps.
    Fitted to Charles et al. 2025 (arXiv:2503.09799, table 4, H = 30, to 2.4B); the form in H agrees with Streaming
    DiLoCo's table 6 (arXiv:2501.18512, H 30 to 100: ratio 1.38, here 1.35). `compression`: a row of COMPRESSION.
    `per_doubling`: nat that parts trained on their own data gain for each bit of their entropy, each doubling of their
    number where they are even (DiPaCo, arXiv:2403.10616, table 1: (ln 16.23 - ln 14.62)/3 for 8 parts, each with all
    steps, 24k of 88k shared): one series of 150M models. `overfit`: nat for each e-fold of passes over a shard beyond
    `free_passes`; `stale`: share of the tokens lost where others have moved on. Nobody published these two.
    """

    scale: float = setting(1.0923, number(NON_NEGATIVE))
    size_exponent: float = setting(0.2342, number(REAL))
    reference_steps: float = setting(30.0, number(Domain("a number above 1", lower=1.0)))
    compression: str = setting("expected", one_of(*COMPRESSION))
    per_doubling: float = setting(0.035, number(NON_NEGATIVE))
    overfit: float = setting(0.0, number(NON_NEGATIVE))
    free_passes: float = setting(4.0, number(POSITIVE))
    stale: float = setting(0.0, number(_BELOW))

    def exponent(self, params: Any, steps: Any) -> Any:
        """beta of the multiplier M^beta."""
        size = np.asarray(params, dtype=float) ** -self.size_exponent
        return self.scale * size * np.log(steps) / np.log(self.reference_steps)

    def multiplier(self, replicas: Any, params: Any, steps: Any) -> Any:
        """Loss of `replicas` over that of one; every step averaged is data parallel, which costs nothing."""
        return np.maximum(replicas, 1.0) ** self.exponent(params, steps)

    def kept(self, bits: Any) -> Any:
        """Effective share of the compute where parameters are sent in `bits`: linear in its log, constant beyond."""
        smaller = np.log10(16.0 / np.asarray(bits, dtype=float))
        return np.interp(smaller, _RATIOS, COMPRESSION[self.compression])

    def parts_gain(self, shares: Any, apart: Any, copies: Any = 1.0) -> Any:
        """Nat that parts with these shares of the data gain, `apart` the share of its steps that each trained alone.

        `copies`: parts that share one of the shares, evenly.
        """
        q = np.asarray(shares, dtype=float)
        bits = -q * np.log2(np.where(q > 0, q / copies, 1.0))
        return self.per_doubling * np.sum(bits * np.minimum(np.asarray(apart) / _SPLIT, 1.0))

    def overfitted(self, passes: Any) -> Any:
        """Nat that a part loses to many passes over its shard."""
        return self.overfit * np.log(np.maximum(np.asarray(passes, dtype=float) / self.free_passes, 1.0))


def frozen_stem_time(shared: float, shares: Any, speeds: Any, centre: float) -> float:
    """Time of unit work of which `shared` is done by a centre, the rest by parts: f/S + (1 - f) max q_j/s_j."""
    slowest = np.max(np.asarray(shares, dtype=float) / np.asarray(speeds, dtype=float))
    return float(shared / centre + (1.0 - shared) * slowest)


def effective_share(loss: Any, factor: Any, floor: Any, slope: Any) -> Any:
    """Compute of the best run that has `factor` times the loss, over that of the one that has `loss`.

    Along best runs loss - floor falls as compute^-slope (alpha beta/(alpha + beta) of the law).
    """
    return ((loss * factor - floor) / (loss - floor)) ** (-1.0 / slope)


def repaired(loss: Callable[[float], float], tokens: float, factor: float) -> float:
    """How many times the `tokens` bring `factor` times the loss(tokens) down to it again; infinite where none do."""
    from scipy.optimize import brentq

    aim = loss(tokens)
    if factor <= 1.0:
        return 1.0
    if loss(1e12 * tokens) * factor > aim:
        return np.inf
    return float(np.exp(brentq(lambda log: loss(tokens * np.exp(log)) * factor - aim, 0.0, np.log(1e12))))  # type: ignore[arg-type]
