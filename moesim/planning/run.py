"""The driver of `moesim sweep`: a resolved config to a Dataset, its figures and its table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.config import choices, read
from moesim.errors import InputError
from moesim.laws.load import law_from, load_law, load_repetition, repetition_from
from moesim.models.architecture import architecture_from, load_architecture
from moesim.numerics.axes import axis
from moesim.output.budget import points, refuse_if_too_large
from moesim.output.plots import spread
from moesim.output.result import Result, Stream
from moesim.planning import figures, settling, tables
from moesim.planning.model import Model
from moesim.planning.optimum import optimum
from moesim.planning.readings import READINGS
from moesim.planning.space import SIZES, Space
from moesim.planning.sweep import loss_in_slabs, sweep, with_size

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_COMPARED = ("law", "repetition", "excess", "taught", "reading", "architecture")
_EXTRAPOLATED = {
    "extrapolated": "the runs",
    "optimal_extrapolated": "the optima",
    "best_extrapolated": "the runs at the best sparsity",
}


# Mappings whose keys are the user's own.
OPEN = ("compare", "law.data_range", "law.definitions")
# Keys that take an axis: a list or a range.
AXES: tuple[str, ...] = ("space", "law.coefficients", "repetition.coefficients", "architecture.fields")


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/sweep.yaml` asks for: a sweep, or with `compare` the optima of several models side by side."""
    if missing := [group for group in ("law", "repetition", "architecture", "space") if not config.get(group)]:
        raise InputError(f"{missing[0]}: nothing chosen; it takes {', '.join(choices(missing[0]))}")
    axes = {name: value for name, value in config["space"].items() if value is not None}
    given = {name: axes.pop(name) for name in ("sparsity_bounds",) if name in axes}
    _refuse_huge(config, axes)
    streams: dict[str, Stream] = {}
    if config["compare"]:
        dataset = shown = _compared(config, axes, given)
    else:
        model = model_of(config, {})
        axes = with_size(model, _dense(model, config, axes))
        large = _cells(model, axes) * 8 > config["memory"]
        dataset = shown = sweep(model, loss=not large, **given, **axes)
        if large:
            streams = {"loss": loss_in_slabs(model, **axes)}
            shown = sweep(model, **given, **_thinned(axes)) if config["figures"] else dataset
    drawn = figures.draw(shown) if config["figures"] else {}
    text = tables.comparison(dataset) if config["compare"] else tables.counted(dataset) + tables.table(dataset)
    if "reading" in config["compare"]:
        text += "\n\n" + settling.told(settling.settling())
    if "reading_best_loss" in dataset and "draw" not in dataset.dims:
        text += "\n" + tables.band(dataset, config["repetition"].get("coefficients") or ())
    none = () if config["compare"] or "optimal_loss" in dataset or "best_loss" in dataset else (model.one_sided,)
    return Result(dataset, text, figures=drawn, warnings=(*_warnings(dataset), *filter(None, none)), streams=streams)


def _dense(model: Model, config: Mapping[str, Any], axes: dict[str, Any]) -> dict[str, Any]:
    """The axes at sparsity 0 alone if all runs behind the law were dense and its sparsities are the space's own."""
    name = config["choices"].get("space")
    own = name in choices("space") and read("space", name).get("sparsity") == axes.get("sparsity")
    return {**axes, "sparsity": 0.0} if model.law.dense and own else axes


def keys(_: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are taken where a file lacks them."""
    told = dict.fromkeys(("source", "marking", "caveats"))
    return {
        "law": told | {"data_range": {}, "definitions": {}},
        "repetition": told | dict.fromkeys(("excess", "taught")),
        "architecture": {"flops": "exact"},
    }


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    compared = config.get("compare") or {}
    compared = compared if isinstance(compared, Mapping) else {}
    out = {group: f"beside compare.{group}" for group in ("law", "repetition", "architecture") if group in compared}
    if "excess" in compared:
        out["repetition.excess"] = "beside compare.excess"
    elif (config.get("repetition") or {}).get("form") == "none":
        out |= {f"repetition.{key}": "with repetition=none" for key in ("excess", "taught")}
    return out | ({"memory": "beside compare, which writes no losses"} if compared else {})


def _refuse_huge(config: Mapping[str, Any], axes: Mapping[str, Any]) -> None:
    """The axes themselves and an optimum for each cell are always held in memory, all losses there or on disk."""
    swept = dict(axes) | _lists(config["law"], "coefficients") | _lists(config["repetition"], "coefficients")
    counts = {name: points(value) for name, value in (swept | _lists(config["architecture"], "fields")).items()}
    sizes = math.prod(n for name, n in counts.items() if name in SIZES)
    optima = math.prod(counts.values()) / sizes
    losses = 8.0 * optima * sizes
    streamed = losses > config["memory"] and not config["compare"]
    memory = 64.0 * sum(counts.values()) + 100.0 * optima + (0.0 if streamed else losses)
    what = " x ".join(f"{n:,.0f} {name}" for name, n in counts.items() if n > 1)
    refuse_if_too_large(what, memory, losses if streamed else 0.0, remedy="give the axes fewer values")


def _lists(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    values = content.get(key) or {}
    return {n: v for n, v in values.items() if isinstance(v, list | dict)} if isinstance(values, Mapping) else {}


def compared(dataset: xr.Dataset) -> tuple[str, dict[str, Figure]]:
    """The answer of a multirun: one table and the figures of what was varied, from its collected Dataset."""
    if figures.named(dataset) and "optimal_loss" in dataset:
        return tables.comparison(dataset), figures.draw(dataset)
    return tables.counted(dataset) + tables.table(dataset), {} if "best_loss" not in dataset else figures.draw(dataset)


def model_of(config: Mapping[str, Any], chosen: Mapping[str, str]) -> Model:
    """The config's model, with the compared choices put in by name (an excess also into the config's repetition)."""
    chosen = dict(chosen) | READINGS[chosen["reading"]] if "reading" in chosen else chosen
    names, how = config["choices"], {name: chosen[name] for name in ("excess", "taught") if name in chosen}
    own = _axes(config["repetition"], "coefficients") | how
    return Model(
        load_law(chosen["law"]) if "law" in chosen else law_from(names["law"], _axes(config["law"], "coefficients")),
        load_repetition(chosen["repetition"], **({} if chosen["repetition"] == "none" else how))
        if "repetition" in chosen
        else repetition_from(names["repetition"], own),
        load_architecture(chosen["architecture"])
        if "architecture" in chosen
        else architecture_from(names["architecture"], _axes(config["architecture"], "fields")),
    )


def _axes(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping with the lists and ranges under `key` read as axes."""
    values = content.get(key) or {}
    if not isinstance(values, Mapping):
        return dict(content)  # what takes it says what is wrong
    ranged = {n: axis(f"{key}.{n}", v) if isinstance(v, list | dict) else v for n, v in values.items()}
    return {**content, key: ranged}


def _cells(model: Model, axes: Mapping[str, Any]) -> float:
    return float(np.prod([float(n) for n in Space.of(model, axes).sizes.values()]))


def _thinned(axes: Mapping[str, Any]) -> dict[str, Any]:
    """The axes with as many values as a figure shows."""
    kept = {name: axis(name, value) for name, value in axes.items()}
    return {n: spread(v, 200 if n in SIZES else 8) if np.ndim(v) else v for n, v in kept.items()}


def _compared(config: Mapping[str, Any], axes: dict[str, Any], given: dict[str, Any]) -> xr.Dataset:
    """The optima of every combination of the compared choices, along one dim for each."""
    import xarray as xr

    compare = dict(config["compare"])
    for name, values in compare.items():
        if not isinstance(values, list) or not values or not all(isinstance(value, str) for value in values):
            raise InputError(f"compare: {name}={values!r}; it takes a list of names")
    if odd := [value for value in compare.get("reading", []) if value not in READINGS]:
        raise InputError(f"compare: no reading {odd[0]!r}; it takes {', '.join(READINGS)}")
    if unknown := [name for name in compare if name not in _COMPARED]:
        raise InputError(f"compare: no group {unknown[0]!r}; it takes {', '.join(_COMPARED)}")
    each = list(_combinations(compare))
    found: list[xr.Dataset] = [
        optimum(model_of(config, chosen), **given, **axes).expand_dims({n: [v] for n, v in chosen.items()})
        for chosen in each
    ]
    combined: Any = xr.combine_by_coords(
        found, combine_attrs="override", join="outer", compat="no_conflicts", coords="minimal", data_vars="all"
    )
    combined = combined.sel(compare)  # in the order given, not by name
    told = {n: v for n, v in combined.attrs.items() if n == "config" or all(one.attrs.get(n) == v for one in found)}
    formulas = {
        ", ".join(map(str, chosen.values())): one.attrs["formula"] for chosen, one in zip(each, found, strict=True)
    }
    combined.attrs = {**told, "verb": "sweep", "formulas": json.dumps(formulas)}
    return combined


def _combinations(compare: Mapping[str, list[str]]) -> Iterator[dict[str, str]]:
    return (dict(zip(compare, values, strict=True)) for values in product(*compare.values()))


def _warnings(dataset: xr.Dataset) -> tuple[str, ...]:
    """One line on extrapolation, one on cells without a result."""
    out = []
    outside = {what: dataset[name].mean().item() for name, what in _EXTRAPOLATED.items() if name in dataset}
    if any(outside.values()):
        shares = ", ".join(f"{share:.0%} of {what}" for what, share in outside.items() if share)
        of = f" of law {dataset.attrs['law']}," if "law" in dataset.attrs else " of the law,"
        out.append(
            f"outside the data{of} of the repetition or of what excess is measured by: {shares} (*extrapolated_by)"
        )
    losses = [dataset[name] for name in ("loss", "optimal_loss", "best_loss") if name in dataset]
    if losses and all(bool(loss.isnull().all()) for loss in losses):
        return (*out, "no cell has a loss; the status of each says why (*_status): give other axes or coefficients")
    failed = int((dataset.optimum_status == "failed").sum()) if "optimum_status" in dataset else 0
    return (*out, f"{failed} optima were not found (optimum_status)") if failed else tuple(out)
