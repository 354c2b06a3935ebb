"""The study: a claim in many worlds, at equal tokens and at equal wall-clock."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance.policies import compared
from moesim.errors import InputError
from moesim.output.kept import Keep, nothing
from moesim.output.progress import progress
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr

# Axis of a study -> where its value goes in the config.
AXES = {
    "rho": ("world", "rho"),
    "skew": ("world", "skew"),
    "exponent": ("world", "curve", "coefficients", "beta"),
    "indivisible": ("world", "atom"),
    "temperature": ("routing", "temperature"),
    "experts": ("experts",),
    "dense_ratio": ("schedule", "dense_ratio"),
}
LOSSES = ("micro_loss", "macro_loss", "tail_loss")
CLAIM = "split_feed"


def cells(sweep: Mapping[str, Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Names of the axes and every combination of their values."""
    for name, values in sweep.items():
        if name not in AXES:
            raise InputError(f"balance: sweep: no axis {name!r}; it takes {', '.join(AXES)}")
        if not isinstance(values, (list, tuple)) or not values:
            raise InputError(f"balance: sweep: {name}={values!r}; it takes a list of values")
    return list(sweep), list(product(*sweep.values()))


def _put(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**config, head: _put(config.get(head, {}), tuple(rest), value) if rest else value}


def study(config: Mapping[str, Any], keep: Keep = nothing) -> xr.Dataset:
    """The claim in many worlds: losses of every policy at equal tokens and at equal wall-clock.

    Dims policy, seed and one for each axis of `sweep`. Equal wall-clock is the time that the fastest policy of a world
    takes for all its tokens, seed by seed; the others are read from their curves at that time. `gap_*` is the loss of
    `split_feed` minus a policy's, on the same seeds. `keep` is asked for every world, so that it may have it already.
    """
    import xarray as xr

    names, combinations = cells(config["sweep"])
    policies = [str(name) for name in config.get("policies") or {}]
    if CLAIM not in policies or len(policies) < 2:
        raise InputError(
            f"balance: a sweep compares {CLAIM} with other policies; give policies with that name among them"
        )
    results = []
    with progress(len(combinations), "world") as advance:
        for number, values in enumerate(combinations):
            world = dict(config)
            for name, value in zip(names, values, strict=True):
                world = _put(world, AXES[name], value)
            results.append(keep(f"world_{number}", lambda world=world: _ends(compared(world, lambda _: advance(0)))))
            advance(1)
    shape = tuple(len(config["sweep"][name]) for name in names)
    coords = {"policy": policies, "seed": results[0].seed.values, **{n: list(config["sweep"][n]) for n in names}}
    data = {}
    for name in results[0].data_vars:
        values = np.stack([r[name].values for r in results], axis=-1)
        data[name] = (("policy", "seed", *names), values.reshape(*values.shape[:2], *shape))
    out = xr.Dataset(data, coords=coords, attrs={"title": "moesim balance: split and feed", "axes": ", ".join(names)})
    for budget, loss in product(("tokens", "time"), LOSSES):
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
    for name in ("wall_clock", "max_over_mean", "utilisation", "experts_alive"):
        out[name] = (("policy", "seed"), last[name].transpose("policy", "seed").values.astype(float))
    return xr.Dataset(out, coords={"seed": data.seed})
