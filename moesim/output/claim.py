"""A directory for results: used once, by one process at a time; and a process that ends in order when it is told to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moesim.errors import InputError

_LOCK = ".lock"
_USED = ("*.nc", "error.txt", "multirun.yaml")
_STOPS = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def claimed(directory: Path, again: bool = False, remedy: str = "name another directory") -> Iterator[None]:
    """Hold a directory while the block runs; InputError if another process does, or, unless `again`, if it is used."""
    if again and not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give the directory of a multirun")
    directory.mkdir(parents=True, exist_ok=True)
    if not again and (found := used(directory)):
        raise InputError(f"{directory}: holds {found.relative_to(directory)} already; {remedy}")
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        _lock(directory, descriptor)
        yield
    finally:
        os.close(descriptor)  # which unlocks


def used(directory: Path) -> Path | None:
    """A file of an earlier run in the directory, if there is one."""
    found = (path for pattern in _USED for path in directory.rglob(pattern))
    return next((path for path in found if not path.name.startswith(".")), None)


def _lock(directory: Path, descriptor: int) -> None:
    """The lock is the kernel's: it ends with the process, however that ends."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 100).decode(errors="replace")
        raise InputError(
            f"{directory}: in use by {holder or 'another process'}; wait for it to end, or stop it"
        ) from None
    except OSError:  # a file system without locks: two at once compute twice, but nothing is lost
        return
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"moesim, process {os.getpid()}".encode(), 0)


@contextmanager
def stoppable() -> Iterator[list[int]]:
    """Within the block SIGTERM and SIGHUP interrupt like Ctrl-C (unless the process was started deaf to them).

    Gives the list of what was heard: what is under way may turn the interruption into an error of its own.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    numbers = [getattr(signal, name) for name in _STOPS if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def interrupt(number: int, _: Any) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    for number in numbers:
        if before[number] in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, interrupt)
    try:
        yield heard
    finally:
        for number in numbers:
            signal.signal(number, before[number])
