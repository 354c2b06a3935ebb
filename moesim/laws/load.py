"""From a coefficient file in conf/law/ or conf/repetition/, or one of your own, to a Law or a Repetition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moesim import config
from moesim.errors import InputError
from moesim.laws.law import FORMS, Law
from moesim.laws.repetition import REPETITIONS, Repetition
from moesim.output.store import open_result
from moesim.registry import Registry
from moesim.variables import VARIABLES

# The keys of a file: the type of each, in words and for isinstance.
_MAPPING, _LIST, _TEXT = ("a mapping", Mapping), ("a list", (list, tuple)), ("a text", str)
_SHARED = {"form": _TEXT, "coefficients": _MAPPING, "source": _TEXT, "marking": _TEXT, "caveats": _LIST}
_SHARED |= {"draws": _TEXT}
_LAW_KEYS = {**_SHARED, "definitions": _MAPPING, "data_range": _MAPPING, "name": _TEXT}
_REPETITION_KEYS = {
    **_SHARED,
    "excess": _TEXT,
    "taught": ("own, dense or a number", (str, int, float)),
    "data_range": _MAPPING,
}


_MOST_DRAWS = 200  # of a fit, in plans: more tell no more about a band


def read_content(group: str, name_or_path: str | Path) -> dict[str, Any]:
    """The content of the file of a law or repetition, or of the one in a fit.nc, whose draws come along.

    `draws` in a file is the path of a fit.nc, beside the file unless it is absolute.
    """
    path = config.path_of(group, name_or_path)
    if path.suffix == ".nc":
        held = open_result(path).attrs.get(f"{group}_file")
        if held is None:
            raise InputError(f"{group}: {str(path)!r} holds no fitted {group}; give a fit.nc that moesim fit wrote")
        return {**json.loads(held), "draws": str(path.resolve())}
    content = config.read(group, name_or_path)
    if isinstance(content.get("draws"), str):
        content["draws"] = str(path.resolve().parent / content["draws"])
    return content


def _drawn(owner: str, coefficients: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The coefficients with the draws of a fit, but for those that have been given another value than its estimate."""
    data = open_result(path)
    if "draws" not in data:
        raise InputError(f"{owner}: draws={path!r}: a fit without draws; fit with fit.draws=1000, or leave the key out")
    usable = np.isin(data["draw_status"].values, ["converged", "at bound"])
    table = data["draws"].isel(draw=np.flatnonzero(usable)[:_MOST_DRAWS]).drop_vars("draw")
    out = dict(coefficients)
    for name, value in coefficients.items():
        own = next((n for n in (f"repetition_{name}", name) if n in data["coefficient"].values), None)
        if own is None or np.ndim(value) or value != data["estimate"].sel(coefficient=own).item():
            continue
        column = table.sel(coefficient=own, drop=True)
        out[name] = column if (column != column[0]).any() else value
    return out


def load_law(name_or_path: str | Path, **coefficients: Any) -> Law:
    """The law of `conf/law/NAME.yaml` or of a YAML file given by its path; keyword arguments replace its coefficients.

    The path of a fit.nc gives the fitted law with its draws (at most 200), as a dim `draw`. Coefficients without a
    value in the file (null) must be given. Raises InputError for a bad file or coefficient.
    """
    return law_from(name_or_path, _replaced(read_content("law", name_or_path), coefficients))


def law_from(name: str | Path, mapping: Mapping[str, Any]) -> Law:
    """A Law called `name` from the content of its file: form, coefficients and what is known about them.

    Keys: `form` and `coefficients` (required), `source`, `marking`, `caveats` (list), `definitions` (symbol: what it
    means there), `data_range` (variable: [lowest, highest]), `name` (instead of that of the file), `draws` (a fit.nc).
    """
    return Law(**{"name": _title(name), **_known(f"law {name}", mapping, _LAW_KEYS, FORMS)})


def load_repetition(
    name_or_path: str | Path, excess: str | None = None, taught: str | float | None = None, **coefficients: Any
) -> Repetition:
    """The repetition of `conf/repetition/NAME.yaml` or of a path; keyword arguments replace its coefficients.

    `excess` (which parameters are counted: none, active or total) and `taught` (against what: own, dense, or parameters
    for each unique token) replace the file's. Raises InputError for a bad file, choice or coefficient.
    """
    content = _replaced(read_content("repetition", name_or_path), coefficients)
    chosen = {key: value for key, value in (("excess", excess), ("taught", taught)) if value is not None}
    return repetition_from(name_or_path, {**content, **chosen})


def repetition_from(name: str | Path, mapping: Mapping[str, Any]) -> Repetition:
    """A Repetition called `name` from the content of its file.

    Keys: `form` and `coefficients` (required), `excess` (none, active or total), `taught` (own, dense or a number),
    `data_range` (variable: [lowest, highest]), `source`, `marking`, `caveats` (list).
    """
    return Repetition(_title(name), **_known(f"repetition {name}", mapping, _REPETITION_KEYS, REPETITIONS))


def content_of(it: Law | Repetition) -> dict[str, Any]:
    """The content of a file from which `law_from` or `repetition_from` makes the same again."""
    keys = _LAW_KEYS if isinstance(it, Law) else _REPETITION_KEYS
    held = {key: it.form.name if key == "form" else getattr(it, key) for key in keys if key not in ("draws", "name")}
    return {key: value for key, value in held.items() if value or key == "coefficients"}


def _title(name: str | Path) -> str:
    return Path(name).stem if str(name).endswith((".yaml", ".yml", ".nc")) else str(name)


def _replaced(content: Mapping[str, Any], coefficients: Mapping[str, Any]) -> Mapping[str, Any]:
    if not coefficients or not isinstance(content.get("coefficients"), Mapping):
        return content
    return {**content, "coefficients": {**content["coefficients"], **coefficients}}


def _known(owner: str, mapping: Mapping[str, Any], keys: Mapping[str, tuple], forms: Registry[Any]) -> dict:
    """The mapping with its form looked up and its lists made tuples; InputError for a bad key, type or form."""
    _check_keys(owner, mapping, keys)
    given = {key: tuple(value) if keys[key] is _LIST else value for key, value in mapping.items()}
    ranges = {name: _interval(owner, name, bounds) for name, bounds in mapping.get("data_range", {}).items()}
    form, coefficients = forms.find(mapping["form"], owner), dict(mapping["coefficients"])
    if path := given.pop("draws", None):
        coefficients = _drawn(owner, coefficients, str(path))
    return {**given, "form": form, "coefficients": coefficients, "data_range": ranges}


def _check_keys(owner: str, mapping: Mapping[str, Any], keys: Mapping[str, tuple]) -> None:
    takes = f"it takes {', '.join(keys)}"
    if not isinstance(mapping, Mapping):
        raise InputError(f"{owner}: {mapping!r} is no mapping; {takes}")
    for key, value in mapping.items():
        if key not in keys:
            raise InputError(f"{owner}: unknown key {key!r}; {takes}")
        if not isinstance(value, keys[key][1]):
            raise InputError(f"{owner}: {key}={value!r} is not {keys[key][0]}; write it as {keys[key][0]}")
    for key in ("form", "coefficients"):
        if key not in mapping:
            raise InputError(f"{owner}: no key {key!r}; {takes}; add {key}")


def _interval(owner: str, variable: str, bounds: Any) -> tuple[float, float]:
    """(lowest, highest) of a variable of the table."""
    if variable not in VARIABLES:
        raise InputError(f"{owner}: data_range names {variable!r}; it takes {', '.join(VARIABLES)}")
    try:
        low, high = (float(bound) for bound in bounds)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not low <= high:
        raise InputError(f"{owner}: data_range of {variable} is {bounds!r}; it takes [lowest, highest], two numbers")
    return low, high
