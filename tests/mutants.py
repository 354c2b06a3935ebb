"""Single wrong changes, made one at a time in a copy of the package, and which of them the tests miss.

    python tests/mutants.py [PATTERN] [--jobs N]

PATTERN (a regular expression) picks mutants by file and text. A mutant is caught if the tests of its group fail, missed
if they pass, stale if its text does not stand in the file exactly once. Exit code 1 if any is missed without a reason
or stale. Not part of the tests: it takes minutes.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from mutant_table import GROUPS

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 300  # a mutant that keeps its tests busy for longer hangs, which counts as caught
# Imported once, before the processes fork off: most of what starting a test costs.
LIBRARIES = (
    "numpy",
    "scipy.optimize",
    "scipy.special",
    "xarray",
    "h5netcdf",
    "hydra",
    "hypothesis",
    "pandas",
    "pytest",
)


class Mutant(NamedTuple):
    """`old` stands in `file` once and becomes `new`; `tests` should see it, unless `reason` says why not."""

    file: str
    tests: str
    old: str
    new: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.old!r} -> {self.new!r}"


MUTANTS = [Mutant(file, tests, *row) for (file, tests), rows in GROUPS.items() for row in rows]


def passes(tests: str, copy: Path) -> bool:
    """Whether the tests (arguments of pytest, without folder) pass in this copy of the package; quiet."""
    import pytest

    words = [f"tests/{word}" if word.endswith(".py") else word for word in shlex.split(tests)]
    os.chdir(copy)
    os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path[:] = [str(copy), *(path for path in sys.path if Path(path).resolve() not in (ROOT, ROOT / "tests"))]
    early = "ignore::pytest.PytestAssertRewriteWarning"  # plugins that the libraries have imported before
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", early, *words])
    if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise ValueError(f"no such tests: {tests}")
    return code == pytest.ExitCode.OK


def verdict(mutant: Mutant | str) -> str:
    """caught, missed, accepted (missed for a reason) or stale; of tests alone, caught or missed without a change."""
    signal.alarm(SECONDS)
    with tempfile.TemporaryDirectory(prefix="mutant", ignore_cleanup_errors=True) as folder:
        copy = Path(folder)
        for name in ("moesim", "conf", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / name, copy)
        if isinstance(mutant, Mutant):
            path = copy / "moesim" / mutant.file
            text = path.read_text() if path.is_file() else ""
            if text.count(mutant.old) != 1:
                return "stale"
            path.write_text(text.replace(mutant.old, mutant.new))
        missed = passes(mutant.tests if isinstance(mutant, Mutant) else mutant, copy)
        os.chdir("/")
    return ("accepted" if getattr(mutant, "reason", "") else "missed") if missed else "caught"


def in_a_process(task: Mutant | str, pipe) -> None:
    """Send the verdict through the pipe; nothing comes if the process dies on the way."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    pipe.send(verdict(task))


def verdicts(tasks: list, jobs: int):
    """The verdict of each task in turn, worked out `jobs` at a time; a process that dies has caught its mutant."""
    fork, running = multiprocessing.get_context("fork"), []
    waiting = list(tasks)
    while waiting or running:
        while waiting and len(running) < jobs:
            task, (end, pipe) = waiting.pop(0), fork.Pipe(duplex=False)
            process = fork.Process(target=in_a_process, args=(task, pipe))
            process.start()
            pipe.close()
            running.append((task, process, end))
        task, process, end = running.pop(0)
        try:
            yield task, end.recv()
        except EOFError:
            yield task, "caught"
        process.join()


def main() -> int:
    """Run the chosen mutants and say what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    for name in LIBRARIES:
        importlib.import_module(name)
    chosen = [mutant for mutant in MUTANTS if re.search(options.pattern, str(mutant))]
    tests = sorted({mutant.tests for mutant in chosen})
    if broken := [one for one, found in verdicts(tests, options.jobs) if found == "caught"]:
        print("these tests fail without any change:", *broken, sep="\n  ")
        return 1
    counts = dict.fromkeys(("caught", "missed", "accepted", "stale"), 0)
    for mutant, found in verdicts(chosen, options.jobs):
        counts[found] += 1
        if found != "caught":
            print(f"{found}: {mutant}" + (f" ({mutant.reason})" if mutant.reason else ""), flush=True)
    print(", ".join(f"{number} {name}" for name, number in counts.items()))
    return int(bool(counts["missed"] or counts["stale"]))


if __name__ == "__main__":
    sys.exit(main())
