"""The law of a sweep, a fit or a plan, computed in the page: what the sliders start from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.config import choices, read
from moesim.errors import InputError
from moesim.numerics.trace import needed_for
from moesim.output.plots import spread
from moesim.output.provenance import plain
from moesim.pages.script import script
from moesim.pages.views import Section
from moesim.planning import formula
from moesim.planning.optimum import SPARSITY_BOUNDS
from moesim.planning.readings import EVIDENCE
from moesim.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

_START = {"compute": (1e20, 1e21, 1e22), "sparsity": (0.0, 0.5, 0.9, 0.98), "unique_tokens": (2e9, np.inf)}
_AXES = ("compute", "sparsity", "unique_tokens")
_MOST = 20  # curves
_PARTS = {"law": "coefficients", "repetition": "coefficients", "architecture": "fields"}


def view(dataset: xr.Dataset) -> list[Section]:
    """Sliders on what a result was made with; one section for each of several; none where it carries no formula."""
    if "formula" in dataset.attrs:
        return [_section(dataset, str(dataset.attrs["formula"]))]
    several = _several(dataset.attrs.get("formulas"))
    return [_section(dataset, text, name) for name, text in several.items()]


def _several(text: Any) -> dict[str, str]:
    """The formulas of a comparison by name; InputError where they are not what moesim writes."""
    try:
        held = json.loads(str(text)) if text is not None else {}
    except (ValueError, RecursionError):
        raise InputError("formulas: not readable as JSON") from None
    if not isinstance(held, dict):
        raise InputError("formulas: holds no names and formulas")
    return {str(name): str(one) for name, one in held.items()}


def _section(dataset: xr.Dataset, text: str, name: str = "") -> Section:
    held = formula.read(text)
    limited = bool(held["repeats"]) or "unique_tokens" in _needed(held)
    axes = {name: _axis(dataset, name) for name in _AXES}
    if not limited:
        axes["unique_tokens"] = [np.inf]
    dense = held["known"]["law"]["data_range"].get("sparsity") == [0.0, 0.0]
    if dense and "sparsity" not in dataset.coords:
        axes["sparsity"] = [0.0]
    content = {
        **{name: value for name, value in held.items() if name != "graph"},
        "axes": axes,
        "limited": limited,
        "dense": dense,
        "curves": max(_AXES, key=lambda name: (len(axes[name]), name == "sparsity")),
        "bounds": [float(bound) for bound in np.ravel(dataset.attrs.get("sparsity_bounds", SPARSITY_BOUNDS))][:2],
        "closed": bool(name),
        "chosen": _chosen(dataset, held),
        "evidence": EVIDENCE,
        "units": {name: [VARIABLES[name].long_name, VARIABLES[name].unit] for name in VARIABLES},
    }
    return Section("live", f"The law, live: {name}" if name else "The law, live", content, script(held))


def _needed(held: Mapping[str, Any]) -> set[str]:
    """The inputs that the law itself asks for."""
    graph = held["graph"]
    return {
        graph.nodes[place][1]
        for place in needed_for(graph, [graph.outputs["once"]])
        if graph.nodes[place][0] == "input"
    }


def _axis(dataset: xr.Dataset, name: str) -> list[float]:
    """The values of an axis from which the page starts: those of the result, at most so many."""
    held = dataset.coords.get(name)
    if held is None and name == "unique_tokens" and dataset.attrs.get("verb") == "plan":
        return _planned_with(dataset)
    if held is None or held.dtype.kind not in "fiu" or held.ndim > 1:
        return [float(value) for value in _START[name]]
    return spread(np.unique(np.asarray(held, float)), _MOST)


def _planned_with(dataset: xr.Dataset) -> list[float]:
    """The unique tokens of a plan, which stand in its config."""
    try:
        return [float(plain(str(dataset.attrs["config"]))["space"]["unique_tokens"])]
    except (KeyError, TypeError, ValueError):  # a list of them, or a config of another kind
        return [float(value) for value in _START["unique_tokens"]]


def _chosen(dataset: xr.Dataset, held: Mapping[str, Any]) -> dict[str, Any]:
    """How a command chooses the same law, repetition and architecture.

    `files` for each part; the coefficients that `differ` from those in the file; and a `note` on what the package has
    no file of.
    """
    fitted = ("law", "repetition") if dataset.attrs.get("verb") == "fit" else ()
    names = {part: str(held["names"][part]) for part in _PARTS}
    own = [part for part in _PARTS if names[part] not in choices(part) or (part in fitted and names[part] != "none")]
    files = names | {part: "fit.nc" if part in fitted else f"{part}.yaml" for part in own}
    differ: dict[str, float] = {}
    for part in set(_PARTS) - set(own):
        there = read(part, names[part])[_PARTS[part]]
        differ |= {f"{part}.{name}": v for name, v in _values(held, part).items() if there.get(name) != v}
    note = f"{' and '.join(files[part] for part in own)}: your file of the {' and '.join(own)}" if own else ""
    return {"files": files, "differ": differ, "note": note}


def _values(held: Mapping[str, Any], part: str) -> dict[str, float]:
    """The coefficients of a part that have one value."""
    mine = {name: value for name, value in held["values"].items() if name not in held["vary"]}
    return {name.partition(".")[2]: value for name, value in mine.items() if name.startswith(f"{part}.")}
