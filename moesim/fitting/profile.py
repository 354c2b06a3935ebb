"""Profiles: how far the objective rises when one coefficient is held and the others follow.

A profile is only as good as the minima it is made of. Every point is solved from the nearest one, then from both its
neighbours, and from where the global starts ended, until nothing falls any more; a point that is no minimum is marked
and takes no part in the interval, and a profile that still is not unimodal says so.

How far the objective may rise is decided by simulation: in resamples of the fit (see `bootstrap`), the mean rise from
each optimum to where the coefficient is held at its estimate (a Bartlett factor). For a likelihood it is 1/2. Under
Huber's objective with a delta far below the scatter, and where noise differs from run to run or is shared by groups,
no formula from the residuals at the estimate gives it reliably.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesim.fitting.bootstrap import BLOCK, Draws, flipped, freedom_of, left_out, refit_of, resampled
from moesim.fitting.solve import AT_BOUND, CONVERGED, STALLED, Rows, Solution, solve
from moesim.fitting.task import Task
from moesim.fitting.uncertainty import Spread

_GRID = np.array([0.35, 0.7, 1.0, 1.4])  # in units of the distance where the interval would end, were it straight
_FACTORS = (1.0, 3.0, 9.0, 27.0)  # of the grid, until both ends are found
_RESAMPLES = 200  # that decide how far the objective may rise
_ROUNDS = 12  # of restarts from neighbours
_FALL = 1e-6  # of the rise that ends the interval: a fall that counts, and a bump that does not
_EXACT = 5e-4  # of an interval: how well its ends are found
_REFINEMENTS = 14
_LEAST = 0.5  # of the scale in the middle; those of the coefficients of a regular fit lie closer together
_FARTHEST = 20.0  # medians: a rise that 1 resample in 400 has; beyond it lies another valley
_TIE = 1e-3  # of the objective: minima that differ by less are as good
_STEPS, _MORE_STEPS = 60, 400  # of the solver, for most points and for those that decide where an interval ends
UNIMODAL, BUMPY, INCOMPLETE, SKIPPED = "unimodal", "not unimodal", "incomplete", "skipped"


@dataclass(frozen=True)
class Profile:
    """For each entry of x: points (p, m), the objective minimised over the others there and its status (p, m), the
    scale of the rise (p,) and its degrees of freedom (see `scales`), and the ends (p, 2) in x of the interval, inf
    where the objective never rises enough inside the box. `shape` (p,) says in words whether the profile is unimodal;
    `full` (p, m, p) is all of x at the points, None in a fit read from a file. Rows of entries that were not asked for
    are NaN."""

    points: np.ndarray
    objective: np.ndarray
    status: np.ndarray
    interval: np.ndarray
    lowest: float
    scale: np.ndarray
    freedom: float
    shape: tuple[str, ...]
    full: np.ndarray | None = None

    @property
    def solved(self) -> np.ndarray:
        """Which points are minima: (p, m)."""
        return (self.status == CONVERGED) | (self.status == AT_BOUND)

    @property
    def done(self) -> np.ndarray:
        """Which entries were profiled: (p,)."""
        return np.array([shape != SKIPPED for shape in self.shape], bool)


def rise_of(task: Task, x: np.ndarray, level: float, scale: np.ndarray, freedom: float) -> np.ndarray:
    """How far the objective rises to the ends of an interval of that level: (p,).

    At the edge of the box a quarter of the usual error is left: an estimate that stands there has been pushed there,
    and the truth lies further off than it would seem from an optimum inside.
    """
    from scipy.special import stdtrit

    edge = (x <= task.parameters.lower) | (x >= task.parameters.upper)
    return 0.5 * stdtrit(freedom, 0.5 + np.where(edge, 0.75 + level / 4, level) / 2) ** 2 * scale


def profile(
    task: Task,
    x: np.ndarray,
    objective: float,
    local: Spread,
    level: float,
    *,
    scale: tuple[np.ndarray, float] | None = None,
    which: np.ndarray | None = None,
    starts: np.ndarray | None = None,
    seed: int = 0,
) -> Profile:
    """Profile intervals of the entries `which` (all) of x at once.

    `starts` (k, p) are where global starts ended, `scale` is what `scales` gave before.
    A grid on both sides brackets the ends; they are then refined on the signed root of the rise, which is mostly nearly
    straight.
    """
    scale = scales(task, x, local, np.random.default_rng(seed)) if scale is None else scale
    which = np.ones(len(x), bool) if which is None else which
    search = _Search(task, x, objective, rise_of(task, x, level, *scale), local, which)
    reach = np.where(np.isfinite(local.error) & (local.error > 0), 2.0 * local.error, 1.0)
    for factor in _FACTORS:
        search.add(factor * np.clip(reach, 1e-6, 2.0)[:, None] * np.concatenate([-_GRID[::-1], _GRID]))
        search.settle()
        if search.closed().all():
            break
    for start in _distinct(starts, x, search.rise):
        search.start_from(start)
    for step in range(_REFINEMENTS):
        if not search.refine(halve=step % 3 == 2):
            break
    return search.result(*scale)


def scales(task: Task, x: np.ndarray, local: Spread, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(by how much the rise along each entry must be divided to act like minus the log of a likelihood, (p,); how many
    degrees of freedom it then has).

    Entries at the edge of the box, or that the runs do not determine, have the scale of the others in the middle, and
    none has much less: along a term that nearly vanishes the objective hardly rises, however far.
    """
    p, inside = len(x), (x > task.parameters.lower) & (x < task.parameters.upper)
    known, error = np.flatnonzero(local.determined & inside), left_out(task, x)
    rows, freedom = flipped(task, x, error, np.ones((_RESAMPLES, 1)), rng), freedom_of(task, x, error)
    free = refit_of(task, x, rows, _RESAMPLES, rng)
    good = np.flatnonzero(free.usable)
    if not len(known) or len(good) < _RESAMPLES // 4:
        return np.full(p, task.scale(x)), freedom
    held = np.zeros((len(known), len(good), p), bool)
    start = np.repeat(free.x[None, good], len(known), axis=0)
    for k, j in enumerate(known):
        held[k, :, j] = True
        start[k] += _drift(local)[:, j] * (x[j] - free.x[good, j])[:, None]
        start[k, :, j] = x[j]
    several = rows.of(np.tile(good, len(known)))
    several = Rows(several.observed, several.weight, held.reshape(-1, p))
    found = solve(task.problem, start.reshape(-1, p), several, tolerance=1e-7, max_steps=60)
    rise = np.maximum(found.objective.reshape(len(known), -1) - free.objective[good], 0.0)
    rise = np.minimum(rise, _FARTHEST * np.median(rise, axis=1).max())
    out = np.full(p, np.nan)
    out[known] = 2.0 * rise.mean(axis=1)
    middle = np.median(out[known])
    return np.maximum(np.where(np.isnan(out), middle, out), _LEAST * middle), freedom


def _drift(local: Spread) -> np.ndarray:
    """How the other entries follow each one, at first: column j per unit of entry j."""
    variance = np.diag(local.covariance)
    drift = local.covariance / np.where(variance > 0, variance, 1.0)
    return np.where((variance > 0) & local.determined, drift, 0.0)


def _distinct(starts: np.ndarray | None, x: np.ndarray, rise: np.ndarray, most: int = 4) -> list[np.ndarray]:
    """Ends of global starts that lie apart from x and from each other."""
    out = [x]
    for end in () if starts is None else starts:
        if all(np.max(np.abs(end - other)) > 1e-2 for other in out) and len(out) <= most:
            out.append(end)
    return out[1:]


class _Search:
    """Profile points collected so far, entry by entry, each a full x with its objective and status."""

    def __init__(self, task: Task, x: np.ndarray, objective: float, rise: np.ndarray, local: Spread, which: np.ndarray):
        self.task, self.x, self.objective, self.which = task, x, objective, np.flatnonzero(which).tolist()
        self.rise, self.drift = np.maximum(rise, 1e-300), _drift(local)
        p = len(x)
        self.full = [x[None].copy() for _ in range(p)]
        self.value = [np.array([objective]) for _ in range(p)]
        self.status = [np.array([CONVERGED]) for _ in range(p)]

    def at(self, j: int) -> np.ndarray:
        """Where entry j is held, ascending."""
        return self.full[j][:, j]

    def add(self, offsets: np.ndarray | list, steps: int = _STEPS) -> None:
        """Points with entry j held at x_j + offsets[j], each solved from the nearest solved so far."""
        box, tries = self.task.parameters, []
        for j in self.which:
            wanted = np.unique(np.clip(self.x[j] + np.asarray(offsets[j]), box.lower[j], box.upper[j]))
            for at in wanted:
                if not np.any(np.isclose(self.at(j), at, rtol=0, atol=1e-10)):
                    tries.append((j, self._insert(j, at)))
        tries = [(j, int(np.flatnonzero(self.at(j) == at)[0])) for j, at in tries]
        self._try([(j, i, self.full[j][i]) for j, i in tries], steps)

    def _insert(self, j: int, at: float) -> float:
        old = np.flatnonzero(np.isfinite(self.value[j]))
        near = old[np.argmin(np.abs(self.at(j)[old] - at))]
        order = int(np.searchsorted(self.at(j), at))
        self.full[j] = np.insert(self.full[j], order, self._moved(self.full[j][near], j, at), axis=0)
        self.value[j] = np.insert(self.value[j], order, np.inf)
        self.status[j] = np.insert(self.status[j], order, STALLED)
        return at

    def _moved(self, full: np.ndarray, j: int, at: float) -> np.ndarray:
        """A start with entry j at `at`, from a solution elsewhere; the others follow as they do at the estimate."""
        start = full + self.drift[:, j] * (at - full[j])
        start = np.clip(start, self.task.parameters.lower, self.task.parameters.upper)
        start[j] = at
        return start

    def _try(self, tries: list[tuple[int, int, np.ndarray]], steps: int = _STEPS) -> set[tuple[int, int]]:
        """Solve points (entry, index) from starts; keep what is lower. Returns the points that fell."""
        if not tries:
            return set()
        start, held = np.stack([start for _, _, start in tries]), np.zeros((len(tries), len(self.x)), bool)
        held[range(len(tries)), [j for j, _, _ in tries]] = True
        rows = Rows(self.task.rows.observed, self.task.rows.weight, held)
        found = solve(self.task.problem, start, rows, tolerance=1e-12, max_steps=steps)
        fell = set()
        for r, (j, i, _) in enumerate(tries):
            now, new = self.value[j][i], found.objective[r]
            better = found.status[r] in (CONVERGED, AT_BOUND) and self.status[j][i] == STALLED
            if new < now or (better and new <= now + _FALL * self.rise[j]):
                self.full[j][i], self.value[j][i], self.status[j][i] = found.x[r], new, found.status[r]
                if not new >= now - _FALL * self.rise[j]:
                    fell.add((j, i))
        return fell

    def settle(self, fresh: set[tuple[int, int]] | None = None) -> None:
        """Restart each point from both neighbours, as long as something falls."""
        every = {(j, i) for j in self.which for i in range(len(self.value[j]))}
        fresh = every if fresh is None else fresh
        for _ in range(_ROUNDS):
            pairs = [(j, k, i) for j, k in fresh for i in (k - 1, k + 1) if 0 <= i < len(self.value[j])]
            pairs = [(j, k, i) for j, k, i in pairs if self.at(j)[i] != self.x[j]]
            fresh = self._try([(j, i, self._moved(self.full[j][k], j, self.at(j)[i])) for j, k, i in sorted(pairs)])
            if not fresh:
                break

    def start_from(self, end: np.ndarray) -> None:
        """Try a solution from elsewhere at every point, and let what fell spread."""
        tries = []
        for j in self.which:
            for i, at in enumerate(self.at(j)):
                if at != self.x[j]:
                    start = end.copy()
                    start[j] = at
                    tries.append((j, i, start))
        if fell := self._try(tries):
            self.settle(fell)

    def _usable(self, j: int) -> np.ndarray:
        return self.status[j] != STALLED

    def _roots(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """(points that are minima, signed root of the rise in units where the interval ends at -1 and 1)."""
        use = self._usable(j) & np.isfinite(self.value[j])
        at = self.at(j)[use]
        rise = np.maximum(self.value[j][use] - self.objective, 0.0) / self.rise[j]
        return at, np.sign(at - self.x[j]) * np.sqrt(rise)

    def _ends(self, j: int) -> tuple[float, float]:
        """Where the root last lies within -1 and 1, by straight interpolation; -inf, inf where it never leaves."""
        return self._brackets(j)[0].end, self._brackets(j)[1].end

    def _brackets(self, j: int) -> tuple[_Bracket, _Bracket]:
        at, root = self._roots(j)
        return _crossing(-at[::-1], -root[::-1], -self.x[j]).mirrored(), _crossing(at, root, self.x[j])

    def closed(self) -> np.ndarray:
        """Whether both ends of each entry are bracketed or at the box."""
        box, done = self.task.parameters, []
        for j in self.which:
            low, high = self._ends(j)
            low_done = np.isfinite(low) or self.at(j)[0] <= box.lower[j]
            done.append(low_done and (np.isfinite(high) or self.at(j)[-1] >= box.upper[j]))
        return np.array(done, dtype=bool)

    def refine(self, halve: bool) -> bool:
        """A point at, or half way to, each end that is not settled yet; whether there was one."""
        offsets: list[list[float]] = [[] for _ in self.x]
        for j in self.which:
            brackets = self._brackets(j)
            size = brackets[1].end - brackets[0].end
            for one in brackets:
                if one.unsettled(size if np.isfinite(size) else 1.0):
                    offsets[j].append(self._next(j, one, halve) - self.x[j])
        if not any(offsets):
            return False
        before = [set(self.at(j)) for j in range(len(self.x))]
        self.add(offsets, _MORE_STEPS)
        fresh = {(j, i) for j in self.which for i, at in enumerate(self.at(j)) if at not in before[j]}
        around = {(j, k) for j, i in fresh for k in (i - 1, i, i + 1) if 0 <= k < len(self.value[j])}
        self.settle(around)
        return True

    def _next(self, j: int, one: _Bracket, halve: bool) -> float:
        """Where to look for an end; if points before the outer one are no minima, half way to the nearest of them."""
        low, high = sorted((one.inner, one.outer))
        stalled = self.at(j)[~self._usable(j) & (self.at(j) > low) & (self.at(j) < high)]
        if len(stalled):
            return (one.inner + stalled[np.argmin(np.abs(stalled - one.inner))]) / 2.0
        return one.middle if halve else one.end

    def _shape(self, j: int) -> str:
        if j not in self.which:
            return SKIPPED
        root = self._roots(j)[1]
        bumps = np.diff(root) < -np.sqrt(_FALL)
        if np.any(bumps & (np.minimum(np.abs(root[1:]), np.abs(root[:-1])) < 1.5)):
            return BUMPY
        low, high = self._ends(j)
        within = (self.at(j) > low) & (self.at(j) < high)
        return INCOMPLETE if np.any(within & ~self._usable(j)) else UNIMODAL

    def result(self, scale: np.ndarray, freedom: float) -> Profile:
        p, m = len(self.x), max((len(self.value[j]) for j in self.which), default=1)

        def table(rows: list[np.ndarray], empty: float) -> np.ndarray:
            out = np.full((p, m), empty)
            for j in self.which:
                out[j, : len(rows[j])] = rows[j]
            return out

        ends = np.full((p, 2), np.nan)
        for j in self.which:
            ends[j] = self._ends(j)
        lowest = min((float(v.min()) for v in self.value), default=self.objective)
        points = table([self.at(j) for j in range(p)], np.nan)
        status = table(self.status, -1).astype(int)
        shape = tuple(self._shape(j) for j in range(p))
        full = np.full((p, m, p), np.nan)
        for j in self.which:
            full[j, : len(self.full[j])] = self.full[j]
        return Profile(points, table(self.value, np.nan), status, ends, lowest, scale, freedom, shape, full)


@dataclass(frozen=True)
class _Bracket:
    """Between which points an interval ends, where it does by straight interpolation, and the roots at the points."""

    inner: float
    outer: float
    end: float
    roots: tuple[float, float]

    @property
    def middle(self) -> float:
        return (self.inner + self.outer) / 2.0

    def mirrored(self) -> _Bracket:
        return _Bracket(-self.inner, -self.outer, -self.end, self.roots)

    def unsettled(self, size: float) -> bool:
        """Whether the end may still be off by a part of the interval's size that matters."""
        off = min(abs(root - 1.0) for root in self.roots)
        return bool(np.isfinite(self.end)) and abs(self.outer - self.inner) > _EXACT * size and off > _EXACT


def _crossing(x: np.ndarray, root: np.ndarray, middle: float) -> _Bracket:
    """Where, right of the middle, the ascending root is last below 1; the end is inf if that is the last point."""
    within = np.flatnonzero((root < 1.0) & (x >= middle))
    i = int(within[-1]) + 1 if len(within) else len(x)
    if i >= len(x):
        return _Bracket(np.inf, np.inf, np.inf, (0.0, 0.0))
    end = x[i - 1] + (x[i] - x[i - 1]) * (1.0 - root[i - 1]) / (root[i] - root[i - 1])
    return _Bracket(float(x[i - 1]), float(x[i]), float(end), (float(root[i - 1]), float(root[i])))


def along(
    task: Task, x: np.ndarray, draws: Draws, found: Profile, loose: np.ndarray, kind: str, rng: np.random.Generator
) -> Draws:
    """The draws spread along what the runs do not determine.

    Each holds one of the entries `loose` somewhere in its interval (where that is open, in the typical range) and fits
    the others to a resample of its own, from the profile on either side; draws that start at the estimate would all
    stay beside it.
    """
    if found.full is None or not len(loose):
        return draws
    count = len(draws.x)
    which = rng.choice(loose, count)
    ends = reachable(task, x, found.interval)
    at = rng.uniform(ends[which, 0], ends[which, 1])
    held = np.zeros((count, len(x)), bool)
    held[range(count), which] = True
    starts = [_beside(found, found.full, which, at, side) for side in (-1.0, 1.0)]
    parts, size = [], max(1, BLOCK // len(task.loss))
    for cut in (slice(first, first + size) for first in range(0, count, size)):
        rows = resampled(task, x, len(which[cut]), kind, rng)
        rows = Rows(rows.observed, rows.weight, held[cut])
        parts.append(lowest([solve(task.problem, start[cut], rows, tolerance=1e-10) for start in starts]))
    return Draws(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "objective", "status")))


def _beside(found: Profile, full: np.ndarray, which: np.ndarray, at: np.ndarray, side: float) -> np.ndarray:
    """The nearest minima of the profiles of entries `which` on that side of `at`, (draws, p), entries put to `at`."""
    off = np.where(found.solved, found.points, np.nan)[which] - at[:, None]
    far = np.where(np.isnan(off), np.inf, np.abs(off) + np.where(side * off < 0.0, 1e6, 0.0))
    start = full[which, np.argmin(far, axis=1)]
    start[range(len(at)), which] = at
    return start


def lowest(found: list[Solution]) -> Draws:
    """Of several solutions of the same rows the lowest of each, among those that are minima if there are.

    Of equals (few runs under Huber's objective have many minima) the first, so that rounding does not choose.
    """
    height = [np.where(f.status <= AT_BOUND, 1.0 + _TIE * k, 1e9) * f.objective for k, f in enumerate(found)]
    best, rows = np.argmin(np.where(np.isnan(height), np.inf, height), axis=0), np.arange(len(found[0].objective))
    return Draws(*(np.stack([getattr(f, n) for f in found])[best, rows] for n in ("x", "objective", "status")))


def reachable(task: Task, x: np.ndarray, interval: np.ndarray) -> np.ndarray:
    """Interval ends with open ones replaced by the typical range's, or by x where that lies beyond: (p, 2)."""
    low, high = task.parameters.typical()
    typical = np.stack([np.minimum(low, x), np.maximum(high, x)], axis=1)
    ends = np.where(np.isfinite(interval), interval, typical)
    return np.clip(ends, task.parameters.lower[:, None], task.parameters.upper[:, None])
