"""`moesim lab`, and `moesim.lab.run` for Python: a grid of small models to a table of runs, their loads and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.lab.grid import trained
from moesim.lab.job import Job, Shape
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr

# Mappings whose keys are the user's own.
OPEN = ("corpus",)
# Keys that take lists and ranges.
AXES: tuple[str, ...] = ()

_PER_WINDOW = ("loads", "window_step")


def run(
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
    seeds: Any = 1,
    workers: int = 2,
) -> xr.Dataset:
    """Train small models over every combination and give their runs: a Dataset with the dim `run` that `fit` reads.

    `corpus`: a name, or a mapping of `policy` and options (see `moesim.lab.corpus`). `sizes`: (d_model, layers) each;
    `experts`: of each Mixture of Experts, 1 for the dense model; `ffn_multiple`: of the dense models, how many times as
    wide the feed-forward part is; `always_on` adds for each Mixture the dense model with all its experts always on.
    `unique_tokens`: of each pool, inf for fresh; `tokens`: of each run, which is measured on its way after each halving
    too. `seeds`: how many, or a list. Trajectories that were trained before are taken from
    `outputs/lab/trajectories`. One row for each run and mark; beside the variables of the table `loss_se` (over
    validation windows), `loss_last` (of the last weights), `loss_seen` (on what was trained on) and `domain_loss`
    (run, domain). Raises InputError without PyTorch and for what is out of range.
    """
    config = {name: value for name, value in locals().items()}
    return signed(runs_of(trained(jobs_of(config), workers)), "lab", config)


def loads(**config: Any) -> xr.Dataset:
    """The loads of the Mixtures of Experts of the same grid: dims trajectory, window, layer, domain, expert.

    It takes what `run` takes, and trains nothing that `run` has trained.
    """
    from inspect import signature

    given = {name: p.default for name, p in signature(run).parameters.items()} | config
    return signed(loads_of(trained(jobs_of(given), given["workers"])), "lab", given)


def jobs_of(config: Mapping[str, Any]) -> list[Job]:
    """Every combination, shapes innermost so that what is compared stands together."""
    shapes = [shape for size in config["sizes"] for shape in _shapes(size, config)]
    axes = (
        _seeds(config["seeds"]),
        *(_listed(config[name]) for name in ("learning_rate", "weight_decay", "unique_tokens")),
    )
    alike = {
        name: config[name] for name in ("corpus", "tokens", "decay_by_load", "balancing", "balancing_rate", "batch")
    }
    return [
        Job(shape=shape, seed=seed, learning_rate=rate, weight_decay=decay, unique_tokens=unique, **alike)
        for seed, rate, decay, unique in product(*axes)
        for shape in shapes
    ]


def _shapes(size: Any, config: Mapping[str, Any]) -> list[Shape]:
    width, layers = (size["d_model"], size["layers"]) if isinstance(size, Mapping) else size
    active, many = config["active_experts"], [e for e in _listed(config["experts"]) if e > 1]
    wide = list(_listed(config["ffn_multiple"])) if 1 in _listed(config["experts"]) else []
    wide += [e // active for e in many if config["always_on"]]
    dense = [Shape(width, layers, ffn_multiple=multiple) for multiple in dict.fromkeys(wide)]
    return dense + [Shape(width, layers, e, active) for e in many]


def _listed(value: Any) -> Sequence[Any]:
    return list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else [value]


def _seeds(value: Any) -> Sequence[int]:
    if isinstance(value, int) and value < 1:
        raise InputError(f"lab: seeds={value}; it takes a number of seeds above 0, or a list of them")
    return range(value) if isinstance(value, int) else list(value)


def runs_of(trajectories: Sequence[xr.Dataset]) -> xr.Dataset:
    """The rows of all trajectories along `run`."""
    import xarray as xr

    scalars = [name for name, v in trajectories[0].variables.items() if not v.dims]
    parts = []
    for each in trajectories:
        rows = each.drop_dims([d for d in ("window", "layer", "expert") if d in each.dims]).rename(mark="run")
        along = {name: ("run", np.full(rows.sizes["run"], each[name].values[()])) for name in scalars}
        parts.append(rows.drop_attrs().assign(along))
    return stamp(xr.concat(parts, "run", data_vars="all", coords="minimal", compat="override", join="exact"))


def loads_of(trajectories: Sequence[xr.Dataset]) -> xr.Dataset:
    """Loads along `trajectory`; experts that a model does not have are NaN."""
    import xarray as xr

    told = ("arm", "seed", "weight_decay", "balancing", "corpus", "hash", "active_experts", "batch")
    parts = []
    for each in trajectories:
        if each.sizes["expert"] > 1:
            part = each[["loads", *told]].assign_coords(trajectory=each["trajectory"].values[()])
            parts.append(part.drop_attrs().astype({"loads": float}).expand_dims("trajectory"))
    return stamp(xr.concat(parts, "trajectory", join="outer", data_vars="all", coords="minimal", compat="override"))
