"""How sure a fit is: bootstrap, covariance and profiles of all coefficients, and what the runs cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from moesim.errors import InputError
from moesim.fitting.identify import student
from moesim.fitting.objective import smoothed_curvature
from moesim.fitting.solve import AT_BOUND, CONVERGED, NOT_FINITE, STALLED, Rows, Solution, solve
from moesim.fitting.task import Task
from moesim.output.budget import refuse_if_too_many
from moesim.output.progress import progress

_BLOCK = 2**22  # draws x runs in memory at once
_DRAW_TOLERANCE = 1e-12  # a draw needs fewer digits than the estimate
_FAINT = 1e-10  # share of the largest eigenvalue below which a direction is not determined at all


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

    `pairs` draws whole groups of runs with replacement, `residual` adds resampled residuals to the predictions.
    """
    if kind not in RESAMPLERS:
        raise InputError(f"fit.resample={kind!r}; it takes {', '.join(RESAMPLERS)}")
    refuse_if_too_many(f"fit.draws={draws}", float(draws) * (len(x) + 2), "1000 are enough for most intervals")
    parts, size = [], max(1, _BLOCK // len(task.loss))
    with progress(draws, "draw", "bootstrap") as advance:
        for first in range(0, draws, size):
            count = min(size, draws - first)
            parts.append(_refit(task, x, RESAMPLERS[kind](task, x, count, rng), count, rng))
            advance(count)
    return Draws(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "objective", "status")))


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


RESAMPLERS: Mapping[str, Callable[[Task, np.ndarray, int, np.random.Generator], Rows]] = {
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


def _refit(task: Task, x: np.ndarray, rows: Rows, count: int, rng: np.random.Generator) -> Draws:
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


@dataclass(frozen=True)
class Spread:
    """Local uncertainty at x: covariance (p, p) of x, the scale of the objective along each entry (p,) and whether
    the runs determine the entry at all (p,)."""

    covariance: np.ndarray
    scale: np.ndarray
    determined: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """Standard error of each entry of x; inf where nothing determines it."""
        variance = np.diag(self.covariance)
        return np.where(self.determined, np.sqrt(np.maximum(variance, 0.0)), np.inf)

    @property
    def correlation(self) -> np.ndarray:
        """Correlations of the entries of x."""
        error = np.sqrt(np.maximum(np.diag(self.covariance), 0.0))
        error = np.where(error > 0, error, 1.0)
        return self.covariance / error / error[:, None]


def spread(task: Task, x: np.ndarray) -> Spread:
    """The sandwich covariance A^-1 B A^-1, which holds for every objective; groups of runs count as one.

    A is how fast the gradient of the objective responds to x, B how much the gradient scatters between groups.
    """
    p = len(x)
    effects, residual = task.effects(x), task.residuals(x[None])[0]
    psi, curvature = task.objective.rho(residual)[1], smoothed_curvature(task.objective, residual)
    penalty = task.problem.penalty
    ridge = np.zeros(p) if penalty is None else penalty(x[None])[2][0]
    mass = task.weight * curvature
    matrix = (effects * mass[:, None]).T @ effects + np.diag(ridge)
    inside = (x > task.parameters.lower) & (x < task.parameters.upper)
    inverse, determined = _inverse(matrix, inside)
    leverage = np.clip(mass * np.einsum("ij,jk,ik->i", effects, inverse, effects), 0.0, 0.99)
    pulls = effects * (task.weight * psi / _own_share(leverage))[:, None]
    summed = np.zeros((int(task.group.max()) + 1, p))
    np.add.at(summed, task.group, pulls)
    middle = summed.T @ summed + np.diag(ridge) * task.prior_scale
    covariance = inverse @ middle @ inverse
    diagonal = np.where(np.diag(inverse) > 0, np.diag(inverse), 1.0)
    return Spread(covariance, np.diag(covariance) / diagonal, determined | ~inside)


def _own_share(leverage: np.ndarray) -> np.ndarray:
    """By how much a residual is smaller than the error behind it, since the fit follows each run by its leverage.

    Dividing by it is the correction HC2 of MacKinnon and White (1985), right on average for equal scatter.
    """
    return np.sqrt(1.0 - leverage)


def _inverse(matrix: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(inverse over the entries inside the box and the directions that are determined, which entries those fix)."""
    diagonal = np.diag(matrix)
    live = inside & (diagonal > 0)
    scale = np.where(live, 1.0 / np.sqrt(np.where(live, diagonal, 1.0)), 0.0)
    values, vectors = np.linalg.eigh(np.nan_to_num(matrix) * scale * scale[:, None])
    faint = values <= _FAINT * max(values.max(initial=0.0), 1e-300)
    inverse = (vectors * np.where(faint, 0.0, 1.0 / np.where(faint, 1.0, values))) @ vectors.T
    loose = live & (np.abs(vectors[:, faint]).max(axis=1, initial=0.0) > 1e-3)
    return inverse * scale * scale[:, None], live & ~loose


@dataclass(frozen=True)
class Profile:
    """For each entry of x: points (p, m), the objective minimised over the others there, and the ends (p, 2) in x of
    the interval (inf where the objective never rises enough inside the box), with the status of the rows (p, m)."""

    points: np.ndarray
    objective: np.ndarray
    status: np.ndarray
    interval: np.ndarray
    lowest: float


_GRID = np.array([0.35, 0.7, 1.0, 1.4])  # in units of the distance where the interval would end, were it straight


def profile(task: Task, x: np.ndarray, objective: float, local: Spread, level: float) -> Profile:
    """Profile intervals of all entries of x at once.

    The objective may rise above its minimum by t^2/2 times its scale (1 for a likelihood, see `spread`). A grid on both
    sides brackets the ends; they are then refined twice on the signed root of the rise, which is nearly straight.
    """
    rise = 0.5 * student(task, level) ** 2 * local.scale
    known = np.isfinite(local.error) & (local.error > 0)
    reach = np.where(known, student(task, level) * np.where(known, local.error, 1.0), 1.0)
    search = _Search(task, x, objective, rise, local)
    offsets = np.concatenate([-_GRID[::-1], _GRID]) * reach[:, None]
    for factor in (1.0, 3.0, 9.0):
        search.add(offsets * factor)
        if search.closed().all():
            break
    for _ in range(2):
        search.refine()
    return search.result()


class _Search:
    """Profile points collected so far, entry by entry."""

    def __init__(self, task: Task, x: np.ndarray, objective: float, rise: np.ndarray, local: Spread):
        self.task, self.x, self.objective, self.rise = task, x, objective, rise
        variance = np.diag(local.covariance)
        self.drift = local.covariance / np.where(variance > 0, variance, 1.0)  # how the others follow, at first
        self.drift[:, variance <= 0] = 0.0
        p = len(x)
        self.x_of = [np.array([x[j]]) for j in range(p)]
        self.f_of = [np.array([objective]) for _ in range(p)]
        self.full_of = [x[None].copy() for _ in range(p)]
        self.status_of = [np.array([CONVERGED]) for _ in range(p)]

    def add(self, offsets: np.ndarray | list) -> None:
        """Solve with entry j held at x_j + offsets[j], each started from the nearest point solved so far."""
        lower, upper = self.task.parameters.lower, self.task.parameters.upper
        rows = [(j, float(np.clip(self.x[j] + d, lower[j], upper[j]))) for j in range(len(self.x)) for d in offsets[j]]
        rows = [(j, at) for j, at in rows if not np.any(np.isclose(self.x_of[j], at, rtol=0, atol=1e-12))]
        if not rows:
            return
        start, held = np.stack([self._start(j, at) for j, at in rows]), np.zeros((len(rows), len(self.x)), bool)
        held[range(len(rows)), [j for j, _ in rows]] = True
        base = self.task.rows
        found = solve(self.task.problem, start, Rows(base.observed, base.weight, held), tolerance=1e-12, max_steps=100)
        for r, (j, at) in enumerate(rows):
            order = np.searchsorted(self.x_of[j], at)
            self.x_of[j] = np.insert(self.x_of[j], order, at)
            self.f_of[j] = np.insert(self.f_of[j], order, found.objective[r])
            self.full_of[j] = np.insert(self.full_of[j], order, found.x[r], axis=0)
            self.status_of[j] = np.insert(self.status_of[j], order, found.status[r])

    def _start(self, j: int, at: float) -> np.ndarray:
        near = int(np.argmin(np.abs(self.x_of[j] - at)))
        start = self.full_of[j][near] + self.drift[:, j] * (at - self.x_of[j][near])
        start = np.clip(start, self.task.parameters.lower, self.task.parameters.upper)
        start[j] = at
        return start

    def _roots(self, j: int) -> np.ndarray:
        """Signed root of the rise, in units where the interval ends at -1 and 1."""
        rise = np.maximum(self.f_of[j] - self.objective, 0.0) / max(self.rise[j], 1e-300)
        return np.sign(self.x_of[j] - self.x[j]) * np.sqrt(rise)

    def _ends(self, j: int) -> tuple[float, float]:
        """Where the root crosses -1 and 1, by straight interpolation; -inf, inf where it does not."""
        x, root = self.x_of[j], self._roots(j)
        return -_crossing(-x[::-1], -root[::-1]), _crossing(x, root)

    def closed(self) -> np.ndarray:
        """Whether both ends of each entry are bracketed or at the box."""
        box = self.task.parameters
        done = []
        for j in range(len(self.x)):
            low, high = self._ends(j)
            low_done = np.isfinite(low) or self.x_of[j][0] <= box.lower[j]
            done.append(low_done and (np.isfinite(high) or self.x_of[j][-1] >= box.upper[j]))
        return np.array(done, dtype=bool)

    def refine(self) -> None:
        ends = [self._ends(j) for j in range(len(self.x))]
        self.add([[e - self.x[j] for e in pair if np.isfinite(e)] for j, pair in enumerate(ends)])

    def result(self) -> Profile:
        m = max((len(x) for x in self.x_of), default=0)
        pad = [(0, m - len(x)) for x in self.x_of]
        points = np.array([np.pad(x, w, constant_values=np.nan) for x, w in zip(self.x_of, pad, strict=True)])
        values = np.array([np.pad(f, w, constant_values=np.nan) for f, w in zip(self.f_of, pad, strict=True)])
        status = np.array([np.pad(s, w, constant_values=-1) for s, w in zip(self.status_of, pad, strict=True)])
        ends = np.array([self._ends(j) for j in range(len(self.x))]).reshape(-1, 2)
        lowest = min((float(f.min()) for f in self.f_of), default=self.objective)
        return Profile(points, values, status, ends, lowest)


def _crossing(x: np.ndarray, root: np.ndarray) -> float:
    """The first x right of root 0 where the ascending root passes 1; inf if it never does."""
    past = np.flatnonzero((root >= 1.0) & (x > x[np.argmin(np.abs(root))]))
    if not len(past):
        return np.inf
    i = int(past[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (1.0 - root[i - 1]) / (root[i] - root[i - 1]))


def solved_share(found: Solution | Draws) -> float:
    """The share of rows that ended at a stationary point."""
    return float(np.mean((found.status == CONVERGED) | (found.status == AT_BOUND)))
