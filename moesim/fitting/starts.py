"""Where fits start: random points in the typical ranges, with the coefficients solved for that the loss is linear in.

Given the exponents of a power law its amplitudes and floor follow from linear least squares (variable projection,
Golub and Pereyra 1973). So a random point needs to be near in the few other coefficients only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.fitting.solve import confined, values

if TYPE_CHECKING:
    from moesim.fitting.task import Task

_CANDIDATES = 16  # random points weighed for each start that is followed
_RUNS = 64  # at most, spread over the table, that points are weighed by
_BEYOND = 2.0  # how far from the typical range, in x, a coefficient may be put that is solved for
_SAME = 1e-9  # change of an effect that is rounding


def starting_points(task: Task, starts: int, rng: np.random.Generator) -> np.ndarray:
    """The best of `_CANDIDATES` points for each start, (starts, p): each is the best of its own, so they differ."""
    low, high = task.parameters.typical()
    x = rng.uniform(low, high, (starts * _CANDIDATES, len(low)))
    task = task.thinned(_RUNS)
    linear = linear_entries(task)
    if len(linear):
        x = _solved_for(task, x, linear)
    best = values(task.problem, x, task.rows).reshape(_CANDIDATES, starts).argmin(axis=0)
    return x.reshape(_CANDIDATES, starts, -1)[best, range(starts)]


def linear_entries(task: Task) -> np.ndarray:
    """Indices of free coefficients in which, moved together, the loss is linear whatever the others are."""
    low, high = task.parameters.typical()
    p = len(low)
    x = low + (high - low) * np.where(np.eye(p + 1, p, -1) > 0, 0.7, 0.4)  # row 0, and one with each entry moved
    with np.errstate(all="ignore"):
        _, effects = _effects(task, x, np.arange(p))
        size = np.abs(effects).max(axis=(0, 2))
        moved = np.abs(effects[1:] - effects[0]).max(axis=2) > _SAME * size  # [moved entry, entry whose effect it is]
    linear: list[int] = []
    for j in range(p):
        if size[j] > 0 and not moved[np.ix_([*linear, j], [*linear, j])].any():
            linear.append(j)
    return np.array(linear, int)


def _effects(task: Task, x: np.ndarray, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(loss (rows, runs), what a unit of each of those coefficients adds to it (rows, entries, runs))."""
    loss, slopes = task.predict(x, True), task.parameters.slopes(x)
    shape = (len(x), len(task.loss))
    effects = [np.broadcast_to(loss.first.get(j, 0.0) / slopes[:, [j]], shape) for j in entries]
    return np.broadcast_to(loss.value, shape), np.stack(effects, axis=1)


def _solved_for(task: Task, x: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """x with the linear entries at the least squares of relative residuals, near their typical ranges."""
    low, high = task.parameters.typical()
    box = np.stack(
        [np.maximum(low - _BEYOND, task.parameters.lower), np.minimum(high + _BEYOND, task.parameters.upper)]
    )
    limits = np.stack(list(task.parameters.natural(box).values()), axis=-1)[:, linear]
    with np.errstate(all="ignore"):
        loss, effects = _effects(task, x, linear)
        now = np.stack(list(task.parameters.natural(x).values()), axis=-1)[:, linear]
        weighted = effects * (task.weight / task.loss**2)
        matrix, wanted = weighted @ effects.swapaxes(1, 2), task.loss - loss
        pull = (weighted @ wanted[:, :, None])[:, :, 0] + (matrix @ now[:, :, None])[:, :, 0]
        lower, upper = (np.broadcast_to(limit, now.shape) for limit in limits)
        found = confined(matrix, -pull, np.zeros(now.shape, bool), lower, upper)
    names = [task.parameters.free[j] for j in linear]
    natural = {**task.parameters.natural(x), **dict(zip(names, found.T, strict=True))}
    return np.clip(task.parameters.many_x_of(natural), task.parameters.lower, task.parameters.upper)
