"""The two ends of what is unknown about repetition in a Mixture of Experts, as a band beside a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.numerics.axes import axis
from moesim.planning.model import Model
from moesim.planning.optimum import optimum

if TYPE_CHECKING:
    import xarray as xr

READINGS: dict[str, dict[str, Any]] = {
    "light": {"excess": "none"},
    "heavy": {"excess": "total", "taught": "dense"},
}
EVIDENCE = {
    "light": "no parameters in excess; as Li et al. 2026 saw up to 8 epochs, not as Ni et al. 2025 at 96",
    "heavy": "total parameters against what data teach a dense model; orders as in Li, Ni and Xue et al. 2023, no rise",
    "between": "a loss that rises, total parameters counted: repetition=lovelace2026, alone in rising as Ni et al. saw",
}
_KEPT = ("optimal_loss", "optimal_active_params", "best_loss", "best_sparsity", "best_sparsity_status")
_KEPT += ("best_active_params", "best_epochs", "best_extrapolated_by")


def band(model: Model, axes: Mapping[str, Any], **given: Any) -> xr.Dataset | None:
    """The optima under each reading, with a dim `reading` and names that start with `reading_`; None if none differs.

    Nothing differs without repetition, with unlimited data, or for a law of dense models or of one side.
    """
    import xarray as xr

    unique = axes.get("unique_tokens", np.inf)
    scarce = np.isfinite(unique if hasattr(unique, "dims") else axis("unique_tokens", unique)).any()
    told = model.law.dense or model.one_sided
    if told or not model.repetition.needs_taught_params or not scarce or "tokens" in axes:
        return None
    sizes = ("active_params", "total_params")
    free = {name: value for name, value in axes.items() if name not in sizes}
    found = []
    for name, choices in READINGS.items():
        try:
            it = Model(model.law, replace(model.repetition, **choices), model.architecture)
        except InputError:
            return None
        one = optimum(it, **given, **free)
        found.append(one[[n for n in _KEPT if n in one]].expand_dims(reading=[name]))
    both = xr.concat(found, "reading", combine_attrs="drop")
    return both.rename({name: f"reading_{name}" for name in both.data_vars})
