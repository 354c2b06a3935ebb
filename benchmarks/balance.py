"""Speed of the balance simulator: steps per second against experts x domains, and EPLB against its reference.

    python benchmarks/balance.py            # all
    python benchmarks/balance.py full       # 256 experts, 1024 domains, 64 devices, 8 seeds, 2000 steps, single
    python benchmarks/balance.py short      # the same from some of its steps, against the least that a step has to do
    python benchmarks/balance.py precision  # how far single is from double
    python benchmarks/balance.py scaling    # CPU time of a step and how cost grows
    python benchmarks/balance.py eplb       # against a transcription of the reference algorithm

Times are CPU seconds of this process. Set OMP_NUM_THREADS=1 for one core. There are no cells to skip: logits end
`reach` below 0, so every expert that is there has a share of every domain (4e-5 of it, of 256). Blocks of rows that fit
a core's own cache gain nothing either: calls on short arrays take as long as what they save.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from statistics import median

import numpy as np

from moesim.balance import eplb, records, simulate
from moesim.balance.setting import setting
from moesim.numerics.memory import keep_freed

H100 = {"flops": 989e12, "memory_bandwidth": 3.35e12, "scale_up": 450e9, "scale_out": 50e9}


def config(experts: int, domains: int, devices: int, seeds: int, steps: int, active: int = 1, **groups) -> dict:
    """A mean-field run with rebalancing every 100 steps; router and losses are brought up to date every 10."""
    slots = -(-experts * 9 // (8 * devices))
    return {
        "world": {"policy": "zipf", "domains": domains},
        "routing": {"policy": "topk"},
        "structure": {"policy": "split_or_replicate"},
        "sampling": {"policy": "feed_idle"},
        "placement": {"policy": "eplb", "every": 100},
        "chip": H100,
        "cluster": {"devices": devices, "slots_per_device": slots},
        "experts": experts,
        "active_experts": active,
        "seeds": seeds,
        "steps": steps,
        "learn_every": 10,
        "record_every": max(steps // 50, 1),
        **groups,
    }


def timed(run) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


REQUIRED = "256 experts x 1024 domains, 64 devices, 8 seeds, 2000 steps, single"


def required(active: int, **other) -> dict:
    """The run of the requirement, which learns in every step."""
    return config(256, 1024, 64, 8, 2000, active, **{"learn_every": 1, "precision": "single", **other})


def full() -> None:
    """The run of the requirement, in seconds."""
    for active in (1, 8):
        made = required(active)
        print(f"{REQUIRED}, top-{active}: {timed(lambda made=made: records.outcomes(made)):.1f} s")


def per_step(made: dict, skip: int, windows: int) -> float:
    """CPU seconds of a step of one seed: least of some windows of ten steps (the mixture is chosen once in each)."""
    (seeds, *_) = records.blocks_of(tuple(range(made["seeds"])), made["experts"] * made["world"]["domains"])
    run = simulate.trajectory(setting(made, seeds))
    list(islice(run, skip))
    return min(timed(lambda: list(islice(run, 10))) for _ in range(windows)) / (10 * len(seeds))


def floors() -> dict[str, float]:
    """Seconds that a step of one seed takes at least: to write its six arrays once; two powers and an exponential."""
    keep_freed()
    arrays = [np.full((1024, 256), 0.5, np.float32) for _ in range(6)]
    works = {
        "writing": lambda: [a.fill(0.5) for a in arrays],
        "powers": lambda: (arrays[0] ** -0.34, arrays[1] ** -0.28, np.exp(arrays[2])),
    }
    return {
        name: min(timed(lambda work=work: [work() for _ in range(20)]) for _ in range(5)) / 20
        for name, work in works.items()
    }


def short() -> None:
    """The run of the requirement from its steps 121 to 180, when the router has settled."""
    least = floors()
    for active in (1, 8):
        took = per_step(required(active), 120, 6)
        ratios = ", ".join(f"{took / seconds:.1f} x {name} ({seconds * 1e3:.2f})" for name, seconds in least.items())
        print(f"{REQUIRED}, top-{active}: {took * 16000:.1f} s; a step of a seed {took * 1e3:.2f} ms, {ratios}")


def precision() -> None:
    """Largest differences between single and double over 200 steps of a sixteenth of the cells."""
    for active in (1, 8):
        for policy in ("fixed", "split_or_replicate"):
            other = {"structure": {"policy": policy, "every": 20}, "learn_every": 1, "record_every": 10}
            made = config(64, 256, 16, 2, 200, active, **other)
            double, single = (records.outcomes({**made, "precision": name})[0].records for name in ("double", "single"))
            loss = max(np.abs(double[name] - single[name]).max() for name in ("micro_loss", "macro_loss", "tail_loss"))
            load = np.abs(np.sort(double["loads"]) - np.sort(single["loads"])).max() / double["loads"].mean()
            print(f"top-{active}, {policy}: losses within {loss:.1e} nat/token, loads within {load:.1e} of the mean")


def scaling() -> None:
    """CPU time of a step of one seed by size, learning in every step: experts x domains to a power that grows to 1."""
    sizes, seconds = [], []
    for experts, domains in ((16, 64), (32, 128), (64, 256), (128, 512), (256, 1024), (512, 2048)):
        made = config(experts, domains, 16, 8, 2000, learn_every=1)
        took = min(per_step(made, 20, 2) for _ in range(3))
        sizes.append(experts * domains)
        seconds.append(took)
        cell = took / sizes[-1] * 1e9
        print(f"{experts:4d} experts x {domains:5d} domains: {took * 1e3:7.2f} ms a step, {cell:6.1f} ns a cell")
    steepest = (np.diff(np.log(seconds)) / np.diff(np.log(sizes))).max()
    print(f"time grows as (experts x domains)^{steepest:.2f} at the steepest")


def reference_pack(weight: np.ndarray, packs: int) -> tuple[np.ndarray, np.ndarray]:
    """The published balanced packing: layers and items in Python loops over sorted rows."""
    layers, items = weight.shape
    room = items // packs
    index, rank = np.full((layers, items), -1), np.full((layers, items), -1)
    if room == 1:
        return np.tile(np.arange(items), (layers, 1)), np.zeros((layers, items), dtype=int)
    order = np.argsort(-weight, axis=-1, kind="stable")
    for layer in range(layers):
        load, count = [0.0] * packs, [0] * packs
        row = weight[layer].tolist()
        for item in order[layer].tolist():
            pack = min((p for p in range(packs) if count[p] < room), key=load.__getitem__)
            index[layer, item], rank[layer, item] = pack, count[pack]
            load[pack] += row[item]
            count[pack] += 1
    return index, rank


def reference_replicate(weight: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """The published replication, vectorised over layers."""
    layers, experts = weight.shape
    rows = np.arange(layers)
    expert_of, count = np.tile(np.arange(slots), (layers, 1)), np.ones((layers, experts), dtype=int)
    for slot in range(experts, slots):
        hot = (weight / count).argmax(axis=-1)
        expert_of[:, slot] = hot
        count[rows, hot] += 1
    return expert_of, count


def reference(weight: np.ndarray, slots: int, groups: int, nodes: int, devices: int) -> np.ndarray:
    """EPLB as published (deepseek-ai/EPLB, hierarchical), without torch: the expert of each slot."""
    layers, experts = weight.shape
    size, per_device = experts // groups, slots // devices
    node, place = reference_pack(weight.reshape(layers, groups, size).sum(-1), nodes)
    local = (((node * (groups // nodes) + place) * size)[:, :, None] + np.arange(size)).reshape(layers, experts)
    back = np.argsort(local, axis=-1)
    inside = np.take_along_axis(weight, back, -1).reshape(-1, experts // nodes)
    expert_of, count = reference_replicate(inside, slots // nodes)
    index, rank = reference_pack(np.take_along_axis(inside / count, expert_of, -1), devices // nodes)
    order = np.argsort(index * per_device + rank, axis=-1)
    placed = np.take_along_axis(expert_of, order, -1).reshape(layers, nodes, -1)
    placed = (placed + np.arange(nodes)[:, None] * (experts // nodes)).reshape(layers, slots)
    return np.take_along_axis(back, placed, -1)


def balancer() -> None:
    """58 layers x 256 experts x 288 slots on 36 devices: ratio of times, and whether the placements agree."""
    loads = np.random.default_rng(0).lognormal(0.0, 1.0, (58, 256)) * 1000.0
    for groups, nodes, devices in ((1, 1, 36), (8, 4, 36), (8, 4, 32)):
        ours = [timed(lambda a=(groups, nodes, devices): eplb(loads, 288, *a)) for _ in range(9)]
        peer = [timed(lambda a=(groups, nodes, devices): reference(loads, 288, *a)) for _ in range(5)]
        same = np.array_equal(
            eplb(loads, 288, groups, nodes, devices).slots, reference(loads, 288, groups, nodes, devices)
        )
        print(
            f"groups={groups} nodes={nodes} devices={devices}: {median(ours) * 1e3:.1f} ms, "
            f"reference {median(peer) * 1e3:.1f} ms, ratio {median(peer) / median(ours):.1f}, same placement: {same}"
        )


PARTS = {"full": full, "short": short, "precision": precision, "scaling": scaling, "eplb": balancer}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
