"""The console tables of `moesim sweep`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.text import count, epochs, plain

if TYPE_CHECKING:
    import xarray as xr

_AT_MOST = 60  # blocks shown
_MARKS = {"inside": "", "at lower bound": "<", "at upper bound": ">"}  # the loss still falls beyond the size searched


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
    dataset = dataset.assign_coords({} if "unique_tokens" in dataset.coords else {"unique_tokens": np.inf})
    if "best_loss" not in dataset or "draw" in dataset.dims:
        return "dims: " + ", ".join(f"{name} {size}" for name, size in dataset.sizes.items())
    if "optimum_status" not in dataset:
        return _fixed_size(dataset)
    dataset = dataset.expand_dims([dim for dim in ("compute", "unique_tokens") if dim not in dataset.dims])
    blocks = [dim for dim in dataset.optimum_status.dims if dim not in ("sparsity", "experts")]
    stacked = dataset[[v for v in dataset.data_vars if str(v).startswith(("optim", "best"))]].stack(cell=blocks)
    shown = [_block(stacked.isel(cell=i), blocks) for i in range(min(stacked.sizes["cell"], _AT_MOST))]
    more = stacked.sizes["cell"] - len(shown)
    return "\n".join(shown) + (f"\n... {more} more in the result" if more > 0 else "")


def _fixed_size(dataset: xr.Dataset) -> str:
    """The best sparsity at each given size: one line for each cell."""
    data = dataset[[name for name in dataset.data_vars if str(name).startswith("best")]]
    data = data.stack(cell=list(data.dims)) if data.dims else data.expand_dims("cell")
    lines = [
        _best_line(data.isel(cell=i), list(dataset.best_loss.dims)) for i in range(min(data.sizes["cell"], _AT_MOST))
    ]
    return "\n".join(lines) + "\n"


def _best_line(cell: xr.Dataset, dims: list[Any]) -> str:
    where = ", ".join(f"{dim} {_value(dim, cell[dim].item())}" for dim in dims)
    values = ", ".join(f"{label} {show(cell[f'best_{name}'].item())}" for label, name, show in _ROWS)
    return f"{where}: best sparsity {best(cell.best_sparsity.item(), cell.best_sparsity_status.item())}, {values}"


def comparison(dataset: xr.Dataset, compared: list[str]) -> str:
    """Models side by side, a block for each budget and data, a row for each model.

    A row has the loss of the compute-optimal run at each sparsity, the best sparsity with its active parameters and
    epochs, and how many times more active parameters the optima take at the first and last sparsity than with the
    most plentiful data. Rows that agree in everything are one.
    """
    plenty = float(dataset.unique_tokens.max()) if "unique_tokens" in dataset.dims else None
    cells = [dim for dim in ("compute", "unique_tokens") if dim in dataset.dims]
    base = dataset.optimal_active_params if plenty is None else dataset.optimal_active_params.sel(unique_tokens=plenty)
    data = dataset.assign(ratio=dataset.optimal_active_params / base).stack(cell=cells, model=compared)
    width = 2 + max(len(f"{row[0]}") for row in data.model.values)
    return "\n".join(_compared(data.isel(cell=i), cells, width) for i in range(data.sizes["cell"]))


def _compared(cell: xr.Dataset, dims: list[str], width: int) -> str:
    sparsities = [plain(s) for s in cell.sparsity.values]
    ends = f"N_a x at S={sparsities[0]}, {sparsities[-1]}"
    heading = ", ".join(f"{dim} {_value(dim, cell[dim].item())}" for dim in dims)
    losses = "".join(f"{'S=' + s:>8}" for s in sparsities)
    lines = [heading, f"  {'':{width}}{'loss:':<22}{losses}  {'best S':<20}{'N_a':>7}{'epochs':>8}  {ends}"]
    rows: dict[str, list[tuple]] = {}
    for i, labels in enumerate(cell.model.values):
        rows.setdefault(_values(cell.isel(model=i)) + f"\0{labels[0]}", []).append(tuple(labels[1:]))
    if len({key.split("\0")[0] for key in rows}) == 1:
        rows = {f"{next(iter(rows)).split(chr(0))[0]}\0all alike": [()]}
    for key, labels in rows.items():
        values, first = key.split("\0")
        rest = ",".join(" ".join(map(str, label)) for label in labels)
        lines.append(f"  {first:{width}}{rest:<22}{values}")
    return "\n".join(lines) + "\n"


def _values(row: xr.Dataset) -> str:
    losses = "".join(f"{loss:8.4f}" for loss in row.optimal_loss.values)
    top = best(row.best_sparsity.item(), row.best_sparsity_status.item())
    size, passes = count(row.best_active_params.item()), epochs(row.best_epochs.item())
    return f"{losses}  {top:<20}{size:>7}{passes:>8}  {row.ratio.values[0]:.2f}, {row.ratio.values[-1]:.2f}"


def _block(cell: xr.Dataset, dims: list[Any]) -> str:
    """One budget and data: a heading, then a row for each quantity, a column for each sparsity and the best one."""
    heading = ", ".join(f"{dim} {_value(dim, cell[dim].item())}" for dim in dims)
    sparsities = np.atleast_1d(cell.sparsity.values) if "sparsity" in cell.coords else np.array([0.0])
    top = best(cell.best_sparsity.item(), cell.best_sparsity_status.item())
    lines = [heading, _line("sparsity", [plain(s) for s in sparsities], f"best: {top}")]
    for label, name, show in _ROWS:
        values = zip(
            np.atleast_1d(cell.optimum_status.values), np.atleast_1d(cell[f"optimal_{name}"].values), strict=True
        )
        lines.append(_line(label, [_MARKS.get(s, "?") + show(v) for s, v in values], show(cell[f"best_{name}"].item())))
    return "\n".join(lines) + "\n"


def _line(label: str, values: list[str], last: str) -> str:
    return f"  {label:<14}" + "".join(f"{value:>9}" for value in values) + f"   {last}"


def _value(dim: str, value: Any) -> str:
    return count(value) if dim in ("unique_tokens", "total_params", "active_params") else plain(value)
