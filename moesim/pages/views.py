"""Which sections a result has on its page: those of its verb's view, then what every result has."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from moesim.pages.values import rounded, thinned

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class Section:
    """A part of a page: `js/KIND.js` draws it from `content`, which is plain data.

    `code`: JavaScript of a formula (pages.script alone writes it), which the kind gets beside its content.
    """

    kind: str
    title: str
    content: Mapping[str, Any]
    code: str = ""


LIVE = "moesim.pages.live"
# Verb -> the modules whose view(dataset) gives the sections of its own, in this order.
VIEWS: dict[str, tuple[str, ...]] = {
    "sweep": (LIVE,),
    "optimum": (LIVE,),
    "balance": ("moesim.pages.balance",),
    "sites": ("moesim.pages.sites",),
    "lab": ("moesim.pages.lab",),
    "flops": ("moesim.pages.flops",),
    "fit": ("moesim.pages.fit", LIVE),
    "plan": ("moesim.pages.plan", LIVE),
}
_SAID = {
    "law_source": "law",
    "repetition_source": "repetition",
    "architecture_source": "architecture",
    "warnings": "warnings",
    "moesim_version": "made with moesim",
    "jobs_made_with": "jobs made with moesim",
}


def sections(dataset: xr.Dataset, most: int, live: bool = True) -> list[Section]:
    """Every section of a result; `most` values of it are shown. Without `live` no law is computed in the page."""
    modules = [name for name in VIEWS.get(dataset.attrs.get("verb", ""), ()) if live or name != LIVE]
    own = [section for name in modules for section in import_module(name).view(dataset)]
    return [*own, explorer(dataset, most), about(dataset)]


def explorer(dataset: xr.Dataset, most: int) -> Section:
    """Every variable of a Dataset along any of its dims."""
    kept, told = thinned(dataset.drop_vars([n for n, v in dataset.variables.items() if v.dtype.kind == "V"]), most)
    variables = {str(name): _variable(array) for name, array in kept.variables.items()}
    labels = {str(dim): _labels(kept, dim) for dim in kept.dims}
    own = [str(name) for name in kept.data_vars]
    return Section("explore", "All numbers", {"variables": variables, "labels": labels, "own": own, "note": told})


def _variable(array: xr.Variable) -> dict[str, Any]:
    numeric = array.dtype.kind in "fiub"
    values = rounded(array.values.ravel()) if numeric else [str(value) for value in array.values.ravel()]
    said = {key: str(array.attrs.get(key, "")) for key in ("units", "long_name")}
    return {"dims": [*map(str, array.dims)], "shape": [*array.shape], "values": values, "text": not numeric, **said}


def _labels(dataset: xr.Dataset, dim: Any) -> list[Any]:
    """The values along a dim: its coordinate, or places."""
    values = dataset[dim].values
    return values.tolist() if values.dtype.kind in "fiu" else [str(value) for value in values]


def about(dataset: xr.Dataset) -> Section:
    """What made a result: sources, warnings, the version, and how to repeat it."""
    rows = [[said, str(dataset.attrs[name])] for name, said in _SAID.items() if dataset.attrs.get(name)]
    return Section("about", "What made this", {"rows": rows, "config": str(dataset.attrs.get("config", ""))})


def command(dataset: xr.Dataset) -> str:
    """The line that made a result, as far as it is carried and names no code; empty if it is not."""
    words = typed(dataset)
    return shlex.join(["moesim", str(dataset.attrs["verb"]), *words]) if "overrides" in dataset.attrs else ""


def typed(dataset: xr.Dataset) -> list[str]:
    """What was typed after the verb, without what names code to run: no file may have that copied."""
    try:
        words = json.loads(str(dataset.attrs.get("overrides", "[]")))
    except ValueError:
        return []
    words = [word for word in words if isinstance(word, str)] if isinstance(words, list) else []
    return [word for word in words if not word.lstrip("+~").startswith(("plugins", "hydra")) and ".py" not in word]


def title(dataset: xr.Dataset) -> str:
    """What a result is, in a line."""
    parts = [dataset.attrs.get(name, "") for name in ("law", "repetition", "architecture", "world", "network", "model")]
    return ", ".join([f"moesim {dataset.attrs.get('verb', '')}", *filter(None, map(str, parts))])


def sizes(dataset: xr.Dataset) -> str:
    """The dims of a result, in a line."""
    return " x ".join(f"{n} {dim}" for dim, n in dataset.sizes.items()) or "one run"


def named(array: Any, name: str) -> dict[str, str]:
    """The axis of a variable: its long name and unit."""
    return {"label": str(array.attrs.get("long_name", name)), "unit": str(array.attrs.get("units", "")), "how": "plain"}
