"""How good a fit is: errors in and out of sample, hold-outs, and several laws on the same runs in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.runs import chosen
from moesim.variables import SIZES

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit

SCORES = {
    "r2": "share of the variance of the loss explained",
    "mape": "mean absolute error of the loss, relative",
    "rmse": "root mean square error of the loss, nat/token",
    "bias": "mean of predicted minus observed loss, nat/token",
    "worst": "largest absolute error of the loss, relative",
}


def scores(predicted: np.ndarray, observed: np.ndarray) -> dict[str, float]:
    """Errors of predicted losses (runs,), keys as in SCORES; r2 is NaN where the observed loss does not vary."""
    off = predicted - observed
    total = np.sum((observed - observed.mean()) ** 2)
    relative = np.abs(off) / observed
    return {
        "r2": float(1.0 - np.sum(off**2) / total) if total > 0 else np.nan,
        "mape": float(relative.mean()),
        "rmse": float(np.sqrt(np.mean(off**2))),
        "bias": float(off.mean()),
        "worst": float(relative.max()),
    }


def in_sample(result: Fit) -> dict[str, float]:
    """Scores on the runs of the fit, with AIC and BIC where the objective is a likelihood's."""
    task = result.task
    found = scores(task.losses(result.optimum.x[None])[0], task.loss)
    if task.objective.squared and not task.prior:
        found |= information(result.objective, len(task.loss), len(task.parameters.free))
    return found


def out_of_sample(result: Fit) -> dict[str, float]:
    """Scores on the runs that were held out; empty without a hold-out."""
    if not result.outside.any():
        return {}
    runs = result.runs.isel(run=np.flatnonzero(result.outside))
    name = result.task.target.predicts
    return scores(result.predict(runs)[name].values, np.asarray(runs[name]))


def information(objective: float, runs: int, free: int) -> dict[str, float]:
    """AIC, AICc and BIC of a least-squares fit; the residual variance counts as one more coefficient.

    AICc (Hurvich and Tsai 1989) corrects for few runs; infinite where they are as few as the coefficients.
    """
    k, deviance = free + 1, runs * np.log(max(2.0 * objective / runs, 1e-300)) + runs * (1.0 + np.log(2.0 * np.pi))
    small = 2.0 * k * (k + 1) / (runs - k - 1) if runs > k + 1 else np.inf
    aic = deviance + 2.0 * k
    return {"aic": float(aic), "aicc": float(aic + small), "bic": float(deviance + np.log(runs) * k)}


def held_out(runs: xr.Dataset, holdout: Mapping[str, Any] | float | None, rng: np.random.Generator) -> np.ndarray:
    """Which runs are kept out of the fit: (run,) bool.

    SHARE or {largest_compute: SHARE}: those of largest compute (6 x active parameters x tokens where runs have none),
    ties included; {fraction: SHARE}: at random, whole groups; {column: COLUMN, value: VALUE}: those, with VALUE as
    in `where`.
    """
    if holdout is None or holdout == {}:
        return np.zeros(runs.sizes["run"], bool)
    holdout = holdout if isinstance(holdout, Mapping) else {"largest_compute": holdout}
    kinds = [kind for kind in _HOLDOUTS if kind in holdout]
    if len(kinds) != 1:
        raise InputError(f"fit.holdout={dict(holdout)}; it takes one of {', '.join(_HOLDOUTS)}")
    out = _HOLDOUTS[kinds[0]](runs, holdout, rng)
    if out.all() or not out.any():
        counts = f"{int(out.sum())} of {len(out)}"
        raise InputError(f"fit.holdout={dict(holdout)} holds out {counts} runs; leave some on each side")
    return out


def _largest(runs: xr.Dataset, holdout: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    compute = compute_of(runs, "fit.holdout.largest_compute")
    count = max(1, round(_share(holdout, "largest_compute") * len(compute)))
    return compute >= np.sort(compute)[-count]


def _fraction(runs: xr.Dataset, holdout: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    group = np.asarray(runs["group"]) if "group" in runs else np.arange(runs.sizes["run"])
    names = np.unique(group)
    count = max(1, round(_share(holdout, "fraction") * len(names)))
    return np.isin(group, rng.permutation(names)[:count])


def _column(runs: xr.Dataset, holdout: Mapping[str, Any], rng: np.random.Generator) -> np.ndarray:
    name = holdout["column"]
    if name not in runs:
        raise InputError(f"fit.holdout: no column {name!r}; there are {', '.join(map(str, runs.data_vars))}")
    if set(holdout) != {"column", "value"}:
        raise InputError(f"fit.holdout={dict(holdout)}; it takes {{column: NAME, value: VALUE}}")
    return chosen(np.asarray(runs[name]), holdout["value"])


_HOLDOUTS: Mapping[str, Callable[..., np.ndarray]] = {
    "largest_compute": _largest,
    "fraction": _fraction,
    "column": _column,
}


def _share(holdout: Mapping[str, Any], key: str) -> float:
    share = holdout[key]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise InputError(f"fit.holdout.{key}={share!r}; it takes a share above 0 and below 1")
    return float(share)


def compute_of(runs: Any, who: str) -> np.ndarray:
    """FLOPs of each run (of a Dataset or mapping): its compute, else 6 x active parameters x tokens; `who` asks."""
    if "compute" in runs:
        return np.asarray(runs["compute"])
    active = active_of(runs)
    if active is None or "tokens" not in runs:
        raise InputError(f"{who} needs compute, or active_params and tokens; map columns to them")
    return 6.0 * active * np.asarray(runs["tokens"])


def active_of(runs: Any) -> np.ndarray | None:
    """Active parameters of each run: given, else those of any other kind less the inactive share; None without."""
    name = next((name for name in ("active_params", *SIZES) if name in runs), None)
    if name is None:
        return None
    inactive = np.asarray(runs["sparsity"]) if "sparsity" in runs and not name.startswith("active") else 0.0
    return np.asarray(runs[name]) * (1.0 - inactive)
