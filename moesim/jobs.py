"""Jobs: a resolved config through its verb's driver to files, and the same again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim import __version__, plugins
from moesim.config import shipped
from moesim.errors import InputError
from moesim.hydra_door import call_hydra, directory_in, directory_of
from moesim.output.claim import claimed, stoppable
from moesim.overrides import check
from moesim.terminal import any_terminal, one_line_warnings
from moesim.verbs import run

if TYPE_CHECKING:
    from moesim.output.result import Result


def run_job(config: Any) -> None:
    """One job: the resolved config through the verb's driver, and everything it returns to files and the console."""
    import logging

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    any_terminal()
    one_line_warnings()
    hydra = HydraConfig.get()
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    job = (hydra.job.name, resolved, Path(hydra.runtime.output_dir), tuple(hydra.overrides.task))
    if hydra.mode is RunMode.MULTIRUN:
        _job_of_many(*job, Path(hydra.sweep.dir))
        return
    result, written = produce(*job)
    if resolved["page"]:
        from moesim.pages.page import page

        written.append(page(written[0]))
    for warning in result.warnings:
        logging.getLogger("moesim").warning(warning)
    print(result.table)
    print("\n".join(f"wrote {os.path.relpath(file)}" for file in written))


def _job_of_many(verb: str, config: dict[str, Any], directory: Path, overrides: tuple[str, ...], whole: Path) -> None:
    """A job of a multirun: skipped if it is done, and one that fails leaves word and lets the others go on.

    It prints nothing, and draws only with `figures=all`: the multirun ends with a table and a figure of all jobs.
    """
    import logging

    from moesim.output.job import write_error
    from moesim.output.multirun import as_yaml, is_done

    log = logging.getLogger("moesim")
    try:
        plugins.arrive()
        check(verb, overrides)
        if is_done(whole, overrides, as_yaml(config)):
            log.info("done before: %s", " ".join(overrides))
        else:
            produce(verb, config, directory, overrides, config["figures"] == "all")
    except Exception as error:
        expected = isinstance(error, InputError | OSError)
        log.error("%s: %s", " ".join(overrides), error, exc_info=not expected)
        write_error(directory, overrides, f"{error}" if expected else _fault(error))


def _fault(error: Exception) -> str:
    if type(error).__name__ == "UncompletedJobError":  # of the launcher
        return "stopped at the time limit of the cluster's job; give hydra.launcher.timeout_min more, and resume"
    return f"{type(error).__name__}: {error}"


def produce(
    verb: str, config: dict[str, Any], directory: Path, overrides: tuple[str, ...] = (), figures: bool | None = None
) -> tuple[Result, list[Path]]:
    """Run a verb on a resolved config; write figures, texts and last the result into the directory, and say which.

    `figures` stands for what the config says of them.
    """
    from moesim.output.multirun import as_yaml
    from moesim.output.plots import write_figures
    from moesim.output.store import write_result, write_text

    drawing = bool(config["figures"]) if figures is None else figures
    result = run(verb, config | {"figures": drawing})
    text = as_yaml(config)
    texts = [directory / name for name in result.texts]
    for file, content in zip([*texts, directory / "config.yaml"], [*result.texts.values(), text], strict=True):
        write_text(file, content)
    drawn = write_figures(result.figures, directory)
    others = [write_result(dataset, directory / name) for name, dataset in result.beside.items()]
    said = {"warnings": "\n".join(result.warnings)} if result.warnings else {}
    attrs = {"verb": verb, "config": text, "overrides": json.dumps(overrides), **said}
    path = write_result(result.dataset.assign_attrs(attrs), directory / result.file, result.streams)
    return result, [path, *others, *texts, *drawn]


def single(verb: str, arguments: list[str]) -> None:
    """Run one job, in a directory of its own unless the arguments name one that holds no results."""
    where = directory_of(verb, arguments, "run")
    with claimed(directory_in([*arguments, *where], "hydra.run.dir")), stoppable():
        call_hydra(verb, [*arguments, *where], run_job)


def _again(verb: str, config: dict[str, Any]) -> Any:
    plugins.require(config.get("plugins") or [])
    since = {key: value for key, value in shipped(verb).items() if key not in ("defaults", "hydra", "choices")}
    result = run(verb, {**since, **config, "figures": False})  # keys that came since have their defaults
    if result.streams:
        raise InputError("the result is larger than its memory budget; give the run a larger one to compare it")
    return result.dataset


def rerun(paths: list[str]) -> None:
    """Repeat results from the config that they carry; exits with 1 if any number differs."""
    from moesim.output.store import open_result, repeated

    if not paths:
        raise InputError("give a result file: moesim rerun outputs/sweep/DATE/TIME/result.nc")
    results = {path: open_result(path) for path in paths}
    verdicts = {path: repeated(result, _again) for path, result in results.items()}
    for path, verdict in verdicts.items():
        version = results[path].attrs["moesim_version"]
        other = "" if version == __version__ else f" (made with moesim {version}, this is {__version__})"
        print(f"{path}: {verdict or f'the same bit for bit{other}'}")
    if any(verdicts.values()):
        raise SystemExit(1)
