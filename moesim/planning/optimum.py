"""The best active parameters for each budget, then the best sparsity: solved by continuous minimisation in every cell.

The size that minimises the loss is bracketed on the architecture's grid and solved as the root of the loss's exact
derivative. The best sparsity minimises the loss at that size (or at a fixed number of total or active parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.elementwise import blocks, lowest, minimum, parts, root, select, shape_of
from moesim.errors import InputError
from moesim.planning.model import Model
from moesim.planning.space import SIZES, Space
from moesim.variables import VARIABLES, check, stamp

if TYPE_CHECKING:
    import xarray as xr

STATUS = np.array(["inside", "at lower bound", "at upper bound", "failed", "infeasible"])
INSIDE, LOWER, UPPER, FAILED, INFEASIBLE = range(5)
SPARSITY_BOUNDS = (0.0, 0.98)
_CELLS_AT_ONCE = 2**18
_SPARSITIES = 33
_AT_BOUND = 1e-5

Cell = Mapping[str, Any]
Search = Callable[[Model, Cell], dict[str, Any]]


def optimum(
    model: Model,
    *,
    best: bool = True,
    sparsity_bounds: tuple[float, float] = SPARSITY_BOUNDS,
    **axes: Any,
) -> xr.Dataset:
    """The compute-optimal runs of a model, without a grid: `optimal_*`, and `best_*` over sparsity as well.

    `axes`: compute (required), sparsity (default 0) or experts, unique_tokens (default inf), fields of the
    architecture; numbers, 1-D arrays, ranges or DataArrays. With `total_params` (memory) or `active_params`
    (inference) the size is fixed instead of minimised over. `best=False` leaves out the search over sparsity, which
    runs within `sparsity_bounds`. The Dataset has the dims of the axes; `best_*` lack the sparsity dim. A status
    other than `inside` means that the loss was still falling at a bound, that the search failed, or (`infeasible`,
    with NaN) that no model has the fixed number of parameters. `*_extrapolated`: outside the law's data range.
    """
    space = Space.of(model, axes)
    if "compute" not in space.context:
        raise InputError("optimum: no value for compute; give compute=1e20 or a list, in FLOP")
    return stamp(_dataset(model, space, best, _checked_bounds(sparsity_bounds)))


def _checked_bounds(bounds: Any) -> tuple[float, float]:
    low, high = (check("optimum", "sparsity_bounds", bound, VARIABLES["sparsity"].domain) for bound in bounds)
    if low >= high:
        raise InputError(f"optimum: sparsity_bounds={[low, high]}; the lower one must be below the upper one")
    return low, high


def _dataset(model: Model, space: Space, best: bool, bounds: tuple[float, float]) -> xr.Dataset:
    import xarray as xr

    found = solve(model, space.context, optimal_size)
    variables = {f"optimal_{name}": space.variable(values) for name, values in found.items()}
    variables["optimum_status"] = variables.pop("optimal_status")
    if best:
        cell = {name: value for name, value in space.context.items() if name != "sparsity"}
        found = solve(model, cell, lambda model, cell: best_sparsity(model, cell, bounds))
        gone = ("sparsity", "experts")
        variables |= {f"best_{name}": space.variable(values, gone) for name, values in found.items()}
        variables["best_sparsity_status"] = variables.pop("best_status")
    return xr.Dataset(variables, space.coords, {"sparsity_bounds": list(bounds)})


def solve(model: Model, context: Cell, search: Search) -> dict[str, np.ndarray]:
    """The search's result for every cell, block by block to bound memory; statuses as words."""
    shape, out = shape_of(context), {}
    for block in blocks(shape, _CELLS_AT_ONCE):
        with np.errstate(all="ignore"):
            result = search(model, parts(context, block))
        for name, values in result.items():
            out.setdefault(name, np.empty(shape, values.dtype))[block] = values
    return {**out, "status": STATUS[out["status"]]}


def optimal_size(model: Model, cell: Cell) -> dict[str, np.ndarray]:
    """Quantities and status of the size with the lowest loss in each cell."""
    cell = model.with_taught_params(cell)
    log_size, status = _size(model, cell)
    return {**describe(model, log_size, cell), "status": status}


def best_sparsity(model: Model, cell: Cell, bounds: tuple[float, float]) -> dict[str, np.ndarray]:
    """Quantities, sparsity and status of the sparsity with the lowest loss, at its best size, in each cell.

    Searched in t = -log(1 - sparsity), in which experts / active_experts is exp(t).
    """
    ends = -np.log1p(-np.asarray(bounds))
    grid = np.linspace(*ends, _SPARSITIES)

    def at(t, cell):
        full = model.with_taught_params({**cell, "sparsity": -np.expm1(-t)})
        return full, *_size(model, full)

    def value(t, cell):
        full, log_size, _ = at(t, cell)
        return model.loss(log_size, full)

    index, _ = lowest(value, cell, grid)
    # The lowest loss may lie inside the first or last interval: then it is lower just inside the bound than at it.
    low, high = grid[np.maximum(index - 1, 0)], grid[np.minimum(index + 1, len(grid) - 1)]
    middle = np.clip(grid[index], ends[0] + _AT_BOUND, ends[1] - _AT_BOUND)
    refine = value(middle, cell) <= np.minimum(value(low, cell), value(high, cell))
    t, found = minimum(value, cell, low, middle, high, refine)
    t = np.where(refine, t, grid[index])
    status = np.select([refine & found, refine, index == 0], [INSIDE, FAILED, LOWER], UPPER)
    full, log_size, size_status = at(t, cell)
    status = np.where(size_status == INFEASIBLE, INFEASIBLE, status)
    return {**describe(model, log_size, full), "sparsity": full["sparsity"], "status": status}


def describe(model: Model, log_size: Any, cell: Cell) -> dict[str, Any]:
    """What a run of that size is: parameters, tokens, epochs, loss, the law's reports, whether it extrapolates."""
    at = model.at(log_size, cell)
    out = {name: at[name] for name in ("active_params", "total_params", "tokens")}
    out |= {"epochs": at["tokens"] / at["unique_tokens"], "loss": model.loss(log_size, cell)}
    out |= {name: model.report(name, log_size, cell) for name in model.law.form.reports}
    outside = model.law.outside(at)
    return out | {"extrapolated": np.asarray(False if outside is None else outside)}


def _size(model: Model, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Log size (solved for, or fixed by the cell's total or active parameters) and status of every cell."""
    if fixed := next((name for name in SIZES if name in cell), None):
        wanted = {name: value for name, value in cell.items() if name.startswith((fixed, "sparsity", "architecture."))}
        log_size = model.architecture.size_of(fixed, wanted, model.fields)
        feasible = np.isfinite(log_size)
        return np.where(feasible, log_size, np.nan), np.where(feasible, INSIDE, INFEASIBLE)
    best, rival = lowest(model.loss, cell, model.architecture.log_size)
    log_size, status = _dip(model, cell, best)
    if (two := rival != best).any():  # two dips of about the same depth: solve both, keep the lower
        there = select(cell, two)
        other, other_status = _dip(model, there, rival[two])
        lower = model.loss(other, there) < model.loss(log_size[two], there)
        log_size[two] = np.where(lower, other, log_size[two])
        status[two] = np.where(lower, other_status, status[two])
    return log_size, status


def _dip(model: Model, cell: Cell, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log size and status of the minimum next to a point of the architecture's grid, for every cell."""
    grid = model.architecture.log_size
    last = len(grid) - 1
    low, middle, high = grid[np.maximum(index - 1, 0)], grid[index], grid[np.minimum(index + 1, last)]
    log_size, found = root(model.slope, cell, low, high)
    inside = (index > 0) & (index < last)
    solved = found & (model.loss(log_size, cell) <= model.loss(middle, cell))
    if (retry := inside & ~solved).any():  # a kink or a second dip inside the bracket
        again, fell = minimum(model.loss, cell, low, middle, high, retry)
        log_size, solved = np.where(retry, again, log_size), solved | (retry & fell)
    status = np.select([~inside & (index == 0), ~inside, solved], [LOWER, UPPER, INSIDE], FAILED)
    return np.where(inside & solved, log_size, middle), status
