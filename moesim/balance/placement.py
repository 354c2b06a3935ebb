"""Where the copies of experts live: the clock, and what a structure or sampling sees that looks at slow devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.balance.packing import eplb as balance_replicas
from moesim.balance.packing import pack
from moesim.balance.state import State
from moesim.balance.topology import TOPOLOGIES, wired
from moesim.errors import InputError
from moesim.hardware.placed import Placement, arrivals
from moesim.registry import Policies, Policy
from moesim.settings import Positive, defaults, known, number, read, setting, truth, whole
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE


@dataclass(frozen=True)
class Placing:
    """How copies are placed: `policy` (problem) -> Placement.

    Asked at the step `first`, when the router has settled a little, `every` steps, and whenever experts change; left
    alone where the busiest device is below `threshold` x the mean. A decision costs `plan_seconds` on the host; with
    `overlap` it and the moving hide behind the step.
    """

    policy: Policy
    every: int = setting(100, whole())
    first: int = setting(10, whole())
    threshold: float = setting(1.0, number(AT_LEAST_ONE))
    plan_seconds: float = setting(0.0, number(NON_NEGATIVE))
    overlap: bool = setting(False, truth)


# A member that sees the `present` shares each step's own tokens among the copies that it placed.
placement = Policies("placement", defaults(Placing), present=False)


@dataclass(frozen=True)
class Problem:
    """What a placement policy sees: average `loads`, `alive` and wanted `copies` (seed, expert), and the machine.

    `previous` is the placement so far (None at the start); `changed` (seed,) tells where experts came, went or
    multiplied. `speed` (device,); `machine` for those that weigh costs.
    """

    loads: np.ndarray
    alive: np.ndarray
    copies: np.ndarray
    previous: Placement | None
    changed: np.ndarray
    slots: int
    devices: int
    nodes: int
    step: int = 0
    speed: Any = 1.0
    machine: Any = None

    @property
    def speeds(self) -> np.ndarray | None:
        """Speed of each device (device,); None if all are alike."""
        speed = np.broadcast_to(np.asarray(self.speed, dtype=float), self.devices)
        return None if (speed == speed[0]).all() else speed


def build(config: Any) -> Placing:
    """The Placing of a config: a name, a function or a mapping."""
    policy, shared = placement.build(config)
    return read(Placing, "placement", {**shared, "policy": policy})


def place(policy: Placing, state: State, setting: Any, changed: np.ndarray, start: bool = False) -> State:
    """The state with its copies placed for the loads seen so far, and the copies that had to move counted."""
    now = state.step == policy.first or (state.step % policy.every == 0 and state.step > 0)
    still = replace(state, migrated=np.zeros(state.migrated.shape), planned=np.zeros(state.seeds))
    if not (start or changed.any() or now):
        return still
    loads, cluster = np.where(state.alive, state.mean_load, 0.0), setting.machine.cluster
    before = None if start else state.placement
    due = changed | (np.ones(state.seeds, dtype=bool) if before is None else False)
    if before is not None and now:
        due = due | (uneven(before, loads, cluster) >= policy.threshold)
    if not due.any():
        return still
    sizes = (setting.slots, setting.devices, setting.nodes, state.step, cluster.speed, setting.machine)
    new = policy.policy(Problem(loads, state.alive, state.copies, before, changed, *sizes))
    if before is not None:
        new = where(due, new, before)
    moved = arrivals(before, new, state.bias.shape[1], setting.devices)
    return replace(state, placement=new, migrated=moved, planned=due * (0.0 if start else policy.plan_seconds))


def uneven(placed: Placement, loads: np.ndarray, cluster: Any) -> np.ndarray:
    """Time of the busiest device over the mean (seed,)."""
    time = placed.slot_loads(loads).reshape(len(loads), cluster.devices, -1).sum(axis=-1) / cluster.speed
    return time.max(axis=1) / np.maximum(time.mean(axis=1), 1e-300)


def where(rows: np.ndarray, new: Placement, old: Placement) -> Placement:
    """The new placement in some rows (seed,), the old one in the others."""
    pick = rows[:, None]
    return Placement(np.where(pick, new.slots, old.slots), np.where(pick, new.share, old.share))


def serve(policy: Placing, placed: Placement, loads: np.ndarray, speed: np.ndarray) -> Placement:
    """The placement with these loads (seed, expert) shared among its copies, if the policy sees the present ones."""
    return shared_out(placed, loads, speed) if policy.policy.traits["present"] else placed


def shared_out(placed: Placement, loads: np.ndarray, speed: np.ndarray) -> Placement:
    """Each expert's tokens shared among its copies by the linear programme of LPLB: the busiest device has least."""
    from moesim.balance.bounds import schedule

    share = np.zeros(placed.share.shape)
    for row, own in enumerate(loads):
        tokens, _ = schedule(own, placed.slots[row], len(speed), speed)
        load = own[np.maximum(placed.slots[row], 0)]
        share[row] = np.where(load > 0, tokens / np.where(load > 0, load, 1.0), placed.share[row])
    return Placement(placed.slots, share)


def even(slots: np.ndarray, experts: int) -> Placement:
    """The placement in which all slots of an expert serve it alike."""
    blank = Placement(slots, np.zeros(slots.shape))
    counts = np.take_along_axis(blank.copies(experts), np.maximum(slots, 0), axis=1)
    return Placement(slots, np.where(slots >= 0, 1.0 / np.maximum(counts, 1), 0.0))


def _by_count(problem: Problem, solve: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Placement:
    """Solve seeds with equally many experts together: solve(rows, experts (row, n)) -> slots with local indices."""
    out = np.full((len(problem.loads), problem.slots), -1)
    number = problem.alive.sum(axis=1)
    for count in np.unique(number):
        rows = np.flatnonzero(number == count)
        experts = np.nonzero(problem.alive[rows])[1].reshape(len(rows), count)
        local = solve(rows, experts)
        chosen = np.take_along_axis(experts, np.maximum(local, 0), axis=1)
        out[rows] = np.where(local >= 0, chosen, -1)
    return even(out, problem.loads.shape[1])


@placement
def static(problem: Problem) -> Placement:
    """Experts stay where they were put: in order at the start, later copies where they end first.

    Devices are filled evenly at the start, so spare slots are spread over all of them.
    """
    if problem.previous is None:
        return even(np.stack([_laid_out(row, problem) for row in problem.copies]), problem.loads.shape[1])
    if not problem.changed.any():
        return problem.previous
    slots = problem.previous.slots.copy()
    for row in np.flatnonzero(problem.changed):
        slots[row] = _amended(
            slots[row], problem.copies[row], problem.loads[row], problem.speed * np.ones(problem.devices)
        )
    return even(slots, problem.loads.shape[1])


def _laid_out(copies: np.ndarray, problem: Problem) -> np.ndarray:
    queue = np.repeat(np.arange(len(copies)), copies)
    out = np.full((problem.devices, problem.slots // problem.devices), -1)
    for device, experts in enumerate(np.array_split(queue, problem.devices)):
        out[device, : len(experts)] = experts
    return out.ravel()


def _amended(slots: np.ndarray, copies: np.ndarray, loads: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """Slots of one seed after copies were taken away or added, with the others left in place."""
    out = slots.reshape(len(speed), -1).copy()
    have = np.bincount(slots[slots >= 0], minlength=len(copies))
    for expert in np.flatnonzero(have > copies):
        where = np.argwhere(out == expert)[copies[expert] :]
        out[where[:, 0], where[:, 1]] = -1
    each = loads / np.maximum(copies, 1)
    for expert in np.repeat(np.arange(len(copies)), np.maximum(copies - have, 0)):
        burden = (np.where(out >= 0, each[np.maximum(out, 0)], 0.0).sum(axis=1) + each[expert]) / speed
        device = int(np.where((out < 0).any(axis=1), burden, np.inf).argmin())
        out[device, int(np.argmax(out[device] < 0))] = expert
    return out.ravel()


@placement
def packed(problem: Problem) -> Placement:
    """Each copy that the structure wants, packed heaviest first onto the lightest device with room."""
    out = np.full((len(problem.loads), problem.slots), -1)
    per_device = problem.slots // problem.devices
    for row, copies in enumerate(problem.copies):
        queue = np.repeat(np.arange(len(copies)), copies)
        padded = np.full(problem.slots, -1)
        padded[: len(queue)] = queue
        weights = np.where(padded >= 0, (problem.loads[row] / np.maximum(copies, 1))[np.maximum(padded, 0)], 0.0)
        device, position = pack(weights[None], problem.devices, problem.speeds)
        out[row, device[0] * per_device + position[0]] = padded
    return even(out, problem.loads.shape[1])


@placement
def eplb(problem: Problem, *, groups: int = 1, slots: int | None = None, distinct: bool = False) -> Placement:
    """EPLB: every slot is used, hot experts are replicated (deepseek-ai/EPLB); hierarchical if `groups` fit the nodes.

    `slots`: how many of the machine's slots it may use (all by default). `distinct`: no two copies of an expert on one
    device, which the published algorithm allows.
    """
    use = problem.slots if slots is None else slots
    if use > problem.slots or use % problem.devices:
        raise InputError(
            f"placement eplb: slots={use}; it takes a multiple of {problem.devices} devices up to {problem.slots}"
        )

    def solve(rows, experts):
        loads = np.take_along_axis(problem.loads[rows], experts, axis=1)
        groups_nodes = _fitting(groups, problem.nodes, experts.shape[1])
        balanced = balance_replicas(loads, use, *groups_nodes, problem.devices, distinct, problem.speeds)
        return _spread(balanced.slots, problem)

    return _by_count(problem, solve)


def _fitting(groups: int, nodes: int, experts: int) -> tuple[int, int]:
    """Groups and nodes for EPLB, global if a changed number of experts no longer divides into groups."""
    return (groups, nodes) if groups % nodes == 0 and experts % groups == 0 else (1, 1)


def _spread(slots: np.ndarray, problem: Problem) -> np.ndarray:
    """Slots on the devices of the machine when fewer than all are used."""
    out = np.full((len(slots), problem.devices, problem.slots // problem.devices), -1)
    packed_slots = slots.reshape(len(slots), problem.devices, -1)
    out[:, :, : packed_slots.shape[2]] = packed_slots
    return out.reshape(len(slots), -1)


@placement
def popularity(problem: Problem) -> Placement:
    """Replicas in proportion to load at every rebalancing, then packed (SYMI, 2504.19925, with every=1)."""

    def solve(rows, experts):
        loads = np.take_along_axis(problem.loads[rows], experts, axis=1)
        counts = proportional_counts(loads, problem.slots)
        expert_of = np.stack([np.repeat(np.arange(loads.shape[1]), row) for row in counts])
        each = np.take_along_axis(loads / counts, expert_of, axis=1)
        device, position = pack(each, problem.devices, problem.speeds)
        out = np.empty_like(expert_of)
        np.put_along_axis(out, device * (problem.slots // problem.devices) + position, expert_of, axis=1)
        return out

    return _by_count(problem, solve)


def proportional_counts(loads: np.ndarray, slots: int) -> np.ndarray:
    """Whole replicas (layer, expert) in proportion to load, at least one each: one, then largest remainders."""
    experts = loads.shape[1]
    total = loads.sum(axis=1, keepdims=True)
    ideal = np.where(total > 0, loads / np.where(total > 0, total, 1.0), 1.0 / experts) * slots
    counts = np.maximum(np.floor(ideal), 1.0)
    for row in range(len(counts)):
        while counts[row].sum() > slots:
            counts[row, np.where(counts[row] > 1, counts[row] - ideal[row], -np.inf).argmax()] -= 1
        left = int(slots - counts[row].sum())
        counts[row, np.argsort(counts[row] - ideal[row], kind="stable")[:left]] += 1
    return counts.astype(np.int64)


@placement(present=True)
def scheduled(problem: Problem, *, groups: int = 1, topology: str = "eplb", distinct: bool = False) -> Placement:
    """A linear programme shares each step's tokens among the replicas, on that step's own loads (LPLB, MicroMoE).

    EPLB places the replicas by the past; or, with a `topology` of LPLB (ring, cube, hypercube, torus), each device's
    heaviest experts have copies on fixed neighbours.
    """
    return _replicated(problem, groups, topology, distinct)


@placement
def lagged(problem: Problem, *, groups: int = 1, topology: str = "eplb", distinct: bool = False) -> Placement:
    """As `scheduled`, but on the average loads of the past: the shares hold until the next decision."""
    placed = _replicated(problem, groups, topology, distinct)
    return shared_out(placed, problem.loads, problem.speed * np.ones(problem.devices))


def _replicated(problem: Problem, groups: int, topology: str, distinct: bool) -> Placement:
    if topology == "eplb":
        return eplb(problem, groups=groups, distinct=distinct)
    if topology not in TOPOLOGIES:
        raise InputError(f"placement: topology={topology!r}; {known(['eplb', *TOPOLOGIES], topology)}")
    edges = TOPOLOGIES[topology](problem.devices, problem.nodes)
    own = -(-int(problem.alive.sum(axis=1).max()) // problem.devices)
    if problem.previous is None and problem.slots // problem.devices - own < edges.shape[1]:
        raise InputError(
            f"placement: topology={topology} needs room for {edges.shape[1]} copies on each of {problem.devices} "
            f"devices; give slots_per_device={own + edges.shape[1]} or more"
        )

    def solve(rows, experts):
        loads = np.take_along_axis(problem.loads[rows], experts, axis=1)
        return wired(loads, problem.slots, problem.devices, edges, problem.speeds)

    return _by_count(problem, solve)


@placement
def shadow(problem: Problem) -> Placement:
    """Experts stay at home; the hottest are copied to all devices while a model of the cost says it pays (FasterMoE).

    Cost of i shadows: the matrix products of the busiest device, and its exchange, or the weights sent out and the
    gradients gathered of every shadow (thu-pacman/FasterMoE, commit de4d5ac; it leaves out what the others exchange).
    Each takes a free slot of every device.
    """
    base = static(replace(problem, previous=None, changed=np.ones(len(problem.loads), dtype=bool)))
    slots = base.slots.reshape(len(base.slots), problem.devices, -1).copy()
    for row, loads in enumerate(problem.loads):
        room = int((slots[row] < 0).sum(axis=1).min())
        hot = np.argsort(-loads, kind="stable")[:room]
        costs = [_shadow_cost(problem, slots[row], loads, hot[:n]) for n in range(len(hot) + 1)]
        rising = np.flatnonzero(np.diff(costs[1:]) > 0)
        best = int(rising[0]) + 1 if len(rising) else len(hot)
        for expert in hot[: best if len(hot) and costs[best] < costs[0] else 0]:
            for device in np.flatnonzero(~(slots[row] == expert).any(axis=1)):
                slots[row, device, int(np.argmax(slots[row, device] < 0))] = expert
    return even(slots.reshape(len(slots), -1), problem.loads.shape[1])


def _shadow_cost(problem: Problem, slots: np.ndarray, loads: np.ndarray, shadows: np.ndarray) -> float:
    """Seconds of one layer with these experts on all devices."""
    machine, expert = problem.machine, problem.machine.expert
    home = np.where(np.isin(slots, shadows) | (slots < 0), 0.0, loads[np.maximum(slots, 0)]).sum(axis=1)
    busiest = ((home + loads[shadows].sum() / problem.devices) / (problem.speed * np.ones(problem.devices))).max()
    compute = 6.0 * expert.weights * busiest / (machine.chip.peak_share * machine.peak)
    if len(shadows):
        return compute + len(shadows) * 4.0 * expert.weights * machine.schedule.value_bytes / machine.link
    return compute + 4.0 * busiest * expert.d_model * machine.schedule.value_bytes / machine.link


@placement
def bounded(problem: Problem, *, moves: int = 4, stop: Positive = 1.01) -> Placement:
    """Keep the placement but exchange up to `moves` pairs of slots per rebalancing, busiest device with least busy.

    Starts from EPLB's placement; stops once max/mean is below `stop` (as SwiftBalancer in vLLM does).
    """
    if problem.previous is None:
        return eplb(problem)
    base = static(problem)
    slots = base.slots.copy()
    for row in range(len(slots)):
        for _ in range(moves):
            loads = base.slot_loads(problem.loads)[row]
            slots[row], better = _exchanged(slots[row], loads, problem.speed * np.ones(problem.devices), stop)
            base = even(slots, problem.loads.shape[1])
            if not better:
                break
    return base


def _exchanged(slots: np.ndarray, loads: np.ndarray, speed: np.ndarray, stop: float) -> tuple[np.ndarray, bool]:
    """One exchange between busiest and least busy device that lowers the busier of the two most."""
    table = loads.reshape(len(speed), -1)
    burden = table.sum(axis=1) / speed
    high, low = int(burden.argmax()), int(burden.argmin())
    shift = table[high][:, None] - table[low][None, :]
    after = np.maximum(burden[high] - shift / speed[high], burden[low] + shift / speed[low])
    best = np.unravel_index(int(after.argmin()), after.shape)
    if burden[high] <= stop * burden.mean() or after[best] >= burden[high] * (1 - 1e-12):
        return slots, False
    out = slots.reshape(len(speed), -1).copy()
    out[high, best[0]], out[low, best[1]] = out[low, best[1]], out[high, best[0]]
    return out.ravel(), True
