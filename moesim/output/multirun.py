"""What a multirun leaves on disk: which jobs were asked for, and what became of each.

A job's directory holds its result (written whole or not at all), or `error.txt` if it failed. The multirun's directory
holds Hydra's `multirun.yaml`, from which the jobs that were asked for are worked out again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Any

from moesim.config import conf_dir
from moesim.errors import InputError

COLLECTED = "collected.nc"
ERROR = "error.txt"
_DONE = ".done.json"


@dataclass(frozen=True)
class Job:
    """One job of a multirun: the overrides that chose it, and its result, its error or neither."""

    overrides: tuple[str, ...]
    path: Path | None = None
    error: str = ""
    attrs: Mapping[str, Any] | None = None

    @property
    def status(self) -> str:
        """`done`, `failed` or `missing`."""
        return "done" if self.path else "failed" if self.error else "missing"


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


def asked_for(directory: Path) -> list[tuple[str, ...]]:
    """The overrides of every job that the multirun of this directory was asked for (none if it is not known)."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    try:
        task = OmegaConf.load(directory / "multirun.yaml").hydra.overrides.task
        parsed = OverridesParser.create().parse_overrides(list(task))
        return [tuple(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
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
        done = {(job.overrides, (job.attrs or {})["config"]): job for job in _results(directory, problems)}
        failed = {job.overrides: job for job in _failures(directory, problems)}
        twins: dict[tuple[str, ...], list[Job]] = {}
        for job in done.values():
            twins.setdefault(job.overrides, []).append(job)
        for overrides in dict.fromkeys([*asked_for(directory), *twins, *failed]):
            jobs += twins.get(overrides) or [failed.get(overrides, Job(overrides))]
    return jobs, problems


def _failures(directory: Path, problems: list[str]) -> Iterator[Job]:
    for path in sorted(directory.rglob(ERROR)):
        if record := _json(path):
            yield Job(tuple(record["overrides"]), error=record["error"])
        else:
            problems.append(f"{path}: not a record of a failed job; skipped")


def _results(directory: Path, problems: list[str]) -> Iterator[Job]:
    for path in sorted(directory.rglob("*.nc")):
        if path.name == COLLECTED or path.name.startswith("."):
            continue
        try:
            attrs = read_attrs(path)
            yield Job(tuple(json.loads(attrs["overrides"])), path, attrs=attrs)
        except InputError as error:
            problems.append(f"{error}; skipped")


def read_attrs(path: Path) -> dict[str, Any]:
    """The attributes of a result file; InputError if it is not one that this version of moesim wrote whole."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            attrs = {name: value for name, value in file.attrs.items() if isinstance(value, str)}
    except OSError as error:
        raise InputError(f"{path}: not a readable netCDF4 file ({' '.join(str(error).split())})") from None
    if missing := {"moesim_version", "layout", "verb", "config", "overrides"} - set(attrs):
        raise InputError(f"{path}: no job's result of this version of moesim (it carries no {min(missing)})")
    return attrs


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and {"overrides", "error"} <= set(content) else {}


def write_error(directory: Path, overrides: Iterable[str], error: str) -> None:
    """Leave word of a failed job."""
    (directory / ERROR).write_text(json.dumps({"overrides": list(overrides), "error": error}))


# Resume: before the jobs start, the finished ones are listed once; each job looks itself up there.


def resumed(verb: str, directory: Path, arguments: list[str]) -> list[str]:
    """Make a multirun's directory ready to be resumed; returns the overrides that put the new jobs into it.

    Raises InputError if the directory holds a finished job that the arguments do not ask for, or one whose config has
    changed since.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    jobs, _ = survey([directory])
    done = {_fingerprint(job.overrides): job for job in jobs if job.path}
    task = [a for a in arguments if not a.startswith(("-", "hydra.", "hydra/"))]
    parsed = OverridesParser.create().parse_overrides(task)
    asked = {_fingerprint(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch}
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
    (directory / _DONE).write_text(json.dumps(configs))
    subdir = datetime.now().strftime("resumed-%Y-%m-%d-%H-%M-%S-%f")
    return [f"hydra.sweep.dir='{directory}'", f"hydra.sweep.subdir='{subdir}/${{hydra.job.num}}'"]


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
def progress(directory: Path) -> Iterator[None]:
    """A bar over the jobs of a multirun while it runs, on a terminal only; it counts what lies in the directory."""
    if not sys.stderr.isatty():
        yield
        return
    stop = Event()
    watcher = Thread(target=_watch, args=(directory, stop), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


def _watch(directory: Path, stop: Event) -> None:
    from tqdm import tqdm

    with tqdm(total=None, unit="job") as bar:
        while not stop.wait(0.5):
            bar.total = bar.total or len(asked_for(directory)) or None
            ended = {path.parent for pattern in ("*.nc", ERROR) for path in directory.rglob(pattern)}
            bar.update(len(ended) - bar.n)
