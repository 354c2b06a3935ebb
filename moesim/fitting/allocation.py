"""What people fit a law for: how to spend a budget, with the uncertainty of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.bootstrap import Draws
from moesim.fitting.judge import compute_of
from moesim.fitting.predict import points
from moesim.fitting.solve import CONVERGED
from moesim.numerics.axes import axis
from moesim.planning.model import Model
from moesim.planning.optimum import optimum
from moesim.variables import SIZES, stamp

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit

_EXPONENTS = {"exponent_params": "optimal_active_params", "exponent_tokens": "optimal_tokens"}
_BESIDE = 1.1  # a second budget, where only one is asked for and the exponents need two
_MIXED = {"sparsity", "experts", "density", "activation_ratio"}  # inputs by which a law knows sparsity
_FEW = 200  # draws that a summary uses
_TOLD = ("sparsity", "active_params", "total_params", "tokens", "tokens_per_param", "epochs", "loss")


def allocation(fit: Fit, compute: Any, architecture: Any, level: float, **axes: Any) -> xr.Dataset:
    """See `Fit.allocation`."""
    if not allocates(fit):
        takes = ", ".join(fit.task.target.inputs)
        raise InputError(f"allocation: {fit.task.target.title} takes {takes}; it needs a law in size and tokens")
    budgets = _budgets(fit) if compute is None else np.atleast_1d(np.asarray(axis("compute", compute), dtype=float))
    asked = np.append(budgets, _BESIDE * budgets) if len(budgets) == 1 else budgets
    axes = {"best": bool(_MIXED & set(fit.task.target.inputs)), **_usual(fit, axes), **axes}
    drawn = _drawn(fit)
    plan = _with_ratio(optimum(Model(drawn, architecture=architecture), compute=asked, **axes))
    middle = _with_ratio(optimum(Model(fit.law, fit.repetition, architecture), compute=asked, **axes))
    ends = [0.5 - level / 2, 0.5 + level / 2]
    found: dict[str, Any] = {}
    for name, quantity in _EXPONENTS.items():
        slope, here = _exponent(plan[quantity]), _exponent(middle[quantity])
        found[name] = _between(slope, ends)
        found[name].attrs = {"long_name": f"exponent of {quantity} in compute", "estimate": here.values.tolist()}
    plan, middle = plan.sel(compute=budgets), middle.sel(compute=budgets)
    for name, values in plan.data_vars.items():
        if values.dtype.kind == "f" and str(name).startswith(("optimal_", "best_")):
            found |= {f"{name}_interval": _between(values, ends), f"{name}_estimate": middle[name]}
        elif str(name).endswith("_status"):
            found[f"{name}_estimate"] = middle[name]
    return stamp(plan.assign(found).assign_coords(bound=["low", "high"]).assign_attrs(level=level))


def allocates(fit: Fit) -> bool:
    """Whether the law says how to spend a budget: it gives the loss, and takes a size and tokens."""
    target = fit.task.target
    return target.predicts == "loss" and "tokens" in target.inputs and bool(set(SIZES) & set(target.inputs))


def summary(fit: Fit) -> dict[str, Any]:
    """Estimates and intervals over the usual budgets, from at most 200 draws, as variables over (budget, bound)."""
    if not allocates(fit):
        return {}
    plan = allocation(_drawn(fit, _FEW), None, "proportional", fit.level)
    found: dict[str, Any] = {"budget": ("budget", plan["compute"].values, {"units": "FLOP", "long_name": "compute"})}
    mixed, repeated = "best_sparsity" in plan, "unique_tokens" in fit.task.target.inputs
    told = [n for n in _TOLD if (mixed or n not in ("sparsity", "total_params")) and (repeated or n != "epochs")]
    for name in (f"{prefix}_{quantity}" for prefix in ("optimal", "best") for quantity in told):
        if f"{name}_estimate" in plan:
            found[name] = ("budget", plan[f"{name}_estimate"].values)
            found[f"{name}_interval"] = (("budget", "bound"), plan[f"{name}_interval"].transpose(..., "bound").values)
    for prefix in ("optimal", "best"):
        if f"{prefix}_extrapolated" in plan:
            outside = plan[f"{prefix}_extrapolated"]
            share = outside.mean("draw") if "draw" in outside.dims else outside
            found[f"{prefix}_extrapolated"] = ("budget", np.broadcast_to(share.values > 0.5, plan["compute"].shape))
    if mixed:
        found["best_sparsity_status"] = ("budget", plan["best_sparsity_status_estimate"].values)
    for name in _EXPONENTS:
        found[name] = ("bound", plan[name].values, plan[name].attrs)
    usual = {f"allocation_{name}": value for name, value in _usual(fit, {}).items()}
    return found | usual


def _usual(fit: Fit, axes: Mapping[str, Any]) -> dict[str, float]:
    """Axes that are not given: as much unique data as any run had, and the middle sparsity of the runs."""
    inputs, found = fit.task.inputs, {}
    if "unique_tokens" in inputs:
        found["unique_tokens"] = float(inputs["unique_tokens"].max())
    if not {"sparsity", "experts"} & set(axes):
        found |= {name: float(np.median(inputs[name])) for name in ("sparsity", "experts") if name in inputs}
    return found


def _drawn(fit: Fit, most: int | None = None) -> Fit:
    """The fit with (at most so many) usable draws; without any, with points of the covariance."""
    x = points(fit, np.random.default_rng(fit.settings.get("seed", 0)))[:most]
    if len(x) < 2:
        return fit
    return replace(fit, draws=Draws(x, np.full(len(x), np.nan), np.full(len(x), CONVERGED)))


def _budgets(fit: Fit) -> np.ndarray:
    """Powers of ten from the median compute of the runs to a hundred times their largest."""
    own = compute_of(fit.runs, "allocation")
    first, last = np.log10([np.median(own), 100.0 * own.max()]) + 1e-9
    return 10.0 ** np.arange(round(first), np.floor(last) + 1.0)


def _with_ratio(plan: xr.Dataset) -> xr.Dataset:
    pairs = [p for p in ("optimal", "best") if f"{p}_tokens" in plan]
    return plan.assign({f"{p}_tokens_per_param": plan[f"{p}_tokens"] / plan[f"{p}_active_params"] for p in pairs})


def _exponent(quantity: xr.DataArray) -> xr.DataArray:
    """Slope of the log of a quantity in log compute, by least squares over the budgets."""
    log = np.log(quantity["compute"])
    along = log - log.mean()
    return (along * np.log(quantity)).sum("compute") / (along**2).sum("compute")


def _between(values: xr.DataArray, ends: list[float]) -> xr.DataArray:
    """(low, high) over the draws, along the last dim `bound`."""
    if "draw" not in values.dims:
        return values.expand_dims(bound=2, axis=-1)
    found = values.quantile(ends, "draw").rename(quantile="bound").drop_vars("bound")
    return found.transpose(..., "bound")
