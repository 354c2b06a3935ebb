"""The study: a claim in many worlds, at equal tokens and at equal wall-clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance import trace
from moesim.balance.policies import chosen, compared
from moesim.balance.setting import AROUND, GROUPS, Run, setting
from moesim.errors import InputError
from moesim.output.kept import Keep, nothing
from moesim.output.progress import Advance, progress
from moesim.output.workers import side_by_side
from moesim.settings import known, whole
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr

# Axis of a study -> where its value goes in the config; any other is a dotted path of its own.
AXES = {
    "rho": ("world", "rho"),
    "skew": ("world", "skew"),
    "exponent": ("world", "curve", "coefficients", "beta"),
    "indivisible": ("world", "atom"),
    "part_similarity": ("world", "part_similarity"),
    "overfit": ("world", "overfit", "strength"),
    "temperature": ("routing", "temperature"),
    "affinity": ("routing", "affinity"),
    "reinforcement": ("routing", "reinforcement"),
    "replay": ("sampling", "share"),
    "dense_ratio": ("schedule", "dense_ratio"),
}
LOSSES = ("micro_loss", "macro_loss", "tail_loss")
BUDGETS = ("tokens", "time")
CLAIM = "split_feed"
SPECIAL = ("sizes", "moves", "search")  # keys of a sweep that are no axis


def path_of(axis: str) -> tuple[str, ...]:
    """Where the value of an axis goes in the config; InputError for a name that is neither an axis nor a key."""
    path = AXES.get(axis, tuple(axis.split(".")))
    if path[0] not in (*GROUPS, *Run.__dataclass_fields__) or axis in AROUND:
        raise InputError(f"balance: sweep: no axis {axis!r}; {known([*AXES, *SPECIAL], axis)}, or a key, group.key")
    return path


def cells(sweep: Mapping[str, Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the axes and every combination of their values."""
    axes = {name: values for name, values in sweep.items() if name not in SPECIAL}
    for name, values in axes.items():
        path_of(name)
        if not isinstance(values, (list, tuple)) or not values:
            raise InputError(f"balance: sweep: {name}={values!r}; it takes a list of values")
    return list(axes), list(product(*axes.values()))


def compared_policies(config: Mapping[str, Any]) -> list[str]:
    """Names of the policies; InputError unless the claim is among several."""
    if trace.is_trace(config):
        raise InputError("balance: sweep: recorded loads have no losses to compare; give policies alone, or use -m")
    policies = [str(name) for name in config.get("policies") or {}]
    if CLAIM not in policies or len(policies) < 2:
        raise InputError(
            f"balance: a sweep compares {CLAIM} with other policies; give policies with that name among them"
        )
    return policies


def put(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The config with another value at a path."""
    head, *rest = path
    return {**config, head: put(config.get(head) or {}, tuple(rest), value) if rest else value}


def study(config: Mapping[str, Any], keep: Keep = nothing) -> xr.Dataset:
    """The claim in many worlds: losses of every policy at equal tokens and at equal wall-clock.

    Dims policy, seed and one for each axis of `sweep`; or, with sizes, moves or a search among them, `world` (see
    `moesim.balance.worlds`). Equal wall-clock is the time that the fastest policy of a world takes for all its tokens,
    seed by seed; the others are read from their curves at that time. `gap_*` is the loss of `split_feed` minus a
    policy's, on the same seeds. `keep` is asked for every world, so that it may have it already.
    """
    policies = compared_policies(config)
    names, combinations = cells(config["sweep"])
    with progress(len(combinations), "world") as advance:
        worlds = [moved(config, dict(zip(names, values, strict=True))) for values in combinations]
        results = ends_of(worlds, workers_of(config), keep, advance)
    shape = tuple(len(config["sweep"][name]) for name in names)
    coords = {"policy": policies, "seed": results[0].seed.values, **{n: list(config["sweep"][n]) for n in names}}
    return with_gaps(stacked(results, names, shape, coords), names)


def workers_of(config: Mapping[str, Any]) -> int:
    """Processes that share the worlds."""
    return whole()("balance", "workers", config.get("workers", 1))


def moved(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The config in which these axes have these values."""
    for axis, value in values.items():
        config = put(config, path_of(axis), value)
    return dict(config)


def ends_of(
    worlds: Sequence[Mapping[str, Any]], workers: int, keep: Keep, advance: Advance, first: int = 0
) -> list[xr.Dataset]:
    """The ends of all policies in each of these worlds, counted from `first`; all are checked before one is run."""
    for world in worlds:
        for policy in chosen(world):
            setting(policy)
    tasks = [(world, f"world_{number}", keep) for number, world in enumerate(worlds, first)]
    # the longest first, so that no worker idles at the end
    order = sorted(range(len(tasks)), key=lambda i: -worlds[i].get("experts", 0))
    done = side_by_side(one_world, [tasks[i] for i in order], workers, advance)
    return [ends for _, ends in sorted(zip(order, done, strict=True), key=lambda pair: pair[0])]


def one_world(config: Mapping[str, Any], name: str, keep: Keep) -> xr.Dataset:
    """The ends of all policies in a world."""
    return keep(name, lambda: _ends(compared(config, lambda _: None)))


def stacked(
    results: Sequence[xr.Dataset], names: Sequence[str], shape: tuple[int, ...], coords: Mapping[str, Any]
) -> xr.Dataset:
    """The worlds as one Dataset with a dim for each name."""
    import xarray as xr

    data = {}
    for name in results[0].data_vars:
        values = np.stack([r[name].values for r in results], axis=-1)
        data[name] = (("policy", "seed", *names), values.reshape(*values.shape[:2], *shape))
    return xr.Dataset(data, coords=dict(coords))


def with_gaps(data: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """The same with `gap_*`, the claim's loss minus a policy's."""
    out = data.assign_attrs({"title": "moesim balance: split and feed", "axes": ", ".join(names)})
    for budget, loss in product(BUDGETS, LOSSES):
        name = f"{loss}_at_equal_{budget}"
        out[f"gap_{name}"] = (out[name].sel(policy=CLAIM, drop=True) - out[name]).transpose(*out[name].dims)
    return stamp(out)


def _ends(data: xr.Dataset) -> xr.Dataset:
    """Losses at the end, and at the time that the fastest policy needed; with what explains them."""
    import xarray as xr

    last = data.isel(step=-1)
    budget = last.wall_clock.min("policy").values
    out = {}
    for loss in LOSSES:
        out[f"{loss}_at_equal_tokens"] = (("policy", "seed"), last[loss].transpose("policy", "seed").values)
        clocks, curves = (data[v].transpose("policy", "seed", "step").values for v in ("wall_clock", loss))
        at = [
            [np.interp(b, t, c) for b, t, c in zip(budget, ts, cs, strict=True)]
            for ts, cs in zip(clocks, curves, strict=True)
        ]
        out[f"{loss}_at_equal_time"] = (("policy", "seed"), np.array(at))
    for name in ("wall_clock", "max_over_mean", "utilisation", "experts_alive", "edits"):
        out[name] = (("policy", "seed"), last[name].transpose("policy", "seed").values.astype(float))
    return xr.Dataset(out, coords={"seed": data.seed})
