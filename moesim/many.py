"""Many jobs of one verb: run, resumed, collected, compared; whatever ends them, what is there is kept and told."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from moesim.errors import InputError
from moesim.hydra_door import call_hydra, directory_in, directory_of
from moesim.jobs import run_job
from moesim.output import cluster
from moesim.output.claim import claimed, stoppable
from moesim.output.multirun import combinations, ended, resumed, watched
from moesim.overrides import quoted, typed
from moesim.verbs import driver

if TYPE_CHECKING:
    from moesim.output.collect import Report

INTERRUPTED = 130
SLURM = "hydra/launcher=submitit_slurm"
_LONGEST = 300  # characters of a launcher's complaint


def multirun(verb: str, words: list[str], arguments: Sequence[str]) -> None:
    """Run the jobs and collect what they left; `resume=DIR` runs only what DIR lacks.

    `words` are the arguments as Hydra takes them, `arguments` as they were typed. Exits with 1 if a job failed or was
    lost, with 130 if it was interrupted; then it says which command goes on.
    """
    resume = [Path(str(typed(word).value)) for word in words if word.startswith("resume=")]
    words = [word for word in words if not word.startswith("resume=")]
    asked = len(combinations(word for word in words if not word.startswith(("-", "hydra.", "hydra/"))))
    where = [f"hydra.sweep.dir={quoted(str(resume[0]))}"] if resume else directory_of(verb, words, "sweep")
    directory = directory_in([*words, *where], "hydra.sweep.dir")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # jobs side by side must not fight over the cores
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # nor run what lies in the directory they start in
    with claimed(directory, bool(resume), "resume=DIRECTORY goes on with it, or name another"), stoppable() as heard:
        where += resumed(verb, directory, words) if resume else []
        with watched(directory, asked):
            stopped = _ended_by(verb, [*words, *where], directory)
        stopped = KeyboardInterrupt() if stopped and heard else stopped
        given = {word.lower() for word in words}
        code = _closed(directory, stopped, "figures=false" not in given, "page=true" in given)
    if code:
        print(f"to run what is missing: {_again(verb, arguments, directory)}")
        raise SystemExit(code)


def _ended_by(verb: str, words: list[str], directory: Path) -> BaseException | None:
    """Run the jobs; what stopped them before all had ended, if anything did. Bad input comes out before any began."""
    try:
        with cluster.guarded(directory) if SLURM in words else nullcontext():
            call_hydra(verb, [*words, *_warned_in_time(words)], run_job)
    except KeyboardInterrupt as error:
        return error
    except Exception as error:
        if isinstance(error, InputError) and not ended(directory):
            raise
        if SLURM in words:  # the launcher gave up at one job; the others go on
            cluster.wait(directory)
        return error
    return None


def _warned_in_time(words: Sequence[str]) -> list[str]:
    """A job hears two minutes before its time limit that it ends, which is too early for a limit of minutes."""
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    limit = given.get("hydra.launcher.timeout_min")
    if SLURM not in words or limit is None or "hydra.launcher.signal_delay_s" in given:
        return []
    return [f"hydra.launcher.signal_delay_s={cluster.warning_time(float(limit))}"]


def _closed(directory: Path, stopped: BaseException | None, draw: bool, paged: bool) -> int:
    """Collect and compare, and say what went wrong; the exit code."""
    interrupted = isinstance(stopped, KeyboardInterrupt)
    if stopped:
        said = " ".join(str(stopped).split())[:_LONGEST]
        print(f"interrupted{_still_running(directory)}" if interrupted else f"stopped early: {said}")
    try:
        report = closed([directory], draw, paged)
        lost = report.done < report.asked
    except (InputError, OSError) as error:  # nothing to collect, or no room for it
        print(error)
        lost = True
    return INTERRUPTED if interrupted else int(lost)


def _still_running(directory: Path) -> str:
    names = cluster.running(directory)
    return f"; the cluster still runs {' '.join(names)} (scancel stops them)" if names else ""


def _again(verb: str, arguments: Sequence[str], directory: Path) -> str:
    """The command that resumes a multirun."""
    kept = [a for a in arguments if not a.startswith(("resume=", "hydra.sweep.dir="))]
    where = str(directory) if re.fullmatch(r"[\w./-]+", str(directory)) else quoted(str(directory))
    return shlex.join(["moesim", verb, *kept, f"resume={where}"])


def collected(directories: list[str]) -> None:
    """Collect the results below the directories."""
    if not directories:
        raise InputError("give the directory of a multirun, or several: moesim collect outputs/sweep/DATE/TIME")
    closed(directories)


def closed(directories: Sequence[str | Path], draw: bool = False, paged: bool = False) -> Report:
    """Collect, and print what the jobs say side by side; with figures, and a page, beside the collected file."""
    from moesim.output.collect import collect

    report = collect(directories)
    try:
        _compare(report.path, draw)
        if paged:
            from moesim.pages.page import page

            print(f"wrote {os.path.relpath(page(report.path))}")
    except Exception as error:  # the numbers are safe; a table of them is not worth an exit code
        print(f"no comparison: {' '.join(str(error).split())}")
    print(report)
    return report


def _compare(path: Path, draw: bool) -> None:
    import xarray as xr

    from moesim.output.compared import compared
    from moesim.output.plots import write_figures
    from moesim.output.store import ENGINE

    with xr.open_dataset(path, engine=ENGINE) as dataset:
        answer = getattr(driver(dataset.attrs["verb"]), "compared", compared)
        table, figures = answer(dataset)
        print(table)
        for file in write_figures(figures, path.parent) if draw else ():
            print(f"wrote {os.path.relpath(file)}")
