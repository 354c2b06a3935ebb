"""Many training runs: each once, in processes of one thread, and what is done stays done."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.lab.corpus import Corpus, load
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
    workers = whole()("lab", "workers", workers)
    found = {job.name: kept for job in jobs if (kept := _kept(folder, job)) is not None}
    missing = [job for job in {job.name: job for job in jobs}.values() if job.name not in found]
    if missing:
        for choice in {json.dumps(job.corpus) for job in missing}:
            _corpus(choice)  # what is wrong with it is said before anything is trained
        need_torch()
        folder.mkdir(parents=True, exist_ok=True)
        found |= _train_all(missing, workers, folder)
    return [found[job.name] for job in jobs]


def need_torch() -> None:
    """InputError that names the extra where PyTorch is not installed."""
    if find_spec("torch") is None:
        raise InputError("lab: training needs PyTorch, which is not installed; pip install 'moesim[lab]'")


def _kept(folder: Path, job: Job) -> xr.Dataset | None:
    try:
        data = open_result(folder / f"{job.name}.nc")
        return data.assign(
            {name: v for name, v in job.columns().items() if name not in data}
        )  # columns that came later
    except (InputError, OSError):  # not there, or damaged when it was killed
        return None


def _train_all(jobs: Sequence[Job], workers: int, folder: Path) -> dict[str, xr.Dataset]:
    """Longest first, so that no worker idles at the end."""
    by_cost = sorted(jobs, key=lambda job: -job.tokens * job.shape.transformer.active_params)
    with progress(sum(map(_cost, jobs)), "GFLOP", "lab") as advance:
        if workers == 1:
            for job in by_cost:
                _train_one(job, folder)
                advance(_cost(job))
        else:
            # spawned: a forked process would share PyTorch's threads
            with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
                futures = {pool.submit(_train_one, job, folder): job for job in by_cost}
                for future in as_completed(futures):
                    future.result()
                    advance(_cost(futures[future]))
    return {job.name: open_result(folder / f"{job.name}.nc") for job in jobs}


def _cost(job: Job) -> float:
    return 6e-9 * job.tokens * job.shape.transformer.active_params


def _train_one(job: Job, folder: Path) -> None:
    from moesim.lab.train import train

    corpus = _corpus(json.dumps(job.corpus))
    write_result(_as_dataset(job, corpus, train(job, corpus)), folder / f"{job.name}.nc")


@lru_cache(maxsize=1)
def _corpus(choice: str) -> Corpus:
    return load(json.loads(choice))


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
