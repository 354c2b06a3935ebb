"""EPLB, the expert-parallel load balancer of DeepSeek: which expert sits in which slot, and how often.

Source: deepseek-ai/EPLB, commit d52c72d5 (README and algorithm). All layers are balanced at once. Where weights are
equal the first of them wins: the sort is stable, the most loaded expert and the lightest pack are the lowest index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.output.text import Page, shown
from moesim.variables import NON_NEGATIVE, POSITIVE, check


@shown
@dataclass(frozen=True)
class Balanced:
    """A placement of experts in slots.

    `slots` (layer, slot): the expert in each slot; slots of one device are adjacent. `counts` (layer, expert): how
    many slots an expert has.
    """

    slots: np.ndarray
    counts: np.ndarray
    devices: int

    def _page(self) -> Page:
        layers, slots = self.slots.shape
        most, device = int(self.counts.max()), slots // self.devices
        what = f"Balanced: {self.counts.shape[1]} experts in {slots} slots, {device} on each of {self.devices} devices"
        return [f"{what}; {layers} layers, at most {most} copies of an expert"]

    def slot_loads(self, loads: np.ndarray) -> np.ndarray:
        """Load of each slot (layer, slot) when replicas share an expert's load evenly."""
        weights = np.atleast_2d(np.asarray(loads, dtype=float))
        if weights.shape[-1] != self.counts.shape[-1]:
            raise InputError(f"eplb: loads of {weights.shape[-1]} experts; this is of {self.counts.shape[-1]}")
        weights = weights / self.counts
        return np.take_along_axis(np.broadcast_to(weights, self.counts.shape), self.slots, axis=-1)

    def device_loads(self, loads: np.ndarray) -> np.ndarray:
        """Load of each device (layer, device) under `loads` (layer, expert), in their unit."""
        slots = self.slot_loads(loads)
        return slots.reshape(len(slots), self.devices, -1).sum(axis=-1)

    def together(self) -> np.ndarray:
        """How many copies share a device with an earlier copy of their expert (layer,)."""
        slots = self.slots.reshape(len(self.slots), self.devices, -1)
        distinct = [[len(np.unique(device)) for device in layer] for layer in slots]
        return slots[0].size - np.sum(distinct, axis=1)

    def max_over_mean(self, loads: np.ndarray) -> np.ndarray:
        """Load of the busiest device over the mean, for each layer."""
        per_device = self.device_loads(loads)
        return per_device.max(axis=-1) / per_device.mean(axis=-1)


def pack(weights: np.ndarray, packs: int, speed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Put n items into packs of n/packs each, heaviest first, always into the lightest pack with room.

    `weights` (layer, item). With the `speed` of each pack (pack,) or (layer, pack) always into the one that ends first.
    Returns the pack and the place within it, both (layer, item).
    """
    layers, items = weights.shape
    room = items // packs
    if room == 1 and speed is None:
        index = np.broadcast_to(np.arange(items), weights.shape)
        return index.copy(), np.zeros_like(index)
    order = np.argsort(-weights, axis=-1, kind="stable")
    sorted_weights = np.take_along_axis(weights, order, axis=-1)
    rows, key, filled = np.arange(layers), np.zeros((layers, packs)), np.zeros((layers, packs), dtype=np.int64)
    pack_of, place = np.empty((layers, items), dtype=np.int64), np.empty((layers, items), dtype=np.int64)
    for i in range(items):
        lightest = (key if speed is None else (key + sorted_weights[:, i, None]) / speed).argmin(axis=-1)
        item, taken = order[:, i], filled[rows, lightest]
        pack_of[rows, item], place[rows, item] = lightest, taken
        filled[rows, lightest] = taken + 1
        # A full pack weighs infinity, so it is never the lightest again.
        key[rows, lightest] = np.where(taken + 1 == room, np.inf, key[rows, lightest] + sorted_weights[:, i])
    return (pack_of, place) if speed is None else _levelled(weights, pack_of, speed)


def _levelled(weights: np.ndarray, pack_of: np.ndarray, speed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Packs after exchanges: with as many items in slow packs as in fast ones, heaviest first ends far from level."""
    layers, items = weights.shape
    fast = np.broadcast_to(speed, (layers, np.shape(speed)[-1]))
    each = zip(weights, pack_of, fast, strict=True)
    out = np.stack([_exchanged_apart(w, np.arange(items), row, s) for w, row, s in each])
    return out, _places(out, fast.shape[1])


def _places(pack_of: np.ndarray, packs: int) -> np.ndarray:
    """Place of each item within its pack (layer, item), in order of the items."""
    place = np.empty_like(pack_of)
    count = np.tile(np.arange(pack_of.shape[1] // packs), packs)
    np.put_along_axis(place, np.argsort(pack_of, axis=1, kind="stable"), np.broadcast_to(count, place.shape), axis=1)
    return place


def pack_apart(
    weights: np.ndarray, expert_of: np.ndarray, packs: int, speed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """As `pack`, but no two copies of an expert in one pack; every expert has at most `packs` copies.

    `weights`, `expert_of` (layer, item). Heaviest first, the copies of one expert into the emptiest packs, of equally
    empty ones the lightest; then copies are exchanged between the heaviest pack and another while that lowers it.
    """
    fast = np.broadcast_to(1.0 if speed is None else speed, (len(weights), packs))
    each = zip(weights, expert_of, fast, strict=True)
    pack_of = np.stack([_exchanged_apart(w, experts, _spread_apart(w, experts, s), s) for w, experts, s in each])
    return pack_of, _places(pack_of, packs)


def _spread_apart(weights: np.ndarray, experts: np.ndarray, speed: np.ndarray) -> np.ndarray:
    # The emptiest packs first: no pack fills up before the others, so every later expert finds packs enough.
    burden, filled, out = np.zeros(len(speed)), np.zeros(len(speed), dtype=int), np.empty_like(experts)
    heaviest = dict.fromkeys(experts[np.argsort(-weights, kind="stable")].tolist())
    for expert in heaviest:
        items = np.flatnonzero(experts == expert)
        chosen = np.lexsort(((burden + weights[items[0]]) / speed, filled))[: len(items)]
        out[items] = chosen
        burden[chosen] += weights[items]
        filled[chosen] += 1
    return out


def _exchanged_apart(weights: np.ndarray, experts: np.ndarray, pack_of: np.ndarray, speed: np.ndarray) -> np.ndarray:
    out, packs = pack_of.copy(), len(speed)
    holds = np.zeros((int(experts.max()) + 1, packs), dtype=bool)
    holds[experts, out] = True
    for _ in range(len(out) * packs):
        burden = np.bincount(out, weights, packs)
        high = int((burden / speed).argmax())
        mine, others = np.flatnonzero(out == high), np.flatnonzero(out != high)
        shift = weights[mine][:, None] - weights[others][None, :]
        after = np.maximum((burden[high] - shift) / speed[high], (burden[out[others]] + shift) / speed[out[others]])
        after[holds[experts[mine]][:, out[others]] | holds[experts[others], high][None, :]] = np.inf
        if after.size == 0 or after.min() >= burden[high] / speed[high] * (1.0 - 1e-12):
            break
        i, j = np.unravel_index(int(after.argmin()), after.shape)
        a, b = mine[i], others[j]
        holds[experts[[a, b]], out[[a, b]]] = False
        out[[a, b]] = out[[b, a]]
        holds[experts[[a, b]], out[[a, b]]] = True
    return out


def replicate(weights: np.ndarray, slots: int, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Give each expert a slot and every further slot to the expert with the most load per replica.

    `weights` (layer, expert). Returns the expert of each slot (layer, slot) and the counts (layer, expert). The
    highest load per replica is the lowest that any counts with this sum can have. `most`: copies of one expert.
    """
    layers, experts = weights.shape
    rows = np.arange(layers)
    expert_of = np.empty((layers, slots), dtype=np.int64)
    expert_of[:, :experts] = np.arange(experts)
    counts, per_replica = np.ones((layers, experts), dtype=np.int64), weights.astype(float)
    for slot in range(experts, slots):
        if most is not None:
            per_replica = np.where(counts < most, per_replica, -1.0)
        hottest = per_replica.argmax(axis=-1)
        expert_of[:, slot] = hottest
        counts[rows, hottest] += 1
        per_replica[rows, hottest] = weights[rows, hottest] / counts[rows, hottest]
    return expert_of, counts


def _inverse(permutation: np.ndarray) -> np.ndarray:
    out = np.empty_like(permutation)
    np.put_along_axis(out, permutation, np.broadcast_to(np.arange(permutation.shape[-1]), permutation.shape), axis=-1)
    return out


def _hierarchical(
    weights: np.ndarray, slots: int, groups: int, nodes: int, devices: int, distinct: bool, speed: np.ndarray | None
):
    layers, experts = weights.shape
    size, per_node, per_device = experts // groups, experts // nodes, slots // devices
    inside = None if speed is None else np.tile(speed.reshape(nodes, -1), (layers, 1))
    between = None if speed is None else speed.reshape(nodes, -1).sum(axis=1)
    node, place = pack(weights.reshape(layers, groups, size).sum(axis=-1), nodes, between)
    start = (node * (groups // nodes) + place) * size
    to_local = (start[:, :, None] + np.arange(size)).reshape(layers, experts)
    to_global = _inverse(to_local)
    local = np.take_along_axis(weights, to_global, axis=-1).reshape(layers * nodes, per_node)
    expert_of, counts = replicate(local, slots // nodes, devices // nodes if distinct else None)
    each = np.take_along_axis(local / counts, expert_of, axis=-1)
    apart = (each, expert_of, devices // nodes, inside)
    device, rank = pack_apart(*apart) if distinct else pack(each, devices // nodes, inside)
    order = _inverse(device * per_device + rank)
    placed = np.take_along_axis(expert_of, order, axis=-1).reshape(layers, nodes, -1)
    placed = (placed + np.arange(nodes)[:, None] * per_node).reshape(layers, slots)
    counts = np.take_along_axis(counts.reshape(layers, experts), to_local, axis=-1)
    return np.take_along_axis(to_global, placed, axis=-1), counts


def _check(weights: np.ndarray, replicas: int, groups: int, nodes: int, devices: int) -> None:
    if weights.ndim != 2 or weights.size == 0:
        raise InputError(f"eplb: loads have shape {weights.shape}; it takes (layer, expert)")
    experts = weights.shape[1]
    for name, value in {"replicas": replicas, "groups": groups, "nodes": nodes, "devices": devices}.items():
        if isinstance(value, bool) or value != int(value) or value < 1:
            raise InputError(f"eplb: {name}={value}; it takes a whole number of 1 or more")
    if replicas < experts:
        raise InputError(
            f"eplb: replicas={replicas} slots are fewer than {experts} experts; give at least {experts} slots"
        )
    if replicas % devices:
        raise InputError(f"eplb: replicas={replicas} do not divide evenly among devices={devices}; use a multiple")
    if groups % nodes == 0:
        if experts % groups:
            raise InputError(f"eplb: {experts} experts do not divide into groups={groups}; use a divisor, or groups=1")
        if devices % nodes:
            raise InputError(f"eplb: devices={devices} do not divide among nodes={nodes}; use a multiple of nodes")


def _speeds(speeds: Any, devices: int) -> np.ndarray | None:
    speed = np.asarray(check("eplb", "speeds", speeds, POSITIVE), dtype=float)
    if speed.shape != (devices,):
        raise InputError(f"eplb: {speed.size} speeds for devices={devices}; give one for each device")
    return None if (speed == speed[0]).all() else speed


def eplb(
    loads: Any,
    replicas: int,
    groups: int = 1,
    nodes: int = 1,
    devices: int = 1,
    distinct: bool = False,
    speeds: Any = None,
) -> Balanced:
    """Balance experts over devices by replicating the hot ones and packing the replicas.

    `loads` (layer, expert): tokens per expert, any unit; one layer may be given flat. `replicas`: slots in all, a
    multiple of `devices`. If `groups` is a multiple of `nodes` the groups of experts are packed onto nodes first
    (hierarchical); otherwise, or with nodes=1, slots are shared out globally. The published algorithm may put two
    copies of an expert on one device, where they balance nothing (`Balanced.together` counts them); `distinct` forbids
    it. `speeds` (device,): a replica goes where it ends first, not where least lies (None: all alike). Returns
    `Balanced`. Raises InputError for loads that are negative or not finite and for sizes that do not divide.
    """
    weights = np.atleast_2d(np.asarray(check("eplb", "loads", loads, NON_NEGATIVE)))
    _check(weights, replicas, groups, nodes, devices)
    speed = None if speeds is None else _speeds(speeds, devices)
    if groups % nodes:
        groups = nodes = 1
    if distinct and replicas > weights.shape[1] * devices // nodes:
        raise InputError(
            f"eplb: replicas={replicas} are more than {weights.shape[1]} experts can have on distinct devices; give "
            f"{weights.shape[1] * devices // nodes} or fewer, or distinct=False"
        )
    slots, counts = _hierarchical(weights, replicas, groups, nodes, devices, distinct, speed)
    return Balanced(slots, counts, devices)
