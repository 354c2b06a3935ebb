"""Jobs: a resolved config through its verb's driver to files; many of them, what they leave, and one of them again."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

from moesim import plugins
from moesim.errors import InputError
from moesim.hydra_door import call_hydra, directory_in, directory_of
from moesim.overrides import check
from moesim.terminal import any_terminal, one_line_warnings
from moesim.verbs import driver

# Verb -> module whose collected(dataset) is the table of a multirun.
_COLLECTED = {"fit": "moesim.fitting.tables"}


def run_job(config: Any) -> None:
    """One job: the resolved config through the verb's driver, and everything it returns to files."""
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
    produce(*job)


def _job_of_many(verb: str, config: dict[str, Any], directory: Path, overrides: tuple[str, ...], whole: Path) -> None:
    """A job of a multirun: skipped if it is done, and one that fails leaves word and lets the others go on."""
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
            produce(verb, config, directory, overrides)
    except Exception as error:
        expected = isinstance(error, InputError | OSError)
        log.error("%s: %s", " ".join(overrides), error, exc_info=not expected)
        write_error(directory, overrides, f"{error}" if expected else f"{type(error).__name__}: {error}")


def produce(verb: str, config: dict[str, Any], directory: Path, overrides: tuple[str, ...] = ()) -> Path:
    """Run a verb on a resolved config; write figures, texts and last the result into the directory; print the table."""
    import logging

    from moesim.output.multirun import as_yaml
    from moesim.output.plots import write_figures
    from moesim.output.store import write_result, write_text

    result = driver(verb).run(config)
    for warning in result.warnings:
        logging.getLogger("moesim").warning(warning)
    text = as_yaml(config)
    texts = [directory / name for name in result.texts]
    for file, content in zip([*texts, directory / "config.yaml"], [*result.texts.values(), text], strict=True):
        write_text(file, content)
    drawn = write_figures(result.figures, directory)
    attrs = {"verb": verb, "config": text, "overrides": json.dumps(overrides)}
    path = write_result(result.dataset.assign_attrs(attrs), directory / result.file, result.streams)
    print(result.table)
    print("\n".join(f"wrote {os.path.relpath(file)}" for file in (path, *texts, *drawn)))
    return path


def single(verb: str, arguments: list[str]) -> None:
    """Run one job, in a directory of its own unless the arguments name one."""
    call_hydra(verb, [*arguments, *directory_of(verb, arguments, "run")], run_job)


def multirun(verb: str, arguments: list[str]) -> None:
    """Run the jobs and collect what they left; `resume=DIR` runs only what DIR lacks. Exits with 1 if any failed."""
    from moesim.output.collect import collect
    from moesim.output.multirun import resumed, watched
    from moesim.output.store import open_result

    resume = [argument.partition("=")[2] for argument in arguments if argument.startswith("resume=")]
    arguments = [argument for argument in arguments if not argument.startswith("resume=")]
    where = resumed(verb, Path(resume[0]), arguments) if resume else directory_of(verb, arguments, "sweep")
    directory = directory_in([*arguments, *where], "hydra.sweep.dir")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # jobs side by side must not fight over the cores
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # nor run what lies in the directory they start in
    with watched(directory, 1):
        call_hydra(verb, [*arguments, *where], run_job)
    report = collect([directory])
    if verb in _COLLECTED:
        print(import_module(_COLLECTED[verb]).collected(open_result(report.path)))
    print(report)
    if report.done < report.asked:
        raise SystemExit(1)


def collected(directories: list[str]) -> None:
    """Collect the results below the directories."""
    from moesim.output.collect import collect

    if not directories:
        raise InputError("give the directory of a multirun, or several: moesim collect outputs/sweep/DATE/TIME")
    print(collect(directories))


def _again(verb: str, config: dict[str, Any]) -> Any:
    plugins.require(config.get("plugins") or [])
    result = driver(verb).run(config | {"figures": False})
    if result.streams:
        raise InputError("the result is larger than its memory budget; give the run a larger one to compare it")
    return result.dataset


def rerun(paths: list[str]) -> None:
    """Repeat results from the config that they carry; exits with 1 if any number differs."""
    from moesim.output.store import open_result, repeated

    if not paths:
        raise InputError("give a result file: moesim rerun outputs/sweep/DATE/TIME/result.nc")
    verdicts = [repeated(open_result(path), _again) for path in paths]
    for path, verdict in zip(paths, verdicts, strict=True):
        print(f"{path}: {verdict or 'the same bit for bit'}")
    if any(verdicts):
        raise SystemExit(1)
