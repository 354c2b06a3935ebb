"""What failures cost a long run: how often to write checkpoints, and which share of the time is useful."""

from __future__ import annotations

from typing import Any

import numpy as np


def checkpoint_interval(write: Any, between: Any) -> Any:
    """Seconds of work between checkpoints that lose least time: Daly 2006, eq. 37 (its first term: Young 1974).

    `write`: seconds to write one; `between`: mean seconds between failures. sqrt(2 w M) [1 + sqrt(w/2M)/3 + w/18M] - w,
    and M where writing takes longer than 2 M.
    """
    write, between = np.asarray(write, dtype=float), np.asarray(between, dtype=float)
    x = np.sqrt(write / (2.0 * between))
    daly = np.sqrt(2.0 * write * between) * (1.0 + x / 3.0 + x**2 / 9.0) - write
    return np.where(write < 2.0 * between, daly, between)[()]


def goodput(write: Any, between: Any, restart: Any = 0.0, interval: Any = None) -> Any:
    """Share of the time that is useful: interval / (M exp(R/M) (exp((interval + write)/M) - 1)), Daly 2006, eq. 20.

    Failures come at random with a mean of `between` (M) seconds, `restart` (R) seconds are lost at each, and what was
    done since the last checkpoint. `interval`: `checkpoint_interval` unless given. 1 where nothing fails.
    """
    between = np.asarray(between, dtype=float)
    work = np.asarray(checkpoint_interval(write, between) if interval is None else interval, dtype=float)
    with np.errstate(invalid="ignore", over="ignore"):
        share = work / (between * np.exp(restart / between) * np.expm1((work + write) / between))
    return np.where(np.isinf(between), 1.0, share)[()]
