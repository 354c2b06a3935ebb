"""What a run may cost: device-hours, days, money, a date or FLOPs, and what of it serving and failures take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.hardware.chip import Chip
from moesim.hardware.failures import goodput
from moesim.settings import number, setting, whole
from moesim.variables import FRACTION, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF

KINDS = ("days", "device_hours", "cost", "date", "compute")
_DAY, _DAYS = 86400.0, 30.0


@dataclass(frozen=True)
class Cluster:
    """The machine of a plan: `devices`, and what failures cost it.

    `failure_hours`: device-hours between failures (Llama 3: 419 in 54 days on 16,384; arXiv:2407.21783, section 3.3.4);
    `checkpoint`, `restart`: seconds to write one, and lost at each failure. `domain`: devices that the fast link joins,
    in place of the chip's.
    """

    devices: int = setting(1024, whole())
    failure_hours: float = setting(5.07e4, number(POSITIVE_OR_INF))
    checkpoint: float = setting(30.0, number(POSITIVE))
    restart: float = setting(600.0, number(NON_NEGATIVE))
    domain: int | None = setting(None, whole())

    @property
    def goodput(self) -> float:
        """Share of the time that is useful."""
        return float(goodput(self.checkpoint, self.failure_hours * 3600.0 / self.devices, self.restart))


@dataclass(frozen=True)
class Serving:
    """Tokens that are decoded later from the same budget, at `mfu` of the peak (forward FLOP alone)."""

    tokens: float = setting(0.0, number(NON_NEGATIVE))
    mfu: float = setting(0.1, number(FRACTION))


@dataclass(frozen=True)
class Gating:
    """What an imperfect router costs a Mixture of Experts: `penalty` in nat/token, `effective` share of the experts."""

    penalty: float = setting(0.0, number(NON_NEGATIVE))
    effective: float = setting(1.0, number(FRACTION))

    def sparsity(self, given: Any) -> Any:
        """The sparsity that so many effective experts have, not below 0; dense models have no gate."""
        given = np.asarray(given, dtype=float)
        return np.where(given > 0, np.maximum(1.0 - (1.0 - given) / self.effective, 0.0), given)


@dataclass(frozen=True)
class Budget:
    """`seconds` of the whole cluster, or, where they are None, `compute` (FLOP)."""

    seconds: float | None
    compute: float | None


def budget_of(given: Mapping[str, Any], chip: Chip, devices: int) -> Budget:
    """The Budget of a mapping of one of KINDS (and `start` beside `date`).

    30 days if none is given. Raises InputError for more than one, for a cost on a chip without a price, and for a date
    that is past.
    """
    if unknown := [name for name in given if name not in (*KINDS, "start")]:
        raise InputError(f"budget: unknown key {unknown[0]!r}; it takes {', '.join(KINDS)}")
    chosen = {name: given[name] for name in KINDS if given.get(name) is not None}
    if len(chosen) > 1:
        told = " and ".join(f"{name}={value}" for name, value in chosen.items())
        raise InputError(f"budget: {told}; give one of {', '.join(f'budget.{name}' for name in KINDS)}")
    ((name, value),) = chosen.items() or {"days": _DAYS}.items()
    if name == "date":
        return Budget(_until(str(value), given.get("start")), None)
    value = number(POSITIVE)("budget", name, value)
    if name == "compute":
        return Budget(None, value)
    if name == "cost":
        chip.require("price")
    hours = {"days": 24.0 * value, "device_hours": value / devices, "cost": value / (chip.price * devices)}
    return Budget(hours[name] * 3600.0, None)


def _until(end: str, start: Any) -> float:
    try:
        first = date.today() if start is None else date.fromisoformat(str(start))
        days = (date.fromisoformat(end) - first).days
    except ValueError:
        raise InputError(f"budget: date={end!r} from start={start!r}; give them as YYYY-MM-DD") from None
    if days < 1:
        raise InputError(f"budget: date={end} is not after {first}; give a later one, or budget.start=YYYY-MM-DD")
    return days * _DAY
