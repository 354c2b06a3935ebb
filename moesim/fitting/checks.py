"""What a person must know of runs and fit beside the coefficients: whether residuals are noise, whether the design can
tell, and whether the hold-out was predicted as well as the fit says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from moesim.fitting.predict import covered, effort
from moesim.variables import SIZES

if TYPE_CHECKING:
    from moesim.fitting.result import Fit

_SURE = 1e-3  # chance of a message when nothing is wrong
_LEVELS = 3  # values of an input from which an amplitude, an exponent and a floor can be told apart
_COLLINEAR = 0.98  # correlation of the logs of two inputs
_ROWS_OF_A_RUN = 20  # rows for each size on average, from which they look like checkpoints
_TERMS = 3  # a residual's trend is a cubic


def messages(fit: Fit) -> Iterator[str]:
    """A line for everything of this kind that is wrong."""
    checks = (_trend, _replicates, _levels, _collinear, _checkpoints, _freedom, _saturation, _holdout)
    for check in checks:
        yield from check(fit)


def _residual(fit: Fit) -> np.ndarray:
    """Residuals, with those far off brought in, so that they decide nothing."""
    residual = fit.task.residuals(fit.optimum.x[None])[0]
    middle = np.median(residual)
    reach = 4.0 * 1.4826 * np.median(np.abs(residual - middle))
    return np.clip(residual, middle - reach, middle + reach) if reach > 1e-12 else residual * 0.0


def _trend(fit: Fit) -> Iterator[str]:
    """Residuals that bend along compute, an input of the law or their ratio; each group of runs counts once."""
    residual, groups, free = _residual(fit), int(fit.task.group.max()) + 1, len(fit.optimum.x)
    if groups <= 3 * (_TERMS + free) or not np.isfinite(residual).all():
        return
    found = {name: _bend(fit, axis, residual) for name, axis in _axes(fit).items()}
    worst = min(found, key=lambda name: found[name][0], default="")
    if worst and found[worst][0] * len(found) < _SURE:
        sizes = [found[worst][1], float(np.std(residual))]
        bend, all_of_it = (f"{s:.2%} of the loss" if fit.task.objective.log else f"{s:.2g} nat/token" for s in sizes)
        yield f"residuals are not noise: they bend along {worst}, by {bend} where runs scatter by {all_of_it}"


def _axes(fit: Fit) -> dict[str, np.ndarray]:
    """What residuals may bend along, as logs; those that take enough values to show a bend."""
    inputs = {n: v for n, v in fit.task.inputs.items() if n in fit.task.target.inputs and np.all(v > 0)}
    axes = {"compute": effort(fit.task.inputs)} | {name: np.log(values) for name, values in inputs.items()}
    size = next((name for name in SIZES if name in inputs), None)
    if size and "tokens" in inputs:
        axes["tokens per parameter"] = np.log(inputs["tokens"] / inputs[size])
    return {name: axis for name, axis in axes.items() if len(np.unique(axis.round(9))) > _TERMS + 1}


def _bend(fit: Fit, axis: np.ndarray, residual: np.ndarray) -> tuple[float, float]:
    """(the chance of a cubic trend as strong as this one in noise, its root mean square).

    Of the trend only counts what no change of the coefficients would do. Its strength is judged by how it varies
    between groups of runs (Hotelling's T^2), so noise may differ from run to run and be shared within groups.
    """
    from scipy.special import fdtrc

    scaled = 2.0 * (axis - axis.min()) / np.ptp(axis) - 1.0
    known = np.column_stack([np.ones(len(axis)), fit.task.effects(fit.optimum.x)])
    basis = _without(known, np.vander(scaled, _TERMS + 1, increasing=True)[:, 1:])
    groups = int(fit.task.group.max()) + 1
    pull = np.zeros((groups, basis.shape[1]))
    np.add.at(pull, fit.task.group, basis * _without(known, residual[:, None]))
    mean = pull.mean(axis=0)
    spread = np.atleast_2d(np.cov(pull.T)) / groups
    k = int(np.linalg.matrix_rank(spread, hermitian=True))
    if not k:
        return 1.0, 0.0
    strength = mean @ np.linalg.pinv(spread, hermitian=True) @ mean * (groups - k) / (k * (groups - 1))
    return float(fdtrc(k, groups - k, strength)), float(np.linalg.norm(basis.T @ residual) / len(residual) ** 0.5)


def _without(known: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Columns less what columns `known` explain of them; orthonormal where they are several."""
    size = np.linalg.norm(known, axis=0)
    inside, values, _ = np.linalg.svd(known / np.where(size > 0, size, 1.0), full_matrices=False)
    inside = inside[:, values > 1e-9 * values[0]]
    left = columns - inside @ (inside.T @ columns)
    return np.linalg.qr(left)[0] if left.shape[1] > 1 else left


def _replicates(fit: Fit) -> Iterator[str]:
    """Runs of the same inputs scatter less among themselves than around the law."""
    from scipy.special import fdtrc

    residual, task = fit.task.residuals(fit.optimum.x[None])[0], fit.task
    table = np.stack([task.inputs[name] for name in task.target.inputs])
    _, cell = np.unique(table, axis=1, return_inverse=True)
    cell = cell.reshape(-1)
    size = np.bincount(cell)
    mean = np.bincount(cell, residual) / size
    within, between = len(residual) - len(size), len(size) - len(fit.optimum.x)
    pure, lack = np.sum((residual - mean[cell]) ** 2), np.sum(size * mean**2)
    if within < 3 or between < 1 or pure <= 0:
        return
    if fdtrc(between, within, lack / between / (pure / within)) < _SURE:
        yield "residuals are not noise: runs of the same inputs scatter less among themselves than around the law"


def _levels(fit: Fit) -> Iterator[str]:
    for name in fit.task.target.inputs:
        count = len(np.unique(fit.task.inputs[name]))
        if count < _LEVELS:
            values = "one value" if count == 1 else f"{count} values"
            yield f"{name} has {values} in all runs, too few to tell its term; runs at {_LEVELS} or more would"


def _collinear(fit: Fit) -> Iterator[str]:
    logs = {n: np.log(v) for n, v in fit.task.inputs.items() if n in fit.task.target.inputs and np.all(v > 0)}
    logs = {name: column for name, column in logs.items() if np.ptp(column) > 0}
    names = list(logs)
    for i, one in enumerate(names):
        for other in names[:i]:
            if abs(np.corrcoef(logs[one], logs[other])[0, 1]) > _COLLINEAR:
                said = f"{other} and {one} go together in the runs, so that their terms are hard to tell apart"
                yield f"{said}; runs off the line would tell"


def _checkpoints(fit: Fit) -> Iterator[str]:
    inputs, n = fit.task.inputs, len(fit.task.loss)
    others = [inputs[name] for name in fit.task.target.inputs if name != "tokens"]
    if "group" in fit.runs or "tokens" not in inputs or not others or not any(n in SIZES for n in inputs):
        return
    runs = np.unique(np.stack(others), axis=1).shape[1]
    if n >= _ROWS_OF_A_RUN * runs:
        yield (
            f"{n} rows of {runs} sizes look like checkpoints of the same runs, which share their luck: say so with"
            " group, or the intervals are too narrow"
        )


def _freedom(fit: Fit) -> Iterator[str]:
    free, groups = len(fit.optimum.x), int(fit.task.group.max()) + 1
    if free and groups - free < free:
        yield f"{free} coefficients on {groups} runs leave {groups - free} degrees of freedom: fix or tie some"


def _saturation(fit: Fit) -> Iterator[str]:
    known = fit.estimate
    if "E_start" in known and "E_max" in known and not known["E_start"] < known["E_max"]:
        start, end = known["E_start"], known["E_max"]
        yield (
            f"E_start = {start:.4g} is not below E_max = {end:.4g}: saturation is upside down, and the experts' term"
            " means nothing beyond the runs; keep the two apart with fit.bounds, or fix one"
        )


def _holdout(fit: Fit) -> Iterator[str]:
    """Held-out runs that lie outside their intervals more often than they should, or are off to one side."""
    from scipy.special import bdtr

    from moesim.fitting.judge import in_sample, out_of_sample

    if not fit.outside.any():
        return
    hits, n = covered(fit, fit.outside, fit.level)
    if bdtr(hits, n, fit.level) < 0.01:
        yield (
            f"{hits} of {n} held-out runs lie in their {fit.level:.0%} prediction intervals: beyond the fitted runs"
            " these are too narrow; predict(..., widen='holdout') widens them"
        )
    bias, usual = out_of_sample(fit)["bias"], in_sample(fit)["rmse"]
    if abs(bias) > usual:
        yield f"held-out runs are predicted {bias:+.3g} nat/token off on average, more than the usual error {usual:.2g}"
