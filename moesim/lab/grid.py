"""Many training runs: each once, in processes of one thread, and what is done stays done."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.lab.corpus import Corpus, corpora, load
from moesim.lab.job import Job
from moesim.output.progress import progress
from moesim.output.store import open_result, write_result
from moesim.settings import whole

if TYPE_CHECKING:
    import xarray as xr

KEPT = Path("outputs", "lab", "trajectories")
"""Where finished trajectories lie, one file each, named by the hash of the job; a later grid takes them from there."""


def trained(jobs: Sequence[Job], workers: int = 1, folder: Path = KEPT) -> list[xr.Dataset]:
    """The trajectory of each job, in their order; those that lie in `folder` are read, the others trained and kept.

    A killed run loses what its workers were at. Raises InputError without PyTorch.
    """
    workers, read = whole()("lab", "workers", workers), _Corpora()
    paths = {job.name: folder / f"{_name(job, read)}.nc" for job in jobs}
    found = {job.name: kept for job in jobs if (kept := _kept(paths[job.name], job)) is not None}
    missing = [job for job in {job.name: job for job in jobs}.values() if job.name not in found]
    if missing:
        texts = {job.name: read[_choice(job)] for job in missing}  # what is wrong with them is said before training
        need_torch()
        folder.mkdir(parents=True, exist_ok=True)
        _train_all([(job, texts[job.name], paths[job.name]) for job in missing], workers)
        found |= {job.name: open_result(paths[job.name]) for job in missing}
    return [found[job.name] for job in jobs]


class _Corpora(dict[str, Corpus]):
    """Each corpus that is asked for, read once."""

    def __missing__(self, choice: str) -> Corpus:
        self[choice] = load(json.loads(choice))
        return self[choice]


def _choice(job: Job) -> str:
    return json.dumps(job.corpus)


def _name(job: Job, read: _Corpora) -> str:
    """The name of a trajectory: its job's, with the hash of a corpus that may be another under the same words."""
    changes = corpora.only(job.corpus).traits["changes"]
    return f"{job.name}-{read[_choice(job)].hash[:8]}" if changes else job.name


def need_torch() -> None:
    """InputError that names the extra where PyTorch is not installed."""
    if find_spec("torch") is None:
        raise InputError("lab: training needs PyTorch, which is not installed; pip install 'moesim[lab]'")


def _kept(path: Path, job: Job) -> xr.Dataset | None:
    try:
        data = open_result(path)
        return data.assign({name: v for name, v in job.columns().items() if name not in data})  # some came later
    except (InputError, OSError):  # not there, or damaged when it was killed
        return None


Task = tuple[Job, Corpus, Path]


def _train_all(tasks: Sequence[Task], workers: int) -> None:
    """Longest first, so that no worker idles at the end."""
    by_cost = sorted(tasks, key=lambda task: -_cost(task[0]))
    with progress(sum(_cost(job) for job, _, _ in tasks), "GFLOP", "lab") as advance:
        for job in _in_turn(by_cost) if workers == 1 else _side_by_side(by_cost, workers):
            advance(_cost(job))


def _cost(job: Job) -> float:
    return 6e-9 * job.tokens * job.shape.transformer.active_params


def _in_turn(tasks: Sequence[Task]) -> Iterator[Job]:
    for task in tasks:
        yield _train_one(*task)


def _side_by_side(tasks: Sequence[Task], workers: int) -> Iterator[Job]:
    """Jobs as they end, in spawned processes, as a forked one would share PyTorch's threads; all end with this one."""
    before = multiprocessing.active_children()
    context, given = multiprocessing.get_context("spawn"), {_choice(job): corpus for job, corpus, _ in tasks}
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(given,))
    try:
        with _no_script():
            futures = [pool.submit(_train_given, job, path) for job, _, path in tasks]
        for future in as_completed(futures):
            yield future.result()
        pool.shutdown()
    except BrokenProcessPool:
        raise InputError(
            "lab: a worker was killed, perhaps for want of memory; what it finished is kept: the same command goes on, "
            "with fewer workers if need be"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in {*multiprocessing.active_children()} - {*before}:
            child.terminate()
            child.join()


@contextmanager
def _no_script() -> Iterator[None]:
    """Processes that are spawned here do not run the script again that asked for them."""
    names = vars(sys.modules["__main__"])
    told = {name: names.pop(name) for name in ("__file__", "__spec__") if name in names}
    try:
        names["__spec__"] = None
        yield
    finally:
        names.update(told)


_given: dict[str, Corpus] = {}  # of a worker, from the process that asked


def _begin(given: dict[str, Corpus]) -> None:
    """A worker leaves an interrupt to the process that asked, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _given.update(given)
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _train_given(job: Job, path: Path) -> Job:
    return _train_one(job, _given[_choice(job)], path)


def _train_one(job: Job, corpus: Corpus, path: Path) -> Job:
    from moesim.lab.train import train

    found = _as_dataset(job, corpus, train(job, corpus)).assign(trajectory=path.stem)
    write_result(found, path)
    return job


def _as_dataset(job: Job, corpus: Corpus, trajectory: Any) -> xr.Dataset:
    """Dims mark, domain, and window, layer, expert of the loads."""
    import torch  # pyright: ignore[reportMissingImports]
    import xarray as xr

    rows = trajectory.rows
    data: dict[str, Any] = {name: ("mark", np.array([row[name] for row in rows])) for name in rows[0]}
    data["domain_loss"] = (("mark", "domain"), np.array([row["domain_loss"] for row in rows]))
    unique = np.minimum(job.unique_tokens, data["tokens"][1])
    data["unique_tokens"] = ("mark", unique)
    data["loads"] = (("window", "layer", "domain", "expert"), trajectory.loads)
    told = {**job.columns(), "corpus": corpus.name, "hash": corpus.hash, "floor": corpus.floor}
    told |= {"torch_version": str(torch.__version__), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    scalars = {name: ((), value) for name, value in told.items()}
    coords = {"window_step": ("window", trajectory.steps), "domain": list(corpus.domains)}
    probed = trajectory.probed
    axes = {name: list(values) for name, values in probed.axes.items()}
    told = {"probed": " ".join(probed.values)}
    return xr.Dataset(data | scalars | dict(probed.values), coords | axes, told)
