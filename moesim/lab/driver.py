"""`moesim lab`, and `moesim.lab.run` for Python: a grid of small models to a table of runs, their loads and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from moesim.lab.job import Job, Shape
from moesim.numerics.axes import axis
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.output.store import open_result
from moesim.output.text import aligned
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr

# Mappings whose keys are the user's own.
OPEN: tuple[str, ...] = ()
# Keys that take lists and ranges.
AXES: tuple[str, ...] = ("experts", "ffn_multiple", "unique_tokens", "weight_decay", "learning_rate")
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

    loads = recorded(config["calibrate"])
    found = calibrate(loads)
    data, texts = signed(as_dataset(found), "lab", config), files_of(loads, found)
    return Result(data, aligned(told(found)), file="calibration.nc", texts=texts)


def _judged(config: Mapping[str, Any]) -> Result:
    from moesim.lab import reality
    from moesim.lab.estimates import recorded

    found = signed(reality.reality(recorded(config["reality"])), "lab", config)
    drawn = {"reality": reality.draw(found)} if config["figures"] else {}
    return Result(found, reality.table(found), file="reality.nc", figures=drawn)


def keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are taken where a file lacks them: those of the corpus that is chosen."""
    chosen = str((config.get("corpus") or {}).get("policy"))
    return {"corpus": {"policy": chosen, **corpora[chosen].takes} if chosen in corpora else {}}


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    if config["calibrate"]:
        others = (*signature(lab).parameters, "kept", "reality", "figures")
        return dict.fromkeys(others, "with calibrate, which trains nothing")
    if config["reality"]:
        return dict.fromkeys((*signature(lab).parameters, "kept"), "with reality, which trains nothing")
    if config["kept"]:
        return dict.fromkeys(signature(lab).parameters, "with kept, which trains nothing")
    if max(_listed("experts", config)) == 1:
        return dict.fromkeys(
            ("active_experts", "always_on", "balancing", "balancing_rate", "probes"), "without experts"
        )
    return {"balancing_rate": "with balancing=none"} if config["balancing"] == "none" else {}


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
    balancing: str = "loss_free",
    balancing_rate: float | None = None,
    batch: int = 2048,
    cooldown: float = 0.0,
    probes: Any = (),
    seeds: Any = 1,
    workers: int = 2,
) -> xr.Dataset:
    """Train small models over every combination and give their runs: a Dataset with the dim `run` that `fit` reads.

    `corpus`: a name, or a mapping of `policy` and options (see `moesim.lab.corpus`). `sizes`: (d_model, layers) each;
    `experts`: of each Mixture of Experts, 1 for the dense model; `ffn_multiple`: of the dense models, how many times as
    wide the feed-forward part is; `always_on` adds for each Mixture the dense model with all its experts always on.
    `unique_tokens`: of each pool, inf for fresh; `tokens`: of each run, which is measured after each halving on its way
    too. `seeds`: how many, or a list. Trajectories that were trained before are taken from
    `outputs/lab/trajectories`. `cooldown`: the last share of a run over which the learning rate falls to zero, in place
    of averaged weights; then only the end is measured. `probes`: what is tried on each Mixture at its end (see
    `moesim.lab.probe`), for `moesim.lab.probes`. One row for each run and mark; beside the variables of the table
    `loss_se` (over validation windows), `loss_last` (of the last weights), `loss_seen` (on what was trained on) and
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
    shapes = [shape for size in config["sizes"] for shape in _shapes(size, config)]
    axes = (_listed(name, config) for name in ("learning_rate", "weight_decay", "unique_tokens"))
    alike = {
        name: config[name]
        for name in ("corpus", "tokens", "decay_by_load", "balancing", "balancing_rate", "batch", "cooldown")
    }
    tried = {True: config["probes"], False: ()}  # a dense model has no experts to try anything on
    return [
        Job(
            shape=shape,
            seed=int(seed),
            learning_rate=rate,
            weight_decay=decay,
            unique_tokens=unique,
            probes=tried[shape.experts > 1],
            **alike,
        )
        for seed, rate, decay, unique in product(_seeds(config["seeds"]), *axes)
        for shape in shapes
    ]


def _shapes(size: Any, config: Mapping[str, Any]) -> list[Shape]:
    width, layers = (size["d_model"], size["layers"]) if isinstance(size, Mapping) else size
    active, experts = config["active_experts"], [int(e) for e in _listed("experts", config)]
    moe = [Shape(width, layers, e, active) for e in experts if e > 1]
    wide = [int(multiple) for multiple in _listed("ffn_multiple", config)] if 1 in experts else []
    wide += [shape.experts // active for shape in moe if config["always_on"]]
    dense = [Shape(width, layers, ffn_multiple=multiple) for multiple in dict.fromkeys(wide)]
    return dense + moe


def _listed(name: str, config: Mapping[str, Any]) -> list[float]:
    return np.atleast_1d(axis(name, config[name])).tolist()


def _seeds(value: Any) -> list[int]:
    if isinstance(value, int) and value < 1:
        raise InputError(f"lab: seeds={value}; it takes a number of seeds above 0, or a list of them")
    return list(range(value)) if isinstance(value, int) else [int(seed) for seed in axis("seeds", value)]


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
