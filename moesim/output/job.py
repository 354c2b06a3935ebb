"""One job of a multirun: what chose it, and what it left, its result or `error.txt`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from moesim.errors import InputError
from moesim.numerics.axes import axis
from moesim.output.provenance import plain
from moesim.output.store import attributes, write_text

ERROR = "error.txt"
_CARRIED = ("layout", "verb", "config", "overrides")


@dataclass(frozen=True)
class Job:
    """One job of a multirun: the overrides that chose it, and its result, its error or neither.

    `attrs` are the result's text attributes, `config` the config and `layout` the dims and kinds of its variables that
    they hold.
    """

    overrides: tuple[str, ...]
    path: Path | None = None
    error: str = ""
    attrs: Mapping[str, str] | None = None
    config: Mapping[str, Any] | None = None
    layout: Mapping[str, tuple[list[str], str]] | None = None

    @property
    def status(self) -> str:
        """`done`, `failed` or `missing`."""
        return "done" if self.path else "failed" if self.error else "missing"


def read_job(path: Path) -> Job:
    """The job of a result file; InputError if it is not whole or not a job's result, whatever is wrong with it."""
    attrs = attributes(path)
    if missing := set(_CARRIED) - set(attrs):
        raise InputError(f"{path}: no job's result of this version of moesim (it carries no {min(missing)})")
    try:
        overrides = tuple(json.loads(attrs["overrides"]))
        chosen(overrides)
        config = plain(attrs["config"])
        layout = {str(name): (list(dims), str(kind)) for name, (dims, kind) in json.loads(attrs["layout"]).items()}
        _check(path, layout)
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: no job's result: its attributes do not fit the file ({said})") from None
    return Job(overrides, path, attrs=attrs, config=config, layout=layout)


def _check(path: Path, layout: Mapping[str, tuple[list[str], str]]) -> None:
    """The variables have the dims and kinds of the layout, along labelled dims."""
    import h5py

    sizes: dict[str, int] = {}
    with h5py.File(path, "r") as file:
        for name, (dims, kind) in layout.items():
            variable: Any = file[name]
            lengths = dict(zip(dims, variable.shape, strict=True))
            unlabelled = [dim for dim in dims if layout[dim][0] != [dim]]
            differing = [dim for dim, length in lengths.items() if sizes.setdefault(dim, length) != length]
            if unlabelled or differing or kind != _kind(variable):
                raise ValueError(f"layout of {name}")


def _kind(variable: Any) -> str:
    return "U" if variable.dtype.kind == "O" else "b" if variable.attrs.get("dtype") == "bool" else variable.dtype.kind


def chosen(overrides: Iterable[str]) -> dict[str, Any]:
    """Key -> value of each override, numbers as numbers and anything else as text; a range replaces its null."""
    return dict(map(_chosen, overrides))


@lru_cache(maxsize=4096)
def _chosen(text: str) -> tuple[str, Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(text)
    value: Any = override.value()
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return override.key_or_group, float(value) if number else override.get_value_element_as_str().strip("'\"")


def listed(overrides: Iterable[str]) -> dict[str, list[Any]]:
    """Key -> the values of each override, one or many, as numbers or text; none where it sets no values."""
    return {key: list(values) for key, values in map(_listed, overrides)}


@lru_cache(maxsize=4096)
def _listed(text: str) -> tuple[str, tuple[Any, ...]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(text)
    value: Any = override.value()
    try:
        values = axis(text, value).tolist() if isinstance(value, dict) else value
    except InputError:
        values = []
    return override.key_or_group, tuple(map(_number_or_text, values if isinstance(values, list) else [values]))


def _number_or_text(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number else str(getattr(value, "text", value))


def read_error(path: Path) -> Job:
    """The failed job of an `error.txt`; InputError if it is none."""
    try:
        record = json.loads(path.read_text("utf-8"))
        overrides = tuple(record["overrides"])
        chosen(overrides)
        return Job(overrides, error=str(record["error"]) or "unknown")
    except Exception:
        raise InputError(f"{path}: not a record of a failed job") from None


def write_error(directory: Path, overrides: Iterable[str], error: str) -> None:
    """Leave word of a failed job."""
    write_text(directory / ERROR, json.dumps({"overrides": list(overrides), "error": error}))
