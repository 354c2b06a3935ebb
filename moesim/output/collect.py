"""Many results to one labelled Dataset: the swept choices become dims, whatever happened on the way.

Results that fit the memory budget are combined in memory; larger ones go straight from file to file in slabs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim import __version__
from moesim.errors import InputError
from moesim.numerics.elementwise import slabs
from moesim.output.multirun import COLLECTED, Job, chosen, difference, survey
from moesim.output.store import ENGINE, layout, whole, write_result
from moesim.output.text import Page, shown

if TYPE_CHECKING:
    import xarray as xr

MEMORY = 1e9  # bytes of the collected Dataset above which it is written in slabs
_SLAB = 2**24  # values read at once then
_MISSING = {"f": np.nan, "i": np.nan, "b": np.nan, "U": "missing"}
_KEPT = ("verb", "law_source", "repetition_source", "architecture_source")


@shown
@dataclass(frozen=True)
class Report:
    """What `collect` did: the file, how many jobs are done, and a line on each job or file that is not in it."""

    path: Path
    asked: int
    done: int
    lines: tuple[str, ...]

    def _page(self) -> Page:
        return [str(self)]

    def __str__(self) -> str:
        return "\n".join([f"collected {self.done} of {self.asked} jobs into {self.path}", *self.lines])


@dataclass(frozen=True)
class _Plan:
    """Where everything goes: labels, layout and positions of every job, coordinates, dims and kinds of variables."""

    jobs: Sequence[Job]
    layouts: Sequence[Mapping[str, tuple[list[str], str]]]
    own: Sequence[Mapping[str, np.ndarray]]  # positions of each job's own coordinates along the collected ones
    values: Sequence[Mapping[str, np.ndarray]]  # of each job, or only its coordinates if all would not fit in memory
    whole: bool  # whether `values` has everything
    labels: Mapping[str, list[Any]]
    along: Mapping[str, str]
    coords: Mapping[str, np.ndarray]
    variables: Mapping[str, tuple[list[str], str]]

    @property
    def job_dims(self) -> list[str]:
        return list(dict.fromkeys(self.along.values()))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(len(self.coords[dim]) for dim in (*self.job_dims, *self.variables[name][0]))

    def positions(self) -> list[tuple[int, ...]]:
        """The cell of every job along the job dims."""
        columns = [_index(self.coords[dim], np.array(self.labels[dim])) for dim in self.job_dims]
        return [tuple(int(i) for i in cell) for cell in zip(*columns, strict=True)]


def collect(directories: Sequence[str | Path], out: str | Path | None = None, memory: float = MEMORY) -> Report:
    """Combine all whole results below the directories into `collected.nc` (in the first one, or at `out`).

    Dims are the keys that differ between jobs (those that vary only together share one), then the results' own.
    Text choices become text coordinates, numbers numbers; a choice called like an axis inside the results is
    `job_NAME`. `job_status` (done, failed, missing) and `job_error` have
    the job dims; what a job does not have is NaN, or `missing` for text. Raises InputError if no result is whole, if
    results of several verbs are mixed, or if two results with the same choices differ in their config.
    """
    jobs, problems = survey(directories)
    done = [job for job in jobs if job.path]
    if not done:
        raise InputError(
            f"{', '.join(map(str, directories))}: no whole result of moesim {'; '.join(problems)}".rstrip()
        )
    _same_verb(done)
    plan = _plan(jobs, whole=sum(job.path.stat().st_size for job in done if job.path) <= memory)
    path = Path(out) if out else Path(directories[0]) / COLLECTED
    size = sum(8.0 * np.prod(plan.shape(name)) for name in plan.variables)
    (_write_in_memory if size <= memory and plan.whole else _write_in_slabs)(plan, path)
    lines = [
        f"{job.status}: {' '.join(job.overrides) or 'the job'} {job.error}".rstrip() for job in jobs if not job.path
    ]
    return Report(path, len(jobs), len(done), (*lines, *problems))


def _same_verb(done: Sequence[Job]) -> None:
    verbs = {(job.attrs or {}).get("verb", "?"): job.path for job in done}
    if len(verbs) > 1:
        (a, first), (b, second), *_ = verbs.items()
        raise InputError(f"{first} is a result of {a}, {second} of {b}: collect the verbs apart")


def _plan(jobs: Sequence[Job], whole: bool) -> _Plan:
    layouts = [json.loads((job.attrs or {})["layout"]) if job.path else {} for job in jobs]
    own = {dim for held in layouts for dims, _ in held.values() for dim in dims}
    labels = _labels(jobs, own)
    along = _shared(labels)
    _no_contradiction(jobs, labels)
    coords: dict[str, np.ndarray] = {dim: _union([np.array(labels[dim])]) for dim in dict.fromkeys(along.values())}
    found = [_read(job, held, whole) for job, held in zip(jobs, layouts, strict=True)]
    for dim in sorted(own):
        coords[dim] = _union([values[dim] for values in found if dim in values])
    variables: dict[str, tuple[list[str], str]] = {}
    for held in layouts:
        for name, (dims, kind) in held.items():
            if name not in coords and name not in along:
                known = variables.setdefault(name, (dims, kind))
                if set(dims) - set(known[0]):
                    variables[name] = (_merged(known[0], dims), known[1])
    positions = [{dim: _index(coords[dim], held[dim]) for dim in own if dim in held} for held in found]
    return _Plan(jobs, layouts, positions, found, whole, labels, along, coords, variables)


def _merged(some: list[str], others: list[str]) -> list[str]:
    return [*[dim for dim in others if dim not in some], *some]


def _labels(jobs: Sequence[Job], own: set[str]) -> dict[str, list[Any]]:
    """Dim name -> the value of every job, for the keys that are not the same in all of them."""
    picked = [chosen(job.overrides) for job in jobs]
    keys = list(dict.fromkeys(key for choice in picked for key in choice))
    values = {key: [_value(job, choice, key) for job, choice in zip(jobs, picked, strict=True)] for key in keys}
    varying = {key: column for key, column in values.items() if len(set(column)) > 1}
    short = [key.rpartition(".")[2] for key in varying]
    clear = [f"job_{s}" if s in own else s for s in short]  # a choice is not the axis of the same name in a result
    names = {key: s if clear.count(s) == 1 else key for key, s in zip(varying, clear, strict=True)}
    named = {names[key]: _one_kind(column) for key, column in varying.items()}
    return named or {"job": list(range(len(jobs)))}


def _value(job: Job, choice: Mapping[str, Any], key: str) -> Any:
    """What the job's overrides say for the key, else what its config says."""
    if key in choice:
        return choice[key]
    config = _config(job)
    found = config.get("choices", {}).get(key) or reduce(lambda at, part: (at or {}).get(part), key.split("."), config)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else str(found)


def _config(job: Job) -> dict[str, Any]:
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.create((job.attrs or {}).get("config", "{}")))
    return content


def _one_kind(column: list[Any]) -> list[Any]:
    return column if all(isinstance(value, float) for value in column) else [_plain(value) for value in column]


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shared(labels: Mapping[str, list[Any]]) -> dict[str, str]:
    """Key -> its dim: keys that are in one-to-one correspondence over the jobs share the dim of the first."""
    along: dict[str, str] = {}
    for key, column in labels.items():
        partner = next((other for other in along.values() if _one_to_one(labels[other], column)), key)
        along[key] = partner
    return along


def _one_to_one(some: list[Any], others: list[Any]) -> bool:
    pairs = set(zip(some, others, strict=True))
    return len(pairs) == len(set(some)) == len(set(others))


def _no_contradiction(jobs: Sequence[Job], labels: Mapping[str, list[Any]]) -> None:
    seen: dict[tuple, Job] = {}
    for i, job in enumerate(jobs):
        other = seen.setdefault(tuple(column[i] for column in labels.values()), job)
        was, now = ((one.attrs or {}).get("config", "") for one in (other, job))
        if other.path and job.path and was != now:
            raise InputError(
                f"{other.path} and {job.path} have the same choices and another config: {difference(was, now)}"
            )


def _union(columns: Sequence[np.ndarray]) -> np.ndarray:
    """All distinct values: numbers ascending, text in order of appearance."""
    values = np.concatenate([np.asarray(column) for column in columns])
    if values.dtype.kind in "fiub":
        return np.unique(values)
    return np.array(list(dict.fromkeys(values.tolist())))


def _index(coord: np.ndarray, values: Any) -> np.ndarray:
    """Positions of the values along the coordinate."""
    place = {value: i for i, value in enumerate(coord.tolist())}
    return np.array([place[value] for value in np.asarray(values).tolist()], dtype=int)


def _read(job: Job, held: Mapping[str, Any], whole: bool) -> dict[str, np.ndarray]:
    """The values of a job's variables, or only its coordinates; nothing if it has no result."""
    import h5py

    if not job.path:
        return {}
    names = [name for name, (dims, _) in held.items() if whole or [name] == dims]
    with h5py.File(job.path, "r") as file:
        return {name: _decoded(file[name][...], held[name][1]) for name in names}  # type: ignore[index]


def _decoded(values: Any, kind: str) -> np.ndarray:
    values = np.asarray(values)
    if kind == "U":
        text = [v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel().tolist()]
        return np.array(text, dtype=object).reshape(values.shape)
    return values.astype(bool) if kind == "b" else values


def _write_in_memory(plan: _Plan, path: Path) -> None:
    targets = {
        name: np.full(plan.shape(name), _MISSING[kind], _dtype(kind)) for name, (_, kind) in plan.variables.items()
    }
    for values, held, own, cell in zip(plan.values, plan.layouts, plan.own, plan.positions(), strict=True):
        for name in values.keys() & plan.variables.keys():
            dims, full = held[name][0], plan.variables[name][0]
            index = [own[dim] if dim in dims else np.arange(len(plan.coords[dim])) for dim in full]
            place = tuple(np.reshape(at, (-1, *(1,) * (len(index) - k - 1))) for k, at in enumerate(index))
            targets[name][(*cell, *place)] = _with_dims(values[name], dims, full)
    skeleton = _skeleton(plan)
    for name, (dims, kind) in plan.variables.items():
        skeleton[name] = ([*plan.job_dims, *dims], _tight(targets[name], kind))
    write_result(_attributed(skeleton, plan), path)


def _with_dims(values: np.ndarray, dims: list[str], full: list[str]) -> np.ndarray:
    """The values with an axis of length 1 for each dim of `full` that they lack."""
    order = [dims.index(dim) for dim in full if dim in dims]
    values = values.transpose(order)
    sizes = iter(values.shape)
    return values.reshape([next(sizes) if dim in dims else 1 for dim in full])


def _dtype(kind: str) -> Any:
    return object if kind == "U" else float


def _tight(values: np.ndarray, kind: str) -> np.ndarray:
    """Text and flags in their own type again; flags stay numbers with NaN where a job is missing."""
    if kind == "U":
        return values.astype(str)
    return values.astype({"b": bool, "i": np.int64}.get(kind, float)) if np.isfinite(values).all() else values


def _skeleton(plan: _Plan) -> xr.Dataset:
    """Coordinates, job_status and job_error."""
    import xarray as xr

    shape = tuple(len(plan.coords[dim]) for dim in plan.job_dims)
    status, error = np.full(shape, "missing", dtype=object), np.full(shape, "", dtype=object)
    for job, cell in zip(plan.jobs, plan.positions(), strict=True):
        status[cell], error[cell] = job.status, job.error
    coords: dict[str, Any] = dict(plan.coords)
    for key, dim in plan.along.items():
        if key != dim:
            first = [plan.labels[dim].index(value) for value in plan.coords[dim].tolist()]
            coords[key] = (dim, np.array([plan.labels[key][i] for i in first]))
    variables = {"job_status": (plan.job_dims, status.astype(str)), "job_error": (plan.job_dims, error.astype(str))}
    return xr.Dataset(variables, coords)


def _attributed(dataset: xr.Dataset, plan: _Plan) -> xr.Dataset:
    from moesim.variables import stamp

    kept = {name: {(job.attrs or {}).get(name, "") for job in plan.jobs if job.path} for name in _KEPT}
    attrs = {name: "; ".join(sorted(found)) for name, found in kept.items() if any(found)}
    return stamp(dataset.assign_attrs(attrs | {"collected": "true"}))


def _write_in_slabs(plan: _Plan, path: Path) -> None:
    """The skeleton by xarray, then every variable created empty and filled slab by slab."""
    import h5netcdf

    skeleton = _attributed(_skeleton(plan), plan)
    held = {
        name: [[*plan.job_dims, *dims], "U" if kind == "U" else "f"] for name, (dims, kind) in plan.variables.items()
    }
    attrs = {"moesim_version": __version__, "layout": json.dumps(held | json.loads(layout(skeleton)))}
    with whole(path) as temporary:
        skeleton.assign_attrs(attrs).to_netcdf(temporary, engine=ENGINE)
        with h5netcdf.File(temporary, "a") as file:
            for name, (dims, kind) in plan.variables.items():
                _create(file, name, [*plan.job_dims, *dims], kind)
            for i, cell in enumerate(plan.positions()):
                if plan.jobs[i].path:
                    _copy(file, plan, i, cell)


def _create(file: Any, name: str, dims: list[str], kind: str) -> None:
    """A variable that is missing everywhere (netCDF has no fill value for text that readers agree on)."""
    import h5py

    if kind != "U":
        file.create_variable(name, tuple(dims), float, fillvalue=np.nan)
        return
    created = file.create_variable(name, tuple(dims), h5py.string_dtype())
    for slab in slabs(created.shape, _SLAB):
        created[slab] = np.full(created[slab].shape, _MISSING[kind], dtype=object)


def _copy(file: Any, plan: _Plan, i: int, cell: tuple[int, ...]) -> None:
    """One job's variables, slab by slab."""
    import h5py

    with h5py.File(plan.jobs[i].path, "r") as source:
        for name, (dims, kind) in plan.layouts[i].items():
            if name in plan.variables:
                full = plan.variables[name][0]
                for slab in slabs(source[name].shape, _SLAB):  # type: ignore[union-attr]
                    own = {dim: plan.own[i][dim][cut] for dim, cut in zip(dims, slab, strict=True)}
                    index = [own[dim] if dim in dims else np.arange(len(plan.coords[dim])) for dim in full]
                    values = _with_dims(_decoded(source[name][slab], kind), dims, full)  # type: ignore[index]
                    _write_runs(file[name], cell, index, np.broadcast_to(values, [len(at) for at in index]))


def _write_runs(target: Any, at: tuple[Any, ...], index: list[np.ndarray], values: np.ndarray) -> None:
    """target[at + index] = values, in ranges: HDF5 takes no more than one list of positions."""
    if not index:
        target[at] = values
        return
    cuts = np.flatnonzero(np.diff(index[0]) != 1) + 1
    for run, part in zip(np.split(index[0], cuts), np.split(values, cuts), strict=True):
        if len(index) == 1:
            target[(*at, slice(run[0], run[-1] + 1))] = part
        elif all((np.diff(rest) == 1).all() for rest in index[1:]):
            rest = tuple(slice(along[0], along[-1] + 1) for along in index[1:])
            target[(*at, slice(run[0], run[-1] + 1), *rest)] = part
        else:
            for k, position in enumerate(run):
                _write_runs(target, (*at, int(position)), index[1:], part[k])
