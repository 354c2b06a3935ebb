"""The result of a fit: the estimate, how sure it is, what the runs cannot tell, and all of it as one Dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting import checks
from moesim.fitting.bootstrap import Draws, percentiles, solved_share
from moesim.fitting.identify import LOOSE, Identification, identify, student
from moesim.fitting.profile import Profile, profile
from moesim.fitting.runs import listed
from moesim.fitting.solve import AT_BOUND, CONVERGED, STATUSES
from moesim.fitting.task import Optimum, Task
from moesim.fitting.uncertainty import Spread
from moesim.laws import Law, Repetition
from moesim.output.text import Page, shown

if TYPE_CHECKING:
    import xarray as xr

INTERVALS = ("bootstrap", "profile", "normal")


@shown
@dataclass(frozen=True)
class Fit:
    """The result of `fit`.

    `task` is what was minimised, `optimum` where it ended, `local` the spread there; `draws` and `profiles` are None
    if they were not asked for. `runs` are all runs, `outside` (run,) those held out. `level` is that of the intervals
    in `to_dataset`.
    """

    task: Task
    optimum: Optimum
    local: Spread
    runs: xr.Dataset
    outside: np.ndarray
    level: float
    draws: Draws | None = None
    profiles: Profile | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def estimate(self) -> dict[str, float]:
        """Every coefficient by name, fixed and tied ones included."""
        table = self.task.parameters.table(self.optimum.x[None])[0]
        return dict(zip(self.task.parameters.names, map(float, table), strict=True))

    @property
    def objective(self) -> float:
        """The objective at the estimate, priors included."""
        return self.optimum.objective

    @property
    def status(self) -> str:
        """converged, at bound, stalled or not finite."""
        return STATUSES[self.optimum.status]

    @property
    def share(self) -> float:
        """The share of the starts that reached this optimum."""
        return self.optimum.share

    @property
    def name(self) -> str:
        """That of the fitted law: its form, and the runs if they have a name."""
        runs = self.runs.attrs.get("runs", "given")
        return f"{self.task.target.form.name}_{'fit' if runs == 'given' else runs}"

    @property
    def law(self) -> Law:
        """The fitted law at the estimate: it takes numbers, arrays and DataArrays."""
        return self._law(self.estimate)

    @property
    def draws_law(self) -> Law:
        """The fitted law with its uncertainty: coefficients that the draws move have a `draw` dim.

        It takes numbers and DataArrays with dims. `moesim.Model(fitted)` plans with it.
        """
        return self._law(self._coefficients())

    @property
    def repetition(self) -> Repetition:
        """The repetition with its coefficients at the estimate."""
        return self._repetition(self.estimate)

    @property
    def draws_repetition(self) -> Repetition:
        """The repetition with the `draw` dim of `draws_law`: draw i of the one goes with draw i of the other."""
        return self._repetition(self._coefficients())

    @cached_property
    def identification(self) -> Identification:
        """What the runs can and cannot tell about each free coefficient."""
        return identify(self.task, self.optimum.x, self.local, self.usable_x(), self.profiles)

    @property
    def verdict(self) -> dict[str, str]:
        """What the runs tell about each free coefficient: identified, weak, not identified, at bound, term vanishes."""
        return dict(zip(self.identification.names, self.identification.verdict, strict=True))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person must know before using the fit, a line each."""
        return tuple(_warnings(self))

    def interval(self, level: float | None = None, method: str | None = None) -> dict[str, tuple[float, float]]:
        """(low, high) of every free coefficient.

        `method`: bootstrap (percentiles of the draws; the default if there are any), profile, or normal (from the
        covariance, along the transformed coefficient, with Student's t). An end that the runs do not set is that of
        the coefficient's domain (inf, or 0), or of the bounds that were given.
        """
        level = self.level if level is None else level
        check_level(level)
        method = method or ("bootstrap" if self.draws is not None else "normal")
        if method not in INTERVALS:
            raise InputError(f"interval: method={method!r}; it takes {', '.join(INTERVALS)}")
        ends = {"bootstrap": self._percentiles, "profile": self._profiled, "normal": self._normal}[method](level)
        return dict(zip(self.task.parameters.free, self.task.parameters.ends(ends), strict=True))

    @property
    def observed(self) -> np.ndarray:
        """What the law predicts, as the runs have it, held-out ones too: (run,)."""
        return np.asarray(self.runs[self.task.target.predicts], dtype=float)

    def predict(
        self,
        runs: Any = None,
        level: float | None = None,
        seed: int = 0,
        widen: str = "none",
        via: Fit | None = None,
        **inputs: Any,
    ) -> xr.Dataset:
        """Loss of given runs, with intervals of the law and of a further run.

        `runs`: a Dataset (variables are aligned by their dims, so a grid stays a grid), a data frame, or a mapping of
        the law's inputs to numbers or 1-D arrays, one value for each run; or these as `inputs` by name. Gives
        `loss(run)`, `confidence(run, bound)` of the law and `prediction(run, bound)` of a further run, its scatter
        included, which follows compute if that of the runs does. Without draws the intervals come from the covariance.
        `widen="holdout"` stretches both until they hold as many of the held-out runs as `level` says. A law of loss
        (accuracy on a task) takes the losses from a fit `via` of a law of size and data, of which `runs` are then; the
        draws of both are in the intervals. Raises InputError for a missing or impossible input.
        """
        from moesim.fitting.downstream import chained
        from moesim.fitting.predict import predicted

        level = self.level if level is None else level
        check_level(level)
        runs = inputs if runs is None else runs
        if via is not None:
            return chained(self, via, runs, level, seed)
        return predicted(self, runs, level, seed, widen)

    def allocation(
        self, compute: Any = None, *, architecture: Any = "proportional", level: float | None = None, **axes: Any
    ) -> xr.Dataset:
        """How to spend budgets: everything of `moesim.optimum` at each `compute` (FLOP) and draw, with intervals.

        `optimal_active_params`, `optimal_tokens`, `optimal_tokens_per_param` and so on over draw and compute, with
        `best_sparsity` where the law knows sparsity; `NAME_interval(..., bound)` and `NAME_estimate` of each;
        `optimal_extrapolated` where the optimum lies outside the runs; `exponent_params(bound)` and
        `exponent_tokens(bound)`, the a and b of N* ~ C^a and D* ~ C^b over the budgets, with the attribute `estimate`.
        `axes` are further axes of `optimum` (unique_tokens, sparsity, ...); left out, sparsity is the middle one of the
        runs and unique_tokens the most that any run had. By default the budgets are the powers of ten from the runs'
        median compute to a hundred times their largest. Without draws they come from the covariance. Raises InputError
        for a law without size and tokens.
        """
        from moesim.fitting.allocation import allocation

        level = self.level if level is None else level
        check_level(level)
        return allocation(self, compute, architecture, level, **axes)

    def next_runs(self, candidates: Any, target: Any, cost: Any = None, count: int = 1) -> xr.Dataset:
        """Which runs would narrow a quantity most for their cost.

        `candidates`: runs as for `predict`. `target`: a coefficient by name (R_D), a run (mapping of the law's inputs:
        its loss), a quantity of `allocation` at a budget (("best_sparsity", 1e22)), or any quantity in each draw.
        `cost` of each candidate: numbers, FLOPs by default, or {"chip": "h100", "utilisation": 0.4} for its hours.
        Gives
        the expected `variance_reduction` of the target as a share, `cost`, `reduction_per_cost`, and the `order` (1 is
        best, 0 none) of the `count` runs that are best together, each chosen after those before; the attribute
        `left_after_ranked` is the share of the variance left. As if draws were normal (the value of information of a
        linear model); the scatter of runs counts as it does in `predict`.
        """
        from moesim.fitting.design import next_runs

        return next_runs(self, candidates, target, cost, count)

    @cached_property
    def allocated(self) -> Mapping[str, Any]:
        """The allocation at the usual budgets in short, as `to_dataset` has it: (dims, values) by name."""
        from moesim.fitting.allocation import summary

        return summary(self)

    def posterior(self, draws: int = 1000, seed: int = 0, steps: int = 50000) -> Fit:
        """The same fit with `draws` from a posterior in place of the bootstrap's: intervals, plans and all follow.

        By emcee (`pip install moesim[posterior]`), until the chain is 50 autocorrelation times long or has `steps`.
        Priors: those of the fit; for other coefficients their declared typical range as the central 68 % of a normal
        one, along the log of an amplitude. The objective acts as minus the log of a likelihood whose scatter is that of
        the runs. What runs do not determine follows its prior. Raises InputError without emcee.
        """
        from moesim.fitting.posterior import posterior

        return posterior(self, draws, seed, steps)

    def report(self) -> str:
        """What a reader must know to judge or repeat the fit: the checklist of Misfitting (Li et al. 2025)."""
        from moesim.fitting.report import report

        return report(self)

    def to_dataset(self) -> xr.Dataset:
        """Everything of the fit as one Dataset, see `record`."""
        from moesim.fitting.record import record

        return record(self)

    def _page(self) -> Page:
        from moesim.fitting.tables import page

        return page(self.to_dataset())

    def to_dataframe(self) -> Any:
        """The coefficients as a pandas DataFrame: estimate, interval, verdict and what each trades off with."""
        data = self.to_dataset()
        columns = {"estimate": data["estimate"].values, "standard_error": data["standard_error"].values}
        columns |= {end: data["interval"].sel(bound=end).values for end in ("low", "high")}
        columns |= {"verdict": data["identified"].values, "trades_off_with": data["trades_off_with"].values}
        import pandas

        return pandas.DataFrame(columns, index=pandas.Index(data["coefficient"].values, name="coefficient"))

    def summary(self) -> str:
        """The table that `moesim fit` prints: coefficients with intervals and verdicts, scores, warnings."""
        from moesim.fitting.tables import table

        return table(self.to_dataset())

    def save(self, path: str | Path) -> None:
        """Write the fit to a netCDF file, from which `moesim.load_fit(path)` makes it again."""
        from moesim.output.store import write_result

        write_result(self.to_dataset(), path)

    def _law(self, values: Mapping[str, Any]) -> Law:
        target = self.task.target
        source = f"fit of {target.title} to runs {self.runs.attrs.get('runs', 'given')}"
        fitted = Law(self.name, target.form, target.law_values(values), source, marking="fitted")
        definitions = {} if target.law is None else target.law.definitions
        known = data_range(self.runs.isel(run=~self.outside))
        if target.law is not None and target.law.dense:  # and the runs do not say otherwise
            known = {"sparsity": (0.0, 0.0), **known}
        return replace(fitted, definitions=definitions, data_range=known)

    def _repetition(self, values: Mapping[str, Any]) -> Repetition:
        target = self.task.target
        return target.repetition.with_coefficients(**target.repetition_values(values))

    def _coefficients(self) -> dict[str, Any]:
        """The estimate, with a `draw` dim on what the draws move."""
        if self.draws is None:
            return dict(self.estimate)
        import xarray as xr

        table = self.task.parameters.table(self.usable_x())
        columns = dict(zip(self.task.parameters.names, table.T, strict=True))
        return {
            name: xr.DataArray(column, dims="draw") if np.any(column != column[0]) else self.estimate[name]
            for name, column in columns.items()
        }

    def usable_x(self) -> np.ndarray:
        """The draws that converged, in x: (draws, p); the estimate alone without draws."""
        return self.optimum.x[None] if self.draws is None else self.draws.x[self.draws.usable]

    def _percentiles(self, level: float) -> np.ndarray:
        if self.draws is None:
            raise InputError("interval: there are no draws; fit with fit.draws=1000 or choose method=normal")
        ends = percentiles(self.usable_x(), level)
        loose = self._loose()
        return np.where(loose[:, None], self._profiled(level, loose), ends) if loose.any() else ends

    def _loose(self) -> np.ndarray:
        """Entries whose interval only a profile tells, and which have one: (p,)."""
        verdict = np.array([word in LOOSE for word in self.identification.verdict], bool)
        return verdict & self.profiles.done if self.profiles is not None else verdict & False

    def _profiled(self, level: float, which: np.ndarray | None = None) -> np.ndarray:
        """Profile ends in x of the entries `which` (all): (p, 2)."""
        found = self.profiles
        which = np.ones(len(self.optimum.x), bool) if which is None else which
        if found is not None and level == self.level and found.done[which].all():
            return found.interval
        more = {
            "scale": None if found is None else (found.scale, found.freedom),
            "starts": self.optimum.others,
            "which": which,
        }
        return profile(self.task, self.optimum.x, self.objective, self.local, level, **more).interval

    def _normal(self, level: float) -> np.ndarray:
        reach = student(self.task, level) * self.local.error
        return np.stack([self.optimum.x - reach, self.optimum.x + reach], axis=1)


def data_range(runs: xr.Dataset) -> dict[str, tuple[float, float]]:
    """(lowest, highest) of the quantities of runs that plans are made of."""
    names = ("total_params", "active_params", "tokens", "unique_tokens", "compute", "sparsity", "experts", "epochs")
    return {n: (float(runs[n].min()), float(runs[n].max())) for n in names if n in runs and np.isfinite(runs[n]).all()}


def check_level(level: Any) -> None:
    """InputError unless `level` is the level of an interval."""
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise InputError(f"fit.level={level!r}; it takes a share above 0 and below 1, e.g. 0.95")


def _warnings(result: Fit):
    task, status = result.task, result.optimum.status
    if status == AT_BOUND:
        x, box = result.optimum.x, task.parameters
        names = [n for j, n in enumerate(box.free) if x[j] <= box.lower[j] or x[j] >= box.upper[j]]
        yield f"at bound: {', '.join(f'{n} = {result.estimate[n]:.4g}' for n in names)}; the optimum lies at the edge"
    elif status != CONVERGED:
        yield f"the fit did not converge ({result.status}); more starts (fit.starts) or bounds may help"
    if result.share < 0.05 and len(result.optimum.ends.x) > 5:
        yield f"only {result.share:.0%} of the starts reached the best optimum: raise fit.starts to seek a better one"
    yield from result.identification.messages()
    if result.draws is not None and (share := solved_share(result.draws)) < 0.99:
        yield f"{1 - share:.1%} of the draws did not converge and are left out of the intervals (draw_status)"
    if result.profiles is not None and result.profiles.lowest < result.objective * (1 - 1e-6) - 1e-20:
        yield f"a profile found a lower objective ({result.profiles.lowest:.8g}): raise fit.starts and fit again"
    yield from _outliers(result)
    yield from checks.messages(result)


def _outliers(result: Fit):
    residual = result.task.residuals(result.optimum.x[None])[0]
    scale = 1.4826 * np.median(np.abs(residual - np.median(residual)))
    far = np.flatnonzero(np.abs(residual - np.median(residual)) > max(8.0 * scale, 1e-9))
    if len(far):
        kept = result.runs.isel(run=np.flatnonzero(~result.outside))
        rows = np.sort(kept["row"].values[result.task.order[far]])
        yield f"far off the law, more than 8 times the usual scatter: {listed(rows)}"
