"""One fitting task put together: a target, the runs it is fitted to, the objective and the free coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.model import Prediction, Target
from moesim.fitting.objective import Objective, smoothed_curvature
from moesim.fitting.parameters import Parameters
from moesim.fitting.solve import AT_BOUND, CONVERGED, STALLED, Problem, Rows, Solution, solve
from moesim.fitting.starts import starting_points
from moesim.numerics.derivative import Jet
from moesim.variables import POSITIVE, REAL, check

if TYPE_CHECKING:
    import xarray as xr

HOLDS = ("none", "law", "repetition")
_FIRST, _ROUND, _ROUNDS = 10, 20, 20  # steps of the starts until they are looked at, then between looks, and looks
_ROUGH = 1e-8  # of an objective: how well the ends are known but for the best
_SAME = 1e-6  # of an objective: what two ends of one optimum may differ by


@dataclass(frozen=True)
class Task:
    """Runs in a fixed order (`order` puts them back), one array entry each: inputs, loss, weight, group."""

    target: Target
    parameters: Parameters
    objective: Objective
    inputs: Mapping[str, np.ndarray]
    loss: np.ndarray
    weight: np.ndarray
    group: np.ndarray
    order: np.ndarray
    prediction: Prediction
    prior: Mapping[str, tuple[float, float]]
    prior_scale: float = 0.0

    @classmethod
    def of(
        cls,
        target: Target,
        runs: xr.Dataset,
        objective: Objective,
        parameters: Parameters,
        prior: Mapping[str, Any] | None = None,
    ) -> Task:
        """Raises InputError if the runs lack a variable, are fewer than the free coefficients, or a prior is bad."""
        inputs, loss = inputs_of(target, runs), np.asarray(runs[target.predicts], dtype=float)
        order = np.lexsort((loss, *inputs.values()))  # so that the order of the rows changes nothing, not even draws
        inputs, loss = {name: values[order] for name, values in inputs.items()}, loss[order]
        n, p = len(loss), len(parameters.free)
        if n < p:
            names = ", ".join(parameters.free)
            raise InputError(f"fit: {n} runs for {p} free coefficients ({names}); give more runs, or fix or tie some")
        weight = np.asarray(runs["weight"], dtype=float)[order] if "weight" in runs else np.ones(n)
        group = np.unique(np.asarray(runs["group"])[order], return_inverse=True)[1] if "group" in runs else np.arange(n)
        prediction = target.at(inputs).holding(parameters.fixed)
        checked = _priors(parameters, prior or {})
        return cls(target, parameters, objective, inputs, loss, weight, group, order, prediction, checked)

    @property
    def problem(self) -> Problem:
        """What the solver minimises."""
        box = self.parameters.lower, self.parameters.upper
        return Problem(self.predict, self.objective, *box, self._penalty if self.prior and self.prior_scale else None)

    @property
    def rows(self) -> Rows:
        """The data as they are."""
        return Rows(self.objective.observed(self.loss), self.weight)

    def predict(self, x: np.ndarray, derive: bool = False) -> Any:
        """Loss of every run, (rows, runs), in the task's own order."""
        return self.prediction(self.parameters.values(x, derive))

    def losses(self, x: np.ndarray) -> np.ndarray:
        """The same without derivatives, one value for every row and run."""
        with np.errstate(all="ignore"):
            return np.broadcast_to(self.predict(x), (len(x), len(self.loss)))

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """Residuals on the objective's scale: (rows, runs)."""
        with np.errstate(all="ignore"):
            return self.objective.residual(self.losses(x), self.rows.observed)[0]

    def centred(self, x: np.ndarray) -> np.ndarray:
        """Residuals at one point x (p,), less their mean, as wide as the errors that the fit has followed."""
        residual = self.residuals(x[None])[0]
        free = len(residual) / max(len(residual) - len(x), 1)
        return (residual - np.average(residual, weights=self.weight)) * np.sqrt(free)

    def effects(self, x: np.ndarray) -> np.ndarray:
        """What each entry of x does to each residual, at one point x (p,): (runs, p)."""
        with np.errstate(all="ignore"):
            loss = self.predict(x[None], True)
            _, slope = self.objective.residual(np.broadcast_to(_plain(loss), (1, len(self.loss))), self.rows.observed)
        first = loss.first if isinstance(loss, Jet) else {}
        effects = [np.broadcast_to(first.get(j, 0.0) * slope, (1, len(self.loss)))[0] for j in range(len(x))]
        return np.stack(effects, axis=1) if effects else np.zeros((len(self.loss), 0))

    def scale(self, x: np.ndarray) -> float:
        """By how much the objective must be divided to act like minus the log of a likelihood.

        For squared residuals it is their variance; in general mean(psi^2)/mean(psi'), with the degrees of freedom.
        """
        z = self.residuals(x[None])[0]
        psi, curvature = self.objective.rho(z)[1], smoothed_curvature(self.objective, z)
        n, mass = len(z), self.weight / self.weight.mean()
        free = n / max(n - len(self.parameters.free), 1)
        return float(np.sum(mass * psi**2) / max(np.sum(mass * curvature), 1e-300) * free)

    def with_prior_scale(self, scale: float) -> Task:
        """The task whose priors weigh as normal priors do against runs of that scatter."""
        return replace(self, prior_scale=scale)

    def thinned(self, most: int) -> Task:
        """The task of at most so many runs, evenly spread over the order of the inputs."""
        if len(self.loss) <= most:
            return self
        pick = np.linspace(0, len(self.loss) - 1, most).astype(int)
        inputs = {name: values[pick] for name, values in self.inputs.items()}
        prediction = self.target.at(inputs).holding(self.parameters.fixed)
        of_runs = {name: getattr(self, name)[pick] for name in ("loss", "weight", "group", "order")}
        return replace(self, inputs=inputs, prediction=prediction, **of_runs)

    def _penalty(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        total, first, second = np.zeros(len(x)), np.zeros_like(x), np.zeros_like(x)
        natural, slopes = self.parameters.natural(x), self.parameters.slopes(x)
        for name, (mean, sd) in self.prior.items():
            j = self.parameters.free.index(name)
            off = (natural[name] - mean) / sd
            total += 0.5 * self.prior_scale * off**2
            first[:, j] = self.prior_scale * off * slopes[:, j] / sd
            second[:, j] = self.prior_scale * (slopes[:, j] / sd) ** 2
        return total, first, second


def inputs_of(target: Target, runs: xr.Dataset) -> dict[str, np.ndarray]:
    """The target's inputs from runs, floats of shape (run,); InputError if one is missing."""
    for name in (target.predicts, *target.inputs):
        if name not in runs:
            if name in (blank := runs.attrs.get("blank", "")).split(" "):
                said = f"{name} is blank ({blank}), and {target.title} takes it"
                remedy = f"fill it, or leave these rows out with where={{{name}: {{min: 0}}}}"
                raise InputError(f"runs {runs.attrs.get('runs', 'given')}: {said}; {remedy}")
            raise InputError(
                f"runs {runs.attrs.get('runs', 'given')}: no {name}, which {target.title} takes; map a column to it"
                f" (columns) or work it out (derive); there are {', '.join(map(str, runs.data_vars))}"
            )
    extra = {name for name in ("total_params", "active_params") if name in runs}
    return {name: np.asarray(runs[name], dtype=float) for name in dict.fromkeys([*target.inputs, *sorted(extra)])}


def _plain(loss: Any) -> Any:
    return loss.value if isinstance(loss, Jet) else loss


def _priors(parameters: Parameters, prior: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    out = {}
    for name, entry in prior.items():
        if name not in parameters.free:
            raise InputError(f"fit.prior: {name!r} is not a free coefficient; it takes {', '.join(parameters.free)}")
        if not isinstance(entry, Mapping) or set(entry) != {"mean", "sd"}:
            raise InputError(f"fit.prior: {name}={entry!r}; it takes {{mean: NUMBER, sd: NUMBER}}")
        out[name] = (
            check("fit.prior", name, entry["mean"], REAL),
            check("fit.prior", f"sd of {name}", entry["sd"], POSITIVE),
        )
    return out


@dataclass(frozen=True)
class Optimum:
    """The best of many starts: x (p,), objective, status and slope there, and where each start ended."""

    x: np.ndarray
    objective: float
    status: int
    slope: float
    ends: Solution

    @property
    def share(self) -> float:
        """The share of the starts that reached the best optimum."""
        reached = self.ends.objective <= self.objective * (1 + _SAME) + 1e-25
        return float(reached.mean())

    @property
    def others(self) -> np.ndarray:
        """Where the starts ended, lowest first: (starts, p)."""
        found = self.ends.x[np.argsort(self.ends.objective, kind="stable")]
        return found[np.isfinite(found).all(axis=1)]


def optimum(task: Task, starts: int, rng: np.random.Generator, given: np.ndarray | None = None) -> Optimum:
    """The lowest objective from `starts` of the best random points in the typical ranges, and from `given` (k, p).

    All are followed to the end as rows of one batch.
    """
    problem, rows, p = task.problem, task.rows, len(task.parameters.free)
    points = [np.zeros((0, p)) if given is None else given]
    if starts and p:
        points.append(starting_points(task, starts, rng))
    x = np.concatenate(points) if p else np.zeros((1, 0))
    if not len(x):
        raise InputError("fit.starts=0 without fit.start; give one of them")
    ends = _followed(problem, x, rows)
    first = int(np.argmin(ends.objective))
    best = solve(problem, ends.x[[first]], rows, max_steps=2000, damping=1e-2)  # a slow valley is walked to the end
    return Optimum(best.x[0], float(best.objective[0]), int(best.status[0]), float(best.slope[0]), ends)


def _followed(problem: Problem, x: np.ndarray, rows: Rows) -> Solution:
    """Where the starts end. One that would take long to come down to the best, as fast as it does, is left there.

    If those that have ended leave no other optimum to be expected, the rest is not followed further, nor returned.
    """
    ends = solve(problem, x, rows, _ROUGH, _FIRST)
    before = np.full(len(x), np.inf)
    for _ in range(_ROUNDS):
        reached = np.where(ends.status == STALLED, ends.objective, 0.0)  # the others may be infinite
        slow = before - reached < (reached - ends.objective.min()) / _ROUNDS
        going = np.flatnonzero((ends.status == STALLED) & ~slow)
        if not len(going):
            break
        if settled(ends):
            return _of(ends, np.setdiff1d(np.arange(len(ends.x)), going))
        before = ends.objective.copy()
        more = solve(problem, ends.x[going], rows, _ROUGH, _ROUND, damping=0.1)
        for name in ("x", "objective", "status", "slope"):
            getattr(ends, name)[going] = getattr(more, name)
        ends.steps[going] += more.steps
    return ends


def settled(ends: Solution) -> bool:
    """Whether the optima that n starts found are likely all: W (n-1)/(n-W-2) of them are expected if W were found.

    Boender and Rinnooy Kan (1987), with the rule that less than half an optimum must be missing.
    """
    ended = np.sort(ends.objective[(ends.status == CONVERGED) | (ends.status == AT_BOUND)])
    if not len(ended) or ended[0] > ends.objective.min():
        return False
    n, found = len(ended), 1 + int(np.sum(np.diff(ended) > _SAME * ended[1:]))
    return n > found + 2 and bool(found * (n - 1) / (n - found - 2) < found + 0.5)


def _of(ends: Solution, index: np.ndarray) -> Solution:
    return Solution(*(getattr(ends, part.name)[index] for part in fields(Solution)))


def known_start(task: Task) -> np.ndarray | None:
    """The values at hand for the free coefficients as a start, if there is one for each: (1, p)."""
    known = {**task.target.known}
    if not task.parameters.free or not all(name in known for name in task.parameters.free):
        return None
    return task.parameters.x_of(known)[None]
