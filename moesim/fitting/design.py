"""Which run next: the one, or the few, that would narrow a quantity most for their cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.judge import compute_of
from moesim.fitting.predict import given, losses, scatter

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit


def next_runs(fit: Fit, candidates: Any, target: Any, cost: Any, count: int) -> xr.Dataset:
    """See `Fit.next_runs`."""
    import xarray as xr

    inputs, template = given(fit.task, candidates)
    if fit.draws is None:
        raise InputError("next_runs: the fit has no draws; fit with draws=1000")
    lines = np.log(losses(fit.task, fit.task.target.at(inputs), fit.usable_x()))
    noise = (np.std(fit.task.centred(fit.optimum.x)) * scatter(fit, inputs)) ** 2
    wanted, price = _target(fit, target), _cost(inputs, cost)
    lines, wanted = lines - lines.mean(axis=0), wanted - wanted.mean()
    if not np.var(wanted) > 0:
        raise InputError("next_runs: the target does not vary between draws; there is nothing to narrow")
    narrowed = _gain(lines, wanted, noise) / np.var(wanted)
    order, left = _greedy(lines, wanted, noise, price, min(count, lines.shape[1]))
    rank = np.zeros(lines.shape[1], int)
    rank[order] = np.arange(1, len(order) + 1)
    found = {"variance_reduction": narrowed, "cost": price, "reduction_per_cost": narrowed / price, "rank": rank}
    data = {name: (template.dims, values.reshape(template.shape)) for name, values in found.items()}
    data |= {name: (template.dims, values.reshape(template.shape)) for name, values in inputs.items()}
    return xr.Dataset(data, attrs={"left_after_ranked": left})


def _target(fit: Fit, target: Any) -> np.ndarray:
    """The quantity in each draw: a coefficient by name, the log loss of one run, or values, one for each draw."""
    x = fit.usable_x()
    if isinstance(target, str):
        if target not in fit.task.parameters.free:
            free = ", ".join(fit.task.parameters.free)
            raise InputError(f"next_runs: target={target!r}; it takes a free coefficient ({free}), a run, or draws")
        return x[:, fit.task.parameters.free.index(target)]
    if isinstance(target, Mapping):
        inputs, _ = given(fit.task, target)
        return np.log(losses(fit.task, fit.task.target.at(inputs), x)).mean(axis=1)
    values = np.asarray(target, dtype=float)
    if values.shape != (len(x),):
        raise InputError(f"next_runs: target has shape {values.shape}; it takes one value for each of {len(x)} draws")
    return values


def _cost(inputs: Mapping[str, np.ndarray], cost: Any) -> np.ndarray:
    """Cost of each candidate: given, or its FLOPs."""
    n = len(next(iter(inputs.values())))
    if cost is None:
        import xarray as xr

        return compute_of(xr.Dataset({name: ("run", values) for name, values in inputs.items()}), "next_runs")
    price = np.broadcast_to(np.asarray(cost, dtype=float).ravel(), n) if np.size(cost) in (1, n) else np.zeros(n)
    if not np.all(price > 0):
        raise InputError(f"next_runs: cost takes numbers above 0, one for each of {n} candidates")
    return price


def _gain(lines: np.ndarray, wanted: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """By how much a run of each candidate would lower the variance of the wanted quantity, were all normal."""
    together = wanted @ lines / len(wanted)
    return together**2 / (np.mean(lines**2, axis=0) + noise)


def _greedy(
    lines: np.ndarray, wanted: np.ndarray, noise: np.ndarray, price: np.ndarray, count: int
) -> tuple[list[int], float]:
    """(candidates in the order in which they narrow most for their cost, each given those before, and the share of the
    variance that is left after them)."""
    order, start = [], np.var(wanted)
    for _ in range(count):
        worth = _gain(lines, wanted, noise) / price
        worth[order] = -1.0
        best = int(np.argmax(worth))
        order.append(best)
        line = lines[:, best]
        total = np.mean(line**2) + noise[best]
        # as the mean and covariance of a normal distribution shrink when one more noisy value is seen
        shrink = 1.0 - np.sqrt(noise[best] / total)
        size = max(np.mean(line**2), 1e-300)
        wanted = wanted - shrink * (wanted @ line / len(line)) / size * line
        lines = lines - shrink * np.outer(line, line @ lines / len(line)) / size
    return order, float(np.var(wanted) / start)
