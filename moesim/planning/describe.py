"""What a run is: its parameters, tokens, epochs and reports, and outside of which data it lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moesim.laws.wrapped import dense
from moesim.planning.model import Model
from moesim.variables import OUTSIDE

Cell = Mapping[str, Any]


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

    law: its data range; more than one epoch too, unless its range or the repetition's says how many were run.
    repetition: its data range, where tokens repeat or parameters are excess. anchor: where parameters are excess, the
    law's data range at the run by which they are so judged (`taught` own or dense).
    """
    excess = model.repetition.counted(at) > cell["taught_params"] if "taught_params" in cell else False
    repeats = np.asarray(at["epochs"] > 1 + 1e-9)
    known = "epochs" in model.law.data_range or "epochs" in model.repetition.data_range
    flags = {
        "law": _any(model.law.outside(at), not known and repeats),
        "repetition": _any(model.repetition.outside(at)) & (repeats | excess),
        "anchor": _any(_anchor_outside(model, cell)) & excess,
    }
    total = np.uint8(0)
    for name, flag in flags.items():
        total = total | np.asarray(flag).astype(np.uint8) * np.uint8(OUTSIDE[name])
    return np.asarray(total)


def _any(*flags: Any) -> np.ndarray:
    out = np.asarray(False)
    for flag in flags:
        out = out if flag is None else out | np.asarray(flag)
    return out


def _anchor_outside(model: Model, cell: Cell) -> Any:
    """Whether the run of one epoch that measures the excess lies outside the law's data range."""
    if "taught_params" not in cell or not isinstance(model.repetition.taught, str):
        return None
    log_size = np.asarray(cell["taught_log_size"])
    run = dense(cell) if model.repetition.taught == "dense" else cell
    at = model.described(np.where(np.isfinite(log_size), log_size, np.nan), run)
    unique = cell["unique_tokens"]
    once = {"tokens": unique, "compute": unique * at["flops_per_token"], "epochs": 1.0}
    return model.law.outside({**at, **once})
