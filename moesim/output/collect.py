"""Many results to one labelled Dataset, whatever happened on the way.

Results that fit the memory budget are combined in memory; larger ones go straight from file to file in slabs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.numerics.elementwise import slabs
from moesim.output.job import Job
from moesim.output.multirun import COLLECTED, survey
from moesim.output.plan import Plan, decoded, plan
from moesim.output.store import layout, netcdf, write_result
from moesim.output.text import Page, shown
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr

MEMORY = 1e9  # bytes of the collected Dataset above which it is written in slabs
_SLAB = 2**24  # values read at once then
_MISSING = {"f": np.nan, "i": np.nan, "u": np.nan, "b": np.nan, "U": "missing"}
_FORMULAS = 24  # of different jobs, kept for pages
_OF_ONE = ("config", "layout", "overrides", "moesim_version", "checksum")  # attributes that are not those of many


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


def collect(directories: Sequence[str | Path], out: str | Path | None = None, memory: float = MEMORY) -> Report:
    """Combine all whole results below the directories into `collected.nc` (in the first one, or at `out`).

    Dims are the keys that differ between jobs (those that vary only together share one), then the results' own;
    choices of an axis of the results lie along that axis. Text choices become text coordinates, numbers numbers; a
    choice called like an axis inside the results that has other values there is `job_NAME`. `job_status` (done, failed,
    missing) and `job_error` have the job dims; what a job does not have is NaN, or `missing` for text. Raises
    InputError if no result is whole, if results of several verbs are mixed, or if two results with the same choices
    differ in their config.
    """
    jobs, problems = survey(directories)
    done = [job for job in jobs if job.path]
    if not done:
        raise InputError(
            f"{', '.join(map(str, directories))}: no whole result of moesim {'; '.join(problems)}".rstrip()
        )
    _same_verb(done)
    planned = plan(jobs)
    path = Path(out) if out else Path(directories[0]) / COLLECTED
    size = sum(8.0 * np.prod(planned.shape(name)) for name in planned.variables)
    (_write_in_memory if size <= memory else _write_in_slabs)(planned, path)
    said = Counter(line for job in done for line in (job.attrs or {}).get("warnings", "").splitlines())
    warnings = [f"WARNING ({times} of {len(done)} jobs): {line}" for line, times in said.items()]
    lines = [
        f"{job.status}: {' '.join(job.overrides) or 'the job'} {job.error}".rstrip() for job in jobs if not job.path
    ]
    return Report(path, len(jobs), len(done), (*lines, *problems, *warnings))


def _same_verb(done: Sequence[Job]) -> None:
    verbs = {(job.attrs or {}).get("verb", "?"): job.path for job in done}
    if len(verbs) > 1:
        (a, first), (b, second), *_ = verbs.items()
        raise InputError(f"{first} is a result of {a}, {second} of {b}: collect the verbs apart")


def _write_in_memory(plan: Plan, path: Path) -> None:
    targets = {
        name: np.full(plan.shape(name), _MISSING[kind], object if kind == "U" else float)
        for name, (_, kind) in plan.variables.items()
    }
    for i in range(len(plan.jobs)):
        for name, index, values in _pieces(plan, i):
            targets[name][np.ix_(*index)] = values
    dataset = _skeleton(plan)
    for name, (_, kind) in plan.variables.items():
        dataset[name] = (plan.dims(name), _tight(targets[name], kind))
    write_result(stamp(dataset), path)


def _pieces(plan: Plan, i: int) -> Any:
    """Name, positions along all dims and values of each slab of each variable of a job."""
    import h5py

    job = plan.jobs[i]
    if not job.path:
        return
    with h5py.File(job.path, "r") as file:
        for name in (job.layout or {}).keys() & plan.variables.keys():
            dims, kind = (job.layout or {})[name]
            variable: Any = file[name]
            for slab in slabs(variable.shape, _SLAB):
                own = {dim: plan.at[i][dim][cut] for dim, cut in zip(dims, slab, strict=True)}
                index = plan.place(i, name, own)
                values = _with_dims(decoded(variable[slab], kind), dims, plan.dims(name))
                yield name, index, np.broadcast_to(values, [len(positions) for positions in index])


def _with_dims(values: np.ndarray, dims: list[str], full: list[str]) -> np.ndarray:
    """The values with an axis of length 1 for each dim of `full` that they lack."""
    values = values.transpose([dims.index(dim) for dim in full if dim in dims])
    sizes = iter(values.shape)
    return values.reshape([next(sizes) if dim in dims else 1 for dim in full])


def _tight(values: np.ndarray, kind: str) -> np.ndarray:
    """Text and flags in their own type again; flags stay numbers with NaN where a job is missing."""
    if kind == "U":
        return values.astype(str)
    return (
        values.astype({"b": bool, "i": np.int64, "u": np.uint8}.get(kind, float))
        if np.isfinite(values).all()
        else values
    )


def _skeleton(plan: Plan) -> xr.Dataset:
    """Coordinates, job_status and job_error, and the attributes that all jobs share."""
    import xarray as xr

    shape = tuple(len(plan.coords[dim]) for dim in plan.job_dims)
    status, error = np.full(shape, "missing", dtype=object), np.full(shape, "", dtype=object)
    for job, at in sorted(zip(plan.jobs, plan.at, strict=True), key=lambda pair: pair[0].path is not None):
        cells = np.ix_(*(at[dim] for dim in plan.job_dims))
        status[cells], error[cells] = job.status, job.error
    coords: dict[str, Any] = {**plan.coords, **plan.scalars}
    for name, (dim, values) in plan.labels.items():
        first = {int(at[dim][0]): value for at, value in zip(plan.at, values, strict=True)}
        coords[name] = (dim, np.array([first[i] for i in range(len(plan.coords[dim]))]))
    variables = {"job_status": (plan.job_dims, status.astype(str)), "job_error": (plan.job_dims, error.astype(str))}
    return stamp(xr.Dataset(variables, coords, _attributes(plan.jobs)))


def _attributes(jobs: Sequence[Job]) -> dict[str, str]:
    """What all results say alike, all sources that any of them names, and the versions that made them."""
    held = [job.attrs or {} for job in jobs if job.path]
    names = sorted({name for attrs in held for name in attrs} - set(_OF_ONE))
    said = {name: sorted({attrs.get(name, "") for attrs in held}) for name in names}
    kept = {name: "; ".join(filter(None, v)) for name, v in said.items() if len(v) == 1 or name.endswith("_source")}
    if len(said.get("formula", ())) > 1:
        kept["formulas"] = json.dumps(_formulas([job for job in jobs if job.path]))
    versions = sorted({attrs["moesim_version"] for attrs in held})
    return {name: v for name, v in kept.items() if v} | {"collected": "true", "jobs_made_with": ", ".join(versions)}


def _formulas(jobs: Sequence[Job]) -> dict[str, str]:
    """The formula of every choice of what differs between jobs, each formula once, at most so many."""
    shared = set.intersection(*(set(job.overrides) for job in jobs))
    held = {(job.attrs or {}).get("formula", ""): job.overrides for job in reversed(jobs)}
    named = [(" ".join(word for word in words if word not in shared), text) for text, words in held.items() if text]
    return dict(reversed(named[-_FORMULAS:]))


def _write_in_slabs(plan: Plan, path: Path) -> None:
    """The skeleton, then every variable created empty and filled slab by slab."""
    skeleton = _skeleton(plan)
    held = {name: [plan.dims(name), "U" if kind == "U" else "f"] for name, (_, kind) in plan.variables.items()}
    text = json.dumps(held | json.loads(layout(skeleton)))
    with netcdf(path, skeleton.assign_attrs(layout=text)) as (file, check):
        for name, (_, kind) in plan.variables.items():
            _create(file, name, plan.dims(name), kind, check)
        for i in range(len(plan.jobs)):
            for name, index, values in _pieces(plan, i):
                _write_runs(file[name], (), index, values)
                check()


def _create(file: Any, name: str, dims: list[str], kind: str, check: Callable[[], None]) -> None:
    """A variable that is missing everywhere (netCDF has no fill value for text that readers agree on)."""
    import h5py

    if kind != "U":
        file.create_variable(name, tuple(dims), float, fillvalue=np.nan)
        return
    created = file.create_variable(name, tuple(dims), h5py.string_dtype())
    for slab in slabs(created.shape, _SLAB):
        created[slab] = np.full(created[slab].shape, _MISSING[kind], dtype=object)
        check()


def _write_runs(target: Any, at: tuple[Any, ...], index: list[np.ndarray], values: np.ndarray) -> None:
    """target[at + index] = values, in ranges: HDF5 takes no more than one list of positions."""
    if not index:
        target[at] = values
        return
    cuts = np.flatnonzero(np.diff(index[0]) != 1) + 1
    for run, part in zip(np.split(index[0], cuts), np.split(values, cuts), strict=True):
        if all((np.diff(rest) == 1).all() for rest in index[1:]):
            rest = tuple(slice(along[0], along[-1] + 1) for along in index[1:])
            target[(*at, slice(run[0], run[-1] + 1), *rest)] = part
        else:
            for k, position in enumerate(run):
                _write_runs(target, (*at, int(position)), index[1:], part[k])
