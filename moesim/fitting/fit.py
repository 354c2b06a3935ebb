"""The fit of a law to runs: what is fitted, from where, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.bootstrap import Draws, bootstrap
from moesim.fitting.checkpoints import weighed
from moesim.fitting.identify import LOOSE, doubtful, identify
from moesim.fitting.judge import held_out
from moesim.fitting.model import Target, target_of
from moesim.fitting.objective import Objective, objective_of
from moesim.fitting.parameters import Parameters
from moesim.fitting.profile import Profile, along, profile
from moesim.fitting.result import Fit, check_level
from moesim.fitting.task import HOLDS, Optimum, Task, known_start, optimum
from moesim.fitting.uncertainty import Spread, spread
from moesim.settings import known
from moesim.variables import VARIABLES, check

if TYPE_CHECKING:
    import xarray as xr


def fit(
    law: Any,
    runs: Any = None,
    *,
    columns: Mapping[str, Any] | None = None,
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
    resample: str = "auto",
    profiles: bool = False,
    level: float = 0.95,
    holdout: Mapping[str, Any] | float | None = None,
    checkpoints: bool = False,
    seed: int = 0,
    **arrays: Any,
) -> Fit:
    """Fit a law, alone or wrapped by a repetition, to runs.

    Args:
        law: a Law, the name or file of one, a function registered with @law, or a planning model (law and repetition).
        runs: a Dataset from `load_runs`, or anything that `load_runs` takes, with `columns` as there; or, without it,
            variables by name as `arrays`: total_params=..., tokens=..., loss=....
        repetition: a Repetition, or the name or file of one; its coefficients are fitted together with the law's.
        objective: see `objective_of`; `delta` is where Huber turns linear, `above` belongs to asymmetric_huber_log.
        fixed: coefficient -> value that is not fitted.
        hold: `law` or `repetition`: fix all its coefficients at the values at hand.
        tied: coefficient -> the coefficient whose value it shares.
        prior: coefficient -> {mean, sd} of a normal prior; it weighs against runs of the scatter that the fit leaves.
        bounds: coefficient -> [lowest, highest], null for none.
        start: values of all free coefficients where one more start is made; with starts=0 the only one.
        starts: how many of 16 times as many random points in the typical ranges are followed to their optimum, see
            `moesim.fitting.starts`.
        draws: bootstrap refits, 0 for none; `resample` auto, wild, pairs (of whole groups of runs) or residual: see
            `moesim.fitting.bootstrap`.
        profiles: whether to work out profile intervals at `level`.
        holdout: runs kept out of the fit and predicted: a share (of largest compute), or see `held_out`.
        checkpoints: whether the rows of a group are checkpoints of one run, which then weigh as many independent rows
            as their autocorrelation leaves: see `moesim.fitting.checkpoints`.
        seed: of every random number.

    Raises InputError for bad input; a fit that did not converge, or coefficients that the runs do not determine, are
    said in `status`, `identification` and `warnings`.
    """
    settings = {name: value for name, value in locals().items() if name not in _GIVEN}
    target, table = target_of(law, repetition), _runs(runs, columns, arrays)
    _check_counts(starts=starts, draws=draws, seed=seed)
    check_level(level)
    if checkpoints:
        table = weighed(fit(target, table, **{**settings, "checkpoints": False, "draws": 0, "profiles": False}))
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3)]
    outside = held_out(table, holdout, streams[2])
    task, best = _solved(posed(target, table, outside, settings), starts, streams[0], start)
    local = spread(task, best.x)
    sampled, profiled = _spread_out(task, best, local, settings, streams[1])
    return Fit(task, best, local, table, outside, level, sampled, profiled, settings)


def _spread_out(
    task: Task, best: Optimum, local: Spread, settings: Mapping[str, Any], rng: np.random.Generator
) -> tuple[Draws | None, Profile | None]:
    """Draws and profiles; with draws, doubtful entries are profiled in any case, and draws spread along loose ones."""
    x, resample = best.x, settings["resample"]
    sampled = bootstrap(task, x, settings["draws"], resample, rng) if settings["draws"] and len(x) else None
    if not len(x) or (sampled is None and not settings["profiles"]):
        return sampled, None
    which = np.ones(len(x), bool)
    if sampled is not None and not settings["profiles"]:
        which = doubtful(task, x, local, sampled.x[sampled.usable])
        if not which.any():
            return sampled, None
    found = profile(
        task, x, best.objective, local, settings["level"], which=which, starts=best.others, seed=settings["seed"]
    )
    if sampled is None:
        return None, found
    verdict = identify(task, x, local, sampled.x[sampled.usable], found).verdict
    loose = [j for j, word in enumerate(verdict) if word in LOOSE and found.done[j]]
    return along(task, x, sampled, found, np.array(loose, int), resample, rng), found


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
                raise InputError(f"fit.start: no value for {name!r}; it takes {', '.join(task.parameters.free)}")
        specs = task.target.coefficients
        point = task.parameters.x_of(
            {n: check("fit.start", n, start[n], specs[n].domain) for n in task.parameters.free}
        )
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
            raise InputError(f"fit.hold={hold}: no value at hand for {name!r}; give fit.fixed={{{name}: NUMBER}}")
    limits = {
        name: value
        for name, value in target.known.items()
        if np.isinf(value) and name not in names and name not in (tied or {})
    }
    return {**limits, **{name: target.known[name] for name in names if name in target.known}, **dict(fixed or {})}


_GIVEN = ("law", "runs", "columns", "repetition", "arrays")


def _runs(runs: Any, columns: Mapping[str, Any] | None, arrays: Mapping[str, Any]) -> xr.Dataset:
    import xarray as xr

    from moesim.fitting.runs import load_runs

    for name in arrays:
        if name not in VARIABLES or runs is not None:
            takes = known([*(fit.__kwdefaults__ or ()), *(VARIABLES if runs is None else ())], name)
            raise InputError(f"fit: unknown argument {name!r}; {takes}")
    if runs is None and not arrays:
        raise InputError("fit: no runs; give a table, or variables by name (total_params=..., tokens=..., loss=...)")
    if isinstance(runs, xr.Dataset) and not columns and _loaded(runs):
        return runs
    return load_runs(arrays or runs, columns)


def _loaded(runs: xr.Dataset) -> bool:
    """Whether a Dataset is one of `load_runs`."""
    return {*runs.dims} == {"run"} and {"loss", "row"} <= {*runs.variables}


def _check_counts(**counts: Any) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise InputError(f"fit.{name}={value!r}; it takes a whole number of 0 or more")
