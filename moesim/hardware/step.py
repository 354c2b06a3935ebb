"""How long a step takes: in every layer all devices wait for the slowest.

Times are seconds. An expert's work is a grouped GEMM whose efficiency falls with few tokens; tokens travel between
devices in an all-to-all; a dense part, gradient sync of replicas and moved experts come on top. Formulas: facts of
DeepEP and DeepGEMM (see `moesim/data/BALANCE.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.models import ratio
from moesim.variables import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, POSITIVE, check

PARTS = ("compute", "wait", "all_to_all", "dense", "sync", "update", "migration")


@dataclass(frozen=True)
class Cluster:
    """The machine and the shape of one expert; keys of `conf/cluster/*.yaml`.

    `flops` (FLOP/s), `memory_bandwidth`, `scale_up`, `scale_out` (byte/s) of one device; `peak_share`,
    `bandwidth_share` and `sharpness` shape the GEMM time [(FLOP/P)^p + (bytes/W)^p]^(1/p). `layers` MoE layers, each
    with experts of `matrices` x `d_model` x `d_ff` weights. `value_bytes`, `dispatch_bytes`, `combine_bytes` per value.
    `microbatches` per step. The dense part is `dense_ratio` x the balanced expert time, or `dense_flops_per_token`
    (forward and backward) at `dense_share` of peak. `node_limit`: most nodes that a token is sent to (null: as many as
    it falls on). `speeds`: relative speed of each device (null: all 1).
    """

    flops: float
    memory_bandwidth: float
    scale_up: float
    scale_out: float
    devices: int = 8
    devices_per_node: int = 8
    slots_per_device: int = 3
    peak_share: float = 0.63
    bandwidth_share: float = 0.77
    sharpness: float = 1.78
    layers: int = 24
    d_model: int = 2048
    d_ff: int = 1408
    matrices: int = 3
    value_bytes: float = 2.0
    dispatch_bytes: float = 1.0
    combine_bytes: float = 2.0
    microbatches: float = 8.0
    launch: float = 0.0
    latency: float = 0.0
    node_limit: int | None = None
    overlap: bool = False
    dense_ratio: float = 1.0
    dense_flops_per_token: float | None = None
    dense_share: float = 0.4
    optimizer_flops: float = 18.0
    optimizer_bytes: float = 12.0
    optimizer_traffic: float = 28.0
    sharded_optimizer: bool = False
    speeds: tuple[float, ...] | None = None

    @property
    def slots(self) -> int:
        """Expert copies that the machine holds per layer."""
        return self.devices * self.slots_per_device

    @property
    def nodes(self) -> int:
        """Nodes of the expert-parallel group."""
        return max(self.devices // self.devices_per_node, 1)

    @property
    def expert_weights(self) -> float:
        """Weights of one expert of one layer."""
        return float(self.matrices * self.d_model * self.d_ff)

    @property
    def speed(self) -> np.ndarray:
        """Relative speed of each device (device,)."""
        return np.ones(self.devices) if self.speeds is None else np.asarray(self.speeds, dtype=float)


_DOMAINS = {
    **dict.fromkeys(("flops", "memory_bandwidth", "scale_up", "scale_out", "sharpness", "microbatches"), POSITIVE),
    **dict.fromkeys(("devices", "devices_per_node", "slots_per_device", "layers"), AT_LEAST_ONE),
    **dict.fromkeys(("d_model", "d_ff", "matrices"), AT_LEAST_ONE),
    **dict.fromkeys(("peak_share", "bandwidth_share", "dense_share"), FRACTION),
    **dict.fromkeys(("launch", "latency", "dense_ratio", "optimizer_flops", "optimizer_bytes"), NON_NEGATIVE),
    **dict.fromkeys(("value_bytes", "dispatch_bytes", "combine_bytes", "optimizer_traffic"), NON_NEGATIVE),
}


def build(config: Mapping[str, Any]) -> Cluster:
    """The Cluster of a config mapping (its `chip` key is a label); InputError for unknown or bad values."""
    own = {key: value for key, value in config.items() if key != "chip"}
    known = [field.name for field in fields(Cluster)]
    for key in own:
        if key not in known:
            raise InputError(f"cluster: unknown key {key!r}; it takes chip, {', '.join(known)}")
    for key in ("flops", "memory_bandwidth", "scale_up", "scale_out"):
        if own.get(key) is None:
            raise InputError(
                f"cluster: no value for {key!r}; choose a preset such as cluster=h100, or give {key}=NUMBER"
            )
    if own.get("speeds") is not None:
        own["speeds"] = tuple(float(v) for v in own["speeds"])
    made = Cluster(**own)
    for key, domain in _DOMAINS.items():
        check("cluster", key, getattr(made, key), domain)
    if made.devices % made.nodes or (made.devices > made.devices_per_node and made.devices % made.devices_per_node):
        raise InputError(
            f"cluster: devices={made.devices} do not fill nodes of devices_per_node={made.devices_per_node}; "
            "use a multiple"
        )
    if len(made.speed) != made.devices or (made.speed <= 0).any():
        raise InputError(
            f"cluster: speeds={made.speeds}; it takes one number above 0 for each of {made.devices} devices"
        )
    return made


def forward_flops(weights: Any, tokens: Any) -> Any:
    """FLOPs of one expert on `tokens`, forward: every weight multiplies and adds once per token."""
    return 2.0 * weights * tokens


def expert_flops(weights: Any, tokens: Any, updated: Any = 1.0) -> Any:
    """FLOPs of one expert on `tokens`, forward and backward; without weight gradient where `updated` is 0."""
    updating = ratio.ALWAYS if np.all(updated == 1.0) else ratio.Updating(weight_gradient=updated)
    return forward_flops(weights, tokens) * ratio.total_to_forward(np.inf, update=0.0, updating=updating)


def gemm_seconds(cluster: Cluster, tokens: Any, flops: Any) -> np.ndarray:
    """Time of one expert's forward GEMMs on `tokens` rows: [(FLOP/P)^p + (bytes/W)^p]^(1/p).

    P = peak_share x flops, W = bandwidth_share x memory_bandwidth, fitted to DeepGEMM's published points (H800, FP8).
    """
    weights, ends = cluster.expert_weights, cluster.matrices * (cluster.d_model + cluster.d_ff)
    moved = cluster.value_bytes * (weights + np.asarray(tokens) * ends)
    compute = flops / (cluster.peak_share * cluster.flops)
    memory = moved / (cluster.bandwidth_share * cluster.memory_bandwidth)
    longer, shorter = np.maximum(compute, memory), np.minimum(compute, memory)
    return longer * (1.0 + (shorter / longer) ** cluster.sharpness) ** (1.0 / cluster.sharpness)


def expert_seconds(cluster: Cluster, slot_tokens: np.ndarray, updated: np.ndarray | float = 1.0) -> np.ndarray:
    """Time (..., device) that each device needs for its experts of one layer in a whole step, forward and backward.

    `slot_tokens` (..., slot): token assignments per step; `updated` (..., slot): 1 where weight gradients are made.
    """
    rows = slot_tokens / cluster.microbatches
    forward = gemm_seconds(cluster, rows, forward_flops(cluster.expert_weights, rows))
    each = forward * (2.0 + updated) + cluster.launch
    busy = np.where(slot_tokens > 0, each, 0.0) * cluster.microbatches
    per_device = busy.reshape(*busy.shape[:-1], cluster.devices, -1).sum(axis=-1)
    return per_device / cluster.speed


def destinations(places: int, active: float, limit: int | None = None) -> float:
    """Expected distinct places that one token's experts are spread over: places (1 - (1 - 1/places)^active).

    With a `limit` (group-limited routing) every token goes to that many places, or to all if there are fewer.
    """
    return float(min(limit, places)) if limit else places * (1.0 - (1.0 - 1.0 / places) ** active)


def all_to_all_seconds(tokens: Any, d_model: float, value_bytes: float, places: int, bandwidth: float, copies: float):
    """Time to send each of a device's `tokens` to `copies` of `places`, its own place free, at `bandwidth` byte/s."""
    return tokens * d_model * value_bytes * copies * (places - 1) / places / bandwidth


def exchange_seconds(cluster: Cluster, tokens: float, active: int, imbalance: Any) -> Any:
    """Time of all exchanges of one layer in a step: dispatch and combine, forward and backward.

    `tokens` of the whole step; `imbalance`: load of the busiest receiver over the mean, which the slowest link sees.
    """
    own = tokens / cluster.devices
    inner = destinations(min(cluster.devices, cluster.devices_per_node), active)
    up = all_to_all_seconds(
        own, cluster.d_model, 1.0, min(cluster.devices, cluster.devices_per_node), cluster.scale_up, inner
    )
    out = 0.0
    if cluster.nodes > 1:
        copies = destinations(cluster.nodes, active, cluster.node_limit)
        out = all_to_all_seconds(own, cluster.d_model, 1.0, cluster.nodes, cluster.scale_out, copies)
    per_pass = (cluster.dispatch_bytes + cluster.combine_bytes) * max(up, out)
    hops = 2.0 * cluster.latency * cluster.microbatches * (cluster.devices > 1)
    return 2.0 * (per_pass * np.maximum(imbalance, 1.0) + hops)


def dense_seconds(cluster: Cluster, tokens: float, active: int) -> float:
    """Time of everything but experts in a step, on all devices alike."""
    if cluster.dense_flops_per_token is not None:
        return cluster.dense_flops_per_token * tokens / (cluster.devices * cluster.dense_share * cluster.flops)
    return cluster.dense_ratio * balanced_seconds(cluster, tokens, active)


def balanced_seconds(cluster: Cluster, tokens: float, active: int) -> float:
    """Time of the experts in a step at peak share and perfect balance: the unit of `dense_ratio`, and a lower bound."""
    flops = expert_flops(cluster.expert_weights, tokens * active) * cluster.layers
    return flops / (cluster.speed.sum() * cluster.peak_share * cluster.flops)


def sync_seconds(cluster: Cluster, placement: Any) -> np.ndarray:
    """Time (seed,) to sum the gradients of replicas over their devices: ring all-reduce, the busiest device counts."""
    slots = placement.slots
    copies = placement.copies(int(slots.max()) + 1)
    count = np.where(slots >= 0, np.take_along_axis(copies, np.maximum(slots, 0), axis=1), 1)
    volume = 2.0 * (count - 1) / count * cluster.expert_weights * cluster.value_bytes
    return cluster.layers * volume.reshape(len(slots), cluster.devices, -1).sum(-1).max(-1) / _link(cluster)


def _link(cluster: Cluster) -> float:
    return cluster.scale_out if cluster.nodes > 1 else cluster.scale_up


def migration_seconds(cluster: Cluster, arrivals: np.ndarray) -> np.ndarray:
    """Time (seed,) to fetch the copies that arrive on each device (seed, device), with optimizer unless sharded."""
    state = 0.0 if cluster.sharded_optimizer else cluster.optimizer_bytes
    volume = cluster.expert_weights * (cluster.value_bytes + state)
    return cluster.layers * arrivals.max(axis=1) * volume / _link(cluster)


def update_seconds(cluster: Cluster, updated: np.ndarray) -> np.ndarray:
    """Time (seed,) of the weight update, bound by memory: `updated` (seed, slot) is 1 for copies that are updated."""
    per_device = updated.reshape(len(updated), cluster.devices, -1).sum(axis=-1).max(axis=-1)
    weights = per_device * cluster.expert_weights * cluster.layers
    memory = weights * cluster.optimizer_traffic / cluster.memory_bandwidth
    return np.maximum(memory, weights * cluster.optimizer_flops / cluster.flops)


def step_seconds(cluster: Cluster, placement, loads, frozen, tokens: float, active: int, arrivals) -> dict:
    """Parts of a step's time (seed,), the names of PARTS, and the busy time of each device (seed, device).

    Compute is the mean over devices of the experts' time, wait what the slowest adds to it. With `overlap` the part of
    the all-to-all that hides behind the experts costs nothing.
    """
    slots = placement.slots
    updated = np.where(slots >= 0, 1.0 - np.take_along_axis(frozen, np.maximum(slots, 0), axis=1), 0.0)
    tokens_in = placement.slot_loads(loads)
    per_device = expert_seconds(cluster, tokens_in, updated) * cluster.layers
    received = tokens_in.reshape(len(slots), cluster.devices, -1).sum(axis=-1)
    spread = received.max(axis=1) / np.maximum(received.mean(axis=1), 1e-300)
    slowest, mean = per_device.max(axis=1), per_device.mean(axis=1)
    exchange = exchange_seconds(cluster, tokens, active, spread) * cluster.layers
    if cluster.overlap:
        exchange = np.maximum(exchange - slowest, 0.0)
    return {
        "busy": per_device,
        "received": received,
        "compute": mean,
        "wait": slowest - mean,
        "all_to_all": exchange,
        "dense": np.full(len(slots), dense_seconds(cluster, tokens, active)),
        "sync": sync_seconds(cluster, placement),
        "update": update_seconds(cluster, updated),
        "migration": migration_seconds(cluster, arrivals),
    }


def least_step_seconds(cluster: Cluster, tokens: float, active: int) -> float:
    """No step is faster: experts at peak share in perfect balance, plus the dense part."""
    return balanced_seconds(cluster, tokens, active) * 2.0 / 3.0 + dense_seconds(cluster, tokens, active)
