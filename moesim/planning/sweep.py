"""A model swept over a product of axes: isoFLOP curves, their minima and the best sparsity, in one Dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.elementwise import blocks, part, parts, shape_of
from moesim.errors import InputError
from moesim.planning.model import Model
from moesim.planning.optimum import SPARSITY_BOUNDS, optimum
from moesim.planning.space import SIZES, Space
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr


def sweep(
    model: Model,
    *,
    optima: bool = True,
    best: bool = True,
    sparsity_bounds: tuple[float, float] = SPARSITY_BOUNDS,
    **axes: Any,
) -> xr.Dataset:
    """The loss of every run of a product space, and the optima.

    `axes` as for `optimum`, with `active_params` (or `total_params`) as the axis along which the isoFLOP curves run.
    Gives `loss` (all dims), `tokens`, `epochs`, `total_params` (or `active_params`), the law's reports and
    `extrapolated`, each on the dims along which it varies. With `active_params` as axis and `optima`, everything of
    `optimum` for the other axes is added: `optimal_*` without the active_params dim, `best_*` without sparsity as
    well. With `total_params` the size is given: only `best_*` at that size. NaN where no model has that size.
    """
    size = [name for name in SIZES if name in axes]
    if "compute" not in axes or len(size) != 1:
        raise InputError(f"sweep: axes {', '.join(axes)}; it takes compute, and one of {', '.join(SIZES)}")
    space = Space.of(model, axes)
    grid = _grid(model, space, size[0])
    if optima:
        free = {name: value for name, value in axes.items() if name != "active_params"}
        found = optimum(model, best=best, sparsity_bounds=sparsity_bounds, **free)
        grid = grid.assign(_new(found, size[0])).assign_attrs(found.attrs)
    return stamp(grid)


def _new(found: xr.Dataset, size: str) -> Mapping[str, Any]:
    fixed = size == "total_params"
    return {name: v for name, v in found.data_vars.items() if not (fixed and str(name).startswith("optim"))}


def _grid(model: Model, space: Space, size: str) -> xr.Dataset:
    import xarray as xr

    wanted = {n: v for n, v in space.context.items() if n.startswith((size, "sparsity", "architecture."))}
    log_size = model.architecture.size_of(size, wanted, model.fields)
    log_size = np.where(np.isfinite(log_size), log_size, np.nan)
    cell = model.with_taught_params({name: v for name, v in space.context.items() if name != size})
    at = model.at(log_size, cell)
    outside = model.law.outside(at)
    other = "total_params" if size == "active_params" else "active_params"
    values = {
        "loss": fill(model.loss, log_size, cell),
        "tokens": at["tokens"],
        "epochs": at["tokens"] / at["unique_tokens"],
        other: at[other],
        "extrapolated": np.asarray(False if outside is None else outside),
        **{name: model.report(name, log_size, cell) for name in model.law.form.reports},
    }
    return xr.Dataset({name: space.variable(value) for name, value in values.items()}, space.coords)


def fill(f: Callable[..., Any], x: np.ndarray, cell: Mapping[str, Any]) -> np.ndarray:
    """f(x, cell) on every cell of the product, written block by block so that no temporary leaves the cache."""
    shape = np.broadcast_shapes(np.shape(x), shape_of(cell))
    out = np.empty(shape)
    for block in blocks(shape):
        out[block] = f(part(x, block), parts(cell, block))
    return out
