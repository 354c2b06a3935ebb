"""Jobs of a multirun on a Slurm cluster: which still run, and waiting for them without accounting.

The launcher waits for one job after the other and gives up at the first that has no result; where the cluster keeps no
accounts it waits for a cancelled one for ever. The queue knows better, so it is asked here.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread, main_thread

_ACTIVE = (
    *("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD"),
    *("RESIZING", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "PREEMPTED"),
)
_GRACE = 20.0  # s for a result to arrive after its job has left the queue
_GONE = signal.SIGUSR1  # by which the guard wakes the launcher; Ctrl-C is the user's, and nohup ignores it
_FIRST, _LONGEST = 2.0, 60.0  # s between two questions to the queue
_FEWER_SECONDS = 15  # of warning for each minute of the time limit


class Lost(RuntimeError):
    """All jobs have left the queue, and the launcher still waits for one of them."""


def numbers(directory: Path) -> list[str]:
    """The cluster's numbers of the jobs (of the whole arrays) that were submitted from a multirun's directory."""
    names = (path.name for path in (directory / ".submitit").glob("*"))
    return sorted({match[1] for name in names if (match := re.fullmatch(r"(\d+)(_\d+)?", name))}, key=int)


def running(directory: Path) -> list[str] | None:
    """The jobs, as ARRAY_TASK, that wait or run in the queue; None if the queue cannot be asked."""
    if not (asked := numbers(directory)):
        return []
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={','.join(asked)}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return None
    states = (line.split() for line in answer.stdout.splitlines())
    return [name for name, state, *_ in states if state in _ACTIVE]


def wait(directory: Path, stop: Event | None = None) -> None:
    """Return when no job of the directory waits or runs any more (or `stop` is set)."""
    stop, pause = stop or Event(), _FIRST
    while running(directory) != [] and not stop.wait(pause):
        pause = min(pause * 1.5, _LONGEST)


@contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Raises Lost in the block if all its cluster jobs have left the queue and it does not end by itself."""
    ended = Event()

    def gone(*_: object) -> None:
        if not ended.is_set():
            raise Lost("jobs left the queue without a result")

    before = signal.signal(_GONE, gone)
    Thread(target=_guard, args=(directory, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.signal(_GONE, before)


def _guard(directory: Path, ended: Event) -> None:
    while not numbers(directory):
        if ended.wait(_FIRST):
            return
    wait(directory, ended)
    if not ended.wait(_GRACE):
        signal.pthread_kill(main_thread().ident or 0, _GONE)


def warning_time(minutes: float) -> int:
    """Seconds before the time limit at which a job is told to end: 120, or fewer if the limit is short."""
    return max(5, min(120, int(_FEWER_SECONDS * minutes)))
