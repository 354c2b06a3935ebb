"""A study over worlds that no grid holds: several sizes, each unmeasured parameter moved both ways, or a search.

Keys of `sweep` beside its axes: `sizes` {NAME: changes of the config, policies included}; `moves` {AXIS: factors}, one
axis at a time but in sizes with moved: false; `search` {AXIS: [low, high]}, with `worlds` draws and then `rounds` of
narrower ones `around` so many of the best and the worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance.policies import with_policy
from moesim.balance.study import (
    BUDGETS,
    CLAIM,
    LOSSES,
    SPECIAL,
    cells,
    compared_policies,
    ends_of,
    moved,
    path_of,
    stacked,
    with_gaps,
    workers_of,
)
from moesim.errors import InputError
from moesim.output.kept import Keep, nothing
from moesim.output.progress import progress
from moesim.settings import number, whole
from moesim.variables import POSITIVE

if TYPE_CHECKING:
    import xarray as xr

OBJECTIVE = "micro_loss_at_equal_time"


def many(config: Mapping[str, Any]) -> bool:
    """Whether a config asks for worlds that are no grid."""
    return any((config.get("sweep") or {}).get(key) for key in SPECIAL)


def study(config: Mapping[str, Any], keep: Keep = nothing) -> xr.Dataset:
    """Losses of every policy in every world (policy, seed, world), as `moesim.balance.study`, with the gap to the best.

    `gap_to_best_*`: the claim's loss minus that of the best rival, `best_rival_*`. Coordinates of `world`: its label,
    `size`, the axis `moved` and its `value`; in a search `at_AXIS`, the value of every axis.
    """
    compared_policies(config)
    if config["sweep"].get("search"):
        return _searched(config, keep)
    chosen = listed(config)
    with progress(len(chosen), "world") as advance:
        worlds = [moved(made, values) for _, made, values in chosen.values()]
        results = ends_of(worlds, workers_of(config), keep, advance)
    coords = {
        "size": ("world", [size for size, _, _ in chosen.values()]),
        "moved": ("world", [", ".join(values) or "nothing" for _, _, values in chosen.values()]),
        "value": ("world", [float(next(iter(values.values()), np.nan)) for _, _, values in chosen.values()]),
    }
    return _finished(config, results, list(chosen), coords)


def listed(config: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """Label -> (size, its config, values of the axes) of every world of sizes, moves and the grid."""
    sweep, out = config["sweep"], {}
    names, combinations = cells(sweep)
    for size, changes in (sweep.get("sizes") or {"": {}}).items():
        changes = dict(changes)
        moves, own = _moves(sweep, changes.pop("moved", True)), changes.pop("policies", {})
        policies = {name: {**(given or {}), **own.get(name, {})} for name, given in config["policies"].items()}
        made = {**with_policy(config, changes), "policies": policies}
        for values, (axis, factor) in product(combinations, [("", 1.0), *moves]):
            at = dict(zip(names, values, strict=True))
            if axis:
                at[axis] = _base(made, axis) * factor
            label = " ".join([str(size), *(f"{name}={value:.3g}" for name, value in at.items())]).strip()
            out[label] = (str(size), made, at)
    return out


def _moves(sweep: Mapping[str, Any], moved: bool) -> list[tuple[str, float]]:
    given = (sweep.get("moves") or {}) if moved else {}
    return [(axis, float(factor)) for axis, factors in given.items() for factor in factors]


def _base(config: Mapping[str, Any], axis: str) -> float:
    value: Any = config
    for key in path_of(axis):
        value = value.get(key) if isinstance(value, Mapping) else None
    if not isinstance(value, int | float):
        raise InputError(f"balance: sweep: moves: {axis} has no value to move; give {'.'.join(path_of(axis))}=NUMBER")
    return float(value)


def _finished(config: Mapping[str, Any], results: Sequence[xr.Dataset], labels: list[str], coords: dict) -> xr.Dataset:
    base = {"policy": [str(name) for name in config["policies"]], "seed": results[0].seed.values, "world": labels}
    data = with_gaps(stacked(results, ["world"], (len(labels),), {**base, **coords}), ["world"])
    for budget, loss in product(BUDGETS, LOSSES):
        gap = data[f"gap_{loss}_at_equal_{budget}"]
        best = gap.drop_sel(policy=CLAIM).mean("seed").idxmax("policy")
        data[f"gap_to_best_{loss}_at_equal_{budget}"] = gap.sel(policy=best).drop_vars("policy")
        data[f"best_rival_{loss}_at_equal_{budget}"] = best
    return data


# Draws of a search; rounds of narrower ones; how many of the best and of the worst each looks around.
_SEARCH = {"worlds": 40, "rounds": 2, "around": 3}


def _searched(config: Mapping[str, Any], keep: Keep) -> xr.Dataset:
    from scipy.stats import qmc

    given = dict(config["sweep"]["search"])
    chosen = {key: given.pop(key, start) for key, start in _SEARCH.items()}
    worlds, rounds, around = (whole(key == "worlds")("search", key, value) for key, value in chosen.items())
    axes = {axis: _range(axis, bounds) for axis, bounds in given.items()}
    points = qmc.LatinHypercube(len(axes), rng=np.random.default_rng(config.get("seed", 0))).random(worlds)
    results: list[xr.Dataset] = []
    claim = list(config["policies"]).index(CLAIM)
    rng = np.random.default_rng([config.get("seed", 0), 1])
    with progress(worlds + rounds * 4 * around, "world") as advance:
        for turn in range(rounds + 1):
            fresh = [moved(config, _values(axes, point)) for point in points[len(results) :]]
            results += ends_of(fresh, workers_of(config), keep, advance, len(results))
            if turn < rounds:
                order = np.argsort([_objective(one, claim) for one in results])
                centres = points[[*order[:around], *order[-around:]]].repeat(2, axis=0)
                spread = 0.25 / 2.0**turn * rng.uniform(-1.0, 1.0, centres.shape)
                points = np.vstack([points, np.clip(centres + spread, 0.0, 1.0)])
    values = [_values(axes, point) for point in points]
    coords = {axis: ("world", [value[axis] for value in values]) for axis in axes}
    labels = [f"{i}" for i in range(len(points))]
    return _finished(config, results, labels, {f"at_{axis}": value for axis, value in coords.items()})


def _range(axis: str, bounds: Any) -> tuple[float, float]:
    path_of(axis)
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2:
        raise InputError(f"balance: sweep: search: {axis}={bounds!r}; it takes [LOW, HIGH], both above 0")
    low, high = (number(POSITIVE)("search", axis, bound) for bound in bounds)
    return low, high


def _values(axes: Mapping[str, tuple[float, float]], point: np.ndarray) -> dict[str, float]:
    return {axis: low * (high / low) ** x for (axis, (low, high)), x in zip(axes.items(), point, strict=True)}


def _objective(ends: xr.Dataset, claim: int) -> float:
    """The claim's loss minus that of its best rival, mean over seeds."""
    loss = ends[OBJECTIVE].mean("seed").values
    return float(loss[claim] - np.delete(loss, claim).min())
