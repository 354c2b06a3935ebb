"""The best active parameters for each budget, then the best sparsity: solved by continuous minimisation in every cell.

The size that minimises the loss is bracketed on the architecture's grid and solved as the root of the loss's exact
derivative. The best sparsity minimises the loss at that size (or at a fixed number of total or active parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.numerics.derivative import Jet, slope_of
from moesim.numerics.elementwise import blocks, lowest, minimum, parts, root, select, shape_of, vertex
from moesim.output.provenance import signed
from moesim.planning.model import Model
from moesim.planning.space import SIZES, Space
from moesim.variables import VARIABLES, check

if TYPE_CHECKING:
    import xarray as xr

    from moesim.laws import Repetition
    from moesim.models.architecture import Architecture

STATUS = np.array(["inside", "at lower bound", "at upper bound", "failed", "infeasible"])
INSIDE, LOWER, UPPER, FAILED, INFEASIBLE = range(5)
SPARSITY_BOUNDS = (0.0, 0.99)
# Cells solved at once: half a MiB an array, in cache; half as many where each also keeps its grid of sparsities.
_CELLS_AT_ONCE = 2**16
_CELLS_AT_ONCE_BEST = 2**15
_SPARSITIES = 33  # in t, where the bound of 0.99 lies at 4.6: 15 % of the experts from one to the next
_AT_BOUND = 1e-5  # distance from a bound within which a best sparsity is taken to be at it
_EQUAL = 1e-13  # relative: losses that differ by less are equal
_STEP = 1e-3  # in t: how far beside a best sparsity the loss must not be lower
_FAR = 1.0  # in log size: farther apart, the best sizes of neighbouring sparsities are in two dips
_MARGIN = 0.3  # in log size, beyond the best sizes at the sparsities on both sides: between them it may lie outside
_SHARP = 2e-3  # nat/token: a parabola that dips further below the grid is not trusted

Cell = Mapping[str, Any]
Search = Callable[[Model, Cell], dict[str, Any]]


def optimum(
    model: Any,
    *,
    repetition: Repetition | str | None = None,
    architecture: Architecture | str | None = None,
    best: bool = True,
    sparsity_bounds: tuple[float, float] = SPARSITY_BOUNDS,
    **axes: Any,
) -> xr.Dataset:
    """The compute-optimal runs of a model, without a grid: `optimal_*`, and `best_*` over sparsity as well.

    `model`: a Model, a fit (its draws become a dim), a Law, or the name or file of a law, with `repetition` and
    `architecture` (objects, names or files; those of `Model` if left out):
    `moesim.optimum("abnar2025", repetition="muennighoff2023", compute=1e20,
    unique_tokens=[2e9, float("inf")])`.
    `axes`: compute (required), sparsity (default 0) or experts, unique_tokens (default inf), fields of the
    architecture; numbers, 1-D arrays, ranges or DataArrays. With `total_params` (memory) or `active_params`
    (inference) the size is fixed instead of minimised over. `best=False` leaves out the search over sparsity, which
    runs within `sparsity_bounds`. The Dataset has the dims of the axes; `best_*` lack the sparsity dim. A status
    other than `inside` means that the loss was still falling at a bound, that the search failed, or (`infeasible`,
    with NaN) that no model has the fixed number of parameters. `*_extrapolated`: outside the law's data range.
    """
    model = Model.of(model, repetition, architecture)
    space = Space.of(model, axes)
    if "compute" not in space.context:
        raise InputError("optimum: no value for compute; give compute=1e20 or a list, in FLOP")
    bounds = _checked_bounds(sparsity_bounds)
    config = {**model.config, "space": {**axes, "sparsity_bounds": bounds}, "best": best}
    return signed(_dataset(model, space, best, bounds), "optimum", config, **model.parts)


def _checked_bounds(bounds: Any) -> tuple[float, float]:
    if np.shape(bounds) != (2,):
        raise InputError(f"optimum: sparsity_bounds={bounds!r}; it takes [lowest, highest]")
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
        found = solve(model, cell, lambda model, cell: best_sparsity(model, cell, bounds), _CELLS_AT_ONCE_BEST)
        gone = ("sparsity", "experts")
        variables |= {f"best_{name}": space.variable(values, gone) for name, values in found.items()}
        variables["best_sparsity_status"] = variables.pop("best_status")
    return xr.Dataset(variables, space.coords, {"sparsity_bounds": list(bounds)})


def solve(model: Model, context: Cell, search: Search, cells: int = _CELLS_AT_ONCE) -> dict[str, np.ndarray]:
    """The search's result for every cell, block by block to bound memory; statuses as words."""
    shape, out = shape_of(context), {}
    for block in blocks(shape, cells):
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

    Searched in t = -log(1 - sparsity), in which experts / active_experts is exp(t): bracketed on a grid, then solved
    as the root of dL/dt. Of sparsities with equal losses it is the lowest.
    """
    first, last = -np.log1p(-np.asarray(bounds))
    grid = np.linspace(first, last, _SPARSITIES)
    shape = shape_of(cell)
    index, near = _near_best(model, cell, grid)
    flat = {**select(cell, np.ones(shape, bool)), **near}
    t, status = _refined(model, flat, grid, index)
    full, log_size, size_status = _at(model, t, flat)
    status = np.where(size_status == INFEASIBLE, INFEASIBLE, status)
    sparsity = np.where(status == INFEASIBLE, np.nan, full["sparsity"])
    found = {**describe(model, log_size, full), "sparsity": sparsity, "status": status}
    return {name: np.broadcast_to(values, t.shape).reshape(shape) for name, values in found.items()}


def _near_best(model: Model, cell: Cell, grid: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """For every cell, flat: index of the best of the grid, and between which log sizes to search next to it."""
    first = -np.expm1(-grid).reshape(-1, *[1] * len(shape_of(cell)))  # sparsity as the first axis: see `blocks`
    full = model.with_taught_params({**cell, "sparsity": first})
    log_size, losses = _roughly(model, full)
    index = np.argmax(losses <= losses.min(axis=0) * (1 + _EQUAL), axis=0).ravel()
    sizes = np.broadcast_to(log_size, losses.shape).reshape(len(grid), -1).T
    near = _between("size", sizes, index)
    if "taught_log_size" in full:
        taught = np.broadcast_to(full["taught_log_size"], losses.shape).reshape(len(grid), -1)
        near["taught_near"] = np.take_along_axis(taught, index[None], axis=0)[0]
    return index, near


def _roughly(model: Model, full: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Best log size to the step of the grid and its loss by parabola, but exactly where the dip is sharp."""
    if _fixed(full):
        log_size, _ = _size(model, full)
        losses = np.broadcast_to(model.loss(log_size, full), shape_of(full))
        return log_size, np.where(np.isnan(losses), np.inf, losses)
    log_size, losses, dip = vertex(model.loss, full, model.architecture.log_size)
    losses -= np.where(dip < _SHARP, dip, 0.0)
    if (sharp := dip >= _SHARP).any():
        there = select(full, sharp)
        log_size[sharp], _ = _size(model, there)
        losses[sharp] = model.loss(log_size[sharp], there)
    return log_size, losses


def _between(name: str, log_size: np.ndarray, index: np.ndarray) -> dict[str, np.ndarray]:
    """A little more than the range of the log sizes next to the index; NaN where they are far apart."""
    beside = np.clip(index[:, None] + np.array([-1, 0, 1]), 0, log_size.shape[-1] - 1)
    sizes = np.take_along_axis(log_size, beside, axis=-1)
    low, high = sizes.min(axis=-1), sizes.max(axis=-1)
    far = (high - low > _FAR) & (low != high)
    return {f"{name}_low": np.where(far, np.nan, low - _MARGIN), f"{name}_high": np.where(far, np.nan, high + _MARGIN)}


def _refined(model: Model, flat: Cell, grid: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best t next to the index, and its status: by slope, else by value."""
    last = len(grid) - 1
    low, middle, high = grid[np.maximum(index - 1, 0)], grid[index], grid[np.minimum(index + 1, last)]
    inner = (index > 0) & (index < last)
    at_middle = _loss_at(model, middle, flat)
    bar = at_middle * np.where(inner, 1 + 1e-15, 1 - _EQUAL)  # at a bound, the loss must be lower than there
    t, found = _by_slope(model, flat, low, high, bar)
    start = np.where(inner, middle, np.clip(middle, low + _AT_BOUND, high - _AT_BOUND))
    retry = ~found & np.isfinite(at_middle) & (inner | (_loss_at(model, start, flat) < bar))
    again, fell = minimum(lambda t, cell: _loss_at(model, t, cell), flat, low, start, high, retry)
    status = np.select([found | (retry & fell), retry | inner, index == 0], [INSIDE, FAILED, LOWER], UPPER)
    return np.select([found, retry], [t, again], middle), status


def _by_slope(model: Model, flat: Cell, low: np.ndarray, high: np.ndarray, bar: np.ndarray):
    """Roots of dL/dt and where they are good: not above the bar, nor above the loss just beside them."""
    if _fixed(flat):
        return low, np.zeros(len(low), bool)  # the size is no optimum, so that its own change counts
    t, found = root(lambda t, cell: _fall(model, t, cell), flat, low, high)
    if found.any():
        there, at = select(flat, found), t[found]
        down, up = (_loss_at(model, np.clip(at + by, low[found], high[found]), there) for by in (-_STEP, _STEP))
        found[found] = _loss_at(model, at, there) <= np.minimum(bar[found], np.minimum(down, up) * (1 + 1e-15))
    return t, found


def _loss_at(model: Model, t: np.ndarray, cell: Cell) -> np.ndarray:
    full, log_size, _ = _at(model, t, cell)
    return model.loss(log_size, full)


def _fall(model: Model, t: np.ndarray, cell: Cell) -> np.ndarray:
    """dL/dt of the best size's loss; the best size itself adds nothing, as dL/dsize = 0 there."""
    full, log_size, _ = _at(model, t, cell)
    moved = {**full, "sparsity": -np.expm1(-Jet(t, {"t": 1.0}))}
    moved = model.with_taught_params(moved, full.get("taught_log_size"))
    return slope_of(model.loss(log_size, moved), "t")


def _at(model: Model, t: np.ndarray, cell: Cell) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """The cells at t with their taught parameters, best log size and status; sought near what the grid gave first."""
    own = {name: value for name, value in cell.items() if not name.endswith(("_low", "_high", "_near"))}
    full = model.with_taught_params({**own, "sparsity": -np.expm1(-t)}, cell.get("taught_near"))
    if _fixed(cell):
        return full, *_size(model, full)
    log_size, found = root(model.slope, full, cell["size_low"], cell["size_high"])
    status = np.full(np.shape(t), INSIDE)
    if not found.all():
        log_size[~found], status[~found] = _size(model, select(full, ~found))
    return full, log_size, status


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
    if fixed := _fixed(cell):
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
    solved = found & (model.loss(log_size, cell) <= model.loss(middle, cell) * (1 + 1e-15))
    if (retry := inside & ~solved).any():  # a kink or a second dip inside the bracket
        again, fell = minimum(model.loss, cell, low, middle, high, retry)
        log_size, solved = np.where(retry, again, log_size), solved | (retry & fell)
    status = np.select([~inside & (index == 0), ~inside, solved], [LOWER, UPPER, INSIDE], FAILED)
    return np.where(inside & solved, log_size, middle), status


def _fixed(cell: Cell) -> str | None:
    """The size that the cell gives, if any."""
    return next((name for name in SIZES if name in cell), None)
