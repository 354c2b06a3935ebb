"""Recorded loads of experts, and their replay: plan a placement on the past, judge it on the next window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance import metrics, placement, workloads
from moesim.balance.dumps import Dump, counted, read_dump
from moesim.balance.placement import Problem
from moesim.domains.world import shipped
from moesim.errors import InputError
from moesim.hardware import step as clock
from moesim.hardware.footprint import fullest
from moesim.hardware.placed import arrivals
from moesim.hardware.step import Machine
from moesim.registry import Policies
from moesim.settings import whole
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, check, stamp

if TYPE_CHECKING:
    import xarray as xr

traces = Policies("trace", {"steps_per_window": 100})


@dataclass(frozen=True)
class Trace:
    """Recorded `loads` (window, layer, expert) in token assignments, with the names of windows and layers.

    `there` (layer, expert): which experts a layer has. `active` experts of a token, None where the record does not
    say. `source` (window,): tokens of the rank that starts with most, over the mean.
    """

    loads: np.ndarray
    windows: tuple[str, ...]
    layers: tuple[str, ...]
    there: np.ndarray
    active: int | None
    source: np.ndarray


def _recorded(owner: str, dump: Dump, windows: Sequence[Any] | None, active: int | None = None) -> Trace:
    """The chosen windows of a Dump; InputError for one that is not there or holds no token."""
    names = [str(w) for w in windows] if windows else list(dump.windows)
    if unknown := [w for w in names if w not in dump.windows]:
        raise InputError(f"{owner}: no window {unknown[0]!r}; it takes {', '.join(dump.windows)}")
    chosen = [dump.windows.index(w) for w in names]
    loads = np.nan_to_num(dump.loads[chosen])
    if (empty := loads.sum(axis=(1, 2)) <= 0).any():
        raise InputError(f"{owner}: window {names[int(np.argmax(empty))]} has no tokens; leave that window out")
    source = np.ones(len(chosen)) if dump.source is None else dump.source[chosen]
    there = np.asarray(np.isfinite(dump.loads).any(axis=0))
    return Trace(loads, tuple(names), dump.layers, there, dump.active or active, source)


@traces
def trace(
    *,
    path: str | None = None,
    model: str = "OLMoE-1B-7B-0924",
    count_kind: str = "topk",
    windows: list | None = None,
    tokens_per_window: int | None = None,
    trajectory: Any = None,
) -> Trace:
    """Recorded loads: the shipped tables (OLMoE, Mixtral), or what `path` holds (see `dumps`).

    In the shipped tables a window is a data domain; windows come in the order given. Of a file with a row for each
    token a window is a sequence, or `tokens_per_window` of its tokens; of the loads of `moesim lab`, one model is
    chosen by `trajectory`, its name or number.
    """
    if path is not None:
        return _recorded(f"world trace {path}", read_dump(path, tokens_per_window, trajectory), windows)
    if trajectory is not None or tokens_per_window is not None:
        raise InputError("world trace: trajectory and tokens_per_window are of a file; give world.path=FILE too")
    table = shipped("routing_olmoe_mixtral_expert_counts.csv")
    models = sorted({row["model"] for row in table})
    if model not in models:
        raise InputError(f"world trace: no model {model!r}; it takes {', '.join(models)}")
    own = [row for row in table if row["model"] == model and row["count_kind"] == count_kind]
    if not own:
        raise InputError(f"world trace {model}: no rows of count_kind={count_kind!r}")
    dump = counted(f"world trace {model}", [{**row, "window": row["domain"]} for row in own])
    return _recorded(f"world trace {model}", dump, windows, int(float(own[0]["k"] or 1)))


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
    there = np.ones((layers, experts), dtype=bool)
    return Trace(
        loads, tuple(map(str, range(windows))), tuple(map(str, range(layers))), there, active, np.ones(windows)
    )


@traces
def workload(
    *,
    kind: str = "rotating",
    windows: int = 16,
    experts: int = 64,
    ranks: int = 8,
    heat: float = 3.0,
    period: int = 4,
    drift: float = 0.3,
    active: int = 8,
    seed: int = 0,
) -> Trace:
    """Loads that move, or are uneven in one way (see `workloads`): balanced, hot_rank, rotating, burst, drift, ..."""
    given = {"windows": windows, "experts": experts, "ranks": ranks, "period": period, "active": active}
    for name, value in given.items():
        check("world workload", name, value, AT_LEAST_ONE)
    for name, value in {"heat": heat, "drift": drift}.items():
        check("world workload", name, value, NON_NEGATIVE)
    loads, source = workloads.workload(kind, windows, experts, ranks, heat, period, drift, seed)
    names, there = tuple(map(str, range(windows))), np.ones((1, experts), dtype=bool)
    return Trace(loads[:, None], names, ("0",), there, active, source)


def is_trace(config: Mapping[str, Any]) -> bool:
    """Whether a config's world is a trace."""
    return config.get("world", {}).get("policy") in traces


def replay(config: Mapping[str, Any]) -> xr.Dataset:
    """Replay a trace through a placement policy: a window is judged with the placement planned on those before it.

    The first window is planned on even loads. A window is `steps_per_window` steps: the placement is planned anew when
    they pass its `every`, which costs its migration once. Policies that see the present share each window's own
    tokens. Dims seed (one), step (window), layer, expert, device.
    """
    policy, shared = traces.build(config["world"])
    tokens = float(check("balance", "tokens_per_step", config.get("tokens_per_step", 2.0**22), POSITIVE))
    recorded, machine, placing = policy(), clock.build(config, tokens), placement.build(config["placement"])
    length = whole()("world", "steps_per_window", shared["steps_per_window"])
    _check(config, recorded, machine)
    active = _active(config, recorded)
    total = recorded.loads.sum(axis=-1, keepdims=True)
    loads = recorded.loads / np.where(total > 0, total, 1.0) * (tokens * active)
    even = recorded.there / recorded.there.sum(axis=1, keepdims=True) * (tokens * active)
    records, previous = [], None
    for window, own in enumerate(loads):
        past = loads[window - 1] if window else even
        planned, moved, cost = _planned(placing, previous, past, recorded, machine, window * length, length)
        served = placement.serve(placing, planned, own, machine.cluster.speed)
        met = {"arrivals": moved / length, "planned": cost / length, "behind": placing.overlap}
        made = _judged(served, own, machine, recorded.there, tokens, active, recorded.source[window], met)
        records.append({**made, "moved_copies": moved.sum()})
        previous = planned
    return _dataset(records, recorded, machine, length)


def _check(config: Mapping[str, Any], recorded: Trace, machine: Machine) -> None:
    for group, only in {"structure": "fixed", "sampling": "natural"}.items():
        if (chosen := config.get(group, {}).get("policy", only)) != only:
            raise InputError(
                f"balance: {group}={chosen} with a trace: recorded loads do not respond; use {group}={only}"
            )
    cluster, experts = machine.cluster, int(recorded.there.sum(axis=1).max())
    if cluster.slots < experts:
        raise InputError(
            f"balance: {cluster.slots} slots (devices x slots_per_device) are fewer than {experts} traced experts; "
            f"give cluster.slots_per_device={-(-experts // cluster.devices)} or more"
        )


def _active(config: Mapping[str, Any], recorded: Trace) -> int:
    """Experts of a token, by the record or by `active_experts`; InputError where they differ."""
    given = whole()("balance", "active_experts", config.get("active_experts", 1))
    fewest = int(recorded.there.sum(axis=1).min())
    if recorded.active is None and given > fewest:
        raise InputError(f"balance: active_experts={given} is more than the {fewest} experts of a traced layer")
    if recorded.active not in (None, given) and given != 1:
        raise InputError(
            f"balance: active_experts={given}, but a traced token has {recorded.active} experts; leave it out"
        )
    return recorded.active or given


def _planned(placing, previous, past, recorded, machine, now: int, length: int):
    """The placement of a window, copies moved to get there (layer, device) and seconds of planning (layer,)."""
    cluster, layers = machine.cluster, len(past)
    kept = np.zeros((layers, cluster.devices)), np.zeros(layers)
    if previous is not None and now // placing.every == (now - length) // placing.every:
        return previous, *kept
    due = np.ones(layers, dtype=bool)
    if previous is not None:
        due = placement.uneven(previous, past, cluster) >= placing.threshold
        if not due.any():
            return previous, *kept
    there, experts = recorded.there, past.shape[1]
    sizes = (cluster.slots, cluster.devices, cluster.nodes, now, cluster.speed, machine)
    new = placing.policy(Problem(past, there, there.astype(int), previous, np.zeros(layers, dtype=bool), *sizes))
    new = new if previous is None else placement.where(due, new, previous)
    cost = 0.0 if previous is None else placing.plan_seconds
    return new, arrivals(previous, new, experts, cluster.devices), due * cost / layers


def _judged(served, loads, machine, there, tokens, active, source, met) -> dict[str, Any]:
    """One window: every layer's barrier on its own; the layers of the trace stand for all layers of the model."""
    single, cluster, layers = machine.with_layers(1), machine.cluster, machine.expert.layers
    frozen = np.zeros(loads.shape, dtype=bool)
    parts = clock.step_seconds(single, served, loads, frozen, tokens, active, source=source, **met)
    received = parts["received"]
    times = {f"time_{name}": parts[name].mean() * layers for name in clock.PARTS}
    times["time_dense"] = clock.dense_seconds(machine, tokens, active)
    total = float(np.sum(list(times.values())))
    busy = times["time_compute"] + times["time_dense"] * cluster.busy_share + times["time_update"]
    same = np.zeros(len(loads), dtype=bool)
    sizes = (cluster.slots, cluster.devices, cluster.nodes, 0, cluster.speed, machine)
    hindsight = placement.eplb(Problem(loads, there, there.astype(int), None, same, *sizes))
    best = hindsight.slot_loads(loads).reshape(received.shape[0], cluster.devices, -1).sum(axis=-1)
    most = np.minimum(cluster.slots - there.sum(axis=1) + 1, cluster.devices)
    least = np.maximum(received.mean(axis=1), loads.max(axis=1) / most)
    vio = [metrics.max_violation(row[mask]) for row, mask in zip(loads, there, strict=True)]
    return {
        "loads": loads,
        "device_loads": received,
        "layer_max_over_mean": metrics.max_over_mean(received),
        "max_over_mean": received.max(axis=1).sum() / received.mean(axis=1).sum(),
        "max_over_mean_hindsight": metrics.max_over_mean(best).mean(),
        "max_over_mean_bound": least.sum() / received.mean(axis=1).sum(),
        "max_vio": np.mean(vio),
        "balancedness": metrics.balancedness(received).mean(),
        "gini": np.mean([metrics.gini(row[mask]) for row, mask in zip(loads, there, strict=True)]),
        "utilisation": busy / total,
        "idle_share": 1.0 - times["time_compute"] / (times["time_compute"] + times["time_wait"]),
        "shared_devices": served.together(loads.shape[1], cluster.devices).mean(),
        "step_time": total,
        **times,
        **_memory(machine, served, received),
    }


def _memory(machine: Machine, served: Any, received: np.ndarray) -> dict[str, float]:
    """The fullest device: the traced layers, each standing for as many of the model as its depth has."""
    held = (served.slots >= 0).reshape(len(received), machine.cluster.devices, -1).sum(axis=-1)
    layer = np.arange(int(np.ceil(machine.depth))) * len(received) // int(np.ceil(machine.depth))
    return {name: value[0] for name, value in fullest(machine, held[None, layer], received[None, layer]).items()}


_DIMS = {"loads": ("layer", "expert"), "device_loads": ("layer", "device"), "layer_max_over_mean": ("layer",)}


def _dataset(records: list[dict[str, Any]], recorded: Trace, machine: Machine, length: int) -> xr.Dataset:
    import xarray as xr

    values = {name: np.stack([np.asarray(row[name], dtype=float) for row in records])[None] for name in records[0]}
    values["wall_clock"] = np.cumsum(values["step_time"], axis=1) * length
    data = {name: (("seed", "step", *_DIMS.get(name, ())), array) for name, array in values.items()}
    coords = {
        "seed": [0],
        "step": np.arange(len(records)),
        "window": ("step", list(recorded.windows)),
        "layer": list(recorded.layers),
        "expert": np.arange(recorded.loads.shape[2]),
        "device": np.arange(machine.cluster.devices),
    }
    return stamp(xr.Dataset(data, coords=coords, attrs={"title": "moesim balance: trace replay"}))
