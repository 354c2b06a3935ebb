"""Recorded loads of experts, and their replay: plan a placement on the past, judge it on the next window."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance import metrics, placement
from moesim.balance.packing import eplb
from moesim.balance.placement import Problem
from moesim.data import shipped
from moesim.errors import InputError
from moesim.hardware import step as clock
from moesim.hardware.placed import arrivals
from moesim.hardware.step import Cluster
from moesim.registry import Policies
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, check, stamp

if TYPE_CHECKING:
    import xarray as xr

traces = Policies("trace")


@dataclass(frozen=True)
class Trace:
    """Recorded `loads` (window, layer, expert) in token assignments, with the names of windows and layers."""

    loads: np.ndarray
    windows: tuple[str, ...]
    layers: tuple[str, ...]
    active: int = 1


def from_rows(rows: Sequence[Mapping[str, str]], windows: Sequence[str] | None, owner: str, window: str) -> Trace:
    """A Trace from rows with `window`, layer, expert and count; each combination must be there once.

    Raises InputError for counts that are missing, negative or not numbers.
    """
    if not rows:
        raise InputError(f"{owner}: no rows; check model, count_kind and the file")
    found = list(dict.fromkeys(row[window] for row in rows))
    names = [str(w) for w in windows] if windows else found
    if unknown := [w for w in names if w not in found]:
        raise InputError(f"{owner}: no window {unknown[0]!r}; it takes {', '.join(found)}")
    layers = sorted({row["layer"] for row in rows}, key=lambda v: (len(v), v))
    experts = sorted({row["expert"] for row in rows}, key=lambda v: (len(v), v))
    loads = np.full((len(names), len(layers), len(experts)), np.nan)
    for row in rows:
        if row[window] in names:
            place = names.index(row[window]), layers.index(row["layer"]), experts.index(row["expert"])
            if not np.isnan(loads[place]):
                raise InputError(
                    f"{owner}: window {row[window]}, layer {row['layer']}, expert {row['expert']} stands twice; "
                    "add the two counts, or leave one out"
                )
            loads[place] = _count(owner, row)
    if np.isnan(loads).any():
        w, y, e = (int(i) for i in np.argwhere(np.isnan(loads))[0])
        raise InputError(
            f"{owner}: no count for window {names[w]}, layer {layers[y]}, expert {experts[e]}; give 0 if idle"
        )
    return Trace(_positive(owner, loads), tuple(names), tuple(layers), int(float(rows[0].get("k") or 1)))


def _count(owner: str, row: Mapping[str, str]) -> float:
    try:
        value = float(row["count"])
    except (TypeError, ValueError):
        raise InputError(f"{owner}: count={row['count']!r} is not a number; it takes 0 or more") from None
    if not value >= 0 or np.isinf(value):
        raise InputError(
            f"{owner}: count={value:g} of layer {row['layer']}, expert {row['expert']}; it takes 0 or more"
        )
    return value


def _positive(owner: str, loads: np.ndarray) -> np.ndarray:
    if (loads.sum(axis=-1) <= 0).any():
        raise InputError(f"{owner}: a layer has no tokens in some window; leave that window out")
    return loads


@traces
def trace(
    *,
    path: str | None = None,
    model: str = "OLMoE-1B-7B-0924",
    count_kind: str = "topk",
    windows: list | None = None,
) -> Trace:
    """Recorded loads: the shipped tables (OLMoE, Mixtral), or a CSV with columns window, layer, expert, count.

    In the shipped tables a window is a data domain; windows come in the order given.
    """
    if path is not None:
        file = Path(path)
        if not file.is_file():
            raise InputError(f"world trace: no file {path!r}; give a CSV with columns window, layer, expert, count")
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        if rows and (lacking := {"window", "layer", "expert", "count"} - set(rows[0])):
            raise InputError(
                f"world trace: {file.name} has no column {sorted(lacking)[0]!r}; it takes window, layer, expert, count"
            )
        return from_rows(rows, windows, f"world trace {file.name}", "window")
    table = shipped("routing_olmoe_mixtral_expert_counts.csv")
    models = sorted({row["model"] for row in table})
    if model not in models:
        raise InputError(f"world trace: no model {model!r}; it takes {', '.join(models)}")
    own = [row for row in table if row["model"] == model and row["count_kind"] == count_kind]
    return from_rows(own, windows, f"world trace {model}", "domain")


@traces
def lognormal_trace(
    *,
    layers: int = 58,
    experts: int = 256,
    spread: float = 1.06,
    drift: float = 0.12,
    windows: int = 8,
    active: int = 8,
    seed: int = 0,
) -> Trace:
    """Synthetic loads exp(x): x is normal over experts with standard deviation `spread` in every window.

    From one window to the next x changes by `drift` (root mean square). The defaults reproduce DeepSeek-R1's published
    imbalance before and after EPLB.
    """
    for name, value in {"layers": layers, "experts": experts, "windows": windows}.items():
        check("world lognormal_trace", name, value, AT_LEAST_ONE)
    check("world lognormal_trace", "spread", spread, NON_NEGATIVE)
    check("world lognormal_trace", "drift", drift, NON_NEGATIVE)
    rng = np.random.default_rng([seed, 5])
    kept = max(1.0 - 0.5 * (drift / spread) ** 2, 0.0) if spread > 0 else 1.0
    moved = [rng.standard_normal((layers, experts))]
    for _ in range(windows - 1):
        moved.append(kept * moved[-1] + np.sqrt(1.0 - kept**2) * rng.standard_normal((layers, experts)))
    loads = np.exp(spread * np.stack(moved))
    return Trace(loads, tuple(map(str, range(windows))), tuple(map(str, range(layers))), active)


def is_trace(config: Mapping[str, Any]) -> bool:
    """Whether a config's world is a trace."""
    return config.get("world", {}).get("policy") in traces


def replay(config: Mapping[str, Any]) -> xr.Dataset:
    """Replay a trace through a placement policy: window i is judged with the placement planned on window i - 1.

    The first window is planned on even loads. Dims seed (one), step (window), layer, expert, device.
    """
    recorded = traces.only(config["world"])()
    for group, only in {"structure": "fixed", "sampling": "natural"}.items():
        if (chosen := config.get(group, {}).get("policy", only)) != only:
            raise InputError(
                f"balance: {group}={chosen} with a trace: recorded loads do not respond; use {group}={only}"
            )
    machine, placing = clock.build(config), placement.build(config["placement"])
    cluster = machine.cluster
    _layers, experts = recorded.loads.shape[1:]
    if cluster.slots < experts:
        raise InputError(
            f"balance: {cluster.slots} slots (devices x slots_per_device) are fewer than {experts} traced experts; "
            f"give cluster.slots_per_device={-(-experts // cluster.devices)} or more"
        )
    tokens = float(check("balance", "tokens_per_step", config.get("tokens_per_step", 2.0**22), POSITIVE))
    share = recorded.loads / recorded.loads.sum(axis=-1, keepdims=True)
    records, previous = [], None
    for window in range(len(share)):
        plan_on = share[window - 1] if window else np.full(share[0].shape, 1.0 / experts)
        planned = placing.policy(_problem(plan_on, previous, cluster))
        moved = arrivals(previous, planned, experts, machine.cluster.devices)
        records.append(_judged(planned, share[window] * tokens * recorded.active, moved, machine, recorded, tokens))
        previous = planned
    return _dataset(records, recorded, cluster)


def _problem(loads: np.ndarray, previous: Any, cluster: Cluster) -> Problem:
    there = np.ones(loads.shape, dtype=bool)
    same = np.zeros(len(loads), dtype=bool)
    return Problem(loads, there, there.astype(int), previous, same, cluster.slots, cluster.devices, cluster.nodes)


def _judged(planned, loads, moved, machine, recorded, tokens) -> dict[str, Any]:
    """One window: every layer's barrier on its own; the layers of the trace stand for all layers of the model."""
    single = machine.with_layers(1)
    frozen = np.zeros(loads.shape, dtype=bool)
    parts = clock.step_seconds(single, planned, loads, frozen, tokens, recorded.active, moved)
    per_layer = parts["received"]
    hindsight = eplb(loads, machine.cluster.slots, 1, 1, machine.cluster.devices)
    times = {f"time_{name}": parts[name].mean() * machine.expert.layers for name in clock.PARTS}
    total = float(np.sum(list(times.values())))
    busy = times["time_compute"] + times["time_dense"] + times["time_update"]
    return {
        "loads": loads,
        "device_loads": per_layer,
        "layer_max_over_mean": metrics.max_over_mean(per_layer),
        "max_over_mean": per_layer.max(axis=1).sum() / per_layer.mean(axis=1).sum(),
        "max_over_mean_hindsight": hindsight.max_over_mean(loads).mean(),
        "max_vio": metrics.max_violation(loads).mean(),
        "balancedness": metrics.balancedness(per_layer).mean(),
        "gini": metrics.gini(loads).mean(),
        "utilisation": busy / total,
        "idle_share": 1.0 - times["time_compute"] / (times["time_compute"] + times["time_wait"]),
        "moved_copies": moved.sum(),
        "shared_devices": planned.together(loads.shape[1], machine.cluster.devices).mean(),
        "step_time": total,
        **times,
    }


_DIMS = {"loads": ("layer", "expert"), "device_loads": ("layer", "device"), "layer_max_over_mean": ("layer",)}


def _dataset(records: list[dict[str, Any]], recorded: Trace, cluster: Cluster) -> xr.Dataset:
    import xarray as xr

    values = {name: np.stack([np.asarray(row[name], dtype=float) for row in records])[None] for name in records[0]}
    values["wall_clock"] = np.cumsum(values["step_time"], axis=1)
    data = {name: (("seed", "step", *_DIMS.get(name, ())), array) for name, array in values.items()}
    coords = {
        "seed": [0],
        "step": np.arange(len(records)),
        "window": ("step", list(recorded.windows)),
        "layer": list(recorded.layers),
        "expert": np.arange(recorded.loads.shape[2]),
        "device": np.arange(cluster.devices),
    }
    return stamp(xr.Dataset(data, coords=coords, attrs={"title": "moesim balance: trace replay"}))
