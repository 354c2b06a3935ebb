"""The two ends of what is unknown about repetition in a Mixture of Experts, as a band beside a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.numerics.axes import axis
from moesim.output.text import aligned, coordinate, count, epochs
from moesim.planning.model import Model
from moesim.planning.optimum import optimum

if TYPE_CHECKING:
    import xarray as xr

READINGS: dict[str, dict[str, Any]] = {
    "light": {"excess": "none"},
    "heavy": {"excess": "total", "taught": "dense"},
}
EVIDENCE = {
    "light": "no parameters in excess; Li et al. 2026, Mixtures of Experts up to about 8 epochs",
    "heavy": "total parameters against what data teach a dense model; Ni et al. 2025, Xue et al. 2023, tens of epochs",
}
_KEPT = ("optimal_loss", "optimal_active_params", "best_loss", "best_sparsity", "best_sparsity_status")
_KEPT += ("best_active_params", "best_epochs", "best_extrapolated_by")
_AT_MOST = 10


def band(model: Model, axes: Mapping[str, Any], **given: Any) -> xr.Dataset | None:
    """The optima under each reading, with a dim `reading` and names that start with `reading_`; None if none differs.

    Nothing differs without repetition, with unlimited data, or for a law of dense models.
    """
    import xarray as xr

    unique = axes.get("unique_tokens", np.inf)
    scarce = np.isfinite(unique if hasattr(unique, "dims") else axis("unique_tokens", unique)).any()
    if not model.repetition.needs_taught_params or model.law.dense or not scarce or "tokens" in axes:
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


def told(both: xr.Dataset) -> str:
    """The band as a table: for each budget with scarce data, the best run under each reading, and its evidence."""
    dims = [dim for dim in ("compute", "unique_tokens") if dim in both.reading_best_loss.dims]
    cell = both.stack(cell=dims) if dims else both.expand_dims("cell")
    others = {dim: 0 for dim in cell.dims if dim not in ("reading", "cell", "sparsity")}
    cell = cell.isel(others)
    rows = [[*dims, "reading", "best S", "active", "epochs", "loss"]]
    for i in range(cell.sizes["cell"]):
        if np.isfinite(float(cell.unique_tokens.values[i] if "unique_tokens" in dims else cell.unique_tokens)):
            rows += [_row(cell.isel(cell=i).sel(reading=name), dims) for name in READINGS]
    named = "\n".join(f"{name}: {text}" for name, text in EVIDENCE.items())
    left = "\n... more in the result (reading_*)" if len(rows) > 1 + 2 * _AT_MOST else ""
    title = (
        "the band of what is unknown, at usual weight decay (every * lies outside the data of the law or the reading)"
    )
    return f"{title}\n{aligned(rows[: 1 + 2 * _AT_MOST], len(dims) + 1)}{left}\n{named}"


def _row(at: xr.Dataset, dims: list[str]) -> list[str]:
    status = at.reading_best_sparsity_status.item()
    mark = {"at lower bound": " (lower bound)", "at upper bound": " (upper bound)"}.get(status, "")
    outside = "*" * bool(at.reading_best_extrapolated_by)
    where = [coordinate(dim, at[dim].item()) for dim in dims]
    size, passes = count(at.reading_best_active_params.item()), epochs(at.reading_best_epochs.item())
    best = f"{at.reading_best_sparsity.item():.3f}{mark}{outside}"
    return [*where, str(at.reading.item()), best, size, passes, f"{at.reading_best_loss.item():.4f}"]
