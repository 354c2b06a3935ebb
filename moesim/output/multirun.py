"""What a multirun leaves on disk: which jobs were asked for, and what became of each.

A job's directory holds its result (written whole or not at all), or `error.txt` if it failed. The multirun's directory
holds Hydra's `multirun.yaml`, from which the jobs that were asked for are worked out again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from itertools import product
from pathlib import Path
from threading import Event, Thread
from typing import Any

from moesim.config import conf_dir
from moesim.errors import InputError
from moesim.output.job import ERROR, Job, read_error, read_job
from moesim.output.progress import progress
from moesim.output.store import write_text

COLLECTED = "collected.nc"
_DONE = ".done.json"
_EVERY = 1.0  # s between two looks at how many jobs have ended


def combinations(task: Iterable[str]) -> list[tuple[str, ...]]:
    """The overrides of each job: every combination of the values typed for each key, of a key typed twice the last."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    columns: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(list(task)):
        key, several = override.get_key_element(), override.is_sweep_override()
        values = override.sweep_string_iterator() if several else [override.get_value_element_as_str()]
        columns[key] = [f"{key}={value}" for value in values]
    return list(product(*columns.values()))


def asked_for(directory: Path) -> list[tuple[str, ...]]:
    """The overrides of every job that the multirun of this directory was asked for (none if it is not known)."""
    from omegaconf import OmegaConf

    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(directory / "multirun.yaml"), resolve=False)
        return combinations(content["hydra"]["overrides"]["task"])
    except Exception:  # killed while it was written, or not a multirun: only what is there can be reported
        return []


def survey(directories: Iterable[str | Path]) -> tuple[list[Job], list[str]]:
    """Every job asked for or found below the directories, and a line on each file that could not be used.

    Raises InputError for a directory that does not exist.
    """
    jobs: list[Job] = []
    problems: list[str] = []
    for directory in map(Path, directories):
        if not directory.is_dir():
            raise InputError(f"{directory}: no such directory; give the directory of a multirun")
        # A job that failed and was later done counts as done; one that was done twice alike counts once.
        results = _read(directory, "*.nc", read_job, problems)
        done = {(job.overrides, (job.attrs or {})["config"]): job for job in results}
        failed = {job.overrides: job for job in _read(directory, ERROR, read_error, problems)}
        twins: dict[tuple[str, ...], list[Job]] = {}
        for job in done.values():
            twins.setdefault(job.overrides, []).append(job)
        for overrides in dict.fromkeys([*asked_for(directory), *twins, *failed]):
            jobs += twins.get(overrides) or [failed.get(overrides, Job(overrides))]
    return jobs, problems


def _read(directory: Path, pattern: str, read: Callable[[Path], Job], problems: list[str]) -> Iterator[Job]:
    for path in sorted(directory.rglob(pattern)):
        if path.name != COLLECTED and not path.name.startswith("."):
            try:
                yield read(path)
            except InputError as error:
                problems.append(f"{error}; skipped")


# Resume: before the jobs start, the finished ones are listed once; each job looks itself up there.


def resumed(verb: str, directory: Path, arguments: list[str]) -> list[str]:
    """Make a multirun's directory ready to be resumed; returns the override that puts the new jobs aside.

    Raises InputError if the directory holds a finished job that the arguments do not ask for, or one whose config has
    changed since.
    """
    jobs, _ = survey([directory])
    done = {_fingerprint(job.overrides): job for job in jobs if job.path}
    task = [a for a in arguments if not a.startswith(("-", "hydra.", "hydra/"))]
    asked = set(map(_fingerprint, combinations(task)))
    if other := [job for fingerprint, job in done.items() if fingerprint not in asked]:
        raise InputError(
            f"resume={directory}: it holds {' '.join(other[0].overrides) or 'a job without choices'}, which is not "
            f"asked for by {' '.join(task)}; repeat its choices, or use another directory"
        )
    configs = {fingerprint: (job.attrs or {})["config"] for fingerprint, job in done.items()}
    for fingerprint, now in _composed(verb, done.values()).items():
        if now != configs[fingerprint]:
            raise InputError(
                f"resume={directory}: the config of {done[fingerprint].path} has changed: "
                f"{difference(configs[fingerprint], now)}; use another directory"
            )
    write_text(directory / _DONE, json.dumps(configs))
    subdir = datetime.now().strftime("resumed-%Y-%m-%d-%H-%M-%S-%f")
    return [f"hydra.sweep.subdir='{subdir}/${{hydra.job.num}}'"]


def _composed(verb: str, jobs: Iterable[Job]) -> dict[str, str]:
    """Fingerprint -> the config that the overrides of each job give now."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    out = {}
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        for job in jobs:
            config = compose(verb, list(job.overrides), return_hydra_config=True)
            HydraConfig.instance().set_config(config)
            with open_dict(config):
                del config["hydra"]
            out[_fingerprint(job.overrides)] = as_yaml(config)
    return out


def as_yaml(config: Any) -> str:
    """A config, resolved, as the text that results carry."""
    from omegaconf import OmegaConf

    config = config if OmegaConf.is_config(config) else OmegaConf.create(dict(config))
    return OmegaConf.to_yaml(config, resolve=True)


def is_done(directory: Path, overrides: Iterable[str], config: str) -> bool:
    """Whether the job was on the list of finished ones when the multirun was resumed, with this config."""
    path = directory / _DONE
    return path.is_file() and json.loads(path.read_text()).get(_fingerprint(overrides)) == config


def _fingerprint(overrides: Iterable[str]) -> str:
    return sha256("\n".join(sorted(overrides)).encode()).hexdigest()


def difference(old: str, new: str) -> str:
    """The lines of two YAML texts that differ, as `was ..., is ...`."""
    was, now = old.splitlines(), new.splitlines()
    gone, come = [line.strip() for line in was if line not in now], [line.strip() for line in now if line not in was]
    return f"was {'; '.join(gone) or 'nothing'}, is {'; '.join(come) or 'nothing'}"


@contextmanager
def watched(directory: Path, jobs: int) -> Iterator[None]:
    """Tell how many of the jobs have ended while the block runs; it counts what lies in the directory."""
    stop, before = Event(), len(ended(directory))
    watcher = Thread(target=_watch, args=(directory, max(jobs - before, 1), before, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _watch(directory: Path, jobs: int, before: int, stop: Event) -> None:
    seen = 0
    with progress(jobs, "job") as advance:
        while not stop.wait(_EVERY):
            now = len(ended(directory)) - before
            advance(now - seen)
            seen = now


def ended(directory: Path) -> set[Path]:
    """The directories of the jobs that have left a result or an error."""
    return {path.parent for pattern in ("*.nc", ERROR) for path in directory.rglob(pattern)} - {directory}
