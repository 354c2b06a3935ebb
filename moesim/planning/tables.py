"""The console tables of `moesim sweep`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_AT_MOST = 60


def count(value: float) -> str:
    """A count in three digits with K, M, B or T: 1.23B; 'unlimited' for inf."""
    if not np.isfinite(value):
        return "unlimited" if value > 0 else "-"
    scale, letter = next(((s, p) for s, p in _PREFIXES if abs(value) >= 0.9995 * s), (1.0, ""))
    return f"{value / scale:.3g}{letter}"


def plain(value: Any) -> str:
    """A coordinate as text: 1e+20 as 1e20, 2e9 tokens as 2B, names as they are."""
    return value if isinstance(value, str) else f"{float(value):.4g}".replace("e+", "e")


def epochs(value: float) -> str:
    """Epochs in three digits; '<1' where not all unique tokens are seen once."""
    return "-" if np.isnan(value) else "<1" if value < 0.995 else f"{value:.3g}"


def best(value: float, status: str) -> str:
    """A best sparsity with a mark where it lies at a bound or was not found."""
    mark = {"inside": "", "at lower bound": " (lower bound)", "at upper bound": " (upper bound)"}
    return f"{value:.3f}{mark[status]}" if status in mark else status


_ROWS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("active params", "active_params", count),
    ("epochs", "epochs", epochs),
    ("loss", "loss", lambda value: f"{value:.4f}"),
)


def table(dataset: xr.Dataset) -> str:
    """For each budget and data: best active parameters, epochs and loss at each sparsity, and the best sparsity."""
    blocks = [dim for dim in dataset.optimum_status.dims if dim != "sparsity"] if "optimum_status" in dataset else []
    if "optimum_status" not in dataset or "best_loss" not in dataset:
        return _dims(dataset)
    stacked = dataset[[v for v in dataset.data_vars if str(v).startswith(("optim", "best"))]].stack(cell=blocks)
    shown = [_block(stacked.isel(cell=i), blocks) for i in range(min(stacked.sizes["cell"], _AT_MOST))]
    more = stacked.sizes["cell"] - len(shown)
    return "\n".join(shown) + (f"\n... {more} more in the result" if more > 0 else "")


def _block(cell: xr.Dataset, dims: list[Any]) -> str:
    """One budget and data: a heading, then a row for each quantity, a column for each sparsity and the best one."""
    heading = ", ".join(f"{dim} {_value(dim, cell[dim].item())}" for dim in dims)
    sparsities = np.atleast_1d(cell.sparsity.values) if "sparsity" in cell.coords else np.array([0.0])
    top = best(cell.best_sparsity.item(), cell.best_sparsity_status.item())
    lines = [heading, _line("sparsity", [plain(s) for s in sparsities], f"best: {top}")]
    for label, name, show in _ROWS:
        values = np.atleast_1d(cell[f"optimal_{name}"].values)
        lines.append(_line(label, [show(v) for v in values], show(cell[f"best_{name}"].item())))
    return "\n".join(lines) + "\n"


def _line(label: str, values: list[str], last: str) -> str:
    return f"  {label:<14}" + "".join(f"{value:>9}" for value in values) + f"   {last}"


def _value(dim: str, value: Any) -> str:
    return count(value) if dim in ("unique_tokens", "total_params", "active_params") else plain(value)


def _dims(dataset: xr.Dataset) -> str:
    return "result with dims " + ", ".join(f"{name} {size}" for name, size in dataset.sizes.items())
