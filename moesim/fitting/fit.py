"""The fit of a law to runs: the estimate, how sure it is, and what the runs cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.identify import Identification, identify, student
from moesim.fitting.judge import held_out, information, scores
from moesim.fitting.model import Target, target_of
from moesim.fitting.objective import Objective, objective_of
from moesim.fitting.parameters import Parameters
from moesim.fitting.solve import AT_BOUND, CONVERGED, STATUSES
from moesim.fitting.task import HOLDS, Optimum, Task, inputs_of, known_start, optimum
from moesim.fitting.uncertainty import Draws, Profile, Spread, bootstrap, profile, solved_share, spread
from moesim.laws import Law, Repetition
from moesim.variables import check

if TYPE_CHECKING:
    import xarray as xr

INTERVALS = ("bootstrap", "profile", "normal")


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
        return identify(self.task, self.optimum.x, self.local, self._usable_x(), self.profiles)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person must know before using the fit, a line each."""
        return tuple(_warnings(self))

    def interval(self, level: float | None = None, method: str | None = None) -> dict[str, tuple[float, float]]:
        """(low, high) of every free coefficient.

        `method`: bootstrap (percentiles of the draws; the default if there are any), profile, or normal (from the
        covariance, along the transformed coefficient, with Student's t).
        """
        level = self.level if level is None else level
        _check_level(level)
        method = method or ("bootstrap" if self.draws is not None else "normal")
        if method not in INTERVALS:
            raise InputError(f"interval: method={method!r}; it takes {', '.join(INTERVALS)}")
        ends = {"bootstrap": self._percentiles, "profile": self._profiled, "normal": self._normal}[method](level)
        move = self.task.parameters.transforms
        with np.errstate(over="ignore"):
            pairs = [(float(m.forward(low)), float(m.forward(high))) for m, (low, high) in zip(move, ends, strict=True)]
        return dict(zip(self.task.parameters.free, pairs, strict=True))

    def predict(self, runs: Any, level: float | None = None, seed: int = 0) -> xr.Dataset:
        """Loss of given runs (a Dataset or mapping of the law's inputs): `loss(run)` and, if there are draws,
        `confidence(run, bound)` of the law and `prediction(run, bound)` of a further run, its scatter included."""
        import xarray as xr

        level = self.level if level is None else level
        columns = {} if isinstance(runs, xr.Dataset) else {n: ("run", np.atleast_1d(v)) for n, v in runs.items()}
        data = runs if isinstance(runs, xr.Dataset) else xr.Dataset(columns)
        at = self.task.target.at(inputs_of(self.task.target, data))
        out = xr.Dataset({"loss": ("run", _losses(self.task, at, self.optimum.x[None])[0])})
        if self.draws is None:
            return out
        lines = _losses(self.task, at, self._usable_x())
        ends = [0.5 - level / 2, 0.5 + level / 2]
        rng = np.random.default_rng(seed)
        noise = rng.choice(self._centred(), lines.shape)
        further = lines * np.exp(-noise) if self.task.objective.log else lines - noise
        out["confidence"] = (("run", "bound"), np.quantile(lines, ends, axis=0).T)
        out["prediction"] = (("run", "bound"), np.quantile(further, ends, axis=0).T)
        return out.assign_coords(bound=["low", "high"])

    def to_dataset(self) -> xr.Dataset:
        """Everything of the fit as one Dataset; see `moesim.fitting.record`."""
        from moesim.fitting.record import record

        return record(self)

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
        fitted = Law(f"{target.form.name}_fit", target.form, target.law_values(values), source, marking="fitted")
        definitions = {} if target.law is None else target.law.definitions
        return replace(fitted, definitions=definitions, data_range=data_range(self.runs.isel(run=~self.outside)))

    def _repetition(self, values: Mapping[str, Any]) -> Repetition:
        target = self.task.target
        return target.repetition.with_coefficients(**target.repetition_values(values))

    def _coefficients(self) -> dict[str, Any]:
        """The estimate, with a `draw` dim on what the draws move."""
        if self.draws is None:
            return dict(self.estimate)
        import xarray as xr

        table = self.task.parameters.table(self._usable_x())
        columns = dict(zip(self.task.parameters.names, table.T, strict=True))
        return {
            name: xr.DataArray(column, dims="draw") if np.ptp(column) > 0 else self.estimate[name]
            for name, column in columns.items()
        }

    def _usable_x(self) -> np.ndarray:
        return self.optimum.x[None] if self.draws is None else self.draws.x[self.draws.usable]

    def _centred(self) -> np.ndarray:
        residual = self.task.residuals(self.optimum.x[None])[0]
        free = len(residual) / max(len(residual) - len(self.optimum.x), 1)
        return (residual - np.average(residual, weights=self.task.weight)) * np.sqrt(free)

    def _percentiles(self, level: float) -> np.ndarray:
        if self.draws is None:
            raise InputError("interval: there are no draws; fit with draws=1000 or choose method=normal")
        return np.quantile(self._usable_x(), [0.5 - level / 2, 0.5 + level / 2], axis=0).T

    def _profiled(self, level: float) -> np.ndarray:
        found = self.profiles
        if found is None or level != self.level:
            found = profile(self.task, self.optimum.x, self.objective, self.local, level)
        return found.interval

    def _normal(self, level: float) -> np.ndarray:
        reach, box = student(self.task, level) * self.local.error, self.task.parameters
        x = self.optimum.x
        return np.clip(np.stack([x - reach, x + reach], axis=1), box.lower[:, None], box.upper[:, None])


def fit(
    law: Any,
    runs: Any,
    *,
    repetition: Any = "none",
    objective: str | Objective = "huber_log",
    delta: float = 1e-3,
    above: float = 0.3,
    fixed: Mapping[str, float] | None = None,
    hold: str = "none",
    tied: Mapping[str, str] | None = None,
    prior: Mapping[str, Any] | None = None,
    bounds: Mapping[str, Sequence[float | None]] | None = None,
    start: Mapping[str, float] | None = None,
    starts: int = 24,
    draws: int = 1000,
    resample: str = "pairs",
    profiles: bool = False,
    level: float = 0.95,
    holdout: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Fit:
    """Fit a law, alone or wrapped by a repetition, to runs.

    Args:
        law: a Law, the name or file of one, a function registered with @law, or a planning model (law and repetition).
        runs: a Dataset from `load_runs`, or anything that `load_runs` takes.
        repetition: a Repetition, or the name or file of one; its coefficients are fitted together with the law's.
        objective: see `objective_of`; `delta` is where Huber turns linear, `above` belongs to asymmetric_huber_log.
        fixed: coefficient -> value that is not fitted.
        hold: `law` or `repetition`: fix all its coefficients at the values at hand.
        tied: coefficient -> the coefficient whose value it shares.
        prior: coefficient -> {mean, sd} of a normal prior; it weighs against runs of the scatter that the fit leaves.
        bounds: coefficient -> [lowest, highest], null for none.
        start: values of all free coefficients where one more start is made; with starts=0 the only one.
        starts: how many of 64 times as many random points in the typical ranges are followed to their optimum.
        draws: bootstrap refits, 0 for none; `resample` pairs (whole groups of runs) or residual.
        profiles: whether to work out profile intervals at `level`.
        holdout: runs kept out of the fit and predicted, see `held_out`.
        seed: of every random number.

    Raises InputError for bad input; a fit that did not converge, or coefficients that the runs do not determine, are
    said in `status`, `identification` and `warnings`.
    """
    settings = {name: value for name, value in locals().items() if name not in ("law", "runs", "repetition")}
    target, table = target_of(law, repetition), _runs(runs)
    _check_counts(starts=starts, draws=draws, seed=seed)
    _check_level(level)
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3)]
    outside = held_out(table, holdout, streams[2])
    task, best = _solved(posed(target, table, outside, settings), starts, streams[0], start)
    local = spread(task, best.x)
    sampled = bootstrap(task, best.x, draws, resample, streams[1]) if draws and len(best.x) else None
    profiled = profile(task, best.x, best.objective, local, level) if profiles and len(best.x) else None
    return Fit(task, best, local, table, outside, level, sampled, profiled, settings)


def posed(target: Target, runs: xr.Dataset, outside: np.ndarray, settings: Mapping[str, Any]) -> Task:
    """What is minimised: the target on the runs that are not held out, with these arguments of `fit`."""
    tied = settings["tied"]
    parameters = Parameters.of(
        target.coefficients, _held(target, settings["hold"], settings["fixed"], tied), tied, settings["bounds"]
    )
    objective = objective_of(settings["objective"], settings["delta"], settings["above"])
    return Task.of(target, runs.isel(run=np.flatnonzero(~outside)), objective, parameters, settings["prior"])


def _solved(
    task: Task, starts: int, rng: np.random.Generator, start: Mapping[str, float] | None
) -> tuple[Task, Optimum]:
    """The optimum; with priors twice, since their weight comes from the scatter that the runs show without them."""
    given = known_start(task)
    if start is not None:
        for name in task.parameters.free:
            if name not in start:
                raise InputError(f"start: no value for {name!r}; it takes {', '.join(task.parameters.free)}")
        specs = task.target.coefficients
        point = task.parameters.x_of({n: check("start", n, start[n], specs[n].domain) for n in task.parameters.free})
        given = np.stack([point, *(given if given is not None and starts else [])])
    best = optimum(task, starts, rng, given)
    if task.prior:
        task = task.with_prior_scale(task.scale(best.x))
        best = optimum(task, starts, rng, np.concatenate([best.x[None], *([] if given is None else [given])]))
    return task, best


def _held(
    target: Target, hold: str, fixed: Mapping[str, float] | None, tied: Mapping[str, str] | None
) -> dict[str, float]:
    """The fixed coefficients: those given, and those of the part that is held."""
    if hold not in HOLDS:
        raise InputError(f"fit.hold={hold!r}; it takes {', '.join(HOLDS)}")
    names = {"none": (), "law": tuple(target.form.coefficients), "repetition": tuple(target.renamed.values())}[hold]
    names = tuple(name for name in names if name not in (tied or {}))
    for name in names:
        if name not in target.known and name not in (fixed or {}):
            raise InputError(f"fit.hold={hold}: no value at hand for {name!r}; give fixed={{{name}: NUMBER}}")
    limits = {
        name: value
        for name, value in target.known.items()
        if np.isinf(value) and name not in names and name not in (tied or {})
    }
    return {**limits, **{name: target.known[name] for name in names if name in target.known}, **dict(fixed or {})}


def _runs(runs: Any) -> xr.Dataset:
    import xarray as xr

    if isinstance(runs, xr.Dataset) and "run" in runs.dims and "loss" in runs and "row" in runs.coords:
        return runs
    from moesim.fitting.runs import load_runs

    return load_runs(runs)


def _losses(task: Task, at: Any, x: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        loss = at(task.parameters.values(x, derive=False))
    return np.broadcast_to(loss, (len(x), next(iter(at.runs.values())).size))


def data_range(runs: xr.Dataset) -> dict[str, tuple[float, float]]:
    """(lowest, highest) of the quantities of runs that plans are made of."""
    names = ("total_params", "active_params", "tokens", "unique_tokens", "compute", "sparsity", "experts", "epochs")
    return {n: (float(runs[n].min()), float(runs[n].max())) for n in names if n in runs and np.isfinite(runs[n]).all()}


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise InputError(f"fit.{name}={value!r}; it takes a whole number of 0 or more")


def _check_level(level: Any) -> None:
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise InputError(f"fit.level={level!r}; it takes a share above 0 and below 1, e.g. 0.95")


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
    return scores(result.predict(runs)["loss"].values, np.asarray(runs["loss"]))


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


def _outliers(result: Fit):
    residual = result.task.residuals(result.optimum.x[None])[0]
    scale = 1.4826 * np.median(np.abs(residual - np.median(residual)))
    far = np.flatnonzero(np.abs(residual - np.median(residual)) > max(8.0 * scale, 1e-9))
    if len(far):
        from moesim.fitting.runs import listed

        kept = result.runs.isel(run=np.flatnonzero(~result.outside))
        rows = np.sort(kept["row"].values[result.task.order[far]])
        yield f"far off the law, more than 8 times the usual scatter: {listed(rows)}"
