"""Bootstrap: refits of resampled runs, all in one batch.

`wild` keeps every run where it is and flips the sign of its error at random, whole groups together, so that noise may
differ from run to run. The errors are those of predictions from all other groups: a run's own residual is smaller than
its error, as the fit follows it, and under Huber's objective as many residuals as there are coefficients are 0. It
covers as often as it says from 18 runs on (docs/coverage.md), where resampling the runs themselves (`pairs`) is too
wide under Huber's objective and too narrow under squares. It is the wild bootstrap of Wu (1986) and, for absolute
errors, of Feng, He and Hu (2011). With many runs, `pairs` keeps the skewness of the errors too, and is what published
intervals are made with (Besiroglu et al. 2024). `auto` is `wild` for up to 120 groups of runs, else `pairs`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from moesim.errors import InputError
from moesim.fitting.solve import AT_BOUND, CONVERGED, NOT_FINITE, STALLED, Rows, Solution, solve
from moesim.fitting.task import Task
from moesim.fitting.uncertainty import inverted
from moesim.output.budget import refuse_if_too_many
from moesim.output.progress import progress

BLOCK = 2**22  # draws x runs in memory at once
_FEW = 120  # groups of runs up to which `auto` is wild, and the fits without one group are exact
_DRAW_TOLERANCE = 1e-12  # a draw needs fewer digits than the estimate


@dataclass(frozen=True)
class Draws:
    """Bootstrap refits: x (draws, p), objective and status (draws,)."""

    x: np.ndarray
    objective: np.ndarray
    status: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Draws that ended at a stationary point, inside the box or at its edge."""
        return (self.status == CONVERGED) | (self.status == AT_BOUND)


def bootstrap(task: Task, x: np.ndarray, draws: int, kind: str, rng: np.random.Generator) -> Draws:
    """Refit `draws` resamples, each started from the estimate x; those that fail start again from other draws.

    `kind`: `wild` flips the signs of errors, `pairs` draws whole groups of runs with replacement, `residual` adds
    resampled residuals to the predictions, `auto` is `wild` or, with many runs, `pairs`.
    """
    refuse_if_too_many(f"fit.draws={draws}", float(draws) * (len(x) + 2), "1000 are enough for most intervals")
    parts, size = [], max(1, BLOCK // len(task.loss))
    with progress(draws, "draw", "bootstrap") as advance:
        for first in range(0, draws, size):
            count = min(size, draws - first)
            parts.append(refit_of(task, x, resampled(task, x, count, kind, rng), count, rng))
            advance(count)
    return Draws(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "objective", "status")))


def resampled(task: Task, x: np.ndarray, draws: int, kind: str, rng: np.random.Generator) -> Rows:
    """The data of that many resamples of a fit at x."""
    if kind not in RESAMPLERS:
        raise InputError(f"fit.resample={kind!r}; it takes {', '.join(RESAMPLERS)}")
    return RESAMPLERS[kind](task, x, draws, rng)


def _pairs(task: Task, x: np.ndarray, draws: int, rng: np.random.Generator) -> Rows:
    groups = int(task.group.max()) + 1
    picked = rng.integers(0, groups, (draws, groups)) + groups * np.arange(draws)[:, None]
    times = np.bincount(picked.ravel(), minlength=draws * groups).reshape(draws, groups).astype(float)
    times = times if np.array_equal(task.group, np.arange(groups)) else times[:, task.group]
    return Rows(task.rows.observed, times if np.all(task.weight == 1.0) else times * task.weight)


def _residual(task: Task, x: np.ndarray, draws: int, rng: np.random.Generator) -> Rows:
    residual = task.centred(x)
    if int(task.group.max()) + 1 < len(residual):
        raise InputError("fit.resample=residual: residuals of grouped runs depend on each other; use pairs")
    picked = residual[rng.integers(0, len(residual), (draws, len(residual)))]
    fitted = task.rows.observed + task.residuals(x[None])[0]
    return Rows(fitted - picked, task.weight)


def flipped(task: Task, x: np.ndarray, error: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> Rows:
    """The fit with the errors (runs,) of whole groups added or taken away at random, times `size` (draws, 1)."""
    fitted = task.rows.observed + task.residuals(x[None])[0]
    signs = size * rng.choice([-1.0, 1.0], (len(size), int(task.group.max()) + 1))
    return Rows(fitted - signs[:, task.group] * error, task.weight)


def _wild(task: Task, x: np.ndarray, draws: int, rng: np.random.Generator) -> Rows:
    """Each draw with a scatter of its own, as far as few runs leave it open: Student's t instead of the normal."""
    from scipy.special import chdtri  # of one random number for each draw, so that all draws move smoothly with freedom

    error = left_out(task, x)
    freedom = freedom_of(task, x, error)
    return flipped(task, x, error, np.sqrt(freedom / chdtri(freedom, rng.random((draws, 1)))), rng)


def freedom_of(task: Task, x: np.ndarray, error: np.ndarray) -> float:
    """Degrees of freedom of the scatter, from the errors (runs,) of left-out groups: the fewest behind any entry of x.

    The variance of an entry is a sum over groups of (effect x error)^2; it is known as well as that of as many equal
    parts (Satterthwaite 1946, with error^4 / 3 for error^2's own variance, as of normal errors). So a few runs that
    decide an exponent, by where they lie or since others hardly scatter, count as few, however many runs there are.
    """
    groups = int(task.group.max()) + 1
    effects = task.effects(x) * ((x > task.parameters.lower) & (x < task.parameters.upper))
    inverse, _ = inverted((effects * task.weight[:, None]).T @ effects)
    pull = np.zeros((groups, len(x)))
    np.add.at(pull, task.group, effects * (task.weight * error)[:, None])
    part = (pull @ inverse) ** 2
    many = np.sum(part, axis=0) ** 2 / np.maximum(np.sum(part**2, axis=0) / 3.0, 1e-300)
    return float(np.clip(many[many > 0], 1.0, groups).min(initial=max(groups - 1.0, 1.0)))


def left_out(task: Task, x: np.ndarray) -> np.ndarray:
    """The residual of each run at the fit, from beside x, of all groups of runs but its own: (runs,).

    Such errors are larger than a run's scatter by as much as its own residual is smaller. Under squares the middle of
    the two (HC2 of MacKinnon and White 1985) is right; under Huber's objective too many own residuals are 0.
    """
    groups, own = int(task.group.max()) + 1, task.residuals(x[None])[0]
    error = own.copy()
    for first in range(0, groups, 256):
        index = np.arange(first, min(first + 256, groups))
        rows = Rows(task.rows.observed, (task.group != index[:, None]) * task.weight)
        fitted = _guess(task, x, rows, len(index))
        if groups <= _FEW:
            fitted = solve(task.problem, fitted, rows, tolerance=_DRAW_TOLERANCE, max_steps=60).x
        found = task.residuals(fitted)
        row, run = np.nonzero(task.group == index[:, None])
        error[run] = np.where(np.isfinite(found[row, run]), found[row, run], error[run])
    return np.copysign(np.sqrt(np.abs(own * error)), error) if task.objective.squared else error


def _auto(task: Task, x: np.ndarray, draws: int, rng: np.random.Generator) -> Rows:
    return (_wild if task.group.max() < _FEW else _pairs)(task, x, draws, rng)


RESAMPLERS: Mapping[str, Callable[[Task, np.ndarray, int, np.random.Generator], Rows]] = {
    "auto": _auto,
    "wild": _wild,
    "pairs": _pairs,
    "residual": _residual,
}


_GUESSED = (1.0, 0.3, 0.1, 0.1, 0.05, 0.05)  # damping of each step towards a guess, see `solve`


def _guess(task: Task, x: np.ndarray, rows: Rows, count: int) -> np.ndarray:
    """Where resamples would end if losses were linear in x: a few steps that cost a tenth of the true ones; (count, p).

    All resamples share the effects of x on the runs, so each step is one product of matrices, in single precision.
    """
    inside = (x > task.parameters.lower) & (x < task.parameters.upper)
    effects = (task.effects(x) * inside).astype(np.float32)
    i, j = np.triu_indices(len(x))
    pairs, across = effects[:, i] * effects[:, j], np.ascontiguousarray(effects.T)
    fitted = task.rows.observed + task.residuals(x[None])[0]
    moved = np.zeros((count, len(x)))
    for first in range(0, count, 256):
        part = rows.of(slice(first, first + 256))
        off = np.broadcast_to(fitted - part.observed, (len(moved[first : first + 256]), len(fitted))).astype(np.float32)
        weight = np.asarray(part.weight, dtype=np.float32)
        moved[first : first + 256] = _linear_steps(task, off, weight, effects, across, pairs)
    return np.clip(x + moved, task.parameters.lower, task.parameters.upper)


def _linear_steps(
    task: Task, off: np.ndarray, weight: np.ndarray, effects: np.ndarray, across: np.ndarray, pairs: np.ndarray
) -> np.ndarray:
    """The steps of `_guess` for a block of resamples: residuals `off` (rows, runs) at no move; (rows, p)."""
    p = effects.shape[1]
    i, j = np.triu_indices(p)
    moved, matrix = np.zeros((len(off), p)), np.zeros((len(off), p, p))
    for damping in _GUESSED:
        _, psi, mass, pull = task.objective.rho(off + moved.astype(np.float32) @ across)
        mass += np.float32(damping) * pull
        mass *= weight
        psi *= weight
        matrix[:, i, j] = mass @ pairs
        matrix[:, j, i] = matrix[:, i, j]
        diagonal = np.maximum(matrix[:, range(p), range(p)], 1e-12)
        matrix[:, range(p), range(p)] = diagonal * (1.0 + 1e-5)  # rounding of single precision
        moved -= np.linalg.solve(matrix, (psi @ effects).astype(float)[..., None])[..., 0]
    return np.where(np.abs(moved).max(axis=1, keepdims=True) < 3.0, moved, 0.0)


def refit_of(task: Task, x: np.ndarray, rows: Rows, count: int, rng: np.random.Generator) -> Draws:
    """The optimum of each resample, from a guess beside x."""
    rng = rng.spawn(1)[0]  # how many fail must not move the random numbers of later draws
    found = solve(task.problem, _guess(task, x, rows, count), rows, tolerance=_DRAW_TOLERANCE, damping=_GUESSED[-1])
    out = Draws(found.x.copy(), found.objective.copy(), found.status.copy())
    for _ in range(3):
        failed = np.flatnonzero((out.status == STALLED) | (out.status == NOT_FINITE))
        good = np.flatnonzero(out.usable)
        if not len(failed) or not len(good):
            break
        start = out.x[rng.choice(good, len(failed))]
        again = solve(task.problem, start, rows.of(failed), tolerance=_DRAW_TOLERANCE, max_steps=400)
        better = (again.objective <= out.objective[failed] * (1 + 1e-9)) | (out.status[failed] == NOT_FINITE)
        index = failed[better]
        out.x[index], out.objective[index] = again.x[better], again.objective[better]
        out.status[index] = again.status[better]
    return out


def percentiles(values: np.ndarray, level: float) -> np.ndarray:
    """Ends of the interval that draws along the first axis give: shape of one draw and (low, high).

    Of n draws the k-th smallest is taken to be at k / (n + 1), so that the next one lies inside with the chance `level`
    whatever n is; NumPy's usual (k - 1) / (n - 1) holds 0.891 instead of 0.9 with 200 draws.
    """
    return np.stack(
        [np.quantile(values, 0.5 + side * level / 2, axis=0, method="weibull") for side in (-1, 1)], axis=-1
    )


def solved_share(found: Solution | Draws) -> float:
    """The share of rows that ended at a stationary point."""
    return float(np.mean((found.status == CONVERGED) | (found.status == AT_BOUND)))
