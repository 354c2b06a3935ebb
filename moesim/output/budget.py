"""What work would take in memory and on disk, against what there is: refused before it starts if it cannot end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moesim.errors import InputError

_CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_NUMBER = 8  # bytes


def refuse_if_too_large(
    what: str, memory: float, disk: float = 0.0, directory: str | Path = ".", remedy: str = "make it smaller"
) -> None:
    """Refuse work whose least need of memory or disk (bytes) is above what is free; `what` says how large it is.

    Raises InputError with both numbers and the remedy.
    """
    there = {"memory": (memory, free_memory()), "disk": (disk, float(shutil.disk_usage(directory).free))}
    for kind, (needed, free) in there.items():
        if needed > free:
            raise InputError(f"{what}: needs at least {size(needed)} of {kind}, {size(free)} are free; {remedy}")


def refuse_if_too_many(what: str, values: float, remedy: str = "make it smaller") -> None:
    """The same for an array of `values` numbers in memory."""
    refuse_if_too_large(f"{what} ({values:,.0f} values)", values * _NUMBER, remedy=remedy)


def free_memory() -> float:
    """Bytes of memory that this process can still get: of the machine, and within the limits put on it."""
    return min(_available(), *(_limit(Path(path)) for path in _CGROUPS), _address_space())


def _available() -> float:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return float(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _limit(path: Path) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):  # no such limit, or "max"
        return float("inf")


def _address_space() -> float:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else float(limit)


def points(value: Any) -> float:
    """How many values an axis has as it is written, without making it: a number, a list or a range."""
    if isinstance(value, Mapping):
        given = list(value.values())[:1]
        last = given[0][-1] if given and isinstance(given[0], list) and given[0] else 1
        return float(last) if isinstance(last, int | float) and not isinstance(last, bool) and last > 1 else 1.0
    return float(len(value)) if isinstance(value, list | tuple) else 1.0


def size(amount: float) -> str:
    """Bytes in three digits: 1.23 GB."""
    step = next((i for i in range(len(_UNITS)) if amount < 1000.0 ** (i + 1)), len(_UNITS) - 1)
    return f"{amount / 1000.0**step:.3g} {_UNITS[step]}"
