"""How far long work is: a bar on a terminal, a line now and then in a log, nothing for short work."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import monotonic

Advance = Callable[[float], object]
_BAR_AFTER = 1.0  # s
_LINE_AFTER = 10.0  # s; then as long again as has passed, which is rarely for work of days
_LONGEST_GAP = 1800.0  # s
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def progress(total: float, unit: str, what: str = "") -> AbstractContextManager[Advance]:
    """A context that hands back `advance(n)`: n more of `total` units (`unit` in the singular) are done.

    Lines go to the logger `moesim` at level INFO; `advance(0)` only looks whether one is due. `what`: a word before
    the count, e.g. the name of the work.
    """
    return (_bar if sys.stderr.isatty() else _lines)(total, unit, what)


@contextmanager
def _bar(total: float, unit: str, what: str) -> Iterator[Advance]:
    from tqdm import tqdm

    with tqdm(total=total, unit=unit, desc=what or None, leave=False, delay=_BAR_AFTER) as bar:
        yield bar.update


@contextmanager
def _lines(total: float, unit: str, what: str) -> Iterator[Advance]:
    start, due, done = monotonic(), _LINE_AFTER, 0.0

    def advance(n: float) -> None:
        nonlocal due, done
        done += n
        passed = monotonic() - start
        if passed >= due and done < total:
            logging.getLogger("moesim").info(_line(done, total, unit, what, passed))
            due = passed + min(passed, _LONGEST_GAP)

    yield advance


def _line(done: float, total: float, unit: str, what: str, passed: float) -> str:
    left = f", about {duration(passed * (total - done) / done)} left" if done else ""
    return f"{what + ': ' if what else ''}{done:,.0f} of {total:,.0f} {unit}s after {duration(passed)}{left}"


def duration(seconds: float) -> str:
    """A time in one unit, two digits: 45 s, 3.2 min, 12 h."""
    size, unit = next(((s, u) for s, u in _UNITS if seconds >= s), _UNITS[-1])
    value = seconds / size
    return f"{value:.2g} {unit}" if value < 99.5 else f"{value:.0f} {unit}"
