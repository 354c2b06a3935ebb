"""Loads that move, or are uneven in one way: what tells placement policies apart.

The kinds follow the workloads W0 to W7 of NVIDIA/Megatron-LM pull 7488 (what each isolates, not its numbers); and
drift.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from moesim.errors import InputError
from moesim.settings import known

# Heat of experts (window, expert), 1 where hot, of (windows, experts, ranks, hot, period, generator).
_Kind = Callable[..., np.ndarray]


def _nobody(windows, experts, ranks, hot, period, rng):
    return np.zeros((windows, experts))


def _some(windows, experts, ranks, hot, period, rng):
    return np.tile(np.isin(np.arange(experts), rng.permutation(experts)[:hot]), (windows, 1))


def _one_rank(windows, experts, ranks, hot, period, rng):
    return np.tile(np.arange(experts) < hot, (windows, 1))


def _spread(windows, experts, ranks, hot, period, rng):
    places = np.arange(hot) * experts // hot
    return np.tile(np.isin(np.arange(experts), places), (windows, 1))


def _rotating(windows, experts, ranks, hot, period, rng):
    turn = np.arange(windows) // period
    sets = [rng.permutation(experts)[:hot] for _ in range(int(turn[-1]) + 1)]
    return np.stack([np.isin(np.arange(experts), sets[t]) for t in turn])


def _burst(windows, experts, ranks, hot, period, rng):
    return _one_rank(windows, experts, ranks, hot, period, rng) & (np.arange(windows)[:, None] % period == period - 1)


KINDS: Mapping[str, tuple[str, _Kind]] = {
    "balanced": ("W0", _nobody),
    "hot_experts": ("W1", _some),
    "hot_rank": ("W2", _one_rank),
    "spread": ("W3", _spread),
    "ragged_source": ("W4", _nobody),
    "idle_rank": ("W5", _nobody),
    "rotating": ("W6", _rotating),
    "burst": ("W7", _burst),
    "drift": ("", _nobody),
}
"""Kind -> its name in the pull request, and which experts are hot."""


def workload(
    kind: str, windows: int, experts: int, ranks: int, heat: float, period: int, drift: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Loads (window, expert) with mean 1 and the source raggedness (window,) of one kind.

    Hot experts, as many as a rank has, carry `heat` x the mean, the others the rest alike. `rotating` moves on to other
    experts, wherever they are, every `period` windows, `burst` is hot in the last of every `period`. `ragged_source`:
    one rank starts with `heat` x the mean of the tokens. `idle_rank`: nothing for the experts of the first rank.
    `drift`: logarithms of the loads walk by `drift` per window. InputError for an unknown kind and for a heat that
    leaves the others nothing.
    """
    if kind not in KINDS:
        raise InputError(f"world workload: kind={kind!r}; {known(KINDS, kind)}")
    if experts % ranks:
        raise InputError(f"world workload: experts={experts} do not divide among ranks={ranks}; use a multiple")
    hot = experts // ranks
    if not 0 <= heat * hot <= experts:
        raise InputError(
            f"world workload: heat={heat:g}; it takes 0 to {experts / hot:g}, where the others get nothing"
        )
    rng = np.random.default_rng([seed, 6])
    where = KINDS[kind][1](windows, experts, ranks, hot, period, rng).astype(bool)
    others = (experts - heat * hot) / (experts - hot)
    loads = np.where(where.any(axis=1, keepdims=True), np.where(where, heat, others), 1.0)
    if kind == "idle_rank":
        loads = np.where(np.arange(experts) < hot, 0.0, experts / (experts - hot)) * np.ones((windows, 1))
    if kind == "drift":
        loads = np.exp(np.cumsum(drift * rng.standard_normal((windows, experts)), axis=0))
        loads /= loads.mean(axis=1, keepdims=True)
    return loads, np.full(windows, heat if kind == "ragged_source" else 1.0)
