"""Shared by the tests of result files and multiruns."""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from moesim.output import store

CHOICES = ("law=abnar2025,ludziejewski2025", "repetition=none,muennighoff2023")
SMALL = ("figures=false", "space.compute=1e20", "space.sparsity=[0,0.9]", "space.active_params=[1e8,1e9]")
MOESIM = (sys.executable, "-m", "moesim")


def multirun(command, *arguments):
    """Run `moesim sweep -m` in an empty directory: exit code, output, errors, the multirun's directory."""
    code, out, err = command("sweep", "-m", *arguments, *SMALL)
    (directory,) = {path.parent for path in Path("outputs").rglob("multirun.yaml")}
    return code, out, err, directory


@contextmanager
def edited(path: Path) -> Iterator[h5py.File]:
    """A result file to change by hand; it is sealed again, so that only what it says is wrong."""
    with h5py.File(path, "a") as file:  # which cuts off the seal when it closes
        yield file
    store._seal(path)


def on_a_full_disk(*arguments: str, room: int = 100_000) -> subprocess.CompletedProcess:
    """Run moesim as its own process in which no file can grow above `room` bytes (the disk's own error is alike)."""
    return subprocess.run(
        [*MOESIM, *arguments],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )


def heeding() -> None:
    """For a process that is sent signals: what a background shell or nohup made it ignore, it heeds again."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)
