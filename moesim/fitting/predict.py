"""Losses that a fit predicts, with the interval of the law and that of a further run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.bootstrap import percentiles
from moesim.fitting.profile import reachable
from moesim.fitting.task import Task
from moesim.variables import SIZES, VARIABLES, check

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit

WIDENINGS = ("none", "holdout")
_SAMPLED = 1000  # points of the covariance, without draws
_TREND = 3.0  # standard errors from which the scatter's trend along compute counts


def predicted(fit: Fit, runs: Any, level: float, seed: int, widen: str) -> xr.Dataset:
    """See `Fit.predict`."""
    import xarray as xr

    if widen not in WIDENINGS:
        raise InputError(f"predict: widen={widen!r}; it takes {', '.join(WIDENINGS)}")
    inputs, template = given(fit.task, runs)
    loss, confidence, prediction = _intervals(fit, inputs, level, seed)
    if widen == "holdout":
        stretch = _stretch(fit, level, seed)
        confidence, prediction = (loss[:, None] + stretch * (ends - loss[:, None]) for ends in (confidence, prediction))
    shape = template.shape
    found = {fit.task.target.predicts: (template.dims, loss.reshape(shape))}
    for name, ends in (("confidence", confidence), ("prediction", prediction)):
        found[name] = ((*template.dims, "bound"), ends.reshape(*shape, 2))
    return xr.Dataset(found, coords={**template.coords, "bound": ["low", "high"]})


def given(task: Task, runs: Any) -> tuple[dict[str, np.ndarray], xr.DataArray]:
    """(the law's inputs, flat and of one length; a DataArray with the dims that the predictions have).

    Variables of a Dataset are aligned by the names of their dims, so that a grid stays a grid; numbers and 1-D arrays
    of a mapping or a data frame are one value for each run. InputError for a missing input, or one outside its domain.
    """
    import xarray as xr

    names, columns = task.target.inputs, {}
    extra = [name for name in ("total_params", "active_params") if name in runs and name not in names]
    for name in (*names, *extra):
        if name not in runs:
            there = ", ".join(map(str, runs)) or "nothing"
            raise InputError(f"predict: no {name}, which {task.target.title} takes; there are {there}; give it too")
        value = runs[name]
        dims = getattr(value, "dims", None)
        if dims is None and np.ndim(value) > 1:
            raise InputError(f"predict: {name} has {np.ndim(value)} dims; give 1-D arrays, or DataArrays with dims")
        column = value if dims is not None else xr.DataArray(np.asarray(value), dims="run" if np.ndim(value) else ())
        columns[name] = check("predict", name, column, VARIABLES[name].domain)
    lengths = {n: c.sizes["run"] for n, c in columns.items() if "run" in c.dims}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise InputError(f"predict: {told} values; give one for each run, or a Dataset with dims for a grid")
    aligned = xr.broadcast(*columns.values())
    aligned = aligned if aligned[0].dims else tuple(a.expand_dims("run") for a in aligned)
    flat = {name: np.asarray(a, dtype=float).ravel() for name, a in zip(columns, aligned, strict=True)}
    return flat, aligned[0]


def _intervals(fit: Fit, inputs: Mapping[str, np.ndarray], level: float, seed: int) -> tuple[np.ndarray, ...]:
    """(loss (runs,), ends of the law's interval (runs, 2), ends of a further run's)."""
    task, rng = fit.task, np.random.default_rng(seed)
    at = task.target.at(inputs)
    loss, lines = (losses(task, at, x) for x in (fit.optimum.x[None], points(fit, rng)))
    noise = rng.choice(task.centred(fit.optimum.x) / scatter(fit, task.inputs), lines.shape) * scatter(fit, inputs)
    further = lines * np.exp(-noise) if task.objective.log else lines - noise
    return loss[0], percentiles(lines, level), percentiles(further, level)


def losses(task: Task, at: Any, x: np.ndarray) -> np.ndarray:
    """Losses at each of the points x: (points, runs)."""
    with np.errstate(all="ignore"):
        loss = at(task.parameters.values(x, derive=False))
    return np.broadcast_to(loss, (len(x), next(iter(at.runs.values())).size))


def points(fit: Fit, rng: np.random.Generator) -> np.ndarray:
    """The draws; without any, points of the covariance, and of the typical range where nothing is determined."""
    if fit.draws is not None or not len(fit.optimum.x):
        return fit.usable_x()
    x, local, box = fit.optimum.x, fit.local, fit.task.parameters
    values, vectors = np.linalg.eigh(local.covariance)
    moved = rng.standard_normal((_SAMPLED, len(x))) * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    open_ends = np.full((len(x), 2), [-np.inf, np.inf])
    low, high = reachable(fit.task, x, open_ends).T
    anywhere = rng.uniform(low, high, (_SAMPLED, len(x)))
    return np.clip(np.where(local.determined, x + moved, anywhere), box.lower, box.upper)


def scatter(fit: Fit, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """How wide the scatter of runs is, relative to that of all: (runs,), from its trend along compute if it has one.

    The log of the size of the residuals is taken as straight in log compute, within the compute of the runs.
    """
    task = fit.task
    own, asked = effort(task.inputs), effort(inputs)
    off = np.abs(task.centred(fit.optimum.x))
    size = np.log(np.maximum(off, 0.05 * np.median(off) + 1e-300))
    along = own - own.mean()
    if not np.sum(along**2) > 0:
        return np.ones(len(asked))
    slope = np.sum(along * size) / np.sum(along**2)
    error = np.std(size - slope * along) / np.sqrt(np.sum(along**2))
    if abs(slope) < _TREND * error:
        return np.ones(len(asked))
    return np.exp(slope * (np.clip(asked, own.min(), own.max()) - own.mean()))


def effort(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log of the compute of runs, up to a constant: from compute, else from size and tokens: (runs,)."""
    if "compute" in inputs:
        return np.log(inputs["compute"])
    sizes = [name for name in ("active_params", *SIZES) if name in inputs]
    factors = [inputs[name] for name in (*sizes[:1], "tokens") if name in inputs]
    return (
        np.sum([np.log(factor) for factor in factors], axis=0)
        if factors
        else np.zeros(len(next(iter(inputs.values()))))
    )


def covered(fit: Fit, which: np.ndarray, level: float, seed: int = 0) -> tuple[int, int]:
    """(how many of these runs lie in the interval of a further run, how many there are)."""
    observed, _, low, high = _against(fit, which, level, seed)
    return int(np.sum((low <= observed) & (observed <= high))), int(which.sum())


def _against(fit: Fit, which: np.ndarray, level: float, seed: int) -> tuple[np.ndarray, ...]:
    """(observed, predicted, low, high) of runs of the fit."""
    runs = fit.runs.isel(run=np.flatnonzero(which))
    loss, _, ends = _intervals(fit, given(fit.task, runs)[0], level, seed)
    return np.asarray(runs[fit.task.target.predicts]), loss, ends[:, 0], ends[:, 1]


def _stretch(fit: Fit, level: float, seed: int) -> float:
    """By how much intervals must be wider to hold as many of the held-out runs as they say; at least 1."""
    if not fit.outside.any():
        raise InputError("predict: widen='holdout' without a hold-out; fit with holdout={'largest_compute': 0.2}")
    observed, loss, low, high = _against(fit, fit.outside, level, seed)
    side = np.where(observed > loss, high - loss, loss - low)
    return max(1.0, float(np.quantile(np.abs(observed - loss) / np.maximum(side, 1e-300), level)))
