"""The law of a sweep, a fit or a plan, computed in the page: what the sliders start from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

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
_PARTS = ("law", "repetition", "architecture")


def view(dataset: xr.Dataset) -> list[Section]:
    """Sliders on what a result was made with; nothing for a result that carries no formula."""
    if "formula" not in dataset.attrs:
        return []
    held = formula.read(str(dataset.attrs["formula"]))
    axes = {name: _axis(dataset, name) for name in _AXES}
    content = {
        **{name: value for name, value in held.items() if name != "graph"},
        "axes": axes,
        "curves": max(_AXES, key=lambda name: (len(axes[name]), name == "sparsity")),
        "bounds": [float(bound) for bound in np.ravel(dataset.attrs.get("sparsity_bounds", SPARSITY_BOUNDS))][:2],
        "chosen": _chosen(dataset),
        "evidence": EVIDENCE,
        "units": {name: [VARIABLES[name].long_name, VARIABLES[name].unit] for name in VARIABLES},
    }
    return [Section("live", "The law, live", content, script(held))]


def _axis(dataset: xr.Dataset, name: str) -> list[float]:
    """The values of an axis from which the page starts: those of the result, at most so many."""
    held = dataset.coords.get(name)
    if held is None or held.dtype.kind not in "fiu" or held.ndim > 1:
        return [float(value) for value in _START[name]]
    values = np.unique(np.asarray(held, float))
    places = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST)).round().astype(int))
    return [float(values[place]) for place in places]


def _chosen(dataset: xr.Dataset) -> dict[str, Any]:
    """The words with which a command chooses the same law, repetition and architecture."""
    try:
        typed = json.loads(str(dataset.attrs.get("overrides", "[]")))
    except ValueError:
        typed = []
    words = [word for word in typed if isinstance(word, str)] if isinstance(typed, list) else []
    kept = [word for word in words if word.split("=")[0].split(".")[0] in (*_PARTS, "plugins")]
    return {"words": kept, "verb": str(dataset.attrs.get("verb", ""))}
