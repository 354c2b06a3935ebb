"""Every part of the time of a step, and what records and studies make of it, on numbers that fit on paper."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.balance import eplb, records, study
from moesim.balance.placement import even
from moesim.errors import InputError
from moesim.hardware import step
from moesim.hardware.chip import Chip, all_reduce_bytes, destinations, gemm_seconds
from moesim.hardware.placed import arrivals, arriving
from moesim.settings import read

# 100 FLOP/s, memory without limit, links of 10 and 5 byte/s; experts of 1 x 2 x 5 = 10 weights in 2 layers.
CHIP = {"flops": 100.0, "memory_bandwidth": 1e300, "scale_up": 10.0, "scale_out": 5.0, "peak_share": 1.0}
EXPERT = {"layers": 2, "d_model": 2, "d_expert": 5.0, "matrices": 1}
CLUSTER = {"devices": 2, "slots_per_device": 2}
SCHEDULE = {"microbatches": 2.0}


def machine(**over):
    groups = {"chip": CHIP, "expert": EXPERT, "cluster": CLUSTER, "schedule": SCHEDULE}
    return step.build({name: {**group, **over.get(name, {})} for name, group in groups.items()})


def placed(*slots, experts=2):
    return even(np.array([slots]), experts)


def exchange(made, slots, loads, active=1, source=1.0):
    """Of 40 tokens, in a layer."""
    loads = np.array([loads])
    return step.exchange_seconds(made, placed(*slots, experts=loads.shape[1]), loads, 40.0, active, source)


# Part -> (its value with these changes, seconds).
PARTS = {
    # 2 x 10 x 5 tokens = 100 FLOP a microbatch, 1 s forward, 3 s with the backward pass, two microbatches
    "experts": (lambda m: step.expert_seconds(m, np.array([10.0, 0.0, 0.0, 0.0])), {}, [6.0, 0.0]),
    "experts, two in a device": (lambda m: step.expert_seconds(m, np.array([10.0, 5.0, 20.0, 0.0])), {}, [9.0, 12.0]),
    "experts, no weight gradients": (
        lambda m: step.expert_seconds(m, np.array([10.0, 0.0, 10.0, 0.0]), np.array([0.0, 1.0, 1.0, 1.0])),
        {},
        [4.0, 6.0],
    ),
    # half a second for each of two microbatches, only where there are tokens
    "experts, launch": (
        lambda m: step.expert_seconds(m, np.array([10.0, 0.0, 0.0, 0.0])),
        {"chip": {"launch": 0.5}},
        [7.0, 0.0],
    ),
    "experts, speeds": (
        lambda m: step.expert_seconds(m, np.array([10.0, 0.0, 10.0, 0.0])),
        {"cluster": {"speeds": [0.5, 2.0]}},
        [12.0, 3.0],
    ),
    # 20 tokens of a device, half of them to the other, 2 values of 1 + 2 bytes at 10 byte/s: 6 s; twice: 12
    "exchange": (lambda m: exchange(m, (0, -1, 1, -1), (20.0, 20.0)), {}, [12.0]),
    # half of the 30 tokens of the first device come from the other and go back: 1.5 times the mean of combine's 4 s,
    # dispatch is sent from everywhere alike: 2 (2 + 6)
    "exchange, uneven": (lambda m: exchange(m, (0, -1, 1, -1), (30.0, 10.0)), {}, [16.0]),
    # a device starts with 1.5 times the mean: it sends and gets back 1.5 times as much
    "exchange, ragged": (lambda m: exchange(m, (0, -1, 1, -1), (20.0, 20.0), source=1.5), {}, [18.0]),
    # dispatch and combine, two microbatches, forward and backward: 8 hops of .25 s
    "exchange, latency": (
        lambda m: exchange(m, (0, -1, 1, -1), (20.0, 20.0)),
        {"chip": {"latency": 0.25}},
        [14.0],
    ),
    "exchange, one device": (
        lambda m: exchange(m, (0, 1), (20.0, 20.0)),
        {"cluster": {"devices": 1}, "chip": {"latency": 0.25}},
        [0.0],
    ),
    # both experts of every token, one on each device: always one copy to the other device, 20 of 2 values: 4 s a byte
    "exchange, two experts": (lambda m: exchange(m, (0, -1, 1, -1), (40.0, 40.0), active=2), {}, [24.0]),
    # both on the first device: half of the tokens send one copy (not two), all to it
    "exchange, together": (lambda m: exchange(m, (0, 1, -1, -1), (40.0, 40.0), active=2), {}, [2 * (2.0 + 2 * 4.0)]),
    # a copy of everything everywhere: each token stays; by chance half of them leave
    "exchange, local": (lambda m: exchange(m, (0, 1, 0, 1), (20.0, 20.0)), {}, [0.0]),
    "exchange, by chance": (
        lambda m: exchange(m, (0, 1, 0, 1), (20.0, 20.0)),
        {"schedule": {"prefer_local": False}},
        [12.0],
    ),
    # 4 devices in 2 nodes: 10 tokens each; within: 10 x 2 x 1/2 / 10 = 1 s a byte; between nodes 10 x 2 x 1/2 / 5 = 2
    "exchange, nodes": (
        lambda m: exchange(m, (0, -1, 1, -1, 2, -1, 3, -1), (10.0,) * 4),
        {"cluster": {"devices": 4, "devices_per_node": 2}},
        [12.0],
    ),
    # links between nodes idle where each node has copies of all: within, half a token leaves its device
    "exchange, replicas on each node": (
        lambda m: exchange(m, (0, 1, 2, 3, 0, 1, 2, 3), (10.0,) * 4),
        {"cluster": {"devices": 4, "devices_per_node": 2}, "chip": {"scale_out": 1e-9}},
        [2 * 3 * 10 * 2 * (1 / 2) * (1 - 1 / 2) / (3 / 4) / 10],
    ),
    # 4 experts a token are on both nodes, but one at most is allowed: half a token crosses, as with one expert
    "exchange, node limit": (
        lambda m: exchange(m, (0, -1, 1, -1, 2, -1, 3, -1), (40.0,) * 4, active=4),
        {"cluster": {"devices": 4, "devices_per_node": 2, "node_limit": 1}, "chip": {"scale_up": 1e9}},
        [12.0],
    ),
    # 6 x 10 weights x 40 tokens x 2 layers = 4800 FLOP on two chips
    "balanced": (lambda m: step.balanced_seconds(m, 40.0, 1), {}, 24.0),
    "balanced, speeds": (lambda m: step.balanced_seconds(m, 40.0, 2), {"cluster": {"speeds": [1.0, 3.0]}}, 24.0),
    "dense": (lambda m: step.dense_seconds(m, 40.0, 1), {"schedule": {"dense_ratio": 0.5}}, 12.0),
    # half of the tokens on each device: the slow one takes four times as long
    "dense, speeds": (lambda m: step.dense_seconds(m, 40.0, 1), {"cluster": {"speeds": [0.25, 1.0]}}, 96.0),
    "dense, counted, speeds": (
        lambda m: step.dense_seconds(m, 40.0, 1),
        {"schedule": {"dense_flops_per_token": 5.0, "dense_share": 0.5}, "cluster": {"speeds": [0.25, 1.0]}},
        8.0,
    ),
    "dense, counted, stages": (
        lambda m: step.dense_seconds(m, 40.0, 1),
        {"schedule": {"dense_flops_per_token": 5.0, "dense_share": 0.5}, "cluster": {"stages": 2}},
        1.0,
    ),
    # two stages: half of the layers each
    "balanced, stages": (lambda m: step.balanced_seconds(m, 40.0, 1), {"cluster": {"stages": 2}}, 12.0),
    # 5 FLOP x 40 tokens on two chips at half their peak
    "dense, counted": (
        lambda m: step.dense_seconds(m, 40.0, 1),
        {"schedule": {"dense_flops_per_token": 5.0, "dense_share": 0.5}},
        2.0,
    ),
    # experts without weight gradients (two thirds of 24) and the dense part
    "least": (lambda m: step.least_step_seconds(m, 40.0, 1), {}, 40.0),
    # half of the assignments dropped, the dense part in full
    "least, dropped": (lambda m: step.least_step_seconds(m, 40.0, 1, 0.5), {}, 32.0),
    # both copies of each expert on one device: nothing leaves it
    "sync, together": (lambda m: step.sync_seconds(m, placed(0, 0, 1, 1)), {}, [0.0]),
    # two experts, 2 x 1/2 x 10 weights x 2 bytes each, two layers, 10 byte/s
    "sync, apart": (lambda m: step.sync_seconds(m, placed(0, 1, 0, 1)), {}, [8.0]),
    # expert 0 alone is on both devices; a second copy beside the first adds nothing
    "sync, one": (lambda m: step.sync_seconds(m, placed(0, 0, 0, 1)), {}, [4.0]),
    # two nodes of one device: the slow link
    "sync, nodes": (lambda m: step.sync_seconds(m, placed(0, 1, 0, 1)), {"cluster": {"devices_per_node": 1}}, [16.0]),
    # three copies: 2 x 2/3
    "sync, three": (
        lambda m: step.sync_seconds(m, placed(0, 1, 0, -1, 0, -1)),
        {"cluster": {"devices": 3}},
        [4.0 * 4 / 3],
    ),
    # devices 0 and 1 share expert 0, devices 0 and 2 expert 1: device 0 sends for both
    "sync, busiest": (
        lambda m: step.sync_seconds(m, placed(0, 1, 0, -1, 1, -1)),
        {"cluster": {"devices": 3}},
        [8.0],
    ),
    # one expert a device, four groups: 2 x 3/4 x 10 weights x 2 bytes, two layers, the links between groups at 5 byte/s
    "sync, groups": (lambda m: step.sync_seconds(m, placed(0, -1, 1, -1)), {"cluster": {"groups": 4}}, [12.0]),
    # both experts on both devices of two groups: a ring of four, two experts on each device
    "sync, replicas and groups": (
        lambda m: step.sync_seconds(m, placed(0, 1, 0, 1)),
        {"cluster": {"groups": 2}},
        [24.0],
    ),
    "sync, bytes": (
        lambda m: step.sync_seconds(m, placed(0, 1, 0, 1)),
        {"schedule": {"gradient_bytes": 4.0}},
        [16.0],
    ),
    # the slow device of one copy needs as long as four copies would take
    "update, speeds": (
        lambda m: step.update_seconds(m, np.array([[1.0, 1.0, 1.0, 0.0]])),
        {"cluster": {"speeds": [1.0, 0.25]}, "chip": {"memory_bandwidth": 56.0}},
        [40.0],
    ),
    # two of device 0 and one of device 1: 2 x 2 layers x 10 weights x 28 bytes at 56 byte/s
    "update, memory": (
        lambda m: step.update_seconds(m, np.array([[1.0, 1.0, 1.0, 0.0]])),
        {"chip": {"memory_bandwidth": 56.0}},
        [20.0],
    ),
    # 18 FLOP a weight
    "update, FLOPs": (lambda m: step.update_seconds(m, np.array([[1.0, 1.0, 1.0, 0.0]])), {}, [7.2]),
    "update, optimizer": (
        lambda m: step.update_seconds(m, np.array([[1.0, 1.0, 1.0, 0.0]])),
        {"schedule": {"optimizer": "sgd"}},
        [0.8],
    ),
    # 3 copies x 2 layers x 10 weights x (2 + 12) bytes at 10 byte/s
    "migration": (lambda m: step.migration_seconds(m, np.array([[1.0, 3.0]])), {}, [84.0]),
    "migration, sharded": (
        lambda m: step.migration_seconds(m, np.array([[1.0, 3.0]])),
        {"schedule": {"sharded_optimizer": True}},
        [12.0],
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_part(name):
    value, over, expected = PARTS[name]
    np.testing.assert_allclose(value(machine(**over)), expected, rtol=1e-12)


# A whole step: loads (30, 10) one to a device, spread 30/20 of the mean.
STEP = {
    "compute": 24.0,  # (18 + 6)/2 a layer
    "wait": 12.0,  # 36 of the slowest
    "all_to_all": 32.0,  # 16 a layer
    "dense": 24.0,
    "bubble": 0.0,
    "sync": 0.0,
    "update": 3.6,  # one copy of 2 layers x 10 weights x 18 FLOP
    "migration": 28.0,
}


def whole(made, frozen=(False, False)):
    placement, loads = placed(0, -1, 1, -1), np.array([[30.0, 10.0]])
    moved = np.array([[1.0, 0.0]])
    return step.step_seconds(made, placement, loads, np.array([frozen]), 40.0, 1, moved)


@pytest.mark.parametrize("part", step.PARTS)
def test_step(part):
    np.testing.assert_allclose(whole(machine())[part], [STEP[part]])


def test_step_of_devices_overlap_and_freezing():
    parts = whole(machine())
    np.testing.assert_allclose(parts["busy"], [[36.0, 12.0]])
    np.testing.assert_allclose(parts["received"], [[30.0, 10.0]])
    # dispatch of 3 bytes for 1: 2 (6 + 6) a layer, and the experts' 36 s hide most of it
    hidden = whole(machine(schedule={"overlap": True, "dispatch_bytes": 3.0}))
    np.testing.assert_allclose(hidden["all_to_all"], [48.0 - 36.0])
    np.testing.assert_allclose(whole(machine(schedule={"overlap": True}))["all_to_all"], [0.0])
    frozen = whole(machine(), (True, False))  # no weight gradient of the first: 2 of 3; one update less, still one
    np.testing.assert_allclose(frozen["busy"], [[24.0, 12.0]])
    np.testing.assert_allclose(frozen["update"], [3.6])
    np.testing.assert_allclose(whole(machine(), (True, True))["update"], [0.0])


def test_a_slow_device_sets_the_pace_of_a_pipeline():
    # Two stages of one layer, two microbatches: experts 18 s, exchange 16 s, dense 12 s; one pass more of two: + 23 s.
    even = whole(machine(cluster={"stages": 2}))
    assert {name: float(even[name][0]) for name in ("compute", "wait", "all_to_all", "dense", "bubble")} == {
        "compute": pytest.approx(12.0),
        "wait": pytest.approx(6.0),
        "all_to_all": pytest.approx(16.0),
        "dense": pytest.approx(12.0),
        "bubble": pytest.approx(23.0),
    }
    # its first device at half speed: 36 s of experts and 24 s of dense in every pass; the bubble is of the others
    slow = whole(machine(cluster={"stages": 2, "speeds": [0.5, 1.0]}))
    np.testing.assert_allclose(slow["compute"] + slow["wait"], [36.0])
    np.testing.assert_allclose(slow["dense"], [24.0])
    np.testing.assert_allclose(slow["bubble"], [23.0])
    # the exchange behind the experts: max(18, 16) + 12, half of it
    hidden = whole(machine(cluster={"stages": 2}, schedule={"overlap": True}))
    np.testing.assert_allclose(hidden["bubble"], [15.0])


def test_padding_costs_the_time_of_the_room():
    # room for 30 each: both devices compute 30, and 60 tokens travel for 40: 1.5 x 12 s a layer
    placement, loads, still = placed(0, -1, 1, -1), np.array([[30.0, 10.0]]), np.zeros((1, 2))
    given = (placement, loads, still, 40.0, 1, still)
    parts = step.step_seconds(machine(), *given, room=np.array([30.0]))
    np.testing.assert_allclose(parts["busy"], [[36.0, 36.0]])
    np.testing.assert_allclose(parts["received"], [[30.0, 10.0]])
    np.testing.assert_allclose(parts["all_to_all"], [36.0])
    bare = step.step_seconds(machine(schedule={"padding": False}), *given, room=np.array([30.0]))
    np.testing.assert_allclose(bare["busy"], [[36.0, 12.0]])
    np.testing.assert_allclose(bare["all_to_all"], [32.0])


def test_moving_may_hide_and_the_host_takes_its_time():
    # 28 s of moving and 40 of the host; 36 s of experts and 24 of the dense part are there to hide behind
    placement, loads, still = placed(0, -1, 1, -1), np.array([[30.0, 10.0]]), np.zeros((1, 2))
    given = (placement, loads, still, 40.0, 1, np.array([[1.0, 0.0]]))
    for behind, left in ((False, 68.0), (True, 8.0)):
        parts = step.step_seconds(machine(), *given, planned=np.array([40.0]), behind=behind)
        np.testing.assert_allclose(parts["migration"], [left])


def test_experts_of_a_token_are_distinct():
    # 8 of 8 on 8 devices: all, 7 from elsewhere; 2 of 4 on 2 devices: both but for 1 pair of 3: 5/3, half of it
    one_each = placed(*range(8), experts=8)
    np.testing.assert_allclose(arriving(one_each, np.ones((1, 8)), 8, 8), np.full((1, 8), 7 / 8))
    pairs = placed(0, 1, 2, 3, experts=4)
    np.testing.assert_allclose(arriving(pairs, np.ones((1, 4)), 2, 2).sum(), (2 - 1 / 3) / 2)
    # two of three copies on the first device: half of the tokens start there, the rest of its two thirds comes in
    thirds = placed(0, 0, 0, -1, experts=1)
    np.testing.assert_allclose(arriving(thirds, np.ones((1, 1)), 2, 1), [[2 / 3 - 1 / 2, 0.0]])
    uneven = placed(0, 0, 0, 1, 1, 1, experts=2)
    np.testing.assert_allclose(arriving(uneven, np.array([[1.0, 0.0]]), 2, 1), [[0.5, 0.0]])
    # a copy on each of three devices, a fourth without: a quarter stays at each, the rest of its third comes in
    three = placed(0, 0, 0, -1, experts=1)
    np.testing.assert_allclose(arriving(three, np.ones((1, 1)), 4, 1), [[1 / 12] * 3 + [0.0]])


def test_distinct_destinations_by_drawing():
    # 8 of 64 experts on 8 devices, drawn without replacement: 8 (1 - C(56, 8)/C(64, 8))
    from math import comb

    placement = placed(*range(64), experts=64)
    distinct = arriving(placement, np.ones((1, 64)), 8, 8).sum() / (7 / 8)
    assert distinct == pytest.approx(8 * (1 - comb(56, 8) / comb(64, 8)), rel=1e-12)


def test_microbatches_of_as_many_tokens_as_are_asked():
    # 3 x 8192 tokens on two devices: three sequences of 4096 each, or six of 2048; 100 tokens are one; a number stands
    for over, tokens, many in (
        ({}, 3 * 8192.0, 3.0),
        ({"microbatch_tokens": 2048}, 3 * 8192.0, 6.0),
        ({}, 100.0, 1.0),
        ({"microbatches": 5.0}, 3 * 8192.0, 5.0),
    ):
        made = step.build({"chip": CHIP, "cluster": {"devices": 2}, "schedule": over}, tokens)
        assert made.schedule.microbatches == many


def test_formulas():
    chip = read(Chip, "chip", {**CHIP, "memory_bandwidth": 10.0, "bandwidth_share": 0.5, "sharpness": 2.0})
    # 3 s of FLOPs and 4 s of bytes meet as 5
    assert gemm_seconds(chip, 300.0, 20.0, 2.0) == pytest.approx(5.0)
    assert destinations(4, 2) == pytest.approx(4 * (1 - 9 / 16))
    assert (destinations(4, 8, 3), destinations(2, 8, 3)) == (3.0, 2.0)
    assert all_reduce_bytes(4, 8.0) == 12.0
    # 1 x 10 weights and 5 x 7 ends of 5 rows, 2 bytes each, at 9 byte/s
    slow = machine(chip={"flops": 1e300, "memory_bandwidth": 9.0, "bandwidth_share": 1.0})
    assert step.forward_seconds(slow, 5.0) == pytest.approx(2 * (10 + 35) / 9)


def test_copies_and_moves():
    pair = placed(0, 0, 1, -1)
    np.testing.assert_array_equal(pair.copies(2), [[2, 1]])
    np.testing.assert_array_equal(pair.together(2, 2), [1])
    np.testing.assert_array_equal(placed(0, 1, 1, 0).together(2, 2), [0])
    # the second device fetches expert 0, the first nothing new
    np.testing.assert_array_equal(arrivals(pair, placed(0, -1, 0, 1), 2, 2), [[0.0, 1.0]])
    np.testing.assert_array_equal(arrivals(None, pair, 2, 2), [[0.0, 0.0]])


def test_eplb_with_distinct_devices():
    loads = [1, 51, 55, 39, 46, 37]
    published, apart = eplb(loads, 9, devices=3), eplb(loads, 9, devices=3, distinct=True)
    assert (published.max_over_mean(loads)[0], published.together()[0]) == (pytest.approx(1.1201, abs=1e-4), 1)
    assert (apart.max_over_mean(loads)[0], apart.together()[0]) == (pytest.approx(1.0087, abs=1e-4), 0)
    with pytest.raises(InputError, match="replicas=6 are more than 2 experts can have on distinct devices; give 4"):
        eplb([1, 2], 6, devices=2, distinct=True)


def test_eplb_with_speeds():
    # 4 slots, the first device at a quarter of the speed: 1 and 1 there (8 s), 4 and 2 on the other
    made = eplb([4, 2, 1, 1], 4, devices=2, speeds=[0.25, 1.0])
    assert made.device_loads([4, 2, 1, 1])[0] / [0.25, 1.0] == pytest.approx([8.0, 6.0])
    alike = eplb([4, 2, 1, 1], 4, devices=2, speeds=[3.0, 3.0])
    np.testing.assert_array_equal(alike.slots, eplb([4, 2, 1, 1], 4, devices=2).slots)
    with pytest.raises(InputError, match="3 speeds for devices=2"):
        eplb([1, 1], 2, devices=2, speeds=[1, 1, 1])
    with pytest.raises(InputError, match="speeds=0"):
        eplb([1, 1], 2, devices=2, speeds=[1, 0])


@pytest.mark.parametrize("seed", range(20))
def test_distinct_copies_for_any_sizes(seed):
    rng = np.random.default_rng(seed)
    experts, devices = int(rng.integers(2, 20)), int(rng.integers(1, 9))
    slots = devices * int(rng.integers(-(-experts // devices), experts + 1))
    made = eplb(rng.lognormal(0, 1.5, (2, experts)), slots, devices=devices, distinct=True)
    assert (made.together() == 0).all()
    assert all(set(layer) == set(range(experts)) for layer in made.slots.tolist())


# One size of an expert.
def test_capacity_stands_in_place_of_the_width():
    assert step.build({"chip": CHIP}).expert.params == 24 * 3 * 2048 * 1408
    made = step.build({"chip": CHIP, "expert": {"capacity": 1e8}}).expert
    assert (made.params, made.weights, made.width) == (1e8, pytest.approx(1e8 / 24), pytest.approx(1e8 / 24 / 3 / 2048))
    with pytest.raises(InputError, match="capacity=1e\\+08 and d_expert=1408 are two sizes of one expert; give one"):
        step.build({"chip": CHIP, "expert": {"capacity": 1e8, "d_expert": 1408}})


def test_peaks_follow_the_bytes_of_a_value():
    eight = {"schedule": {"value_bytes": 1.0}}
    with pytest.raises(InputError, match=r"no flops_8bit for schedule\.value_bytes=1"):
        machine(**eight)
    assert machine(chip={"flops_8bit": 200.0}, **eight).peak == 200.0


def test_records_of_a_step():
    # compute 24 and wait 12: a third idle; (compute + dense + update) of the whole step
    from test_balance_run import config

    given = records.setting(config({"experts": 2, "cluster": {"devices": 2}, "world": {"domains": 20}}))
    at, _ = next(iter(records.trajectory(given)))
    parts = whole(machine())
    total = sum(parts[name] for name in step.PARTS)
    tokens = given.tokens
    loads = tokens * np.array([[0.75, 0.15]])
    at = replace(at, frozen=np.array([[True, False]]), load=loads, dropped=np.array([tokens / 10]))
    met = {**parts, "step_time": total, "slots": at.placement.slots, "load": at.load}
    out = records.record(given, at, met, at.load)
    np.testing.assert_array_equal(out["frozen_share"], [0.5])
    np.testing.assert_allclose(out["drop_share"], [0.1])
    np.testing.assert_allclose(out["max_vio"], [0.75 / 0.45 - 1])
    # a copy of .75 of the tokens is the least that a device of its placement carries: 30 (of the parts) above it
    np.testing.assert_allclose(out["regret_balance"], [30.0 / (0.75 * tokens) - 1.0])
    least = step.least_step_seconds(given.machine, tokens, 1, 0.9)
    np.testing.assert_allclose(out["regret_time"], total / least - 1.0)
    np.testing.assert_allclose(out["idle_share"], 12 / 36)
    np.testing.assert_allclose(out["utilisation"], (24 + 24 + 3.6) / sum(STEP.values()))
    np.testing.assert_allclose(out["max_over_mean"], 1.5)
    np.testing.assert_allclose(out["balancedness"], 1 / 1.5)
    p, loss = given.world.natural, at.loss
    np.testing.assert_allclose(out["micro_loss"], (p * loss).sum(axis=1))
    np.testing.assert_allclose(out["macro_loss"], loss.mean(axis=1))
    rare = np.argsort(p, axis=1)[:, :2]
    np.testing.assert_allclose(out["tail_loss"], np.take_along_axis(loss, rare, axis=1).mean(axis=1))
    np.testing.assert_allclose(out["time_wait"], 12.0)


def test_equal_time_is_that_of_the_fastest():
    # a needs 4 s for all its tokens, b 8: at 4 s b has lost from 6 to 4, half way to its end of 2
    import xarray as xr

    dims = ("policy", "seed", "step")
    clocks, losses = np.array([[[2.0, 4.0]], [[4.0, 8.0]]]), np.array([[[5.0, 3.0]], [[4.0, 2.0]]])
    names = dict.fromkeys(study.LOSSES, (dims, losses))
    told = ("max_over_mean", "utilisation", "experts_alive", "edits")
    others = {name: (dims, np.ones(losses.shape)) for name in told}
    data = xr.Dataset({**names, **others, "wall_clock": (dims, clocks)}, {"policy": ["a", "b"], "seed": [0]})
    ends = study._ends(data)
    np.testing.assert_array_equal(ends.micro_loss_at_equal_tokens, [[3.0], [2.0]])
    np.testing.assert_array_equal(ends.micro_loss_at_equal_time, [[3.0], [4.0]])


def test_layers_keep_their_width():
    made = step.build({"chip": CHIP, "expert": {"capacity": 1e8}})
    assert made.with_layers(1).expert.weights == pytest.approx(made.expert.weights)
    assert replace(made, expert=made.with_layers(1).expert).expert.layers == 1
