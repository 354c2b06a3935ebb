"""Policies side by side: the same worlds and draws, other choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim import config as files
from moesim.balance import trace
from moesim.balance.output import dataset
from moesim.balance.records import outcomes
from moesim.balance.setting import AROUND, GROUPS, Run, setting
from moesim.balance.simulate import rehearse
from moesim.errors import InputError
from moesim.output.progress import Advance
from moesim.settings import defaults, known

if TYPE_CHECKING:
    import xarray as xr


def named(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the names of files (`chip="h100"`) replaced by what stands in conf/GROUP/NAME.yaml."""
    return {
        group: files.read(group, choice) if group in GROUPS and isinstance(choice, str) else choice
        for group, choice in config.items()
    }


def with_policy(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The config with some choices replaced, whatever they are.

    Of a group a name reads conf/GROUP/NAME.yaml and a mapping replaces single keys; other keys are those of a run.
    """
    if not isinstance(changes, Mapping):
        raise InputError(f"balance: policies: {changes!r} is no policy; it takes {{NAME: {{GROUP: CHOICE}}}}")
    out = {key: value for key, value in config.items() if key not in AROUND}
    for group, choice in named(changes).items():
        if group not in (*GROUPS, *Run.__dataclass_fields__) or group in AROUND:
            raise InputError(f"balance: policies: no group {group!r}; {known([*GROUPS, *defaults(Run)], group)}")
        whole = group not in GROUPS or isinstance(changes[group], str) or not isinstance(choice, Mapping)
        out[group] = choice if whole else {**out.get(group, {}), **choice}
    return out


# What policies must have in common for their runs to stand side by side.
_COMMON = ("steps", "seed", "seeds", "record_every")


def chosen(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The config of each policy; InputError where they have not the same seeds and steps."""
    asked = [with_policy(config, changes or {}) for changes in config["policies"].values()]
    for name in _COMMON:
        values = list(dict.fromkeys(str(each.get(name, defaults(Run)[name])) for each in asked))
        if len(values) > 1:
            raise InputError(f"balance: policies: {name} {' and '.join(values)}; give one {name} for all, outside them")
    return asked


def simulated(config: Mapping[str, Any], advance: Advance | None = None) -> xr.Dataset:
    """Run a config and return what happened: dims seed, step, expert, device, domain (see `output`)."""
    return dataset(outcomes(config, advance))


def compared(config: Mapping[str, Any], advance: Advance | None = None) -> xr.Dataset:
    """The run of a config; with `policies`, one run each on common random numbers, along a dim `policy`."""
    policies = config.get("policies")

    def one(chosen: Mapping[str, Any]) -> xr.Dataset:
        return trace.replay(chosen) if trace.is_trace(chosen) else simulated(chosen, advance)

    if not policies:
        return one({key: value for key, value in config.items() if key not in AROUND})
    import xarray as xr

    asked = chosen(config)
    for each in asked:
        if not trace.is_trace(each):
            rehearse(setting(each))  # what is wrong with any of them is said before the first runs
    runs = [one(each) for each in asked]
    width = {dim: max(run.sizes[dim] for run in runs) for dim in ("expert", "device")}
    runs = [_widened(run, width) for run in runs]
    names = xr.DataArray([str(name) for name in policies], dims="policy", name="policy")
    return xr.concat(runs, dim=names, join="outer", coords="minimal", compat="equals", combine_attrs="override")


def _widened(run: xr.Dataset, width: Mapping[str, int]) -> xr.Dataset:
    """The run with room for as many experts and devices; those it never had carry no load and are not there."""
    if all(run.sizes[dim] == size for dim, size in width.items()):
        return run
    fill = {"parent": -1, "separation_steps": np.nan, "alive": False}
    indexers = {dim: np.arange(size) for dim, size in width.items()}
    return run.reindex(indexers, fill_value={name: fill.get(str(name), 0) for name in run.data_vars})
