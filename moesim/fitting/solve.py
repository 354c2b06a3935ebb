"""Many fits at once: each row of one batch is a fit of its own, from its own start, with its own weights and losses.

Each step solves (H + lambda M) s = -gradient with the Gauss-Newton Hessian H of the objective and, as damping, the
matrix M of iteratively reweighted least squares. M overestimates the curvature of Huber's function everywhere, so a
damped step is safe, and H is exact near the optimum, so an undamped one is fast; both transform alike under a change
of coefficients, so neither needs them scaled or their trade-offs removed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.fitting.objective import Objective
from moesim.numerics.derivative import Jet

STATUSES = ("converged", "at bound", "stalled", "not finite")
CONVERGED, AT_BOUND, STALLED, NOT_FINITE = range(4)

# Rows x runs evaluated together: half a MiB an array, so that the arrays of a formula stay in a core's cache.
_ELEMENTS = 2**16
# Of an entry of x, a log of the coefficient: a factor of e^4 = 55 is farther than a linear model of the loss reaches.
_LARGEST_STEP = 4.0
# How far above its best objective a row may go, and for how many steps: to get round the bend of a valley, in which
# every step straight ahead climbs its wall. More steps are wasted on rows that have left for a higher valley.
_EXCURSION, _PATIENCE = 1.3, 8
_ROUNDING = 1e-14  # of a residual, a difference of logs of order 1 that each end in 1e-16 or so
# Cosine of pull and effect below which a point counts as stationary: the square of it, 1e-10, is the share of the
# objective that moving the entry could still save.
STATIONARY = 1e-5
_NEGLIGIBLE = 1e-7  # effect of a unit of x on a residual below which an entry has reached its limit, e.g. no decay
_FAINT = 1e-12  # effect of a unit of x on a residual that counts as none
_SHEAR = 1e-4  # share of the damping that turns the step towards the gradient, out of narrow valleys


@dataclass(frozen=True)
class Problem:
    """The objective as a function of x: `predict(x, derive)` maps (rows, p) to losses (rows, runs), with Jets in the
    index of x if `derive`; `penalty(x)` gives what is added to the objective with its first two derivatives in x, of
    shapes (rows,), (rows, p), (rows, p); `lower` and `upper` are the box of x.
    """

    predict: Callable[[np.ndarray, bool], Any]
    objective: Objective
    lower: np.ndarray
    upper: np.ndarray
    penalty: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None


@dataclass(frozen=True)
class Rows:
    """The data of each row: `observed` on the residual's scale and `weight`, each (runs,) for all or (rows, runs).

    `held` marks entries of x that a row keeps at its start: (rows, p) or None.
    """

    observed: np.ndarray
    weight: np.ndarray
    held: np.ndarray | None = None

    def of(self, index: np.ndarray | slice) -> Rows:
        """Those rows only."""
        pick = [a if a is None or a.ndim == 1 else a[index] for a in (self.observed, self.weight, self.held)]
        return Rows(pick[0], pick[1], pick[2])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Solution:
    """Where each row ended: x (rows, p), objective, status (index into STATUSES), the largest cosine between the
    residuals' pull and the effect of a coefficient (0 at a stationary point), and the number of steps; (rows,)."""

    x: np.ndarray
    objective: np.ndarray
    status: np.ndarray
    slope: np.ndarray
    steps: np.ndarray


def values(problem: Problem, x: np.ndarray, rows: Rows) -> np.ndarray:
    """The objective at x, without derivatives: (rows,); inf where it is not finite."""
    out = np.empty(len(x))
    for cut in _cuts(len(x), rows.observed.shape[-1]):
        part = rows.of(cut)
        with np.errstate(all="ignore"):
            predicted = np.broadcast_to(problem.predict(x[cut], False), (len(x[cut]), rows.observed.shape[-1]))
            residual, _ = problem.objective.residual(predicted, part.observed)
            out[cut] = np.vecdot(problem.objective.rho(residual)[0], part.weight)
            out[cut] += 0.0 if problem.penalty is None else problem.penalty(x[cut])[0]
    return np.where(np.isfinite(out), out, np.inf)


def solve(
    problem: Problem, x: np.ndarray, rows: Rows, tolerance: float = 1e-18, max_steps: int = 200, damping: float = 1.0
) -> Solution:
    """Minimise every row from x (rows, p).

    A row is done when a full step would lower the objective by less than `tolerance` of it. Whether it ended at a
    stationary point is then decided by the gradient alone, not by how the steps went.
    """
    _keep_freed_memory()
    state = _State.start(problem, np.clip(x, problem.lower, problem.upper), rows, damping)
    for _ in range(max_steps):
        active = np.flatnonzero(~state.done)
        if not len(active):
            break
        for cut in _cuts(len(active), rows.observed.shape[-1]):
            state.advance(active[cut], tolerance)
    return state.solution()


def _keep_freed_memory() -> None:
    """Have glibc keep freed arrays for the next ones: fetching fresh pages takes longer than the arithmetic on them.

    It gives blocks back from the size of the largest one ever freed on, at most 32 MiB. So one of 31 MiB is made and
    freed, its pages untouched. No effect with other C libraries.
    """
    np.empty(31 * 2**17)


def _cuts(rows: int, runs: int) -> list[slice]:
    size = max(1, _ELEMENTS // max(runs, 1))
    return [slice(i, min(i + size, rows)) for i in range(0, rows, size)]


@dataclass(frozen=True)
class _Points:
    """A point of each row with the step to be tried from it: x and step (rows, p), objective and slope (rows,)."""

    x: np.ndarray
    step: np.ndarray
    objective: np.ndarray
    slope: np.ndarray

    def copy(self, other: _Points, index: np.ndarray) -> None:
        """Take over another's points at these rows."""
        for name in ("x", "step", "objective", "slope"):
            getattr(self, name)[index] = getattr(other, name)[index]


class _State:
    """Where every row stands (`now`), and the best point it has seen.

    A step may raise the objective somewhat above the best: in a bent valley the next one comes down further along.
    After some steps without a new best the row goes back to it, and has half as many the next time.
    """

    def __init__(self, problem: Problem, x: np.ndarray, rows: Rows, damping: float):
        n, p = x.shape
        self.problem, self.rows = problem, rows
        self.now, self.best = (_Points(x.copy(), np.zeros((n, p)), np.full(n, np.inf), np.zeros(n)) for _ in range(2))
        self.fraction, self.damping = np.ones(n), np.full(n, damping)
        self.done, self.steps = np.zeros(n, bool), np.zeros(n, int)
        self.astray, self.patience = np.zeros(n, int), np.full(n, _PATIENCE)
        self.cosine, self.edge = np.full(n, np.nan), np.zeros(n, bool)

    @classmethod
    def start(cls, problem: Problem, x: np.ndarray, rows: Rows, damping: float) -> _State:
        state = cls(problem, x, rows, damping)
        for cut in _cuts(len(x), rows.observed.shape[-1]):
            index = np.arange(len(x))[cut]
            terms = _Terms.at(problem, x[index], rows.of(index))
            state.done[index] = ~np.isfinite(terms.total)
            state.renew(index, terms, x[index], np.isfinite(terms.total))
            state.best.copy(state.now, index)
        return state

    def advance(self, index: np.ndarray, tolerance: float) -> None:
        """Try the step of each row; take it, or shorten it for the next time."""
        problem, now, before = self.problem, self.now, self.now.objective[index]
        tried = np.clip(now.x[index] + self.fraction[index, None] * now.step[index], problem.lower, problem.upper)
        terms = _Terms.at(problem, tried, self.rows.of(index))
        promised = -now.slope[index] * self.fraction[index]
        small = promised <= 1e-10 * before  # below this, differences of the objective are rounding: trust the step
        gain = before - terms.total
        taken = np.where(small, gain >= -1e-9 * before - (0.1 * _ROUNDING) ** 2, gain > 1e-4 * promised)
        taken |= (terms.total < _EXCURSION * self.best.objective[index]) & (self.astray[index] < self.patience[index])
        taken &= np.isfinite(terms.total)
        self.steps[index] += 1
        self._tune(index, taken, gain, promised)
        self.renew(index, terms, tried, taken)
        self._compare(index, taken, small)
        self._finish(index, terms, taken, tolerance)

    def _compare(self, index: np.ndarray, taken: np.ndarray, small: np.ndarray) -> None:
        """Note new bests; send rows back that have gone without one for too long."""
        now, best = self.now.objective[index], self.best.objective[index]
        better = taken & ((now < best) | (small & (now <= best * (1 + 1e-8) + (0.1 * _ROUNDING) ** 2)))
        self.best.copy(self.now, index[better])
        self.astray[index] = np.where(better, 0, self.astray[index] + taken)
        settled = taken & small & ~better  # at the bottom of a higher valley
        lost = index[(self.astray[index] > self.patience[index]) | settled]
        self.now.copy(self.best, lost)
        self.astray[lost], self.patience[lost] = 0, self.patience[lost] // 2
        self.damping[lost], self.fraction[lost] = 10.0, 0.0  # a step of no length works its derivatives out again

    def _tune(self, index: np.ndarray, taken: np.ndarray, gain: np.ndarray, promised: np.ndarray) -> None:
        """Less damping after steps that kept their promise, more after steps that had to be shortened."""
        full = self.fraction[index] == 1.0
        quality = gain / np.where(promised > 0, promised, 1.0)
        factor = np.where(full, np.where(quality > 0.4, 0.1, np.where(quality > 0.2, 0.5, 3.0)), 5.0)
        factor = np.where(promised <= 1e-10 * self.now.objective[index], 0.1, factor)
        old = self.damping[index]
        new = np.clip(np.where(factor > 1, np.maximum(old, 1e-2), old) * factor, 1e-9, 1e6)
        self.damping[index] = np.where(taken, new, old)
        # the minimum of the parabola through the value and slope here and the value there, within a factor
        known = np.isfinite(gain)
        lowest = promised / (2.0 * np.maximum(promised - np.where(known, gain, 0.0), 1e-300))
        shorter = self.fraction[index] * np.where(known, np.clip(lowest, 0.1, 0.5), 0.25)
        self.fraction[index] = np.where(taken, 1.0, shorter)

    def renew(self, index: np.ndarray, terms: _Terms, x: np.ndarray, taken: np.ndarray) -> None:
        """Gradient and next step of the rows whose point is new."""
        gradient, matrix = terms.derivatives(self.damping[index])
        frozen = ((x <= self.problem.lower) & (gradient > 0)) | ((x >= self.problem.upper) & (gradient < 0))
        held = self._held(index)
        frozen = frozen if held is None else frozen | held
        gradient = np.where(frozen, 0.0, gradient)
        p = matrix.shape[1]
        damping = self.damping[index]
        matrix[:, range(p), range(p)] *= 1.0 + np.minimum(_SHEAR * damping, 1.0)[:, None]
        low = np.maximum(self.problem.lower - x, -_LARGEST_STEP)
        high = np.minimum(self.problem.upper - x, _LARGEST_STEP)
        step = _confined(matrix, gradient, frozen, low, high)
        won = index[taken]
        self.now.x[won], self.now.step[won], self.now.objective[won] = x[taken], step[taken], terms.total[taken]
        self.now.slope[won] = np.vecdot(gradient[taken], step[taken])

    def _finish(self, index: np.ndarray, terms: _Terms, taken: np.ndarray, tolerance: float) -> None:
        """Note the rows that are done, and how stationary the point is where the terms are at hand."""
        floor = (0.1 * _ROUNDING) ** 2 * self.rows.observed.shape[-1]
        little = np.abs(self.now.slope[index]) <= tolerance * self.now.objective[index] + floor
        stuck = (self.fraction[index] < 1e-12) & (self.fraction[index] > 0.0)
        self.done[index] = (taken & little & (self.damping[index] <= 1e-2)) | stuck
        here = np.flatnonzero(self.done[index] & taken & (self.now.objective[index] == self.best.objective[index]))
        if len(here):
            at = index[here]
            self.best.copy(self.now, at)
            self.cosine[at], self.edge[at] = terms.of(here).stationarity(self.problem, self.now.x[at], self._held(at))

    def _held(self, index: np.ndarray) -> np.ndarray | None:
        return None if self.rows.held is None else self.rows.held[index]

    def solution(self) -> Solution:
        """The best point of every row; its gradient is checked here unless it was when the row ended there."""
        x, unknown = self.best.x, np.flatnonzero(np.isnan(self.cosine))
        for cut in _cuts(len(unknown), self.rows.observed.shape[-1]):
            index = unknown[cut]
            terms = _Terms.at(self.problem, x[index], self.rows.of(index))
            self.cosine[index], self.edge[index] = terms.stationarity(self.problem, x[index], self._held(index))
        status = np.where(self.cosine <= STATIONARY, np.where(self.edge, AT_BOUND, CONVERGED), STALLED)
        status = np.where(np.isfinite(self.best.objective) & np.isfinite(self.cosine), status, NOT_FINITE)
        return Solution(x, self.best.objective, status, self.cosine, self.steps)


@dataclass(frozen=True)
class _Terms:
    """The objective's terms at a point: psi, curvature and weight of each run, and the effect of each entry of x.

    `effects` are those on the predicted loss, as they come, (rows, runs) or (rows, 1); `slope` turns them into effects
    on the residual.
    """

    total: np.ndarray
    psi: np.ndarray
    curvature: np.ndarray
    pull: np.ndarray
    weight: np.ndarray
    slope: Any
    effects: list
    penalty: tuple | None

    @classmethod
    def at(cls, problem: Problem, x: np.ndarray, rows: Rows) -> _Terms:
        with np.errstate(all="ignore"):
            loss = problem.predict(x, True)
            shape = (len(x), rows.observed.shape[-1])
            loss = loss if isinstance(loss, Jet) else Jet(loss, {})
            residual, slope = problem.objective.residual(np.broadcast_to(loss.value, shape), rows.observed)
            rho, psi, curvature, pull = problem.objective.rho(residual)
            total = np.vecdot(rho, rows.weight)
            penalty = None if problem.penalty is None else problem.penalty(x)
            total = total if penalty is None else total + penalty[0]
            total = np.where(np.isfinite(total), total, np.inf)
        effects = [loss.first.get(j) for j in range(x.shape[1])]
        return cls(total, psi, curvature, pull, rows.weight, slope, effects, penalty)

    def of(self, rows: np.ndarray) -> _Terms:
        """The terms of those rows only."""

        def pick(a: Any) -> Any:
            return a[rows] if np.ndim(a) == 2 and len(a) == len(self.total) else a

        penalty = None if self.penalty is None else tuple(part[rows] for part in self.penalty)
        psi, curvature, pull = pick(self.psi), pick(self.curvature), pick(self.pull)
        effects = [pick(effect) for effect in self.effects]
        return _Terms(self.total[rows], psi, curvature, pull, pick(self.weight), pick(self.slope), effects, penalty)

    def derivatives(self, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(gradient (rows, p), H + damping M (rows, p, p))."""
        n, p = len(self.total), len(self.effects)
        gradient, matrix = np.zeros((n, p)), np.zeros((n, p, p))
        with np.errstate(all="ignore"):
            pulled = self.weight * self.slope
            force = self.psi * pulled
            mass = self.pull * damping[:, None]
            mass += self.curvature
            mass *= pulled
            mass *= self.slope
            for j, effect in enumerate(self.effects):
                if effect is None:
                    continue
                gradient[:, j] = _dot(force, effect)
                heavy = mass * effect
                for k in range(j + 1):
                    if self.effects[k] is not None:
                        matrix[:, j, k] = matrix[:, k, j] = _dot(heavy, self.effects[k])
        if self.penalty is not None:
            gradient += self.penalty[1]
            matrix[:, range(p), range(p)] += self.penalty[2]
        return gradient, matrix

    def stationarity(self, problem: Problem, x: np.ndarray, held: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """(largest |cosine| between the pull of the residuals and the effect of an entry of x, whether at the box)."""
        gradient, _ = self.derivatives(np.zeros(len(x)))
        low, high = (x <= problem.lower) & (gradient > 0), (x >= problem.upper) & (gradient < 0)
        edge = (low | high) if held is None else (low | high) & ~held
        free = ~(low | high) if held is None else ~(low | high | held)
        with np.errstate(all="ignore"):
            force = np.sqrt(np.vecdot(self.psi * self.weight, self.psi))
            noise = _ROUNDING * np.sqrt(np.sum(np.broadcast_to(self.weight, self.psi.shape), axis=-1))
            alive = _NEGLIGIBLE * np.sqrt(np.sum(np.broadcast_to(self.weight, self.psi.shape), axis=-1))
            cosine = np.zeros_like(gradient)
            for j, size in enumerate(self._sizes().T):
                excess = np.maximum(np.abs(gradient[:, j]) - size * noise, 0.0)
                cosine[:, j] = np.where(size > alive, excess / np.where(size * force > 0, size * force, 1.0), 0.0)
        return np.where(free, cosine, 0.0).max(axis=1, initial=0.0), np.asarray(edge.any(axis=1))

    def _sizes(self) -> np.ndarray:
        """The length of each entry's effects on the residuals, its prior included: (rows, p)."""
        sizes = np.zeros((len(self.total), len(self.effects)))
        for j, effect in enumerate(self.effects):
            if effect is not None:
                on_residual = np.broadcast_to(effect * self.slope, self.psi.shape)
                sizes[:, j] = np.vecdot(self.weight * on_residual, on_residual)
        return np.sqrt(sizes + (0.0 if self.penalty is None else self.penalty[2]))


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sum over the runs of a (rows, runs) times b (rows, runs) or (rows, 1)."""
    return a.sum(axis=-1) * b[..., 0] if np.shape(b)[-1:] == (1,) else np.vecdot(a, np.broadcast_to(b, a.shape))


def _confined(
    matrix: np.ndarray, gradient: np.ndarray, frozen: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """-matrix^-1 gradient with frozen entries 0 and the others between low and high; all (rows, p).

    Entries that would go further are held at their limit and the others solved again, so that a coefficient which
    hardly matters, or meets its bound, does not shorten the step of all.
    """
    step = _solved(matrix, -gradient, frozen)
    for _ in range(3):  # each round holds what the last one pushed over a limit; what is left after three is clipped
        far = ((step < low) | (step > high)) & ~frozen
        rows = np.flatnonzero(far.any(axis=1))
        if not len(rows):
            break
        ends = np.clip(step[rows], low[rows], high[rows])
        kept = np.where(far[rows] | (ends == low[rows]) | (ends == high[rows]), ends, 0.0)
        kept[frozen[rows]] = 0.0
        right = -gradient[rows] - np.einsum("rij,rj->ri", np.nan_to_num(matrix[rows]), kept)
        step[rows] = kept + _solved(matrix[rows], right, frozen[rows] | (kept != 0.0))
    step = np.clip(step, low, high)
    climbs = np.flatnonzero(np.vecdot(step, gradient) > 0.0)  # possible where several limits are met: go straight down
    if len(climbs):
        p = matrix.shape[1]
        diagonal = np.maximum(matrix[climbs][:, range(p), range(p)], _FAINT**2)
        step[climbs] = np.clip(-gradient[climbs] / diagonal, low[climbs], high[climbs])
    return step


def _solved(matrix: np.ndarray, right: np.ndarray, frozen: np.ndarray) -> np.ndarray:
    """matrix^-1 right with frozen entries 0; the matrix is scaled to a unit diagonal first."""
    p = right.shape[1]
    diagonal = matrix[:, range(p), range(p)]
    with np.errstate(all="ignore"):
        usable = np.isfinite(diagonal) & (diagonal > _FAINT**2) & ~frozen
        scale = np.where(usable, 1.0 / np.sqrt(np.where(usable, diagonal, 1.0)), 0.0)
        scaled, right = matrix * scale[:, :, None] * scale[:, None, :], right * scale
        if not np.isfinite(scaled.sum() + right.sum()):
            scaled, right = np.nan_to_num(scaled, posinf=0.0, neginf=0.0), np.nan_to_num(right, posinf=0.0, neginf=0.0)
    scaled[:, range(p), range(p)] = 1.0 + 1e-13
    return np.linalg.solve(scaled, right[..., None])[..., 0] * scale
