"""Placements, schedules and topologies worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from balance_tools import row, setting, state, world
from test_balance_by_hand import OWN

from moesim.balance import placement
from moesim.balance.placement import Placing, Problem, even
from moesim.balance.topology import TOPOLOGIES, wired
from moesim.errors import InputError

# Placement: 2 devices of 2 slots unless said. Slots of a device are adjacent.
# 100 FLOP/s, experts of 10 weights, links of 10 byte/s, 2 values of 2 bytes a token.
MACHINE = SimpleNamespace(
    expert=SimpleNamespace(weights=10.0, d_model=2),
    chip=SimpleNamespace(peak_share=1.0),
    schedule=SimpleNamespace(value_bytes=2.0),
    peak=100.0,
    link=10.0,
)


def problem(loads, slots=4, devices=2, copies=None, previous=None, changed=False, step=0, alive=None, speed=1.0):
    loads = row(*loads)
    there = np.ones(loads.shape, dtype=bool) if alive is None else np.array([alive])
    copies = there.astype(int) if copies is None else np.array([copies])
    before = None if previous is None else even(np.array([previous]), loads.shape[1])
    return Problem(loads, there, copies, before, np.array([changed]), slots, devices, 1, step, speed, MACHINE)


PLACEMENT = {
    # in order, spread over the devices
    "static": ({}, problem((5.0, 1.0, 1.0)), [0, 1, 2, -1]),
    "static, kept": ({}, problem((1.0, 9.0), previous=[1, -1, 0, -1]), [1, -1, 0, -1]),
    # a second copy of expert 0 goes to the device with less load: 5 / 2 against 1
    "static, added": ({}, problem((5.0, 1.0), copies=[2, 1], previous=[0, -1, 1, -1], changed=True), [0, -1, 1, 0]),
    "static, gone": ({}, problem((5.0, 0.0), copies=[1, 0], previous=[0, -1, 1, -1], changed=True), [0, -1, -1, -1]),
    # 5, then 4 and 3 on the other device, then 1 where room is
    "packed": ({}, problem((5.0, 1.0, 3.0, 4.0)), [0, 1, 3, 2]),
    # one spare slot for the hottest: 6 -> 3 + 3; packed 3, 3 apart, then 2 and 1
    "eplb": ({}, problem((6.0, 2.0, 1.0)), [0, 1, 0, 2]),
    "eplb, fewer": ({"slots": 2}, problem((6.0, 2.0)), [0, -1, 1, -1]),
    # loads 6 : 1 of four slots: 3.43 and .57, so 3 and 1; copies of 2, 2, 2, 1
    "popularity": ({}, problem((6.0, 1.0)), [0, 0, 0, 1]),
    # EPLB's copies; shares below
    "scheduled": ({}, problem((6.0, 2.0, 1.0)), [0, 1, 0, 2]),
    "lagged": ({}, problem((6.0, 2.0, 1.0)), [0, 1, 0, 2]),
    # 9 : 1 would have three copies of the first, two of them together; apart they are one on each
    "scheduled, together": ({}, problem((9.0, 1.0)), [0, 0, 0, 1]),
    "scheduled, apart": ({"distinct": True}, problem((9.0, 1.0)), [0, 1, 0, 1]),
    # packed without copies: 6, 1 and 3, 2; the heaviest of each device copied from its neighbour, one slot left empty
    "scheduled, ring": (
        {"topology": "ring"},
        problem((6.0, 3.0, 2.0, 1.0), slots=6),
        [0, 3, 1, 1, 2, 0],
    ),
    # 30 : 10 at home cost 6 x 10 x 30/100 = 18 s and 4 x 30 x 4/10 = 48; with a shadow of the first 25 are left on the
    # second, 15 s, and its weights and gradients 4 x 10 x 2/10 = 8 s
    "shadow": ({}, problem((30.0, 10.0)), [0, -1, 1, 0]),
    # 3 : 1 cost 1.8 and 4.8 s at home, 1.5 and 8 with the shadow
    "shadow, not": ({}, problem((3.0, 1.0)), [0, -1, 1, -1]),
    # the slow device gets what ends first there: 4 to the fast one, 2 to it (6 against 8), 1 and 1 to the slow one
    "packed, speeds": (
        {},
        problem((4.0, 2.0, 1.0, 1.0), speed=np.array([0.25, 1.0])),
        [2, 3, 0, 1],
    ),
    "eplb, speeds": ({}, problem((4.0, 2.0, 1.0, 1.0), speed=np.array([0.25, 1.0])), [2, 3, 0, 1]),
    # a second copy of expert 0, 2 of its 4, ends at (4 + 2) / 4 beside the first and at (1 + 2) / 1 with the other
    "static, speeds": (
        {},
        problem((4.0, 1.0), copies=[2, 1], previous=[0, -1, 1, -1], changed=True, speed=np.array([4.0, 1.0])),
        [0, 0, 1, -1],
    ),
    # three experts: 6 alone, 3 and 2 together; later without room for copies there are none
    "scheduled, ring odd": ({"topology": "ring"}, problem((6.0, 3.0, 2.0), slots=6), [0, -1, 1, 1, 2, 0]),
    "scheduled, ring full": (
        {"topology": "ring"},
        problem((6.0, 3.0, 2.0), slots=4, previous=[0, 1, 2, -1]),
        [0, -1, 1, 2],
    ),
    # 6 and 3 on the fast device, 2 and 1 on the slow one, and each device's heaviest on the other
    "scheduled, ring speeds": (
        {"topology": "ring"},
        problem((6.0, 3.0, 2.0, 1.0), slots=6, speed=np.array([0.25, 1.0])),
        [2, 3, 0, 0, 1, 2],
    ),
    # one slot each: the heavy one on the fast device, which the published order would not do
    "popularity, speeds": ({}, problem((4.0, 2.0), slots=2, speed=np.array([0.25, 1.0])), [1, 0]),
    # 16 s of 4 and 0 against 4 s of 0 and 2: exchanging 4 and 2 leaves 8 and 8; 4 and 0 would leave 0 and 12
    "bounded, speeds": (
        {"moves": 1},
        problem((4.0, 0.0, 0.0, 2.0), previous=[0, 1, 2, 3], speed=np.array([0.25, 0.5])),
        [3, 1, 2, 0],
    ),
}


@pytest.mark.parametrize("name", PLACEMENT)
def test_placement(name):
    options, given, expected = PLACEMENT[name]
    made = placement.placement.only({"policy": name.partition(",")[0], **options})(given)
    np.testing.assert_array_equal(made.slots, [expected])
    held = np.zeros(given.loads.shape)
    np.add.at(held[0], np.maximum(made.slots[0], 0), made.share[0])
    np.testing.assert_allclose(held[given.copies > 0], 1.0)


def test_replicas_in_proportion_by_largest_remainder():
    # 7 slots for 5 : 3.2 : 1.8 are 3.5, 2.24 and 1.26: the one left over goes to the half
    np.testing.assert_array_equal(placement.proportional_counts(np.array([[5.0, 3.2, 1.8]]), 7), [[4, 2, 1]])
    # 4 slots for 100 : 1 : 1 are 3.92 and 0.04 twice, which keep one each: two are left for the first
    np.testing.assert_array_equal(placement.proportional_counts(np.array([[100.0, 1.0, 1.0]]), 4), [[2, 1, 1]])


def test_the_cost_of_shadows():
    # the row above, and both as shadows: 20 on each device, 12 s, and the weights and gradients of two, 16 s
    slots, loads, cost = np.array([[0, -1], [1, -1]]), np.array([30.0, 10.0]), placement._shadow_cost
    given = problem(loads)
    found = [cost(given, slots, loads, np.array(s, dtype=int)) for s in ([], [0], [0, 1])]
    np.testing.assert_allclose(found, [18 + 48, 15 + 8, 12 + 16])
    # a first device of half the speed: 30 there take as long as 60
    slow = problem(loads, speed=np.array([0.5, 1.0]))
    np.testing.assert_allclose(cost(slow, slots, loads, np.array([], dtype=int)), 2 * (18 + 48))


def test_every_placement_has_a_row():
    assert {name.partition(",")[0] for name in PLACEMENT} == set(placement.placement)


def test_scheduled_shares_level_the_devices():
    # 9 in all: 4.5 each; the first device has 2 of expert 1 and 2.5 of the 6, the second 1 and 3.5
    made = placement.placement.only("lagged")(problem((6.0, 2.0, 1.0)))
    np.testing.assert_allclose(made.share, [[2.5 / 6, 1.0, 3.5 / 6, 1.0]])
    # at present 3 : 3 : 1, 3.5 each: .5 of the first beside the second. Only `scheduled` sees that.
    present, past = (placement.build(name) for name in ("scheduled", "lagged"))
    now = row(3.0, 3.0, 1.0)
    np.testing.assert_allclose(placement.serve(present, made, now, np.ones(2)).share, [[0.5 / 3, 1.0, 2.5 / 3, 1.0]])
    assert placement.serve(past, made, now, np.ones(2)) is made
    # the second device three times as fast: all of the first there
    fast = placement.serve(present, made, now, np.array([1.0, 3.0]))
    np.testing.assert_allclose(fast.slot_loads(now).reshape(1, 2, 2).sum(-1), [[3.0, 4.0]])


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_topologies_join_each_device_with_as_many_others(name):
    edges = TOPOLOGIES[name](16, 2)
    for column in edges.T:
        np.testing.assert_array_equal(np.sort(column), np.arange(16))
        assert (column != np.arange(16)).all()


def test_published_topologies():
    # LPLB's tests: cube of 8, hypercube of 16, torus of 2 x 4
    cube, hyper = TOPOLOGIES["cube"](8, 1), TOPOLOGIES["hypercube"](16, 1)
    np.testing.assert_array_equal(cube.T, [[3, 0, 1, 2, 7, 4, 5, 6], [6, 7, 4, 5, 0, 1, 2, 3]])
    np.testing.assert_array_equal(hyper[:, 0], [3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14])
    np.testing.assert_array_equal(hyper[:, 1], [12, 13, 14, 15, *range(12)])
    np.testing.assert_array_equal(TOPOLOGIES["torus"](8, 2)[:5], [[4, 1], [5, 2], [6, 3], [7, 0], [0, 5]])
    with pytest.raises(InputError, match="topology='star'"):
        placement.placement.only({"policy": "scheduled", "topology": "star"})(problem((1.0, 2.0)))
    with pytest.raises(InputError, match="devices=2 do not fill groups of 8"):
        placement.placement.only({"policy": "scheduled", "topology": "cube"})(problem((1.0, 2.0)))
    with pytest.raises(
        InputError, match="topology=ring needs room for 1 copies on each of 2 devices; give slots_per_device=2 or"
    ):
        placement.placement.only({"policy": "scheduled", "topology": "ring"})(problem((1.0, 2.0), slots=2))


# LPLB's own tolerances of busiest over mean for a draw of loads N(1, .3): devices, redundant slots, tolerance. The
# programme's optimum misses them in some draws; the median of ten keeps them.
LPLB = {"cube": (32, 2, 1.07), "hypercube": (16, 2, 1.03), "torus": (32, 2, 1.01)}


@pytest.mark.parametrize("name", LPLB)
def test_lplb_reaches_its_published_balance(name):
    devices, spare, most = LPLB[name]
    edges, ratios = TOPOLOGIES[name](devices, devices // 4), []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        past, now = (np.maximum(1 + s * rng.standard_normal((1, 256)), 0.0) for s in (0.15, 0.3))
        placed = even(wired(past, 256 + spare * devices, devices, edges), 256)
        level = placement.shared_out(placed, now, np.ones(devices))
        load = level.slot_loads(now).reshape(devices, -1).sum(-1)
        ratios.append(load.max() / load.mean())
    assert np.median(ratios) < most


def test_a_threshold_leaves_what_is_even_enough():
    # 3 : 1 is 1.5 x the mean
    asked = []

    def policy(problem):
        asked.append(problem.step)
        return even(np.array([[1, 0]]), 2)

    given = setting(world((0.5, 0.5)), slots=2)
    at = replace(state(OWN), placement=even(np.array([[0, 1]]), 2), migrated=np.zeros((1, 2)), mean_load=row(3.0, 1.0))
    for threshold, moved in ((1.6, 0.0), (1.4, 1.0)):
        placing = placement.build({"policy": policy, "every": 10, "threshold": threshold, "plan_seconds": 2.0})
        after = placement.place(placing, replace(at, step=20), given, np.array([False]))
        np.testing.assert_array_equal(after.migrated, [[moved, moved]])
        np.testing.assert_array_equal(after.planned, [2.0 * moved])
    assert asked == [20]
    # the start costs no planning, and experts that changed are placed whatever the threshold
    assert placement.place(placing, at, given, np.array([True]), start=True).planned == 0
    placing = placement.build({"policy": policy, "threshold": 9.0})
    assert placement.place(placing, replace(at, step=21), given, np.array([True])).migrated.sum() == 2


def test_placement_is_asked_at_the_first_step_and_then_every_so_many():
    asked = []

    def policy(problem):
        asked.append(problem.step)
        return even(np.array([[0, 1]]), 2)

    placing = placement.build({"policy": policy, "every": 20, "first": 5})
    at = replace(state(OWN), placement=even(np.array([[1, 0]]), 2), migrated=np.zeros((1, 2)))
    for step in range(41):
        at = placement.place(placing, replace(at, step=step), setting(world((0.5, 0.5)), slots=2), np.array([False]))
        if step == 5:
            np.testing.assert_array_equal(at.migrated, [[1.0, 1.0]])
        if step == 6:
            np.testing.assert_array_equal(at.migrated, [[0.0, 0.0]])
    assert asked == [5, 20, 40]
    assert isinstance(placing, Placing)
