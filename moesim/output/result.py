"""What a verb hands back: a Dataset, and what a person reads beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Result:
    """A verb's product: `dataset` goes to `file`, figures and texts beside it, table and warnings to the console."""

    dataset: xr.Dataset
    table: str = ""
    file: str = "result.nc"
    figures: Mapping[str, Figure] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
