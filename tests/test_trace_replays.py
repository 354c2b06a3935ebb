"""Recorded and made-up loads replayed: windows, scheduling, migration, workloads."""

import numpy as np
import pytest
from test_balance_run import config
from test_traces import lines, replayed, saved

import moesim
from moesim.balance import trace, workloads
from moesim.errors import InputError


def test_windows_by_hand(tmp_path):
    # Layer 0: (5, 3), then (1, 7). EPLB's four slots after (5, 3): two copies of each, which
    # splits (1, 7) evenly. Layer 1: three experts, (1, 2, 3), then idle.
    file = saved(tmp_path, "csv")
    data = replayed(file, placement="eplb")
    np.testing.assert_allclose(data.layer_max_over_mean.values[0, 1], [1.0, 1.0])
    assert np.isfinite(data.to_array().values).all()
    static = replayed(file, placement="static")
    # 0 1 | - - of layer 0: in order, one on each device; 5 against 3, then 7 against 1; layer 1: 0 1 | 2: 3 and 3
    np.testing.assert_allclose(static.layer_max_over_mean.values[0], [[5 / 4, 1.0], [7 / 4, 1.0]])
    # barriers: (5 + 3) / (4 + 3) of shares 5/8 and 3/6: (.625 + .5) / (.5 + .5)
    np.testing.assert_allclose(static.max_over_mean.values[0], [1.125, 1.75])
    assert (static.max_over_mean >= static.max_over_mean_bound).all()


def test_scheduling_sees_its_own_window(tmp_path):
    # one layer, slots 0 1 | 2 0 after a first window that makes expert 0 hot; then expert 1 is, and then expert 0 again
    file = tmp_path / "loads.csv"
    counts = [(6, 2, 1), (3, 4, 2), (8, 1, 1)]
    file.write_text(
        lines(
            ["window", "layer", "expert", "count"],
            [(w, 0, e, n) for w, row in enumerate(counts) for e, n in enumerate(row)],
        )
    )
    worth = {}
    for name in ("eplb", "scheduled", "lagged"):
        data = replayed(file, placement={"policy": name, "every": 10**9})
        worth[name] = data.max_over_mean.values[0]
        assert (data.moved_copies == 0).all()
    # planned once, on even loads: expert 0 on both devices, 1 and 2 on one each
    np.testing.assert_allclose(worth["eplb"], [5 / 4.5, 5.5 / 4.5, 1.0])
    np.testing.assert_allclose(worth["scheduled"], [1.0, 1.0, 1.0])
    np.testing.assert_allclose(worth["lagged"], worth["eplb"])


def test_a_migration_is_paid_once_and_windows_have_a_length(tmp_path):
    file = saved(tmp_path, "csv")
    made = {}
    for length in (1, 10):
        world = {"policy": "trace", "path": str(file), "steps_per_window": length}
        placing = {"policy": "eplb", "every": 1, "plan_seconds": 3.0}
        made[length] = moesim.simulate(world=world, placement=placing, cluster={"devices": 2, "slots_per_device": 2})
    once, ten = (data.time_migration.values[0] for data in made.values())
    assert once[0] == 0.0
    np.testing.assert_allclose(ten, once / 10)
    assert once[1] > 3.0
    # ten steps cost nine times the rest more
    rest = made[1].step_time.values[0] - once
    np.testing.assert_allclose(np.diff(made[10].wall_clock.values[0]), 10 * rest[1] + once[1])


def test_active_experts_count(tmp_path):
    file = saved(tmp_path, "csv")
    one, two = (replayed(file, active_experts=k) for k in (1, 2))
    np.testing.assert_allclose(two.loads, 2 * one.loads)
    assert (two.time_compute > 1.5 * one.time_compute).all()
    with pytest.raises(InputError, match="active_experts=3 is more than the 2 experts"):
        replayed(file, active_experts=3)
    tokens = tmp_path / "tokens.csv"
    tokens.write_text(lines(["seq", "e1", "e2"], [(w, e, (e + 1) % 4) for w in range(3) for e in range(4)]))
    assert replayed(tokens).loads.sum("expert").values == pytest.approx(2 * 2**22)
    with pytest.raises(InputError, match="active_experts=3, but a traced token has 2"):
        replayed(tokens, active_experts=3)


def test_a_threshold_spares_moves(tmp_path):
    file = saved(tmp_path, "csv")
    kept = replayed(file, placement={"policy": "eplb", "threshold": 5.0})
    assert kept.moved_copies.sum() == 0
    assert replayed(file, placement="eplb").moved_copies.sum() > 0


def test_replica_pairs_are_reported_and_can_be_forbidden(tmp_path):
    file = tmp_path / "loads.csv"
    counts = [1, 51, 55, 39, 46, 37]
    rows = [(w, 0, e, n) for w in range(2) for e, n in enumerate(counts)]
    file.write_text(lines(["window", "layer", "expert", "count"], rows))
    cluster = {"devices": 3, "slots_per_device": 3}
    for distinct, ratio, pairs in ((False, 1.1201, 1), (True, 1.0087, 0)):
        data = replayed(file, placement={"policy": "eplb", "distinct": distinct}, cluster=cluster)
        assert data.max_over_mean.values[0, 1] == pytest.approx(ratio, abs=1e-4)
        assert data.shared_devices.values[0, 1] == pairs


def test_the_command_line_takes_a_trace(tmp_path):
    from moesim.balance.run import run

    made = config(world="trace", placement="scheduled")
    made["world"]["path"] = str(saved(tmp_path, "csv"))
    made["cluster"].update(devices=2, slots_per_device=2)
    result = run(made)
    assert "max_over_mean_bound" in result.table
    assert trace.is_trace(made)


# Eight experts on four ranks, two of them hot at 3 x the mean: (8 - 6) / 6 for the others.
KINDS = {
    "balanced": np.ones((4, 8)),
    "hot_rank": np.tile([3.0, 3.0, *[1 / 3] * 6], (4, 1)),
    "spread": np.tile([3.0, *[1 / 3] * 3, 3.0, *[1 / 3] * 3], (4, 1)),
    "ragged_source": np.ones((4, 8)),
    "idle_rank": np.tile([0.0, 0.0, *[8 / 6] * 6], (4, 1)),
    "burst": np.stack([[3.0, 3.0, *[1 / 3] * 6] if w % 2 else [1.0] * 8 for w in range(4)]),
}


@pytest.mark.parametrize("kind", workloads.KINDS)
def test_workloads(kind):
    loads, source = workloads.workload(kind, 4, 8, 4, 3.0, 2, 0.3, 0)
    np.testing.assert_allclose(loads.mean(axis=1), 1.0)
    np.testing.assert_allclose(source, 3.0 if kind == "ragged_source" else 1.0)
    if kind in KINDS:
        np.testing.assert_allclose(loads, KINDS[kind])
    if kind in ("hot_experts", "rotating"):
        np.testing.assert_array_equal(np.sort(loads, axis=1)[:, -2:], 3.0)
        moved = (np.diff(loads, axis=0) != 0).any(axis=1)
        np.testing.assert_array_equal(moved, [False, kind == "rotating", False])
    if kind == "drift":
        steps = np.diff(np.log(workloads.workload(kind, 4000, 8, 4, 3.0, 2, 0.3, 0)[0]), axis=0)
        assert (steps - steps.mean(axis=1, keepdims=True)).std() == pytest.approx(0.3 * np.sqrt(7 / 8), rel=0.03)


def test_bad_workloads():
    for options, said in (
        ({"kind": "w9"}, "kind='w9'; it takes balanced, burst"),
        ({"experts": 9}, "experts=9 do not divide among ranks=8"),
        ({"heat": 9.0}, "heat=9; it takes 0 to 8"),
        ({"period": 0}, "period=0"),
    ):
        with pytest.raises(InputError, match=said):
            moesim.simulate(world={"policy": "workload", **options}, cluster={"slots_per_device": 9})


def test_which_placement_wins_depends_on_the_workload():
    # Eight devices, one spare slot each. On average over the windows that a plan had a past to go by:
    def ratio(kind, policy):
        world = {"policy": "workload", "kind": kind, "period": 1 if kind == "rotating" else 4}
        data = moesim.simulate(world=world, placement=policy, cluster={"slots_per_device": 9})
        return float(data.max_over_mean.isel(step=slice(1, None)).mean())

    # a steady hot rank is levelled by the past; where hot experts change at every window a plan is always late, and
    # copies of every device's experts on a fixed neighbour serve better than copies of what was hot
    assert ratio("hot_rank", "eplb") < 1.1 < 2.9 < ratio("hot_rank", "static")
    assert ratio("rotating", "lplb") < ratio("rotating", "eplb") - 0.05
    assert ratio("rotating", "eplb") > 1.3
    # loads that walk: the present is seen by the scheduler alone
    assert ratio("drift", "lplb") < ratio("drift", "scheduled") < ratio("drift", "eplb") < ratio("drift", "static")
    assert ratio("drift", "lagged") > ratio("drift", "scheduled")
    # one hot rank on all devices, while weights cost less than tokens
    assert ratio("hot_rank", "shadow") < ratio("hot_rank", "static")
    # nothing to win on even loads, whose source alone is ragged: that costs time
    assert ratio("balanced", "static") == ratio("ragged_source", "static") == 1.0
    even, ragged = (
        moesim.simulate(world={"policy": "workload", "kind": kind}, cluster={"slots_per_device": 9}).time_all_to_all
        for kind in ("balanced", "ragged_source")
    )
    np.testing.assert_allclose(ragged, 3.0 * even)
