"""Where the numbers of many results go in one: dims, coordinates, and every job's place among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.output.job import Job, chosen, listed
from moesim.output.multirun import difference

_SAME = 1e-13  # relative: axes that differ in their last bits only are one


@dataclass(frozen=True)
class Plan:
    """Places of all jobs: `at[i]` maps each dim that job i has to its positions along it.

    `job_dims` are the dims of what differs between jobs, `coords` the values along every dim, `labels` further
    coordinates (name -> dim and a value for each job), `scalars` those of no dims that are the same in all jobs,
    `variables` the dims inside the results and the kinds.
    """

    jobs: Sequence[Job]
    at: Sequence[Mapping[str, np.ndarray]]
    job_dims: Sequence[str]
    coords: Mapping[str, np.ndarray]
    labels: Mapping[str, tuple[str, list[Any]]]
    scalars: Mapping[str, Any]
    variables: Mapping[str, tuple[list[str], str]]

    def dims(self, name: str) -> list[str]:
        """All dims of a variable, those of the jobs first."""
        return [*self.job_dims, *(dim for dim in self.variables[name][0] if dim not in self.job_dims)]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a variable along its dims."""
        return tuple(len(self.coords[dim]) for dim in self.dims(name))

    def place(self, i: int, name: str, own: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Positions of job i's variable along each dim; `own` are those along the dims that it has itself."""
        everywhere = {**{dim: self.at[i][dim] for dim in self.job_dims}, **own}
        return [everywhere.get(dim, np.arange(len(self.coords[dim]))) for dim in self.dims(name)]


def plan(jobs: Sequence[Job]) -> Plan:
    """Lay out the jobs; InputError if two of them with the same choices differ in their config.

    A key that differs between jobs becomes a dim (those that vary only together share one). If it is an axis of the
    results and each job has the values it was given, the jobs are laid side by side along that axis; else a choice
    called like an axis inside the results is `job_NAME`.
    """
    own = [_coordinates(job) for job in jobs]
    inner = {dim for job in jobs for dims, _ in (job.layout or {}).values() for dim in dims}
    columns = {key: _column(jobs, key) for key in dict.fromkeys(chain(*(chosen(job.overrides) for job in jobs)))}
    varying = {key: column for key, column in columns.items() if len(set(column)) > 1}
    axes = {key: values for key in varying if (values := _axis_values(jobs, own, key, inner)) is not None}
    names = _names([key for key in varying if key not in axes], inner)
    labels = {names[key]: _one_kind(varying[key]) for key in names}
    along = _shared(labels or ({} if axes else {"job": list(range(len(jobs)))}))
    labels = labels or {dim: list(range(len(jobs))) for dim in along}
    job_dims = [*dict.fromkeys(along.values()), *map(_short, axes)]
    coords = {dim: union([np.array(labels[dim])]) for dim in dict.fromkeys(along.values())}
    for dim in sorted(inner | set(map(_short, axes))):
        asked = [np.array(values) for key in axes if _short(key) == dim for values in axes[key]]
        coords[dim] = union([*(held[dim] for held in own if dim in held), *asked])
    at = [
        {dim: index(coords[dim], [labels[dim][i]]) for dim in dict.fromkeys(along.values())}
        | {dim: index(coords[dim], held[dim]) for dim in inner & set(held)}
        | {_short(key): index(coords[_short(key)], axes[key][i]) for key in axes}
        for i, held in enumerate(own)
    ]
    _no_contradiction(jobs, [tuple(tuple(places[dim]) for dim in job_dims) for places in at])
    others = {name: (dim, labels[name]) for name, dim in along.items() if name != dim}
    scalars = {name: value for name, value in _scalars(jobs, own).items() if name not in {*coords, *along}}
    return Plan(jobs, at, job_dims, coords, others, scalars, _variables(jobs, {*coords, *along, *scalars}))


def _scalars(jobs: Sequence[Job], own: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Coordinates without dims that have one value in all results."""
    done = [(job.path, job.layout, held) for job, held in zip(jobs, own, strict=True) if job.path and job.layout]
    path, layout, first = done[0]
    names = [name for name in _coordinate_names(path) if layout.get(name, ([name], ""))[0] == []]
    same = (n for n in names if all(n in held and l[n][0] == [] and held[n][0] == first[n][0] for _, l, held in done))
    return {name: first[name][0] for name in same}


def _coordinate_names(path: Path) -> list[str]:
    """What the file says are coordinates (netCDF's attribute `coordinates`)."""
    import h5py

    with h5py.File(path, "r") as file:
        texts = [str(at.attrs.get("coordinates", "")) for at in (file, *file.values())]
    return sorted({name for text in texts for name in text.split()})


def _coordinates(job: Job) -> dict[str, np.ndarray]:
    """Values of a result's dims, and of its variables without any, as 1-D arrays."""
    import h5py

    held = job.layout or {}
    names = [name for name, (dims, _) in held.items() if dims in ([name], [])]
    if not job.path or not names:
        return {}
    with h5py.File(job.path, "r") as file:
        return {name: np.atleast_1d(decoded(file[name][()], held[name][1])) for name in names}  # type: ignore[index]


def decoded(values: Any, kind: str) -> np.ndarray:
    """Values as they lie in a file: text as objects, flags as booleans."""
    values = np.asarray(values)
    if kind == "U":
        text = [v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel().tolist()]
        return np.array(text, dtype=object).reshape(values.shape)
    return values.astype(bool) if kind == "b" else values


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _column(jobs: Sequence[Job], key: str) -> list[Any]:
    """What each job's overrides say for the key, else what its config says."""
    return [choice[key] if key in (choice := chosen(job.overrides)) else _configured(job, key) for job in jobs]


def _configured(job: Job, key: str) -> Any:
    config = job.config or {}
    found = config.get("choices", {}).get(key) or _in_config(config, key)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else str(found)


def _in_config(config: Mapping[str, Any], key: str) -> Any:
    return reduce(lambda at, part: at.get(part) if isinstance(at, dict) else None, key.split("."), config)


def _axis_values(
    jobs: Sequence[Job], own: Sequence[Mapping[str, np.ndarray]], key: str, inner: set[str]
) -> list[list[Any]] | None:
    """The values that each job was given for an axis of the results; None if the key is not one, or not in all."""
    name = _short(key)
    if name not in inner:
        return None
    given = [listed(job.overrides).get(key, _as_list(_in_config(job.config or {}, key))) for job in jobs]
    kinds = {isinstance(value, str) for values in given for value in values}
    if len(kinds) != 1 or not all(given):
        return None
    fits = (_same(values, held.get(name)) for values, held, job in zip(given, own, jobs, strict=True) if job.path)
    return given if all(fits) else None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _same(values: list[Any], held: np.ndarray | None) -> bool:
    if held is None or len(held) != len(values):
        return False
    if held.dtype.kind in "fiu" and not isinstance(values[0], str):
        return bool(np.allclose(np.array(values, float), held, rtol=_SAME, atol=0.0))
    return list(held) == values


def _names(keys: Sequence[str], inner: set[str]) -> dict[str, str]:
    """Key -> a name that is short, clear, and not that of an axis inside the results."""
    clear = [f"job_{short}" if (short := _short(key)) in inner else short for key in keys]
    return {key: short if clear.count(short) == 1 else key for key, short in zip(keys, clear, strict=True)}


def _one_kind(column: list[Any]) -> list[Any]:
    return column if all(isinstance(value, float) for value in column) else [_plain(value) for value in column]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shared(labels: Mapping[str, list[Any]]) -> dict[str, str]:
    """Key -> its dim: keys that are in one-to-one correspondence over the jobs share the dim of the first."""
    along: dict[str, str] = {}
    for key, column in labels.items():
        along[key] = next((other for other in along.values() if _one_to_one(labels[other], column)), key)
    return along


def _one_to_one(some: list[Any], others: list[Any]) -> bool:
    pairs = set(zip(some, others, strict=True))
    return len(pairs) == len(set(some)) == len(set(others))


def _no_contradiction(jobs: Sequence[Job], places: Sequence[tuple]) -> None:
    seen: dict[tuple, Job] = {}
    for job, place in zip(jobs, places, strict=True):
        other = seen.setdefault(place, job)
        was, now = ((one.attrs or {}).get("config", "") for one in (other, job))
        if other.path and job.path and was != now:
            raise InputError(
                f"{other.path} and {job.path} have the same choices and another config: {difference(was, now)}"
            )


def _variables(jobs: Iterable[Job], coords: set[str]) -> dict[str, tuple[list[str], str]]:
    """Dims (inside the results) and kind of every variable that is no coordinate."""
    variables: dict[str, tuple[list[str], str]] = {}
    for name, (dims, kind) in chain.from_iterable((job.layout or {}).items() for job in jobs):
        if name not in coords:
            known = variables.setdefault(name, (dims, kind))[0]
            variables[name] = ([*(dim for dim in dims if dim not in known), *known], variables[name][1])
    return variables


def union(columns: Sequence[np.ndarray]) -> np.ndarray:
    """All distinct values: numbers ascending, the same in all but the last bits once; text in order of appearance."""
    values = np.concatenate([np.asarray(column) for column in columns])
    if values.dtype.kind not in "fiub":
        return np.array(list(dict.fromkeys(values.tolist())))
    values = np.unique(values)
    if values.dtype.kind != "f" or not len(values):
        return values
    with np.errstate(invalid="ignore"):
        apart = np.diff(values) > _SAME * np.abs(values[1:])
    return values[np.append(True, apart | ~np.isfinite(values[1:]))]


def index(coord: np.ndarray, values: Any) -> np.ndarray:
    """Positions of the values along the coordinate."""
    place = {value: i for i, value in enumerate(coord.tolist())}
    found = (place[v] if v in place else _nearest(coord, v) for v in np.asarray(values).tolist())
    return np.array(list(found), dtype=int)


def _nearest(coord: np.ndarray, value: float) -> int:
    return int(np.abs(coord - value).argmin())
