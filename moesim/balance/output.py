"""From records to a Dataset with units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance.metrics import first_reach
from moesim.variables import stamp

if TYPE_CHECKING:
    import xarray as xr

    from moesim.balance.records import Outcome

# Variable -> (further dims after seed and step, unit, long name).
VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "loads": (("expert",), "token", "token assignments per step"),
    "device_loads": (("device",), "token", "token assignments per step and device"),
    "device_busy": (("device",), "s", "time a device works on experts"),
    "max_over_mean": ((), "1", "busiest device / mean device"),
    "max_vio": ((), "1", "MaxVio of the step: (max - mean)/mean over experts"),
    "max_vio_global": ((), "1", "MaxVio of all loads so far"),
    "balancedness": ((), "1", "mean device / busiest device"),
    "gini": ((), "1", "Gini coefficient of expert loads"),
    "drop_share": ((), "1", "share of assignments dropped"),
    "utilisation": ((), "1", "share of the step that a mean device computes"),
    "idle_share": ((), "1", "share of the expert time that a mean device waits"),
    "step_time": ((), "s", "time of a step, mean since the last record"),
    "tokens": ((), "token", "tokens processed"),
    "wall_clock": ((), "s", "wall-clock"),
    "micro_loss": ((), "nat/token", "loss by natural frequency"),
    "macro_loss": ((), "nat/token", "mean loss over domains"),
    "target_loss": ((), "nat/token", "loss that the sampler aims at"),
    "tail_loss": ((), "nat/token", "mean loss of the rarest tenth of the domains"),
    "domain_loss": (("domain",), "nat/token", "loss of a domain"),
    "sampling_weight": (("domain",), "1", "share of the tokens drawn from a domain"),
    "experts_alive": ((), "1", "experts"),
    "splits": ((), "1", "splits so far"),
    "alive": (("expert",), "1", "whether an expert is there"),
    "frozen_share": ((), "1", "share of experts without weight updates"),
    "copies": (("expert",), "1", "slots that hold an expert"),
    "regret_balance": ((), "1", "busiest device above its lower bound"),
    "regret_time": ((), "1", "step time above its lower bound"),
    "regret_loss": ((), "nat/token", "target loss above its lower bound at these tokens"),
}
_TIME = {
    "compute": "experts, mean device",
    "wait": "waiting for the slowest device",
    "all_to_all": "all-to-all",
    "dense": "everything but experts",
    "sync": "gradients of replicas",
    "update": "weight update",
    "migration": "moving experts",
}
VARIABLES |= {f"time_{part}": ((), "s", f"time of a step: {name}") for part, name in _TIME.items()}


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def dataset(runs: Sequence[Outcome], config: Mapping[str, Any]) -> xr.Dataset:
    """The blocks of a run as one Dataset with units."""
    import xarray as xr

    given = runs[0].setting
    data: dict[str, Any] = {}
    for name, (dims, unit, text) in VARIABLES.items():
        values = _joined([run.records[name] for run in runs])
        data[name] = (("seed", "step", *dims), values, {"units": unit, "long_name": text})
    data |= _family(runs) | _regrets(runs) | _natural(runs) | _targets(runs, config.get("target_loss"))
    data["expert_tokens"] = _served(runs)
    coords = {
        "seed": np.concatenate([run.setting.streams.seeds for run in runs]),
        "step": runs[0].steps,
        "expert": np.arange(given.most_experts),
        "device": np.arange(given.devices),
        "domain": list(given.world.names),
    }
    return stamp(xr.Dataset(data, coords=coords, attrs={"title": "moesim balance"}))


def _family(runs: Sequence[Outcome]) -> dict[str, Any]:
    rows = {
        "parent": (_joined([r.final.parent for r in runs]), "1", "expert that this one was split from, -1 if none"),
        "born": (_joined([r.final.born for r in runs]), "step", "step at which an expert was split off"),
        "separation_steps": (_joined([r.separation for r in runs]), "step", "steps until a split expert stood apart"),
    }
    return {n: (("seed", "expert"), v, {"units": u, "long_name": t}) for n, (v, u, t) in rows.items()}


_REGRETS = {
    "regret_schedule": "busiest device above the best sharing of tokens among its replicas (Hall bound), last step",
    "regret_lpt": "busiest device above LPT of the same copies, last step",
    "regret_floor": "MaxVio above the noise floor of random routing, last step",
}


def _regrets(runs: Sequence[Outcome]) -> dict[str, Any]:
    return {
        name: (("seed",), _joined([r.regrets[name] for r in runs]), {"units": "1", "long_name": text})
        for name, text in _REGRETS.items()
    }


def _natural(runs: Sequence[Outcome]) -> dict[str, Any]:
    def ordered(values):
        return _joined([r.setting.world.in_order(values(r)) for r in runs])

    rows = {
        "natural_weight": (ordered(lambda r: r.setting.world.natural), "1", "natural frequency of a domain"),
        "domain_tokens": (ordered(lambda r: r.final.seen), "token", "tokens drawn from a domain"),
        "domain_epochs": (ordered(lambda r: r.final.seen / r.setting.world.unique), "1", "passes over a domain"),
    }
    return {n: (("seed", "domain"), v, {"units": u, "long_name": t}) for n, (v, u, t) in rows.items()}


def _served(runs: Sequence[Outcome]) -> tuple:
    values = _joined([r.setting.world.in_order(r.final.assigned) for r in runs])
    return ("seed", "domain", "expert"), values, {"units": "token", "long_name": "assignments of the last step"}


def _targets(runs: Sequence[Outcome], target: float | None) -> dict[str, Any]:
    goal = np.nan if target is None else float(target)
    out = {}
    for name, unit in {"tokens": "token", "wall_clock": "s"}.items():
        values = _joined([first_reach(r.records["target_loss"], r.records[name], goal) for r in runs])
        label = "tokens" if name == "tokens" else "time"
        out[f"{label}_to_target"] = (("seed",), values, {"units": unit, "long_name": f"{label} until the target loss"})
    return out
