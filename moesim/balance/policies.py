"""Policies side by side: the same worlds and draws, other choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim import config as files
from moesim.balance import simulate, trace
from moesim.errors import InputError

if TYPE_CHECKING:
    import xarray as xr


def with_policy(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some groups replaced: a name reads conf/GROUP/NAME.yaml, a mapping replaces single keys."""
    out = {key: value for key, value in config.items() if key not in ("policies", "sweep")}
    for group, choice in changes.items():
        if group not in simulate.GROUPS:
            raise InputError(f"balance: policies: no group {group!r}; it takes {', '.join(simulate.GROUPS)}")
        own = out.get(group, {})
        out[group] = files.read(group, choice) if isinstance(choice, str) else {**own, **choice}
    return out


def compared(config: Mapping[str, Any]) -> xr.Dataset:
    """The run of a config; with `policies`, one run each on common random numbers, along a dim `policy`."""
    policies = config.get("policies")
    one = _replayed if trace.is_trace(config) else _simulated
    if not policies:
        return one({key: value for key, value in config.items() if key not in ("policies", "sweep")})
    import xarray as xr

    runs = [one(with_policy(config, changes or {})) for changes in policies.values()]
    width = max(run.sizes["expert"] for run in runs)
    runs = [_widened(run, width) for run in runs]
    names = xr.DataArray([str(name) for name in policies], dims="policy", name="policy")
    return xr.concat(runs, dim=names, join="exact", coords="minimal", compat="equals", combine_attrs="override")


def _widened(run: xr.Dataset, width: int) -> xr.Dataset:
    """The run with room for `width` experts; those it never had carry no load and are not there."""
    if run.sizes["expert"] == width:
        return run
    fill = {"parent": -1, "separation_steps": np.nan, "alive": False}
    return run.reindex(expert=np.arange(width), fill_value={name: fill.get(str(name), 0) for name in run.data_vars})


def _simulated(config: Mapping[str, Any]) -> xr.Dataset:
    return simulate.simulate(config)


def _replayed(config: Mapping[str, Any]) -> xr.Dataset:
    return trace.replay(config)
