"""What a run is: its parameters, tokens, epochs and reports, and outside of which data it lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from moesim.forms import each_outside
from moesim.laws.wrapped import dense
from moesim.numerics.product import Late
from moesim.planning.model import Model
from moesim.variables import OUTSIDE

Cell = Mapping[str, Any]
_ALL = np.uint8(255)


def describe(model: Model, log_size: Any, cell: Cell) -> dict[str, Any]:
    """Parameters, tokens, compute, epochs, the law's reports, and `extrapolated`, each of the dims it varies along."""
    at = model.at(log_size, cell)
    at["epochs"] = at["tokens"] / at["unique_tokens"]
    out = {name: at[name] for name in ("active_params", "total_params", "compute", "tokens", "epochs")}
    out |= {name: model.report(name, log_size, cell) for name in model.law.form.reports}
    by = extrapolated_by(model, at, cell)
    return out | {"extrapolated": by > 0, "extrapolated_by": by}


def extrapolated_by(model: Model, at: Cell, cell: Cell) -> np.ndarray:
    """Whose data a run lies outside of, as the sum of its OUTSIDE.

    law: its data range, everything where that is not known; more than one epoch too, unless its range or the
    repetition's says how many were run.
    repetition: its data range, where tokens repeat or parameters are excess. anchor: where parameters are excess, the
    law's data range at the run by which they are so judged (`taught` own or dense).
    """
    excess = model.repetition.counted(at) > cell["taught_params"] if "taught_params" in cell else False
    repeats = np.asarray(at["epochs"] > 1 + 1e-9)
    known = "epochs" in model.law.data_range or "epochs" in model.repetition.data_range
    outside = [not model.law.data_range, *each_outside(model.law.data_range, at), not known and repeats]
    flags = [_flag("law", flag) for flag in _gathered(outside)]
    for flag in _gathered(each_outside(model.repetition.data_range, at)):
        flags += [_flag("repetition", flag) & _mask(where) for where in (repeats, excess)]
    flags += [_flag("anchor", flag) & _mask(excess) for flag in _gathered(_anchor_outside(model, cell))]
    return np.asarray(reduce(or_, _gathered(flags), np.uint8(0)))


def _gathered(flags: Iterable[Any]) -> list[Any]:
    """As few flags that together hold where any of these do: each joins another that varies along all its dims."""
    rest = sorted(flags, key=lambda flag: np.prod(_shape(flag)))
    out = []
    while rest:
        flag, *rest = rest
        home = next((i for i, other in enumerate(rest) if _within(flag, other)), None)
        if home is None:
            out.append(flag)
        else:
            rest[home] = rest[home] | flag
    return out


def _within(flag: Any, other: Any) -> bool:
    return np.broadcast_shapes(_shape(flag), _shape(other)) == _shape(other)


def _shape(flag: Any) -> tuple[int, ...]:
    return flag.shape if isinstance(flag, Late) else np.shape(flag)


def _flag(name: str, flag: Any) -> Late:
    return Late(np.multiply, flag, np.uint8(OUTSIDE[name]))


def _mask(flag: Any) -> Late:
    return Late(np.multiply, flag, _ALL)


def _anchor_outside(model: Model, cell: Cell) -> list[Any]:
    """Where the run of one epoch that measures the excess lies outside of each of the law's data ranges."""
    if "taught_params" not in cell or not isinstance(model.repetition.taught, str):
        return []
    log_size = np.asarray(cell["taught_log_size"])
    run = dense(cell) if model.repetition.taught == "dense" else cell
    at = model.described(np.where(np.isfinite(log_size), log_size, np.nan), run)
    unique = cell["unique_tokens"]
    once = {"tokens": unique, "compute": unique * at["flops_per_token"], "epochs": 1.0}
    return each_outside(model.law.data_range, {**at, **once})
