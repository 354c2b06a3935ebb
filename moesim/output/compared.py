"""What many jobs of any verb say side by side: for verbs without a comparison of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.text import aligned, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_COLUMNS, _ROWS = 6, 40


def compared(dataset: xr.Dataset) -> tuple[str, dict[str, Figure]]:
    """A row for each job of a collected Dataset: its choices, its status, its first few single numbers; no figure."""
    dims = list(dataset.job_status.dims)
    single = [str(n) for n, v in dataset.data_vars.items() if list(v.dims) == dims and v.dtype.kind in "fi"][:_COLUMNS]
    rows = [[*map(str, dims), "status", *single]]
    for cell in np.ndindex(*(dataset.sizes[dim] for dim in dims)):
        one = dataset.isel(dict(zip(dims, cell, strict=True)))
        cells = [plain(_item(one, name)) for name in (*dims, "job_status", *single)]
        rows.append(cells)
    shown = rows[: _ROWS + 1]
    return aligned(shown) + (f"\n{_ROWS} of {len(rows) - 1} jobs shown" if len(rows) > len(shown) else ""), {}


def _item(dataset: xr.Dataset, name: str) -> Any:
    return dataset[name].item()
