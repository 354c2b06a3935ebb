"""Search in every cell at once: scan a grid for a bracket, then refine with SciPy's elementwise root finder.

A function here is f(x, context): `context` maps names to numbers or arrays whose shapes broadcast to the cells, and f
works alike on a block of the cells and on a flat selection of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

Context = Mapping[str, Any]
# Cells evaluated at once for a result, and cells x grid points of a scan: 8 MiB an array. Smaller blocks spend their
# time in the interpreter, larger ones leave the cache and the memory that a laptop has to spare.
CELLS_IN_GRID = 2**20
CELLS_IN_SCAN = 2**20


def shape_of(context: Context) -> tuple[int, ...]:
    """The broadcast shape of all arrays of the context."""
    return np.broadcast_shapes(*(np.shape(value) for value in context.values()))


def blocks(shape: tuple[int, ...], cells: int, row: int = 1) -> Iterator[tuple[slice, ...]]:
    """Slices that cover `shape` in blocks of about `cells`, with the last axis no shorter than `row`.

    The last axes are cut first: those of unique tokens, coefficients and size stand in every term of a loss, those of
    compute and sparsity in few, and along a whole axis a term that lacks it is computed but once.
    """
    sizes = list(shape)
    for axis in reversed(range(len(sizes))):
        fitting = int(cells * sizes[axis] // max(1, np.prod(sizes, dtype=float)))
        least = row if axis == len(sizes) - 1 else 1
        sizes[axis] = min(sizes[axis], max(fitting, least))
    for corner in np.ndindex(*(-(-n // size) for n, size in zip(shape, sizes, strict=True))):
        yield tuple(slice(i * size, (i + 1) * size) for i, size in zip(corner, sizes, strict=True))


def slabs(shape: tuple[int, ...], cells: int) -> Iterator[tuple[slice, ...]]:
    """Slices that cover `shape` in pieces of at most `cells` that are contiguous in memory and on disk."""
    inner = int(np.prod(shape[1:]))
    if not shape:
        yield ()
    elif inner > cells:
        for i in range(shape[0]):
            yield from ((slice(i, i + 1), *rest) for rest in slabs(shape[1:], cells))
    else:
        step = max(1, cells // max(inner, 1))
        yield from ((slice(i, i + step), *(slice(0, n) for n in shape[1:])) for i in range(0, shape[0], step))


def part(value: Any, block: tuple[slice, ...]) -> Any:
    """The block of an array that broadcasts to the cells (its axes of length 1 are kept whole)."""
    if np.ndim(value) == 0:
        return value
    own = block[len(block) - value.ndim :]
    return value[tuple(cut if n > 1 else slice(None) for cut, n in zip(own, value.shape, strict=True))]


def parts(context: Context, block: tuple[slice, ...]) -> dict[str, Any]:
    """The block of every array of the context."""
    return {name: part(value, block) for name, value in context.items()}


def select(context: Context, where: np.ndarray) -> dict[str, Any]:
    """The cells of the context for which `where` holds, flat."""
    return {
        name: np.broadcast_to(value, where.shape)[where] if np.ndim(value) else value for name, value in context.items()
    }


def _along_grid(f: Callable[..., Any], context: Context, grid: np.ndarray, reduce: Callable[..., Any]) -> Any:
    """reduce(f over the grid as last axis) for every cell, block by block."""
    shape, out = shape_of(context), None
    for block in blocks(shape, max(1, CELLS_IN_SCAN // len(grid))):
        cell = {name: value[..., None] if np.ndim(value) else value for name, value in parts(context, block).items()}
        with np.errstate(all="ignore"):
            values = np.array(f(grid, cell), ndmin=len(shape) + 1)
        missing = np.isnan(values)
        result = reduce(np.where(missing, np.inf, values) if missing.any() else values)
        out = np.empty(shape + result.shape[len(shape) :], result.dtype) if out is None else out
        out[block] = result
    return out


class Dips(NamedTuple):
    """For every cell the grid point with the lowest f, a rival dip (-1 if none is near), and f beside and at the best.

    Beyond an end of the grid, `low` or `high` is the value at the end.
    """

    best: np.ndarray
    rival: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray


def dips(f: Callable[..., Any], context: Context, grid: np.ndarray, near: float) -> Dips:
    """The lowest grid point of every cell (NaN counts as inf; of equals the first) and its rival.

    The rival is the other dip inside the grid that could reach lowest, were it convex, if that is not more than
    `near` above the lowest point.
    """
    found = _along_grid(f, context, grid, lambda values: _two_lowest(values, near))
    best, rival = (found[..., i].astype(int) for i in (0, 1))
    return Dips(best, rival, found[..., 2], found[..., 3], found[..., 4])


def _two_lowest(values: np.ndarray, near: float) -> np.ndarray:
    best, last = values.argmin(axis=-1), values.shape[-1] - 1
    beside = np.clip(best[..., None] + np.array([-1, 0, 1]), 0, last)
    three = np.take_along_axis(values, beside, axis=-1)
    inner = (values[..., 1:-1] < values[..., :-2]) & (values[..., 1:-1] <= values[..., 2:])
    own = (best > 0) & (best < last)
    rival = np.full(best.shape, -1.0)
    if (several := np.count_nonzero(inner, axis=-1) > own).any():
        rival[several] = _rival(values[several], inner[several], best[several], near)
    return np.concatenate([best[..., None], rival[..., None], three], axis=-1)


def _rival(values: np.ndarray, inner: np.ndarray, best: np.ndarray, near: float) -> np.ndarray:
    beside = np.maximum(values[:, :-2], values[:, 2:])
    reach = np.full(values.shape, np.inf)  # what a convex dip cannot fall below
    reach[:, 1:-1] = np.where(inner, 2 * values[:, 1:-1] - beside, np.inf)
    np.put_along_axis(reach, best[:, None], np.inf, axis=-1)
    return np.where(reach.min(axis=-1) <= values.min(axis=-1) + near, reach.argmin(axis=-1), -1)


def crossing(f: Callable[..., Any], context: Context, grid: np.ndarray) -> np.ndarray:
    """Where f first turns from negative to positive along the ascending grid; inf where it stays negative, -inf else.

    Solved to rounding by `scipy.optimize.elementwise.find_root`, for every cell.
    """

    def first_turn(values):
        turns = (values[..., :-1] < 0) & (values[..., 1:] >= 0)
        none = np.where(values[..., -1] < 0, len(grid), -1)
        return np.where(turns.any(axis=-1), turns.argmax(axis=-1), none)

    index = _along_grid(f, context, grid, first_turn)
    inside = (index >= 0) & (index < len(grid))
    low = np.clip(index, 0, len(grid) - 2)
    x, _ = root(f, context, grid[low], grid[low + 1])
    return np.where(inside, x, np.where(index < 0, -np.inf, np.inf))


def secant(
    f: Callable[..., Any], context: Context, x: np.ndarray, slope: Any, steps: int = 30, within: float = 1e-10
) -> tuple[np.ndarray, np.ndarray]:
    """A root of f near x by the secant method, and whether it was found, for every cell; `slope` guesses f' at x.

    Fast where f is nearly straight. No bracket is kept: what is found may lie anywhere. It ends with a step shorter
    than `within`; what is left is about the square of that.
    """
    done = np.zeros(np.shape(x), bool)
    with np.errstate(all="ignore"):
        value = np.broadcast_to(f(x, context), np.shape(x))
        for _ in range(steps):
            step = np.where(done, 0.0, np.clip(-value / slope, -3.0, 3.0))
            x = x + step
            done = done | (np.abs(step) < within)  # for good: a smaller step would make the slope out of rounding
            if (done | np.isnan(step)).all():
                break
            before, value = value, np.broadcast_to(f(x, context), np.shape(x))
            slope = np.where(done, slope, (value - before) / step)
    return x, done


def root(f: Callable[..., Any], context: Context, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A root of f between low and high and whether it was found, for every cell; f(low), f(high) differ in sign."""
    from scipy.optimize import elementwise

    call, args = _flat(f, context, np.ones(np.shape(low), bool))
    with np.errstate(all="ignore"):
        found = elementwise.find_root(
            call,
            (np.ravel(low), np.ravel(high)),
            args=args,
            tolerances={"xatol": 1e-12, "xrtol": 4e-16, "fatol": 0.0, "frtol": 0.0},
        )
    return np.reshape(found.x, np.shape(low)), np.reshape(found.success, np.shape(low))


def _flat(f: Callable[..., Any], context: Context, where: np.ndarray) -> tuple[Callable[..., Any], tuple]:
    """f as a function of x and flat arrays, and those arrays: the cells of the context for which `where` holds."""
    cell = select(context, where)
    names = [name for name, value in cell.items() if np.ndim(value)]
    fixed = {name: value for name, value in cell.items() if name not in names}

    def call(x, *arrays):
        return np.asarray(f(x, {**fixed, **dict(zip(names, arrays, strict=True))}))

    return call, tuple(cell[name] for name in names)


def minimum(
    f: Callable[..., Any], context: Context, low: np.ndarray, middle: np.ndarray, high: np.ndarray, where: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The minimum of f bracketed by low < middle < high and whether it was found, in the cells `where`; NaN elsewhere.

    By `scipy.optimize.elementwise.find_minimum`, to the rounding of f.
    """
    from scipy.optimize import elementwise

    x, found = np.full(np.shape(where), np.nan), np.zeros(np.shape(where), bool)
    if where.any():
        call, args = _flat(f, context, where)
        with np.errstate(all="ignore"):
            result = elementwise.find_minimum(call, (low[where], middle[where], high[where]), args=args)
        x[where], found[where] = result.x, result.success
    return x, found
