"""The best active parameters for each budget, then the best sparsity: solved by continuous minimisation in every cell.

The size that minimises the loss is bracketed on the architecture's grid and solved as the root of the loss's exact
derivative. The best sparsity minimises the loss at that size (or at a fixed number of total or active parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.numerics.elementwise import blocks, parts, shape_of
from moesim.output.provenance import signed
from moesim.planning.describe import describe
from moesim.planning.flat import parabola, tolerated
from moesim.planning.formula import carried
from moesim.planning.model import Model
from moesim.planning.size import INFEASIBLE, STATUS, Found, best_size, fixed
from moesim.planning.space import Space
from moesim.planning.sparsity import best_sparsity
from moesim.settings import truth
from moesim.variables import POSITIVE, VARIABLES, Domain, check

if TYPE_CHECKING:
    import xarray as xr

    from moesim.laws import Repetition
    from moesim.models.architecture import Architecture

SPARSITY_BOUNDS = (0.0, 0.99)
TOLERANCE = 0.01  # nat/token
_NAMED = ("parabola_active_params", "parabola_epochs")  # without the prefix
_WINDOW = Domain("a number above 1", 1.0)
# Cells solved at once: half a MiB an array, in cache; fewer where each also keeps its grid of sparsities.
_CELLS_AT_ONCE = 2**16
_CELLS_AT_ONCE_BEST = 2**13

Cell = Mapping[str, Any]
Search = Callable[[Model, Cell], dict[str, Any]]


def optimum(
    model: Any,
    *,
    repetition: Repetition | str | None = None,
    architecture: Architecture | str | None = None,
    best: bool | None = None,
    sparsity_bounds: tuple[float, float] = SPARSITY_BOUNDS,
    tolerance: float = TOLERANCE,
    window: float | None = None,
    **axes: Any,
) -> xr.Dataset:
    """The compute-optimal runs of a model, without a grid: `optimal_*`, and `best_*` over sparsity as well.

    `model`: a Model, a fit (its draws become a dim), a Law, or the name or file of a law, with `repetition` and
    `architecture` (objects, names or files; those of `Model` if left out):
    `moesim.optimum("abnar2025", repetition="muennighoff2023", compute=1e20,
    unique_tokens=[2e9, float("inf")])`.
    `axes`: compute (required), sparsity (default 0) or experts, unique_tokens (default inf), fields of the
    architecture; numbers, 1-D arrays, ranges or DataArrays. With `total_params` (memory) or `active_params`
    (inference) the size is fixed instead of minimised over. With `tokens` instead of compute: the size whose own
    compute-optimum takes so many tokens, with `optimal_compute`, and without `best_*`. The search over sparsity runs
    within `sparsity_bounds`; `best=False` leaves it out, and so does a law of dense models unless `best=True`.
    The Dataset has the dims of the axes; `best_*` lack the sparsity dim. A status other than `inside` means that the
    loss was still falling at a bound, that a second size far from this one is nearly as good (`two dips`), that one
    30 % off is as good to 1e-4 nat/token (`flat`), that the search failed, or (`infeasible`, with NaN) that no model
    has the fixed number of parameters or tokens.
    `optimal_low_params` and `optimal_high_params`: the active parameters whose loss is `tolerance` (nat/token) above
    the best. With `window`, `parabola_active_params` and `parabola_epochs`: the vertex of a parabola fitted to the
    loss from 1/window to window times the best size. `*_extrapolated`: outside the data of law, repetition or anchor;
    `*_extrapolated_by` says which. InputError for a law without size or without tokens, unless the size is fixed.
    """
    model = Model.of(model, repetition, architecture)
    space = Space.of(model, axes)
    if not {"compute", "tokens"} & set(space.context):
        raise InputError("optimum: no value for compute; give compute=1e20 or a list, in FLOP (or tokens)")
    if model.one_sided and not fixed(space.context):
        raise InputError(f"optimum: {model.one_sided}")
    bounds, tolerance = _checked_bounds(sparsity_bounds), check("optimum", "tolerance", tolerance, POSITIVE)
    if window is not None:
        window = check("optimum", "window", window, _WINDOW)
    if best is None:
        best = not model.law.dense
    truth("optimum", "best", best)
    around = {"tolerance": tolerance, "window": window}
    config = {**model.config, "space": {**axes, "sparsity_bounds": bounds}, "best": best, **around}
    dataset = _dataset(model, space, best, bounds, **around).assign_attrs(carried(model))
    return signed(dataset, "optimum", config, **model.parts)


def _checked_bounds(bounds: Any) -> tuple[float, float]:
    if np.shape(bounds) != (2,):
        raise InputError(f"optimum: sparsity_bounds={bounds!r}; it takes [lowest, highest]")
    low, high = (check("optimum", "sparsity_bounds", bound, VARIABLES["sparsity"].domain) for bound in bounds)
    if low >= high:
        raise InputError(f"optimum: sparsity_bounds={[low, high]}; the lower one must be below the upper one")
    return low, high


def _dataset(
    model: Model, space: Space, best: bool, bounds: tuple[float, float], tolerance: float, window: float | None
) -> xr.Dataset:
    import xarray as xr

    found = solve(model, space.context, lambda model, cell: _optimal(model, cell, tolerance, window))
    variables = {name if name in _NAMED else f"optimal_{name}": space.variable(v) for name, v in found.items()}
    variables["optimum_status"] = variables.pop("optimal_status")
    if best and "compute" in space.context:
        cell = {name: value for name, value in space.context.items() if name != "sparsity"}
        found = solve(model, cell, lambda model, cell: _best(model, cell, bounds), _CELLS_AT_ONCE_BEST)
        gone = ("sparsity", "experts")
        variables |= {f"best_{name}": space.variable(values, gone) for name, values in found.items()}
        variables["best_sparsity_status"] = variables.pop("best_status")
    windows = {} if window is None else {"window": window}
    told = {"sparsity_bounds": list(bounds), "tolerance": tolerance, **windows}
    return xr.Dataset(variables, space.coords, told)


def solve(model: Model, context: Cell, search: Search, cells: int = _CELLS_AT_ONCE) -> dict[str, np.ndarray]:
    """The search's result for every cell, block by block to bound memory; statuses as words."""
    shape, out = shape_of(context), {}
    if not shape:  # a single cell is searched as an array of one
        alone = solve(model, {name: np.reshape(value, 1) for name, value in context.items()}, search)
        return {name: values[0] for name, values in alone.items()}
    for block in blocks(shape, cells):
        with np.errstate(all="ignore"):
            result = search(model, parts(context, block))
        for name, values in result.items():
            out.setdefault(name, np.empty(shape, np.asarray(values).dtype))[block] = values
    return {**out, "status": STATUS[out["status"]]}


def _optimal(model: Model, cell: Cell, tolerance: float, window: float | None) -> dict[str, np.ndarray]:
    """Quantities and status of the size with the lowest loss in each cell, and how flat the loss is around it."""
    cell = model.with_taught_params(cell)
    found = best_size(model, cell)
    out = _described(model, cell, found)
    if "compute" in cell:
        out.pop("compute")
    if fixed(cell):
        return out
    around = {"compute": out.get("compute"), **{name: value for name, value in cell.items() if name != "tokens"}}
    for name, size in zip(("low_params", "high_params"), tolerated(model, around, found, tolerance), strict=True):
        out[name] = model.described(size, cell)["active_params"]
    if window is not None:
        vertex = model.at(parabola(model, around, found, window), around)
        passes = vertex["tokens"] / vertex["unique_tokens"]
        out |= {"parabola_active_params": vertex["active_params"], "parabola_epochs": passes}
    return out


def _best(model: Model, cell: Cell, bounds: tuple[float, float]) -> dict[str, np.ndarray]:
    """Quantities, sparsity and status of the sparsity with the lowest loss, at its best size, in each cell."""
    shape = shape_of(cell)
    full, found = best_sparsity(model, cell, bounds)
    sparsity = np.where(found.status == INFEASIBLE, np.nan, full["sparsity"])
    out = {**_described(model, full, found), "sparsity": sparsity}
    out.pop("compute")
    return {name: np.broadcast_to(values, found.loss.shape).reshape(shape) for name, values in out.items()}


def _described(model: Model, cell: Cell, found: Found) -> dict[str, Any]:
    return {**describe(model, found.log_size, cell), "loss": found.loss, "status": found.status}
