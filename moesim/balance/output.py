"""From records to a Dataset with units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance.metrics import first_reach
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr

    from moesim.balance.records import Outcome

# Dims of a record after seed and step, where it has any.
_DIMS: Mapping[str, tuple[str, ...]] = {
    "loads": ("expert",),
    "device_loads": ("device",),
    "device_busy": ("device",),
    "domain_loss": ("domain",),
    "sampling_weight": ("domain",),
    "alive": ("expert",),
    "copies": ("expert",),
}
# What is written once, at the end of a run: name -> (dims after seed, values).
_Value = Callable[["Outcome"], np.ndarray]
_LAST: Mapping[str, tuple[tuple[str, ...], _Value]] = {
    "parent": (("expert",), lambda run: run.final.parent),
    "born": (("expert",), lambda run: run.final.born),
    "separation_steps": (("expert",), lambda run: run.separation),
    "natural_weight": (("domain",), lambda run: run.setting.world.in_order(run.setting.world.natural)),
    "domain_tokens": (("domain",), lambda run: run.setting.world.in_order(run.final.seen)),
    "domain_epochs": (("domain",), lambda run: _epochs(run)),
    "expert_tokens": (("domain", "expert"), lambda run: run.setting.world.in_order(run.final.assigned)),
    "regret_schedule": ((), lambda run: run.regrets["regret_schedule"]),
    "regret_lpt": ((), lambda run: run.regrets["regret_lpt"]),
    "regret_floor": ((), lambda run: run.regrets["regret_floor"]),
    "tokens_to_target": ((), lambda run: _first(run, "tokens")),
    "time_to_target": ((), lambda run: _first(run, "wall_clock")),
}


def _epochs(run: Outcome) -> np.ndarray:
    """Passes over the unique tokens of each domain; 0 for a domain that has none."""
    world = run.setting.world
    unique = world.in_order(np.where(world.unique > 0, world.unique, 0.0))
    return world.in_order(run.final.seen) / np.where(unique > 0, unique, np.inf)


def dataset(runs: Sequence[Outcome]) -> xr.Dataset:
    """The blocks of a run as one Dataset with units: dims seed, step, expert, device, domain."""
    import xarray as xr

    given = runs[0].setting
    data: dict[str, Any] = {
        name: (("seed", "step", *_DIMS.get(name, ())), np.concatenate([run.records[name] for run in runs]))
        for name in runs[0].records
    }
    data |= {name: (("seed", *dims), np.concatenate([of(run) for run in runs])) for name, (dims, of) in _LAST.items()}
    coords = {
        "seed": np.concatenate([run.setting.streams.seeds for run in runs]),
        "step": runs[0].steps,
        "expert": np.arange(given.most_experts),
        "device": np.arange(given.devices),
        "domain": list(given.world.names),
    }
    return stamp(xr.Dataset(data, coords=coords, attrs={"title": "moesim balance"}))


def _first(run: Outcome, at: str) -> np.ndarray:
    goal = run.setting.run.target_loss
    return first_reach(run.records["target_loss"], run.records[at], np.nan if goal is None else goal)
