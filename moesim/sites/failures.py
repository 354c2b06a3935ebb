"""What failures leave of the work of many devices: checkpoints, restarts, and training that goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.settings import known
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, Domain, check

_HOUR = 3600.0
_SHARE = Domain("0 to 1", 0, 1, lower_open=False, upper_open=False)


class Checkpoints(NamedTuple):
    """Seconds between checkpoints, and the share of the time that they and the work lost since cost."""

    interval: Any
    lost: Any


def young_daly(stall: Any, failures: Any) -> Checkpoints:
    """The interval sqrt(2 c/R) between checkpoints that loses least, for stalls of c s and R failures per second.

    The loss is c/tau + R tau/2 = sqrt(2 c R) there (Young 1974, Commun. ACM 17, 530; Daly 2006, Future Gener. Comput.
    Syst. 22, 303, first order).
    """
    with np.errstate(divide="ignore"):
        interval = np.sqrt(np.divide(2.0 * stall, failures))
    return Checkpoints(interval, np.sqrt(2.0 * stall * failures))


class _Setting(NamedTuple):
    stall: Any  # s of a checkpoint
    failures: Any  # of all devices, per second
    of_one: Any  # of one device, per second
    recovery: Any  # s
    share: Any  # of a learner's work that a failure loses


def _synchronous(at: _Setting) -> Any:
    return 1.0 - young_daly(at.stall, at.failures).lost - at.failures * at.recovery


def _elastic(at: _Setting) -> Any:
    """The others go on: only the lost device waits for its recovery."""
    return 1.0 - young_daly(at.stall, at.failures).lost + np.expm1(-at.of_one * at.recovery)


def _asynchronous(at: _Setting) -> Any:
    """Nobody waits and no checkpoint stalls: a learner that recovers loses a share of its work."""
    return 1.0 + at.share * np.expm1(-at.failures * at.recovery)


MODES: dict[str, Callable[[_Setting], Any]] = {
    "synchronous": _synchronous,
    "elastic": _elastic,
    "asynchronous": _asynchronous,
}
"""How a run meets a failure: all stop and go back, the others go on, or nobody waits."""


def goodput(
    params: Any,
    devices: Any,
    failures_per_hour: Any,
    checkpoint_bandwidth: Any,
    recovery_seconds: Any,
    mode: str = "synchronous",
    state_bytes: Any = 16,
    write_share: Any = 0.02,
    loss_share: Any = 0.0,
) -> Any:
    """Share of the time whose work is kept, at the best interval between checkpoints; numbers or arrays.

    `failures_per_hour` of one device, `checkpoint_bandwidth` in bit/s, `state_bytes` a parameter (weights and
    optimiser), `write_share`: part of the time of writing that stalls training, `recovery_seconds` of a restart,
    `loss_share`: part of a learner's work that a failure loses (asynchronous). Never below 0. The rows of the Decoupled
    DiLoCo report (arXiv:2604.21428) come out to three decimals. Raises InputError outside the domains.
    """
    if mode not in MODES:
        raise InputError(f"sites: mode={mode!r}; {known(MODES, mode)}")
    of_one = check("sites", "failures_per_hour", failures_per_hour, NON_NEGATIVE) / _HOUR
    written = 8.0 * check("sites", "params", params, POSITIVE) * check("sites", "state_bytes", state_bytes, POSITIVE)
    stall = check("sites", "write_share", write_share, FRACTION) * written
    stall = stall / check("sites", "checkpoint_bandwidth", checkpoint_bandwidth, POSITIVE_OR_INF)
    recovery = check("sites", "recovery_seconds", recovery_seconds, NON_NEGATIVE)
    failures = of_one * check("sites", "devices", devices, POSITIVE)
    share = check("sites", "loss_share", loss_share, _SHARE)
    return np.maximum(MODES[mode](_Setting(stall, failures, of_one, recovery, share)), 0.0)
