"""`moesim.plan`: the best run that a machine can make in a given time, and what another choice would cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.hardware.chip import PRECISIONS, Chip, chip_of, precision_bytes
from moesim.hardware.release import release_of
from moesim.laws.load import load_law
from moesim.numerics.axes import axis
from moesim.output.provenance import signed
from moesim.planning.budget import KINDS, Cluster, Gating, Serving, budget_of
from moesim.planning.describe import describe
from moesim.planning.formula import carried
from moesim.planning.isotime import SPREADS, Machine, Question, Run, best_run, ladder
from moesim.planning.model import Model
from moesim.planning.optimum import optimum
from moesim.planning.readings import READINGS
from moesim.settings import number, read, whole
from moesim.variables import AT_LEAST_ONE, POSITIVE_OR_INF, check

if TYPE_CHECKING:
    import xarray as xr

CHOICES = ("best", "dense", "sparser", "denser")
LAWS = ("abnar2025", "ludziejewski2025", "tian2025", "zhao2025")  # beside the law of the plan: do they agree?
RESOURCES = ("time", "data", "memory", "serving")
_MORE = 1.25  # times as much of a resource, to see which binds
_RUN = (
    "active_params",
    "total_params",
    "experts",
    "active_experts",
    "tokens",
    "epochs",
    "sparsity",
    "layers",
    "d_model",
)
_RUN += ("batch_tokens", "step_seconds", "mfu", "memory", "hours", "device_hours", "cost", "energy")


def plan(
    law: Any = "abnar2025",
    *,
    repetition: Any = None,
    architecture: Any = None,
    chip: Any = "h100",
    devices: Any = 1024,
    days: Any = None,
    device_hours: Any = None,
    cost: Any = None,
    compute: Any = None,
    date: Any = None,
    start: Any = None,
    unique_tokens: Any = np.inf,
    serving: Mapping[str, Any] | None = None,
    gating: Mapping[str, Any] | None = None,
    cluster: Mapping[str, Any] | None = None,
    domain: Any = None,
    precision: str = "bf16",
    release: str | None = None,
    imbalance: float = 1.0,
    laws: str | Sequence[str] = LAWS,
) -> xr.Dataset:
    """The run with the lowest loss that `devices` of a chip can make within a budget, and its rivals at equal time.

    `law` (a Model, a name, a Law or a fit, whose draws become a dim), `repetition` (muennighoff2023, or that of a Model
    or fit), `architecture` (of the form moe_transformer; fine_grained): as in `optimum`. One budget: `days` of the
    cluster (30 if none is given), `device_hours`, `cost` ($), `date` (YYYY-MM-DD, from `start` or today) or `compute`
    (FLOP). `serving`: tokens decoded later from the same
    budget (`Serving`); `gating`: what an imperfect router costs (`Gating`); `cluster`: what failures cost
    (`Cluster`); `domain`: devices that the fast link joins; `precision`, `release`, `imbalance` as in
    `step_time`; `laws` to compare with. Numbers of the budget, `devices` and `unique_tokens` may be axes. Variables
    along `choice` (best, dense, and the next sparser and denser): active_params, total_params, experts, tokens,
    epochs, step_seconds, mfu, memory, hours (wall-clock), device_hours, cost, energy; `loss` also along law, repetition
    and draw; `odds`: share of those under which a choice beats the best; `scan_*` along `sparsity`: the best run of
    each; `gain` along `resource`: how much lower the loss would be with a quarter more of it (`binds`: the largest).
    NaN: no such run fits, or no price.
    Raises InputError for contradictory budgets, unknown names, a law without tokens, and if nothing fits.
    """
    laws = [laws] if isinstance(laws, str) else laws
    budgets = {"days": days, "device_hours": device_hours, "cost": cost, "date": date, "compute": compute}
    swept = {"devices": devices, "domain": domain, "unique_tokens": unique_tokens, **budgets}
    axes = {name: axis(name, value) for name, value in swept.items() if _is_axis(value)}
    fixed = {name: value for name, value in swept.items() if name not in axes} | {"start": start}
    model = _model(law, repetition, architecture)
    if model.one_sided:
        raise InputError(f"plan: {model.one_sided}")
    common = {"precision": precision, "release": release, "imbalance": imbalance}
    groups = {"serving": serving or {}, "gating": gating or {}, "cluster": cluster or {}}
    machine = {"chip": chip_of(chip), **groups, **common}
    found = [
        _planned(_question(model, {**fixed, **at}, machine), laws).expand_dims({n: [v] for n, v in at.items()})
        for at in _points(axes)
    ]
    given = {"budget": {**budgets, "start": start}, "space": {"unique_tokens": unique_tokens}, "laws": list(laws)}
    groups["cluster"] = {**groups["cluster"], "devices": devices, "domain": domain}
    choices = {**model.config["choices"], "chip": chip if isinstance(chip, str) else "custom"}
    config = {**model.config, **given, **groups, **common, "chip": _keys(machine["chip"]), "choices": choices}
    return signed(_joined(found, axes).assign_attrs(carried(model)), "plan", config, **model.parts)


def _model(law: Any, repetition: Any, architecture: Any) -> Model:
    """The Model of a plan; a Model and a fit have parts of their own."""
    if isinstance(law, Model):
        return Model.of(law, repetition, architecture)
    own = getattr(law, "draws_law", None) is not None
    return Model.of(law, repetition or (None if own else "muennighoff2023"), architecture or "fine_grained")


def _is_axis(value: Any) -> bool:
    return isinstance(value, list | tuple | dict) or np.ndim(value) > 0


def _keys(chip: Chip) -> dict[str, Any]:
    """What a file of `conf/chip` would say of a chip: the numbers that are known."""
    return {name: value for name, value in vars(chip).items() if not (isinstance(value, float) and np.isnan(value))}


def _points(axes: Mapping[str, Any]) -> Iterator[dict[str, float]]:
    return (dict(zip(axes, map(float, values), strict=True)) for values in product(*axes.values()))


def _joined(found: list[xr.Dataset], axes: Mapping[str, Any]) -> xr.Dataset:
    import xarray as xr

    if not axes:
        return found[0]
    return xr.combine_by_coords(  # type: ignore[return-value]
        found, combine_attrs="override", join="outer", compat="no_conflicts", coords="minimal", data_vars="all"
    )


def _question(model: Model, at: Mapping[str, Any], machine: Mapping[str, Any]) -> Question:
    chip = machine["chip"]
    chip.require("flops", "memory", "memory_bandwidth", "scale_up", "scale_out")
    if np.isnan(chip.peak(precision_bytes(machine["precision"]))):
        raise InputError(
            f"plan: the chip has no peak in precision={machine['precision']!r}; it takes {_precisions(chip)}"
        )
    own = {"devices": whole()("plan", "devices", at["devices"]), "domain": at["domain"]}
    cluster = read(Cluster, "cluster", {**machine["cluster"], **own})
    chip = chip if cluster.domain is None else replace(chip, domain=cluster.domain)
    budget = budget_of({name: at.get(name) for name in (*KINDS, "start")}, chip, cluster.devices)
    unique = float(check("plan", "unique_tokens", at["unique_tokens"], POSITIVE_OR_INF))
    spread = number(AT_LEAST_ONE)("plan", "imbalance", machine["imbalance"])
    release_of(machine["release"])
    trains = Machine(chip, cluster, machine["precision"], machine["release"], spread)
    serving, gating = read(Serving, "serving", machine["serving"]), read(Gating, "gating", machine["gating"])
    return Question(model, trains, budget, unique, serving, gating)


def _precisions(chip: Any) -> str:
    return ", ".join(name for name, size in PRECISIONS.items() if np.isfinite(chip.peak(size)))


@dataclass(frozen=True)
class _Compared:
    """A law and a reading of repetition by name."""

    law: str
    repetition: str
    model: Model


def _planned(question: Question, laws: Sequence[str]) -> xr.Dataset:
    """The Dataset of one question."""
    import xarray as xr

    runs = ladder(question)
    chosen, best = choices(runs)
    told = {name: ("choice", [_value(question, run, name) for run in chosen.values()]) for name in _RUN}
    coords: dict[str, Any] = {"choice": list(CHOICES), "sparsity": [1.0 - 1.0 / spread for spread in SPREADS]}
    scan = {f"scan_{n}": ("sparsity", [_value(question, run, n) for run in runs.values()]) for n in (*_RUN, "loss")}
    del told["sparsity"], scan["scan_sparsity"]
    told["chosen_sparsity"] = ("choice", [np.nan if run is None else run.sparsity for run in chosen.values()])
    layouts = ["" if run is None else json.dumps(dict(run.step.layout)) for run in chosen.values()]
    gains = _gains(question, best)
    binds = RESOURCES[int(np.argmax(gains))]
    dataset = xr.Dataset({**told, **scan, "layout": ("choice", layouts)}, coords)
    dataset = dataset.assign(gain=("resource", gains), binds=((), binds)).assign_coords(resource=list(RESOURCES))
    dataset["equal_flop_sparsity"] = ((), _per_flop(question, best))
    dataset = dataset.assign({n: ("sparsity", v) for n, v in margins(question, runs, best).items()})
    dataset.attrs["guessing_loss"] = float(np.log(best.model.vocabulary))
    dataset["goodput"] = ((), question.machine.cluster.goodput)
    return dataset.merge(_losses(question, chosen, laws))


def choices(runs: Mapping[int, Run | None]) -> tuple[dict[str, Run | None], Run]:
    """Choice -> its run: the lowest loss, dense, the next higher and lower sparsity; and the best alone."""
    made = {spread: run for spread, run in runs.items() if run is not None}
    if not made:
        raise InputError(
            "plan: no model fits this machine, or serving leaves no time to train; give more devices or time"
        )
    spreads = list(runs)
    best = min(made, key=lambda spread: made[spread].loss)
    at = spreads.index(best)
    beside = [runs[spreads[i]] if 0 <= i < len(spreads) else None for i in (at + 1, at - 1)]
    return dict(zip(CHOICES, (made[best], runs[spreads[0]], *beside), strict=True)), made[best]


def _value(question: Question, run: Run | None, name: str) -> float:
    """A number of a run by the name of its variable; NaN where there is no run."""
    if run is None:
        return np.nan
    machine, model = question.machine, run.model
    hours = run.hours * machine.cluster.devices
    own = {
        "active_params": model.active_params,
        "total_params": model.total_params,
        "experts": max(model.experts, 1),
        "active_experts": max(model.active_experts, 1),
        "epochs": run.tokens / question.unique_tokens,
        "layers": model.layers,
        "batch_tokens": run.batch * question.sequence,
        "step_seconds": run.step.seconds,
        "mfu": run.step.mfu,
        "memory": run.step.memory,
        "device_hours": hours,
        "cost": hours * machine.chip.price,
        "energy": hours * machine.chip.watts_busy / 1e3,
    }
    return float(own[name] if name in own else getattr(run, name))


def _gains(question: Question, best: Run) -> list[float]:
    """How much lower the loss of the best run would be with a quarter more of each resource (less to serve)."""
    spread = round(1.0 / (1.0 - best.sparsity))
    chip = replace(question.machine.chip, memory=_MORE * question.machine.chip.memory)
    roomy = best_run(replace(question, machine=replace(question.machine, chip=chip)), spread)
    lighter = replace(question, serving=replace(question.serving, tokens=question.serving.tokens / _MORE))
    richer = replace(question, unique_tokens=_MORE * question.unique_tokens)
    losses = (
        question.losses(best.d_model, best.sparsity, _MORE * best.tokens),
        richer.losses(best.d_model, best.sparsity, best.tokens),
        best.loss if roomy is None else roomy.loss,
        question.losses(best.d_model, best.sparsity, lighter.tokens(best.d_model, best.sparsity, best.rate)),
    )
    return [max(best.loss - float(np.mean(loss)), 0.0) for loss in losses]


def _per_flop(question: Question, best: Run) -> float:
    """The best sparsity at the best run's FLOPs, whatever their time, within the ladder."""
    flops = float(question.model.architecture.describe(np.log(best.d_model), best.sparsity)["flops_per_token"])
    bounds = (0.0, 1.0 - 1.0 / SPREADS[-1])
    budget: dict[str, Any] = {"compute": best.tokens * flops, "unique_tokens": question.unique_tokens}
    found = optimum(question.model, best=True, sparsity_bounds=bounds, **budget)
    return float(found.best_sparsity.mean())


def margins(question: Question, runs: Mapping[int, Run | None], best: Run) -> dict[str, np.ndarray]:
    """How imperfect the gating of each sparsity may be before the dense model is as good.

    `margin_time`, `margin_flops`: nat/token at equal time, and at the best run's FLOPs; `margin_experts`: share of the
    experts that must be effective, at equal time (NaN where not even all are enough).
    """
    dense, spreads = runs[SPREADS[0]], list(runs)
    flops = float(question.model.architecture.describe(np.log(best.d_model), best.sparsity)["flops_per_token"])
    at: dict[str, Any] = {"compute": best.tokens * flops, "unique_tokens": question.unique_tokens}
    equal = optimum(question.model, sparsity=[1.0 - 1.0 / spread for spread in spreads], best=False, **at)
    losses = equal.optimal_loss if "draw" not in equal.dims else equal.optimal_loss.mean("draw")
    target = np.nan if dense is None else dense.loss
    time = np.array([np.nan if run is None else target - run.loss for run in runs.values()])
    shares = [_share(question, run, target) for run in runs.values()]
    flat = losses.transpose("sparsity").values
    return {"margin_time": time, "margin_flops": flat[0] - flat, "margin_experts": np.array(shares)}


def _share(question: Question, run: Run | None, target: float) -> float:
    """The least share of the experts, effective, at which a sparse run is still as good as `target`."""
    if run is None or run.sparsity == 0 or not run.loss <= target:
        return np.nan
    shares = np.geomspace(1.0 - run.sparsity, 1.0, 65)
    perfect = replace(question, gating=replace(question.gating, effective=1.0))
    left = np.maximum(1.0 - (1.0 - run.sparsity) / (shares * question.gating.effective), 0.0)
    losses = perfect.losses(np.full(65, run.d_model), left, np.full(65, run.tokens)).mean(axis=1)
    return float(shares[int(np.argmax(losses <= target))])


def _losses(question: Question, chosen: Mapping[str, Run | None], laws: Sequence[str]) -> xr.Dataset:
    """Loss, and whose data it lies outside of, along choice, law, repetition and draw; the odds of each choice."""
    import xarray as xr

    compared = list(_compared(question, laws))
    names = [list(dict.fromkeys(getattr(one, kind) for one in compared)) for kind in ("law", "repetition")]
    values = [[_of_run(question, run, one.model) for run in chosen.values()] for one in compared]
    draws = max(loss.size for row in values for loss, _ in row)
    losses = np.array([[np.broadcast_to(loss, draws) for loss, _ in row] for row in values])
    outside = np.array([[flag for _, flag in row] for row in values])
    shape = (len(names[0]), len(names[1]), len(CHOICES))
    loss = xr.DataArray(losses.reshape(*shape, draws), dims=("law", "repetition", "choice", "draw"))
    better = (loss < loss.isel(choice=0)).where(loss.notnull() & loss.isel(choice=0).notnull())
    dataset = xr.Dataset({"loss": loss, "odds": better.mean(("law", "repetition", "draw"))})
    dataset["extrapolated_by"] = (("law", "repetition", "choice"), outside.reshape(shape))
    coords = {"law": names[0], "repetition": names[1], "choice": list(CHOICES), "draw": np.arange(draws)}
    return dataset.assign_coords(coords).transpose("choice", ...)


def _compared(question: Question, laws: Sequence[str]) -> Iterator[_Compared]:
    """The plan's law first, then others, each under the plan's repetition and, where data are finite, both readings."""
    own = question.model
    others = {own.law.name: own.law, **{name: load_law(name) for name in laws if name != own.law.name}}
    readings = {own.repetition.name: {}}
    if np.isfinite(question.unique_tokens) and own.repetition.needs_taught_params:
        readings |= READINGS
    for (name, law), (reading, how) in product(others.items(), readings.items()):
        yield _Compared(name, reading, Model(law, replace(own.repetition, **how), own.architecture))


def _of_run(question: Question, run: Run | None, model: Model) -> tuple[np.ndarray, int]:
    """Losses (draw,) of a run by a model, and the sum of what it lies outside of."""
    if run is None:
        return np.array([np.nan]), 0
    loss = question.losses(run.d_model, run.sparsity, run.tokens, model)[0]
    cell = {"sparsity": run.sparsity, "unique_tokens": question.unique_tokens, "tokens": run.tokens}
    cell = {name: np.array([value]) for name, value in cell.items()}
    cell = model.with_taught_params(cell | {name: np.asarray(value) for name, value in model.varying().items()})
    with np.errstate(all="ignore"):
        at = describe(model, np.array([np.log(run.d_model)]), cell)
    return loss, int(np.max(at["extrapolated_by"]))
