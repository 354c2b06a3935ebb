"""How long a training step of placed experts takes: in every layer all devices wait for the slowest.

Times are seconds. An expert's work is a grouped matrix product whose efficiency falls with few tokens; tokens travel
between devices in an all-to-all; a dense part, gradient sync of replicas, the update and moved experts come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.hardware.chip import Chip, all_reduce_bytes, gemm_seconds, peak_name
from moesim.hardware.placed import Placement, arriving
from moesim.models import ratio
from moesim.models.operations import Tensor
from moesim.models.optimizers import optimizer
from moesim.settings import number, numbers, read, setting, truth, whole
from moesim.variables import AT_LEAST_ONE, FRACTION, NON_NEGATIVE, POSITIVE, TIME_PARTS

PARTS = tuple(TIME_PARTS)
WIDTH = 1408  # d_expert unless a width or a capacity is given


@dataclass(frozen=True)
class Expert:
    """The shape of one expert; keys of `conf/expert/*.yaml`.

    `layers` MoE layers, each with experts of `matrices` matrices d_model x d_expert (3: SwiGLU). `capacity`
    (parameters of one expert over all layers) may stand in place of the width `d_expert`, never beside it.
    """

    layers: int = setting(24, whole())
    d_model: int = setting(2048, whole())
    d_expert: float | None = setting(None, number(POSITIVE))
    matrices: int = setting(3, whole())
    capacity: float | None = setting(None, number(POSITIVE))

    def __post_init__(self):
        if self.capacity is not None and self.d_expert is not None:
            raise InputError(
                f"expert: capacity={self.capacity:g} and d_expert={self.d_expert:g} are two sizes of one expert; "
                "give one, the other null"
            )

    @property
    def width(self) -> float:
        """d_expert, as given or as the capacity has it."""
        if self.capacity is not None:
            return self.capacity / (self.layers * self.matrices * self.d_model)
        return WIDTH if self.d_expert is None else self.d_expert

    @property
    def weights(self) -> float:
        """Weights of one expert of one layer."""
        return float(self.matrices * self.d_model * self.width)

    @property
    def params(self) -> float:
        """Weights of one expert over all layers: what it can learn with."""
        return float(self.layers * self.weights) if self.capacity is None else self.capacity


@dataclass(frozen=True)
class Cluster:
    """The devices of one expert-parallel group; keys of `conf/cluster/*.yaml`.

    `slots_per_device`: expert copies that a device holds per layer. `speeds`: relative speed of each device (null: all
    1). `node_limit`: most nodes that a token is sent to (null: as many as it falls on). `groups` of such devices train
    the same experts on other tokens (data parallel): gradients are summed over them. `stages` of a pipeline share out
    the layers, each with a group of its own; in one of them the devices have these `speeds`.
    """

    devices: int = setting(8, whole())
    devices_per_node: int = setting(8, whole())
    slots_per_device: int = setting(3, whole())
    speeds: tuple[float, ...] | None = setting(None, numbers(POSITIVE))
    node_limit: int | None = setting(None, whole())
    groups: int = setting(1, whole())
    stages: int = setting(1, whole())

    def __post_init__(self):
        if self.devices % self.nodes or (self.devices > self.devices_per_node and self.devices % self.devices_per_node):
            raise InputError(
                f"cluster: devices={self.devices} do not fill nodes of devices_per_node={self.devices_per_node}; "
                "use a multiple"
            )
        if self.speeds is not None and len(self.speeds) != self.devices:
            raise InputError(
                f"cluster: speeds has {len(self.speeds)} numbers for devices={self.devices}; give one for each device"
            )

    @property
    def slots(self) -> int:
        """Expert copies that the cluster holds per layer."""
        return self.devices * self.slots_per_device

    @property
    def nodes(self) -> int:
        """Nodes of the group."""
        return max(self.devices // self.devices_per_node, 1)

    @property
    def speed(self) -> np.ndarray:
        """Relative speed of each device (device,)."""
        return np.ones(self.devices) if self.speeds is None else np.asarray(self.speeds, dtype=float)

    @property
    def busy_share(self) -> float:
        """Share of the time of equal work that a mean device needs, where the slowest is waited for."""
        return float((self.speed.min() / self.speed).mean())


@dataclass(frozen=True)
class Schedule:
    """How a step is run; keys of `conf/schedule/*.yaml`.

    `microbatches` per step: rows of a matrix product, and activations kept, fall with them; null: as many as leave
    `microbatch_tokens` to a device in each (one sequence of 4096, as DeepSeek-V3 trains and DeepEP is measured).
    `value_bytes` per weight and activation,
    `dispatch_bytes` and `combine_bytes` per value sent to and from an expert (1: 8-bit, as DeepEP dispatches),
    `gradient_bytes` per gradient that is summed.
    `overlap`: the exchange hides behind the experts. `prefer_local`: tokens go to the copy at their own place while its
    share lasts. `padding`: with a capacity an expert computes and sends all of it, empty rows too. The dense part takes
    `dense_ratio` x the balanced expert time, or `dense_flops_per_token` (forward and backward) at `dense_share` of
    peak. `optimizer`: a row of `moesim.models.optimizers`, or FLOP per weight; it reads and writes `optimizer_traffic`
    bytes per weight and holds `optimizer_bytes`, which move with an expert unless the optimiser is sharded. With
    `recompute` experts keep their inputs alone and pay one more forward pass; everything else takes `dense_memory`
    bytes of a device.
    """

    microbatches: float = setting(None, number(AT_LEAST_ONE))
    microbatch_tokens: float = setting(4096.0, number(POSITIVE))
    value_bytes: float = setting(2.0, number(POSITIVE))
    dispatch_bytes: float = setting(1.0, number(NON_NEGATIVE))
    combine_bytes: float = setting(2.0, number(NON_NEGATIVE))
    gradient_bytes: float = setting(2.0, number(NON_NEGATIVE))
    overlap: bool = setting(False, truth)
    prefer_local: bool = setting(True, truth)
    padding: bool = setting(True, truth)
    dense_ratio: float = setting(1.0, number(NON_NEGATIVE))
    dense_flops_per_token: float | None = setting(None, number(NON_NEGATIVE))
    dense_share: float = setting(0.4, number(FRACTION))
    optimizer: str | float = "adamw_clip_scale"
    optimizer_bytes: float = setting(12.0, number(NON_NEGATIVE))
    optimizer_traffic: float = setting(28.0, number(NON_NEGATIVE))
    sharded_optimizer: bool = setting(False, truth)
    recompute: bool = setting(False, truth)
    dense_memory: float = setting(0.0, number(NON_NEGATIVE))

    def __post_init__(self):
        optimizer(self.optimizer)  # refuses what is none


@dataclass(frozen=True)
class Machine:
    """A cluster of chips that trains experts of one shape on a schedule."""

    chip: Chip
    cluster: Cluster
    expert: Expert
    schedule: Schedule

    def __post_init__(self):
        peak = peak_name(self.schedule.value_bytes)
        if peak != "flops" and np.isnan(getattr(self.chip, peak)):
            raise InputError(
                f"chip: no {peak} for schedule.value_bytes={self.schedule.value_bytes:g}; give chip.{peak}=NUMBER"
            )
        links = ("scale_up", "scale_out")[
            : (self.cluster.devices > 1) + (self.cluster.nodes > 1 or self.cluster.groups > 1)
        ]
        self.chip.require("flops", "memory_bandwidth", *links)

    @property
    def peak(self) -> float:
        """FLOP/s of one chip with the values of the schedule."""
        return self.chip.peak(self.schedule.value_bytes)

    @property
    def link(self) -> float:
        """byte/s of the links that replicas and moved experts travel on: the slowest there is in the group."""
        return self.chip.scale_out if self.cluster.nodes > 1 else self.chip.scale_up

    @property
    def wide_link(self) -> float:
        """byte/s of the links that gradients are summed over: between groups of devices the slow ones."""
        return self.chip.scale_out if self.cluster.groups > 1 else self.link

    @property
    def depth(self) -> float:
        """MoE layers of one stage of the pipeline."""
        return self.expert.layers / self.cluster.stages

    def with_layers(self, layers: int) -> Machine:
        """The same with another number of layers of the same width."""
        shape = replace(self.expert, layers=layers, d_expert=self.expert.width, capacity=None)
        return replace(self, expert=shape)


GROUPS: Mapping[str, type] = {"chip": Chip, "cluster": Cluster, "expert": Expert, "schedule": Schedule}


def build(config: Mapping[str, Any], tokens: float = 0.0) -> Machine:
    """The Machine of a config's groups chip, cluster, expert, schedule, for steps of so many `tokens`.

    InputError for unknown keys and bad values.
    """
    groups = {group: read(cls, group, config.get(group) or {}) for group, cls in GROUPS.items()}
    schedule: Schedule = groups["schedule"]
    if schedule.microbatches is None:
        parts = max(tokens / groups["cluster"].devices / schedule.microbatch_tokens, 1.0)
        groups["schedule"] = replace(schedule, microbatches=parts)
    return Machine(**groups)


def forward_flops(weights: Any, tokens: Any) -> Any:
    """FLOPs of one expert on `tokens`, forward: every weight multiplies and adds once per token."""
    return 2.0 * weights * tokens


def expert_flops(weights: Any, tokens: Any, updated: Any = 1.0) -> Any:
    """FLOPs of one expert on `tokens`, forward and backward; without weight gradient where `updated` is 0."""
    updating = ratio.ALWAYS if np.all(updated == 1.0) else ratio.Updating(weight_gradient=updated)
    return forward_flops(weights, tokens) * ratio.total_to_forward(np.inf, update=0.0, updating=updating)


def forward_seconds(machine: Machine, tokens: Any) -> np.ndarray:
    """Time of one expert's forward pass of one layer on `tokens` rows."""
    expert, value_bytes = machine.expert, machine.schedule.value_bytes
    ends = expert.matrices * (expert.d_model + expert.width)
    moved = value_bytes * (expert.weights + np.asarray(tokens) * ends)
    return gemm_seconds(machine.chip, forward_flops(expert.weights, tokens), moved, value_bytes)


def expert_seconds(machine: Machine, slot_tokens: np.ndarray, updated: np.ndarray | float = 1.0) -> np.ndarray:
    """Time (..., device) that each device needs for its experts of one layer in a whole step, forward and backward.

    `slot_tokens` (..., slot): token assignments per step; `updated` (..., slot): 1 where weight gradients are made.
    """
    rows = slot_tokens / machine.schedule.microbatches
    passes = 2.0 + updated + machine.schedule.recompute
    each = forward_seconds(machine, rows) * passes + machine.chip.launch
    busy = np.where(slot_tokens > 0, each, 0.0) * machine.schedule.microbatches
    per_device = busy.reshape(*busy.shape[:-1], machine.cluster.devices, -1).sum(axis=-1)
    return per_device / machine.cluster.speed


def exchange_seconds(
    machine: Machine, placement: Placement, loads: np.ndarray, tokens: float, active: int, source: Any = 1.0
) -> np.ndarray:
    """Time (seed,) of all exchanges of one layer in a step: dispatch and combine, forward and backward.

    A device sends what leaves it, in dispatch the `source` times its mean share of the `tokens` (raggedness of where
    they start); in combine the device with most copies to send back is waited for. So combine grows with max/mean of
    the loads and dispatch does not, as measured (r .97 against .67, tt-metal issue 56304). Links within a node and
    between nodes are used at once.
    """
    cluster, chip, schedule = machine.cluster, machine.chip, machine.schedule
    if cluster.devices == 1:
        return np.zeros(len(loads))
    own = tokens / cluster.devices * machine.expert.d_model

    def seconds(places: int, bandwidth: float, part: float = 1.0, limit: int | None = None) -> np.ndarray:
        copies = part * arriving(placement, loads, places, active, schedule.prefer_local)
        most = np.maximum(copies.sum(axis=1), 1e-300)
        copies *= np.minimum(1.0, (limit or np.inf) * (1.0 - 1.0 / places) / most)[:, None]
        sent, busiest = copies.sum(axis=1), places * copies.max(axis=1)
        back = np.maximum(busiest, source * sent)
        return own / bandwidth * (schedule.dispatch_bytes * source * sent + schedule.combine_bytes * back)

    near = min(cluster.devices, cluster.devices_per_node)
    times = seconds(cluster.devices, chip.scale_up, (1.0 - 1.0 / near) / (1.0 - 1.0 / cluster.devices))
    if cluster.nodes > 1:
        times = np.maximum(times, seconds(cluster.nodes, chip.scale_out, limit=cluster.node_limit))
    return 2.0 * times + 4.0 * chip.latency * schedule.microbatches  # dispatch and combine, there and back


@lru_cache(maxsize=256)  # asked in every step
def dense_seconds(machine: Machine, tokens: float, active: int) -> float:
    """Time of everything but experts in a step: every device has an equal part of the tokens, the slowest is last."""
    schedule, devices = machine.schedule, machine.cluster.devices
    slowest = machine.cluster.speed.min() * devices
    if schedule.dense_flops_per_token is not None:
        flops = schedule.dense_flops_per_token * tokens / machine.cluster.stages
        return flops / (slowest * schedule.dense_share * machine.peak)
    return schedule.dense_ratio * balanced_seconds(machine, tokens, active) * machine.cluster.speed.sum() / slowest


@lru_cache(maxsize=256)
def balanced_seconds(machine: Machine, tokens: float, active: int) -> float:
    """Time of the experts in a step at peak share and perfect balance: the unit of `dense_ratio`, and a lower bound."""
    flops = expert_flops(machine.expert.weights, tokens * active) * machine.depth
    return flops / (machine.cluster.speed.sum() * machine.chip.peak_share * machine.peak)


def sync_seconds(machine: Machine, placement: Placement) -> np.ndarray:
    """Time (seed,) to sum gradients, in rings, over all devices that hold an expert, in all groups; the busiest counts.

    Copies on one device are summed there: an expert at home on one device alone, in one group, costs nothing.
    """
    homes = placement.held(int(placement.slots.max()) + 1, machine.cluster.devices)
    devices = np.maximum(homes.sum(axis=2), 1) * machine.cluster.groups
    size = machine.expert.weights * machine.schedule.gradient_bytes
    per_device = (homes * all_reduce_bytes(devices, size)[:, :, None]).sum(axis=1)
    return machine.depth * per_device.max(axis=1) / machine.wide_link


def migration_seconds(machine: Machine, arrivals: np.ndarray) -> np.ndarray:
    """Time (seed,) to fetch the copies that arrive on each device (seed, device), with optimizer unless sharded."""
    state = 0.0 if machine.schedule.sharded_optimizer else machine.schedule.optimizer_bytes
    volume = machine.expert.weights * (machine.schedule.value_bytes + state)
    return machine.depth * arrivals.max(axis=1) * volume / machine.link


def update_seconds(machine: Machine, updated: np.ndarray) -> np.ndarray:
    """Time (seed,) of the weight update, by memory or by FLOPs: `updated` (seed, slot) is 1 for copies updated."""
    per_device = updated.reshape(len(updated), machine.cluster.devices, -1).sum(axis=-1) / machine.cluster.speed
    copies = per_device.max(axis=-1) * machine.depth
    memory = copies * machine.expert.weights * machine.schedule.optimizer_traffic / machine.chip.memory_bandwidth
    return np.maximum(memory, copies * update_flops(machine) / machine.peak)


@lru_cache(maxsize=256)
def update_flops(machine: Machine) -> float:
    """FLOPs of one update of one expert of one layer, by the optimiser of the schedule."""
    expert = machine.expert
    matrix = Tensor(expert.d_model, expert.width, expert.matrices, matrix=True)  # type: ignore[arg-type]
    return float(optimizer(machine.schedule.optimizer).flops(matrix))


def step_seconds(
    machine: Machine,
    placement: Placement,
    loads: np.ndarray,
    frozen: np.ndarray,
    tokens: float,
    active: int,
    arrivals: np.ndarray,
    *,
    room: Any = np.inf,
    source: Any = 1.0,
    planned: Any = 0.0,
    behind: bool = False,
    chosen: int | None = None,
) -> dict[str, np.ndarray]:
    """Parts of a step's time (seed,), the names of PARTS; also `busy` and `received` of each device (seed, device).

    `loads`, `frozen` (seed, expert): assignments, and experts without weight updates; `tokens`, `active` experts of
    each, `chosen` those that the dense part goes by (None: as many); `arrivals` (seed, device): copies to fetch. `room`
    (seed,): assignments that an expert has capacity for, all computed with `padding`. `source`: see `exchange_seconds`.
    Migration takes the `planned` seconds (seed,) of the host too; it may hide `behind` the experts and the dense part.
    Compute is the mean over devices of the experts' time, wait what the slowest adds to it. With `overlap` the part of
    the exchange behind the experts costs nothing.
    """
    cluster, schedule, slots, depth = machine.cluster, machine.schedule, placement.slots, machine.depth
    updated = np.where(slots >= 0, 1.0 - np.take_along_axis(frozen, np.maximum(slots, 0), axis=1), 0.0)
    received = placement.slot_loads(loads).reshape(len(slots), cluster.devices, -1).sum(axis=-1)
    loads = _filled(machine, placement, loads, room)
    per_device = expert_seconds(machine, placement.slot_loads(loads), updated) * depth
    sent = np.maximum(loads.sum(axis=1) / active, tokens)  # empty rows travel too
    exchange = exchange_seconds(machine, placement, loads, sent, active, source) * depth
    slowest, mean = per_device.max(axis=1), per_device.mean(axis=1)
    dense = dense_seconds(machine, tokens, chosen or active)
    return {
        "busy": per_device,
        "received": received,
        "compute": mean,
        "wait": slowest - mean,
        "all_to_all": np.maximum(exchange - slowest, 0.0) if schedule.overlap else exchange,
        "dense": np.full(len(slots), dense),
        "bubble": bubble_seconds(machine, (per_device * cluster.speed).max(axis=1), exchange, dense),
        "sync": sync_seconds(machine, placement),
        "update": update_seconds(machine, updated),
        "migration": np.maximum(migration_seconds(machine, arrivals) + planned - behind * (slowest + dense), 0.0),
    }


def _filled(machine: Machine, placement: Placement, loads: np.ndarray, room: Any) -> np.ndarray:
    """Rows that experts compute and send: with padding all that they have room for."""
    if not (machine.schedule.padding and np.isfinite(room).all()):
        return loads
    return np.where(placement.copies(loads.shape[1]) > 0, np.reshape(room, (-1, 1)), 0.0)


def bubble_seconds(machine: Machine, experts: np.ndarray, exchange: np.ndarray, dense: float) -> np.ndarray:
    """Time (seed,) that a pipeline of S stages runs empty: S - 1 microbatches' passes through the other stages.

    A step of M microbatches takes M passes of the slowest stage and S - 1 of the others (1F1B). `experts`, at the speed
    of the others, `exchange` and `dense` are the times of one stage for all microbatches.
    """
    stages, schedule = machine.cluster.stages, machine.schedule
    pass_ = np.maximum(experts, exchange) if schedule.overlap else experts + exchange
    return (stages - 1) / schedule.microbatches * (pass_ + dense * machine.cluster.speed.min())


def least_step_seconds(machine: Machine, tokens: float, active: int, kept: Any = 1.0) -> Any:
    """No step is faster: experts at peak share in perfect balance without weight gradients, plus the dense part.

    `kept`: the part of the assignments that was not dropped.
    """
    return balanced_seconds(machine, tokens, active) * 2.0 / 3.0 * kept + dense_seconds(machine, tokens, active)
