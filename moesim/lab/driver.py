"""`moesim lab`, and `moesim.lab.run` for Python: a grid of small models to a table of runs, their loads and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from itertools import product
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.lab.compared import frame
from moesim.lab.corpus import corpora
from moesim.lab.grid import KEPT, trained
from moesim.lab.job import HEAD_DIM, Job, Shape
from moesim.numerics.axes import axis
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.output.store import open_result
from moesim.output.text import aligned
from moesim.settings import truth, whole
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

# Mappings whose keys are the user's own.
OPEN: tuple[str, ...] = ()
# Keys that take lists and ranges.
AXES: tuple[str, ...] = (
    *("sizes", "experts", "ffn_multiple", "unique_tokens", "weight_decay", "learning_rate", "balancing", "probes"),
)
_ALIKE = ("corpus", "tokens", "batch", "cooldown", "attention_scale", "decay_embedding")
_NOT_ASKED = ("workers",)  # changes nothing in what comes out


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/lab.yaml` asks for: runs, the loads of their experts, the runs as a table, figures; or estimates."""
    from moesim.lab import figures, probed, tables

    if config["calibrate"]:
        return _calibrated(config)
    if config["reality"]:
        return _judged(config)
    if config["kept"]:
        runs = _signed(kept(config["kept"]), config)
        drawn = figures.draw(runs) if config["figures"] else {}
        return Result(runs, tables.table(runs), file="lab.nc", figures=drawn, texts={"runs.csv": as_csv(runs)})
    asked = {name: config[name] for name in signature(lab).parameters}
    data = trained(jobs_of(asked), asked["workers"])
    runs, experts, tried = (_signed(made(data), config) for made in (runs_of, loads_of, probes_of))
    drawn = figures.draw(runs, experts) | probed.draw(tried, experts) if config["figures"] else {}
    texts = {"runs.csv": as_csv(runs)}
    beside = {name: part for name, part in {"loads.nc": experts, "probes.nc": tried}.items() if part.sizes}
    table = "\n".join([tables.table(runs), *probed.tables(tried)])
    return Result(runs, table, file="lab.nc", figures=drawn, texts=texts, beside=beside)


def kept(source: Any) -> xr.Dataset:
    """The runs of all trajectories in a folder, or of a table (`lab_text`, `lab_synthetic`, a `runs.csv`, a .nc).

    A folder may hold several grids and corpora, so the losses by domain are left out. Raises InputError for a folder
    without trajectories and for what `load_runs` refuses.
    """
    from moesim.fitting.runs import load_runs

    if not Path(str(source)).is_dir():
        return load_runs(source)
    paths = sorted(Path(source).glob("*.nc"))
    if not paths:
        raise InputError(f"lab: no trajectories in {source}; give a folder like {KEPT}")
    return runs_of([open_result(path).drop_dims("domain") for path in paths])


def as_csv(runs: xr.Dataset) -> str:
    """The rows of runs as the text of a table that `load_runs` reads, in ten digits; `repeats`: the arm if they do."""
    rows = frame(runs)
    rows = rows.assign(repeats=rows.arm.where(np.isfinite(rows.pool), "none"))
    rows = rows.drop(columns=["pool", "row"], errors="ignore")
    return rows.to_csv(index=False, float_format="%.10g", lineterminator="\n")


def _calibrated(config: Mapping[str, Any]) -> Result:
    from moesim.lab.estimates import as_dataset, calibrate, recorded, told
    from moesim.lab.simulated import files_of

    loads_read = recorded(str(config["calibrate"]))
    found = calibrate(loads_read, kept(config["kept"]) if config["kept"] else None)
    data, texts = signed(as_dataset(found), "lab", config), files_of(loads_read, found)
    drawn = _drawn(loads_read) if config["figures"] and {*_TOLD} <= {*map(str, loads_read.variables)} else {}
    return Result(data, aligned(told(found)), file="calibration.nc", figures=drawn, texts=texts)


def _drawn(recorded: xr.Dataset) -> dict[str, Figure]:
    """The figures of loads, and of what was probed beside."""
    from moesim.lab import figures, probed

    return {"loads": figures.loads_by_time(recorded)} | probed.draw(recorded, recorded)


def _judged(config: Mapping[str, Any]) -> Result:
    from moesim.lab import reality
    from moesim.lab.estimates import recorded

    found = signed(reality.reality(recorded(str(config["reality"]))), "lab", config)
    drawn = {"reality": reality.draw(found)} if config["figures"] else {}
    return Result(found, reality.table(found), file="reality.nc", figures=drawn)


def keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are taken where a file lacks them: those of the corpus that is chosen."""
    chosen = str((config.get("corpus") or {}).get("policy"))
    return {"corpus": {"policy": chosen, **corpora[chosen].takes} if chosen in corpora else {}}


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    if config["calibrate"]:
        others = (*signature(lab).parameters, "reality")
        return dict.fromkeys(others, "with calibrate, which trains nothing")
    if config["reality"]:
        return dict.fromkeys((*signature(lab).parameters, "kept"), "with reality, which trains nothing")
    if config["kept"]:
        return dict.fromkeys(signature(lab).parameters, "with kept, which trains nothing")
    if max(_listed("experts", config)) == 1:
        return dict.fromkeys(
            ("active_experts", "always_on", "balancing", "balancing_rate", "decay_by_load", "probes"), "without experts"
        )
    return {"balancing_rate": "with balancing=none"} if {*map(str, _kinds(config))} == {"none"} else {}


def lab(
    corpus: Any = "synthetic",
    *,
    sizes: Sequence[Any] = ((32, 2),),
    experts: Any = (1, 8),
    active_experts: int = 1,
    ffn_multiple: Any = 1,
    always_on: bool = True,
    unique_tokens: Any = (2**15, 2**17, inf),
    tokens: int = 2**20,
    weight_decay: Any = 0.1,
    decay_by_load: bool = False,
    learning_rate: Any = 0.01,
    balancing: Any = "loss_free",
    balancing_rate: float | None = None,
    batch: int = 2048,
    cooldown: float = 0.0,
    attention_scale: float = HEAD_DIM**-0.5,
    decay_embedding: bool = True,
    probes: Any = (),
    seeds: Any = 1,
    workers: int = 2,
) -> xr.Dataset:
    """Train small models over every combination and give their runs: a Dataset with the dim `run` that `fit` reads.

    `corpus`: a name, or a mapping of `policy` and options (see `moesim.lab.corpus`). `sizes`: (d_model, layers) each,
    or d_model alone (two layers); `balancing`: one way or a list; `experts`: of each Mixture of Experts, 1 for the
    dense model; `ffn_multiple`: of the dense models, how many times as wide the feed-forward part is; `always_on` adds
    for each Mixture the dense model with all its experts always on. `unique_tokens`: of each pool, inf for fresh;
    `tokens`: of each run, which is measured after each halving on its way
    too. `seeds`: how many, or a list. Trajectories that were trained before are taken from
    `outputs/lab/trajectories`. `cooldown`: the last share of a run over which the learning rate falls to zero, in place
    of averaged weights; then only the end is measured. `attention_scale`: of the products of queries and keys, see
    `moesim.lab.job.Job`; `decay_embedding`: whether it decays like the rest. `probes`: what is tried on each Mixture at
    its end (see `moesim.lab.probe`), for `moesim.lab.probes`. One row for each run and mark; beside the variables of
    the table `loss_se` (over validation windows: other documents differ by more), `loss_last` (of the last weights, on
    the first 512 of these windows only, so no measure of averaging), `loss_seen` (on what was trained on) and
    `domain_loss` (run, domain). Raises InputError without PyTorch and for what is out of range.
    """
    config = dict(locals())
    return _signed(runs_of(trained(jobs_of(config), workers)), config)


def loads(**config: Any) -> xr.Dataset:
    """The loads of the Mixtures of Experts of the same grid: dims trajectory, window, layer, domain, expert.

    It takes what `run` takes, and trains nothing that `run` has trained.
    """
    given = {name: p.default for name, p in signature(lab).parameters.items()} | config
    return _signed(loads_of(trained(jobs_of(given), given["workers"])), given)


def probes(**config: Any) -> xr.Dataset:
    """What was tried on the Mixtures of Experts of the same grid: dims trajectory and those of each probe."""
    given = {name: p.default for name, p in signature(lab).parameters.items()} | config
    return _signed(probes_of(trained(jobs_of(given), given["workers"])), given)


def _signed(dataset: xr.Dataset, config: Mapping[str, Any]) -> xr.Dataset:
    return signed(dataset, "lab", {name: value for name, value in config.items() if name not in _NOT_ASKED})


def jobs_of(config: Mapping[str, Any]) -> list[Job]:
    """Every combination, shapes innermost so that what is compared stands together."""
    shapes = [shape for size in _sizes(config["sizes"]) for shape in _shapes(*size, config)]
    axes = (_listed(name, config) for name in ("learning_rate", "weight_decay", "unique_tokens"))
    alike = {name: config[name] for name in _ALIKE}
    jobs = [
        Job(shape=shape, seed=seed, learning_rate=rate, weight_decay=decay, unique_tokens=unique, **alike, **own)
        for seed, rate, decay, unique in product(_seeds(config["seeds"]), *axes)
        for shape in shapes
        for own in _of_experts(config, shape)
    ]
    same = [replace(job, unique_tokens=inf) if job.unique_tokens >= job.tokens else job for job in jobs]
    return [*{job.name: job for job in same}.values()]


def _of_experts(config: Mapping[str, Any], shape: Shape) -> list[dict[str, Any]]:
    """What is chosen for experts alone, for each way to balance them; nothing of it makes another dense model."""
    if shape.experts == 1:
        return [{}]
    alike = {name: config[name] for name in ("balancing_rate", "decay_by_load", "probes")}
    return [{"balancing": kind, **alike} for kind in _kinds(config)]


def _kinds(config: Mapping[str, Any]) -> list[Any]:
    """The ways to balance."""
    value = config["balancing"]
    return list(value) if isinstance(value, list | tuple) and value else [value]


def _sizes(sizes: Any) -> list[tuple[Any, Any]]:
    """(d_model, layers) of sizes as they are written: pairs, mappings, or d_model alone for two layers."""
    one = isinstance(sizes, Mapping) or np.ndim(sizes) == 0
    found = [_size(size) for size in ([sizes] if one else sizes)]
    if not found:
        raise InputError(f"lab: sizes={sizes!r}; {_SIZE}")
    return found


_SIZE = "it takes a list of sizes, each [d_model, layers], {d_model: 32, layers: 2}, or d_model alone for two layers"


def _size(size: Any) -> tuple[Any, Any]:
    if isinstance(size, Mapping):
        parts = [size[name] for name in ("d_model", "d", "layers") if name in size]
        parts += [None] * (len(parts) < len(size))  # a name that means nothing
    else:
        parts = [size, 2] if np.ndim(size) == 0 else list(size)
    if len(parts) != 2 or any(isinstance(part, str) or part is None for part in parts):
        raise InputError(f"lab: sizes has {size!r}; {_SIZE}")
    return parts[0], parts[1]


def _shapes(width: Any, layers: Any, config: Mapping[str, Any]) -> list[Shape]:
    active, experts = config["active_experts"], [whole()("lab", "experts", e) for e in _listed("experts", config)]
    moe = [Shape(width, layers, e, active) for e in experts if e > 1]
    wide = _listed("ffn_multiple", config) if 1 in experts else []
    wide += [_always_on(shape) for shape in moe if truth("lab", "always_on", config["always_on"])]
    dense = [Shape(width, layers, ffn_multiple=multiple) for multiple in wide]
    return [*dict.fromkeys(dense), *moe]


def _listed(name: str, config: Mapping[str, Any]) -> list[Any]:
    return np.atleast_1d(axis(name, config[name])).tolist()


def _always_on(shape: Shape) -> int:
    """How many times as wide as the active part all experts are together."""
    times, rest = divmod(shape.experts, shape.active_experts)
    if rest:
        raise InputError(
            f"lab: experts={shape.experts} with all on is no whole number of active_experts={shape.active_experts}; "
            "give always_on=false, or experts that are"
        )
    return times


def _seeds(value: Any) -> list[int]:
    """How many, from 0 on, or those of a list."""
    if isinstance(value, Mapping) or np.ndim(value):
        return [whole(0)("lab", "seeds", seed) for seed in _listed("seeds", {"seeds": value})]
    return list(range(whole()("lab", "seeds", value)))


def runs_of(trajectories: Sequence[xr.Dataset]) -> xr.Dataset:
    """The rows of all trajectories along `run`."""
    import xarray as xr

    scalars = dict.fromkeys(name for each in trajectories for name, v in each.variables.items() if not v.dims)
    parts = []
    for each in trajectories:
        rows = each.drop_dims({*each.dims} - {"mark", "domain"}).rename(mark="run")
        told = {name: each[name].values[()] if name in each else np.nan for name in scalars}  # some came later
        along = {name: ("run", np.full(rows.sizes["run"], value)) for name, value in told.items()}
        parts.append(rows.drop_attrs().drop_encoding().assign(along))
    whole: Any = xr.concat(parts, "run", data_vars="all", coords="minimal", compat="override", join="exact")
    return stamp(whole)


_TOLD = ("arm", "seed", "weight_decay", "balancing", "balancing_rate", "corpus", "hash", "active_experts", "batch")
_SIZES = ("active_params", "total_params", "d_model", "layers")


def loads_of(trajectories: Sequence[xr.Dataset]) -> xr.Dataset:
    """Loads along `trajectory`, and their losses along `tokens`; experts that a model does not have are NaN."""
    moe = [each for each in trajectories if each.sizes["expert"] > 1]
    told = [each.rename(mark="tokens").set_index(tokens="tokens") if "mark" in each.dims else each for each in moe]
    parts = [each[["loads", "loss", "domain_loss", *_TOLD, *_SIZES]] for each in told]
    return _along([part.assign(loads=part["loads"].astype(float)) for part in parts], moe)


def probes_of(trajectories: Sequence[xr.Dataset]) -> xr.Dataset:
    """What probes found along `trajectory`; empty where nothing was tried."""
    tried = [each for each in trajectories if each.attrs.get("probed")]
    return _along([each[[*each.attrs["probed"].split(), *_TOLD]] for each in tried], tried)


def _along(parts: Sequence[xr.Dataset], trajectories: Sequence[xr.Dataset]) -> xr.Dataset:
    import xarray as xr

    named = [
        part.assign_coords(trajectory=each["trajectory"].values[()]).drop_attrs().expand_dims("trajectory")
        for part, each in zip(parts, trajectories, strict=True)
    ]
    if not named:
        return xr.Dataset()
    whole: Any = xr.concat(named, "trajectory", join="outer", data_vars="all", coords="minimal", compat="override")
    return stamp(whole)
