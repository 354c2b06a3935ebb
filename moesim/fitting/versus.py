"""Two fits side by side: which recipe or law is better, how surely, and what that is worth in compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.bootstrap import Draws
from moesim.fitting.predict import given, losses
from moesim.fitting.result import Fit, check_level
from moesim.numerics.axes import axis
from moesim.output.provenance import signed
from moesim.planning.model import Model
from moesim.planning.optimum import optimum

if TYPE_CHECKING:
    import xarray as xr

Curve = Callable[[np.ndarray], np.ndarray]  # log compute (draw, compute) -> loss
_FURTHEST = np.log(1e6)  # of a gain in compute
_STEP = 0.05  # of log compute, for a slope
_ITERATIONS = 30


def versus(
    one: Fit, other: Fit, *, compute: Any = None, runs: Any = None, level: float = 0.9, **axes: Any
) -> xr.Dataset:
    """Two recipes (or two laws of the same runs), draw by draw: how sure it is that `one` is better than `other`.

    At budgets `compute` (FLOP) each at its own compute-optimum (`axes` as in `optimum`: sparsity, unique_tokens; a law
    of compute alone is its own optimum), or at `runs` as for `predict`. `loss(fit, draw, ...)`, `difference` of the
    estimates (one - other, nat/token) with `difference_interval(..., bound)`, `p_better`, the share of draws in which
    one has the lower loss; and at budgets `compute_gain` with `compute_gain_interval`: by how much the other's compute
    must grow to reach the loss of one (inf where it never does within a factor of a million).

    Draw i of the one goes with draw i of the other: with one seed, and runs of one design, both are resampled alike, so
    that what they share cancels. Raises InputError without draws, or for neither or both of `compute` and `runs`.
    """
    check_level(level)
    if (compute is None) == (runs is None):
        raise InputError("versus: it takes budgets (compute=[1e21]) or runs; give one of them")
    pair, middles = _paired(one, other), (_alone(one), _alone(other))
    if compute is None:
        data, middle = _at_runs(pair, runs), _at_runs(middles, runs)
    else:
        budgets = np.log(np.atleast_1d(np.asarray(axis("compute", compute), dtype=float)))
        data, middle = (_at_budgets(both, budgets, axes) for both in (pair, middles))
    better = (data["loss"].sel(fit="one") < data["loss"].sel(fit="other")).mean("draw")
    found: dict[str, Any] = {"loss": data["loss"], "p_better": better}
    ends = [0.5 - level / 2, 0.5 + level / 2]
    for name in [name for name in ("difference", "compute_gain") if name in data]:
        spread = data[name].quantile(ends, "draw", method="inverted_cdf").rename(quantile="bound").drop_vars("bound")
        found |= {name: middle[name].isel(draw=0, drop=True), f"{name}_interval": spread.transpose(..., "bound")}
    merged = data.drop_vars([*data.data_vars]).assign(found).assign_coords(bound=["low", "high"])
    return signed(merged.assign_attrs(one=one.name, other=other.name, level=level), "versus", {})


def _paired(one: Fit, other: Fit) -> tuple[Fit, Fit]:
    """Both with the draws that both have."""
    if one.draws is None or other.draws is None:
        raise InputError("versus: a fit without draws; fit both with draws=1000 and the same seed")
    n = min(len(one.draws.x), len(other.draws.x))
    both = one.draws.usable[:n] & other.draws.usable[:n]
    if not both.any():
        raise InputError("versus: no draw converged in both fits; fit with more draws")
    return _with(one, one.draws.x[:n][both]), _with(other, other.draws.x[:n][both])


def _alone(fit: Fit) -> Fit:
    return _with(fit, fit.optimum.x[None])


def _with(fit: Fit, x: np.ndarray) -> Fit:
    return replace(fit, draws=Draws(x, np.zeros(len(x)), np.zeros(len(x), int)))


def _at_runs(pair: tuple[Fit, Fit], runs: Any) -> xr.Dataset:
    import xarray as xr

    tables = []
    for fit in pair:
        inputs, template = given(fit.task, runs)
        values = losses(fit.task, fit.task.target.at(inputs), fit.usable_x())
        shape = (len(values), *template.shape)
        tables.append(xr.DataArray(values.reshape(shape), dims=("draw", *template.dims), coords=template.coords))
    loss = xr.concat(tables, xr.Variable("fit", ["one", "other"]))
    return xr.Dataset({"loss": loss, "difference": tables[0] - tables[1]})


def _at_budgets(pair: tuple[Fit, Fit], budgets: np.ndarray, axes: dict[str, Any]) -> xr.Dataset:
    import xarray as xr

    one, other = (_curve(fit, axes) for fit in pair)
    at = np.broadcast_to(budgets, (len(pair[0].usable_x()), len(budgets)))
    loss = np.stack([one(at), other(at)])
    data = {
        "loss": (("fit", "draw", "compute"), loss),
        "difference": (("draw", "compute"), loss[0] - loss[1]),
        "compute_gain": (("draw", "compute"), np.exp(_reached(other, loss[0], at) - at)),
    }
    return xr.Dataset(data, coords={"fit": ["one", "other"], "compute": np.exp(budgets)})


def _curve(fit: Fit, axes: dict[str, Any]) -> Curve:
    """The best loss of a budget in each draw."""
    import xarray as xr

    law = fit.draws_law

    def best(log_compute: np.ndarray) -> np.ndarray:
        compute = xr.DataArray(np.exp(log_compute), dims=("draw", "budget"))
        if law.inputs == ("compute",):
            return (law(compute=compute) + 0.0 * compute).transpose("draw", "budget").values
        found = optimum(Model(fit), compute=compute, best=False, **axes).optimal_loss
        return (found + 0.0 * compute).transpose("draw", "budget").values

    return best


def _reached(curve: Curve, wanted: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Log compute at which the curve has the wanted loss: (draw, compute); +-inf where it is not in reach.

    Newton's steps on the log of the loss, which falls ever more slowly, so that from below they never overshoot.
    """
    x, goal = start.copy(), np.log(wanted)
    for _ in range(_ITERATIONS):
        here = np.log(curve(x))
        slope = (np.log(curve(x + _STEP)) - here) / _STEP
        step = np.where(slope < 0, (goal - here) / np.minimum(slope, -1e-300), 0.0)
        x = np.clip(x + step, start - _FURTHEST, start + _FURTHEST)
        if np.all(np.abs(step) < 1e-9):
            break
    off = np.abs(np.log(curve(x)) - goal) > 1e-6
    return np.where(off, np.where(x > start, np.inf, -np.inf), x)
