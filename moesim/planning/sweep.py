"""A model swept over a product of axes: isoFLOP curves, their minima and the best sparsity, in one Dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.numerics.elementwise import CELLS_IN_GRID, blocks, part, parts, shape_of
from moesim.numerics.product import Late
from moesim.output.provenance import signed
from moesim.output.result import Stream
from moesim.planning.describe import describe
from moesim.planning.formula import carried
from moesim.planning.model import Model
from moesim.planning.optimum import SPARSITY_BOUNDS, TOLERANCE, optimum
from moesim.planning.readings import band
from moesim.planning.space import SIZES, Space
from moesim.variables import VARIABLES

if TYPE_CHECKING:
    import xarray as xr

    from moesim.laws import Repetition
    from moesim.models.architecture import Architecture

WINDOW = 8.0  # times the best size: where the parabola beside it is fitted
_ROW = 2**12  # cells of the last axis that stay together: they lie side by side in memory
_PER_DECADE, _MARGIN = 24, 10.0  # of the sizes around the optima


def sweep(
    model: Any,
    *,
    repetition: Repetition | str | None = None,
    architecture: Architecture | str | None = None,
    optima: bool = True,
    best: bool | None = None,
    loss: bool = True,
    sparsity_bounds: tuple[float, float] = SPARSITY_BOUNDS,
    tolerance: float = TOLERANCE,
    window: float = WINDOW,
    **axes: Any,
) -> xr.Dataset:
    """The loss of every run of a product space, and the optima.

    `model`, `repetition`, `architecture` and `axes` as for `optimum`, with `active_params` (or `total_params`) as the
    axis along which the isoFLOP curves run; without it, 24 points per decade around the optima.
    Gives `loss` (all dims), `tokens`, `epochs`, `total_params` (or `active_params`), the law's reports and
    `extrapolated`, each on the dims along which it varies. With `active_params` as axis and `optima`, everything of
    `optimum` for the other axes is added: `optimal_*` without the active_params dim, `best_*` without sparsity as
    well, and `parabola_active_params`, `parabola_epochs` (of `window`); not for a law without size or without tokens,
    by which none is best. With `total_params` the size is given: only
    `best_*` at that size.
    Where data are scarce and the repetition measures excess, `reading_*` are the optima at both ends of what is unknown
    (`planning.readings`), with a dim `reading`. NaN where no model has that size. With `loss=False` all but the loss
    (see `loss_in_slabs`). With `tokens` instead of compute every run takes so many tokens, and its `compute` follows.
    """
    model = Model.of(model, repetition, architecture)
    config = {**model.config, "space": {**axes, "sparsity_bounds": sparsity_bounds}, "compare": {}, "memory": np.inf}
    axes = with_size(model, axes)
    grid = _product(model, axes)
    dataset = _dataset(model, grid)
    if loss:
        dataset["loss"] = (list(grid.space.sizes), fill(model.loss, grid.log_size, grid.cell))
    if optima and (not model.one_sided or grid.size == "total_params"):
        free = {name: value for name, value in axes.items() if name != "active_params"}
        found = optimum(model, best=best, sparsity_bounds=sparsity_bounds, tolerance=tolerance, window=window, **free)
        dataset = dataset.assign(_new(found, grid.size)).assign_attrs(found.attrs)
        both = band(model, axes, sparsity_bounds=sparsity_bounds) if best is not False else None
        dataset = dataset if both is None else dataset.assign(both)
    return signed(dataset.assign_attrs(carried(model)), "sweep", config, **model.parts)


def with_size(model: Model, axes: Mapping[str, Any]) -> dict[str, Any]:
    """The axes with a size among them: if there is none, active parameters around the optima.

    Powers of 10^(1/24): the same values in every sweep, so that collected sweeps share their axis.
    """
    if set(SIZES) & set(axes):
        return dict(axes)
    optima = optimum(model, best=False, **axes).optimal_active_params.values
    low, high = np.log10([np.nanmin(optima) / _MARGIN, np.nanmax(optima) * _MARGIN]) * _PER_DECADE
    return {**axes, "active_params": 10.0 ** (np.arange(np.floor(low), np.ceil(high) + 1) / _PER_DECADE)}


def loss_in_slabs(model: Model, **axes: Any) -> Stream:
    """The `loss` of `sweep` for results larger than memory: dims, shape and a function that fills one slab of it."""
    grid = _product(model, axes)
    shape = tuple(grid.space.sizes.values())
    return Stream(
        list(grid.space.sizes),
        shape,
        lambda slab: fill(model.loss, part(grid.log_size, slab), parts(grid.cell, slab)),
        VARIABLES["loss"],
    )


class _Product(NamedTuple):
    """A product space: its space, the name of its size axis, the log sizes and the rest of every cell."""

    space: Space
    size: str
    log_size: np.ndarray
    cell: Mapping[str, Any]


def _product(model: Model, axes: Mapping[str, Any]) -> _Product:
    size = [name for name in SIZES if name in axes]
    if not {"compute", "tokens"} & set(axes) or len(size) != 1:
        raise InputError(
            f"sweep: axes {', '.join(axes)}; it takes compute, and one of {', '.join(SIZES)}"
            " (tokens may stand for compute)"
        )
    space = Space.of(model, axes)
    wanted = {n: v for n, v in space.context.items() if n.startswith((size[0], "sparsity", "architecture."))}
    log_size = model.architecture.size_of(size[0], wanted, model.fields)
    cell = model.with_taught_params({name: v for name, v in space.context.items() if name != size[0]})
    return _Product(space, size[0], np.where(np.isfinite(log_size), log_size, np.nan), cell)


def _new(found: xr.Dataset, size: str) -> Mapping[Any, Any]:
    fixed = size == "total_params"
    return {name: v for name, v in found.data_vars.items() if not (fixed and str(name).startswith("optim"))}


def _dataset(model: Model, grid: _Product) -> xr.Dataset:
    """Everything but the loss, each variable on the dims along which it varies."""
    import xarray as xr

    values = describe(model, grid.log_size, grid.cell)
    for known in (grid.size, "compute" if "compute" in grid.cell else "tokens"):
        values.pop(known)
    variables = {name: grid.space.variable(value) for name, value in values.items()}
    return xr.Dataset(variables, grid.space.coords)


def fill(f: Callable[..., Any], x: np.ndarray, cell: Mapping[str, Any]) -> np.ndarray:
    """f(x, cell) on every cell of the product: its terms on their own axes, the whole written once (numerics.product).

    In blocks so large that few need more than one: the terms of a block are kept at once.
    """
    shape = np.broadcast_shapes(np.shape(x), shape_of(cell))
    out = np.empty(shape)
    for block in blocks(shape, CELLS_IN_GRID, row=_ROW):
        Late(np.asarray, f(Late(np.asarray, part(x, block)), parts(cell, block))).write(out[block])
    return out
