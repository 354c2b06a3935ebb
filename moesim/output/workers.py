"""Tasks shared among processes of one thread each; none is left behind when the work ends early."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any

from moesim import plugins
from moesim.errors import InputError
from moesim.output.progress import Advance

_LOOK_AFTER = 5.0  # s between two looks whether a line of progress is due


def side_by_side(
    function: Callable[..., Any], tasks: Sequence[tuple], workers: int = 1, advance: Advance = lambda n: None
) -> list[Any]:
    """What `function(*task)` gives for every task, in their order; they begin in it too. `advance` hears of each end.

    With one worker they run here, one after the other. Raises InputError if a worker dies, or cannot be sent its task.
    """
    if workers == 1 or len(tasks) < 2:
        return [_told(function(*task), advance) for task in tasks]
    try:
        pickle.dumps((function, tasks))
    except Exception as error:  # whatever a user's own function refuses
        raise InputError(f"workers={workers}: {error}, so it cannot go to another process; use workers=1") from None
    with _pool(min(workers, len(tasks))) as pool:
        futures = [pool.submit(function, *task) for task in tasks]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, _LOOK_AFTER, FIRST_COMPLETED)
            advance(len([future.result() for future in done]))
    return [future.result() for future in futures]


def _told(result: Any, advance: Advance) -> Any:
    advance(1)
    return result


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # processes side by side must not fight over the cores
    before = active_children()
    # spawned: a forked process would share what other threads hold
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _arrived, (plugins.files(),))
    try:
        yield pool
        pool.shutdown()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in active_children():
            if child not in before:
                child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise InputError(
                f"workers={workers}: one died, for want of memory perhaps; what is done is kept, go on with fewer"
            ) from None
        raise


def _arrived(files: Sequence[str]) -> None:
    """Deaf to Ctrl-C, which is for who started it; with the same plugins."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    plugins.load_installed()
    plugins.load(files)
