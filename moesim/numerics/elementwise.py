"""Search in every cell at once: scan a grid for a bracket, then refine with SciPy's elementwise root finder.

A function here is f(x, context): `context` maps names to numbers or arrays whose shapes broadcast to the cells, and f
works alike on a block of the cells and on a flat selection of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

Context = Mapping[str, Any]
# Cells x grid points of a scan evaluated at once, whose several arrays of 1 MiB stay in cache. Smaller blocks spend
# their time in the interpreter; of larger ones every temporary array is fetched anew.
CELLS_IN_SCAN = 2**17
CELLS_IN_GRID = 2**27  # of a result, written in one go: its terms are arrays too, of half the cells at most
_RIVALS = 3  # further dips of a cell that are looked into
_TIE = 4e-15  # relative: values that differ by less are equal
_ZERO = 1e-16  # of f, of order 1: its rounding
_ROUNDING = 1e-4  # slope of f, of order 1, below which its rounding moves the root as much as a step does
_FEW = 0.25  # of the cells: when no more are left, only they are carried on


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
            values = np.array(f(grid, cell), ndmin=len(shape) + 1, copy=None)
            if np.isnan(values.sum()):
                values = np.where(np.isnan(values), np.inf, values)
            result = reduce(values)
        out = np.empty(shape + result.shape[len(shape) :], result.dtype) if out is None else out
        out[block] = result
    return out


class Dips(NamedTuple):
    """For every cell the grid point with the lowest f, its rivals (last axis; -1: none), and f beside and at the best.

    Beyond an end of the grid, `low` or `high` is the value at the end.
    """

    best: np.ndarray
    rivals: np.ndarray
    low: np.ndarray
    middle: np.ndarray
    high: np.ndarray


def dips(f: Callable[..., Any], context: Context, grid: np.ndarray, near: float) -> Dips:
    """The lowest grid point of every cell (NaN counts as inf; of a plateau the first) and its rivals.

    The rivals are the other dips inside the grid, up to three, that could reach lowest, were they convex, if that is
    not more than `near` above the lowest point.
    """
    found = _along_grid(f, context, grid, lambda values: _lowest(values, near))
    best, rivals = found[..., 0].astype(int), found[..., 4:].astype(int)
    return Dips(best, rivals, found[..., 1], found[..., 2], found[..., 3])


def _lowest(values: np.ndarray, near: float) -> np.ndarray:
    best = values.argmin(axis=-1)
    three = _three(values, best)
    beside = np.maximum(np.abs(three[..., 0] - three[..., 1]), np.abs(three[..., 2] - three[..., 1]))
    if (tied := beside <= _TIE * np.abs(three[..., 1])).any():
        most = three[..., 1][tied] + _TIE * np.abs(three[..., 1][tied])
        best[tied] = (values[tied] <= most[:, None]).argmax(axis=-1)
        three = _three(values, best)
    rivals = np.full((*best.shape, _RIVALS), -1.0)
    falls = values[..., 1:] < values[..., :-1]
    if (several := (falls[..., 1:] > falls[..., :-1]).any(axis=-1)).any():  # it falls after it did not
        rivals[several] = _rivals(values[several], falls[several], best[several], near)
    return np.concatenate([best[..., None], three, rivals], axis=-1)


def _three(values: np.ndarray, best: np.ndarray) -> np.ndarray:
    beside = np.clip(best[..., None] + np.array([-1, 0, 1]), 0, values.shape[-1] - 1)
    return np.take_along_axis(values, beside, axis=-1)


def _rivals(values: np.ndarray, falls: np.ndarray, best: np.ndarray, near: float) -> np.ndarray:
    inner = falls[:, :-1] > falls[:, 1:]
    beside = np.maximum(values[:, :-2], values[:, 2:])
    reach = np.full(values.shape, np.inf)  # what a convex dip cannot fall below
    reach[:, 1:-1] = np.where(inner, 2 * values[:, 1:-1] - beside, np.inf)
    np.put_along_axis(reach, best[:, None], np.inf, axis=-1)
    first = np.argpartition(reach, _RIVALS, axis=-1)[:, :_RIVALS]
    return np.where(np.take_along_axis(reach, first, axis=-1) <= values.min(axis=-1)[:, None] + near, first, -1)


def turn(f: Callable[..., Any], context: Context, grid: np.ndarray) -> np.ndarray:
    """After which point of the ascending grid f first turns from negative to positive; its length if f stays negative.

    -1 where f is positive at the end without such a turn.
    """

    def first(values):
        turns = (values[..., :-1] < 0) & (values[..., 1:] >= 0)
        none = np.where(values[..., -1] < 0, len(grid), -1)
        return np.where(turns.any(axis=-1), turns.argmax(axis=-1), none)

    return _along_grid(f, context, grid, first)


def crossing(f: Callable[..., Any], context: Context, grid: np.ndarray) -> np.ndarray:
    """Where f first turns from negative to positive along the ascending grid; inf where it stays negative, -inf else.

    Solved to rounding by `scipy.optimize.elementwise.find_root`, for every cell.
    """

    index = turn(f, context, grid)
    inside = (index >= 0) & (index < len(grid))
    low = np.clip(index, 0, len(grid) - 2)
    x, _ = root(f, context, grid[low], grid[low + 1])
    return np.where(inside, x, np.where(index < 0, -np.inf, np.inf))


def secant(
    f: Callable[..., Any], context: Context, x: np.ndarray, slope: Any, steps: int = 30, within: float = 1e-10
) -> tuple[np.ndarray, np.ndarray]:
    """A root of f near x by the secant method, and whether it was found, for every cell; `slope` guesses f' at x.

    Fast where f is nearly straight. No bracket is kept: what is found may lie anywhere. It ends where the next step
    would be shorter than about `within`: that is the product of the last step and the distance before it.
    """
    with np.errstate(all="ignore"):
        value = np.broadcast_to(f(x, context), np.shape(x))
        done, last = np.abs(value) < _ZERO, np.inf
        for left in range(steps - 1, -1, -1):
            step = np.where(done, 0.0, np.clip(-value / slope, -3.0, 3.0))
            x, length = x + step, np.abs(step)
            near = (length * (length + last) < 0.1 * within) & (np.abs(slope) > _ROUNDING)
            done = done | near | (length < within)  # for good: a smaller step would make the slope out of rounding
            going = ~(done | np.isnan(step))
            if not (count := np.count_nonzero(going)):
                break
            before, last, value = value, length, np.broadcast_to(f(x, context), np.shape(x))
            slope = np.where(done, slope, (value - before) / step)
            if left and count < _FEW * x.size:
                rest = np.broadcast_to(slope, x.shape)[going]
                x[going], done[going] = secant(f, select(context, going), x[going], rest, left, within)
                break
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
