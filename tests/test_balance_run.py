"""The balance loop: limits, invariants and metamorphic checks, for every policy in one table."""

from dataclasses import replace

import numpy as np
import pytest

from moesim import config as files
from moesim.balance import placement, records, sampling, simulate
from moesim.balance import structure as structures
from moesim.balance.routing import inclusion
from moesim.balance.run import run as drive
from moesim.balance.setting import GROUPS, setting
from moesim.domains.tree import best_cut
from moesim.hardware import step as clock
from moesim.hardware.placed import Placement

TRACES = ("trace", "deepseek_r1", "workload")
APART = (("cluster", "deepseek_v3"), ("chip", "custom"))  # more devices than the small runs here; no numbers


def config(over=None, **choices):
    """What `moesim balance` composes from conf/balance.yaml, small, with other choices and keys."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    overrides = [f"{group}={name}" for group, name in choices.items()]
    with initialize_config_dir(str(files.conf_dir()), version_base="1.3"):
        composed = compose("balance", overrides)
    out = OmegaConf.to_container(composed, resolve=False)
    small = {"steps": 60, "seeds": 2, "experts": 8, "record_every": 5, "cluster": {"devices": 4}}
    return merged(
        merged({key: value for key, value in out.items() if key not in ("choices", "page")}, small), over or {}
    )


def merged(base, over):
    """`over` laid over `base`, mappings within mappings."""
    both = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(both.get(key), dict) and "policy" not in value
        both[key] = merged(both[key], value) if nested else value
    return both


def run(over=None, **choices):
    """The only block of outcomes of a config."""
    (outcome,) = records.outcomes(config(over, **choices))
    return outcome


def test_what_exceeds_the_capacity_is_dropped():
    """Two of two experts take every token: with room for half a fair share each, half of the assignments is dropped."""
    over = {"experts": 2, "active_experts": 2, "steps": 3, "routing": {"capacity_factor": 0.5}}
    records = run(over).records
    np.testing.assert_allclose(records["drop_share"], 0.5)
    tokens = run({**over, "routing": {}}).records["loads"]
    np.testing.assert_allclose(records["loads"], tokens / 2)


MEMBERS = [
    (group, name)
    for group in GROUPS
    for name in files.choices(group)
    if name not in TRACES and (group, name) not in APART
]
QUICK = {"structure": {"every": 10}, "placement": {"every": 10}}


@pytest.mark.parametrize(("group", "name"), MEMBERS)
def test_every_policy_keeps_the_books_and_the_bounds(group, name):
    over = {"world": {"domains": 32}} if group != "world" else {}
    if group == "placement":
        over = {
            **over,
            "placement": {"every": min(10, files.read(group, name).get("every", 10))},
            "structure": {"every": 10},
        }
    outcome = run(merged({"structure": {"every": 10}}, over), **{group: name})
    given, records, last = outcome.setting, outcome.records, outcome.final
    wanted = given.tokens * given.active
    np.testing.assert_allclose(records["loads"].sum(-1) + records["drop_share"] * wanted, wanted, rtol=1e-9)
    soft = np.isnan(records.get("hardened", np.zeros(())))  # every leaf of a soft tree computes every token
    met = np.where(soft, given.tokens * records["experts_alive"], records["loads"].sum(-1))
    np.testing.assert_allclose(records["device_loads"].sum(-1), met, rtol=1e-9)
    np.testing.assert_allclose(records["sampling_weight"].sum(-1), 1, rtol=1e-9)
    np.testing.assert_allclose(last.seen.sum(1), given.tokens * given.steps, rtol=1e-9)
    assert (records["regret_balance"] > -1e-9).all()
    assert (records["regret_time"] > -1e-9).all()
    assert (outcome.regrets["regret_schedule"] > -1e-9).all()
    assert (records["max_over_mean"] > 1 - 1e-12).all()
    assert np.nanmin(records["regret_loss"]) > -1e-9
    assert (records["step_time"] > 0).all()
    assert (records["micro_loss"][:, -1] < records["micro_loss"][:, 0]).all()


@pytest.mark.parametrize("structure", ["split", "clone", "split_or_replicate", "replicate", "merge", "prune", "grow"])
def test_every_copy_of_every_expert_has_a_slot(structure):
    last = run({"structure": {"every": 10}, "cluster": {"slots_per_device": 4}}, structure=structure).final
    np.testing.assert_array_equal(last.placement.copies(last.alive.shape[1]), last.copies)
    assert (last.copies[last.alive] >= 1).all()
    assert (last.copies[~last.alive] == 0).all()


OWN_TOKENS = {"coefficients": {"A": 1e-300}, "pooled": False}


def test_one_expert_with_natural_sampling_follows_the_law_of_each_domain():
    over = {
        "experts": 1,
        "world": {"domains": 8, "rho": 0.0, "unique_tokens": np.inf, "curve": OWN_TOKENS},
        "cluster": {"devices": 1},
    }
    outcome = run(over)
    given, loss = outcome.setting, outcome.records["domain_loss"]
    seen = outcome.records["tokens"][:, :, None] * given.world.in_order(given.world.natural)[:, None]
    np.testing.assert_allclose(loss, np.minimum(1.69 + 410.7 * seen**-0.28, np.log(5e4)), rtol=1e-12)


def test_one_expert_pays_the_repetition_law():
    over = {"experts": 1, "world": {"domains": 4, "rho": 0.0, "unique_tokens": 1e7}, "cluster": {"devices": 1}}
    over["world"]["curve"] = OWN_TOKENS
    outcome = run(over)
    world = outcome.setting.world
    drawn = outcome.setting.tokens * 60 * world.natural
    U = 1e7 * world.natural
    effective = U + U * 15.387756 * (1 - np.exp(-(drawn / U - 1) / 15.387756))
    np.testing.assert_allclose(outcome.final.loss, 1.69 + 410.7 * effective**-0.28, rtol=1e-9)


def test_a_law_of_the_package_as_curve_is_the_law():
    from moesim.laws.load import load_law

    over = {"experts": 1, "world": {"domains": 1, "unique_tokens": np.inf}, "cluster": {"devices": 1}}
    outcome = run(over, world="law")
    expected = load_law("besiroglu2024")(
        total_params=outcome.setting.capacity.expert, tokens=outcome.setting.tokens * 60
    )
    np.testing.assert_allclose(outcome.final.loss, expected, rtol=1e-12)


@pytest.mark.parametrize("sampler", ["natural", "feed_idle"])
def test_replicas_leave_learning_bit_identical(sampler):
    runs = [
        run({"placement": {"every": 10}}, placement=name, sampling=sampler) for name in ("static", "eplb", "popularity")
    ]
    for other in runs[1:]:
        for name in ("domain_loss", "loads", "sampling_weight"):
            np.testing.assert_array_equal(other.records[name], runs[0].records[name])
        np.testing.assert_array_equal(other.final.learned, runs[0].final.learned)
        assert (other.records["wall_clock"] != runs[0].records["wall_clock"]).any()


def test_replicating_by_structure_changes_only_the_clock():
    plain, copied = run(QUICK), run({"structure": {"every": 10}}, structure="replicate")
    np.testing.assert_array_equal(plain.records["domain_loss"], copied.records["domain_loss"])
    assert copied.records["wall_clock"][:, -1].mean() < plain.records["wall_clock"][:, -1].mean()


@pytest.mark.parametrize("fidelity", ["mean_field", "tokens"])
def test_same_seed_same_run_and_any_block(fidelity):
    over = {"routing": {"fidelity": fidelity}, "tokens_per_step": 1e5, "seeds": 3, "structure": {"every": 10}}
    first, again = (run(over, structure="clone", sampling="feed_idle") for _ in range(2))
    alone = run({**over, "seeds": 1, "seed": 2}, structure="clone", sampling="feed_idle")
    for name, values in first.records.items():
        np.testing.assert_array_equal(values, again.records[name])
        np.testing.assert_allclose(values[2:], alone.records[name], rtol=1e-12, atol=1e-12)


def test_policies_meet_the_same_tokens():
    over = {"routing": {"fidelity": "tokens"}, "steps": 20}
    static, split = run(over), run(over, structure="split")
    np.testing.assert_array_equal(static.final.seen, split.final.seen)


def test_token_batches_agree_with_the_mean_field():
    over = {"steps": 20, "active_experts": 2, "routing": {"reinforcement": 0.0}}
    smooth = run(over)
    drawn = run(merged(over, {"routing": {"fidelity": "tokens", "batch": 65536}}))
    np.testing.assert_allclose(drawn.final.seen.sum(1), smooth.final.seen.sum(1), rtol=1e-12)
    totals = [o.records["loads"].mean(axis=1) for o in (drawn, smooth)]
    np.testing.assert_allclose(totals[0], totals[1], rtol=0.03)


def test_batch_imbalance_of_even_routing_is_the_sampling_floor():
    from moesim.balance.bounds import sampling_floor

    # The noise is that of the step that the clock charges, unless a batch is given.
    even = {"fidelity": "tokens", "reinforcement": 0.0, "affinity": 0.0, "noise": 0.0}
    for tokens, batch in ((512, None), (2**20, None), (2**20, 512)):
        outcome = run({"routing": {**even, "batch": batch}, "tokens_per_step": tokens, "steps": 200, "record_every": 1})
        floor = sampling_floor((batch or tokens) / 8, 8)
        assert outcome.records["max_vio"].mean() == pytest.approx(floor, rel=0.05)
        np.testing.assert_allclose(outcome.records["loads"].sum(-1), tokens, rtol=1e-12)


def moved_labels(outcome, order):
    """One more step of a run whose experts carry other labels."""
    given, state = outcome.setting, outcome.final
    names = (
        "scores",
        "learned",
        "trained",
        "assigned",
        "probability",
        "expert_loss",
        "bias",
        "load",
        "mean_load",
        "hot",
    )
    names += ("alive", "frozen", "parent", "born", "copies")
    changed = {name: np.take(getattr(state, name), order, axis=-1) for name in names}
    where = np.argsort(order)
    slots = np.where(state.placement.slots >= 0, where[state.placement.slots], -1)
    return simulate.step(given, replace(state, **changed, placement=Placement(slots, state.placement.share)))


def test_relabelling_experts_changes_no_metric():
    outcome = run({"sampling": {"every": 1}}, sampling="feed_idle", placement="eplb")
    order = np.random.default_rng(0).permutation(8)
    feed = {**outcome.final.memory, "price": outcome.final.memory["price"]}
    plain = simulate.step(outcome.setting, replace(outcome.final, memory=feed))
    outcome = replace(outcome, final=replace(outcome.final, memory={"price": feed["price"][:, order]}))
    moved = moved_labels(outcome, order)
    for name in ("micro_loss", "max_over_mean", "max_vio", "gini", "step_time", "utilisation"):
        rows = [records.record(outcome.setting, s, p, s.load)[name] for s, p in (plain, moved)]
        np.testing.assert_allclose(rows[0], rows[1], rtol=1e-10)


def test_relabelling_devices_changes_no_time():
    outcome = run(placement="eplb")
    given, state = outcome.setting, outcome.final
    order = np.random.default_rng(1).permutation(4)
    moved = Placement(
        *(a.reshape(2, 4, -1)[:, order].reshape(2, -1) for a in (state.placement.slots, state.placement.share))
    )
    times = [
        clock.step_seconds(given.machine, p, state.load, state.frozen, given.tokens, 1, state.migrated)
        for p in (state.placement, moved)
    ]
    for name in clock.PARTS:
        np.testing.assert_allclose(times[0][name], times[1][name], rtol=1e-12)


def test_doubling_all_speeds_halves_compute_time():
    slow, fast = run(), run({"chip": {"flops": 2 * 989e12, "memory_bandwidth": 6.7e12}})
    for part in ("compute", "wait", "dense", "update"):
        np.testing.assert_allclose(
            fast.records[f"time_{part}"], slow.records[f"time_{part}"] / 2, rtol=1e-12, atol=1e-15
        )
    slower, half = run({"cluster": {"speeds": [0.5] * 4}}), run()
    np.testing.assert_allclose(slower.records["time_compute"], 2 * half.records["time_compute"], rtol=1e-12)


def test_a_split_keeps_load_and_experience():
    outcome = run({"steps": 30, "structure": {"every": 1000}}, structure="split")
    given, state = outcome.setting, outcome.final
    share = np.random.default_rng(0).uniform(0.01, 0.99, given.world.domains)
    after = structures.split_edit(0, 3, 8, share, given.routing.temperature)(state)

    def routed(s):
        return inclusion(s.scores + s.bias[:, None], 1) * state.drawn[:, :, None]

    before, behind = routed(state), routed(after)
    np.testing.assert_allclose(behind[0, :, [3, 8]].sum(0), before[0, :, 3], rtol=1e-10)
    np.testing.assert_allclose(np.delete(behind, [3, 8], axis=2), np.delete(before, [3, 8], axis=2), rtol=1e-10)
    np.testing.assert_array_equal(after.learned[0, :, 8], state.learned[0, :, 3])
    np.testing.assert_array_equal(after.trained[0, :, 8], state.trained[0, :, 3])
    np.testing.assert_allclose(after.mean_load.sum(1), state.mean_load.sum(1), rtol=1e-12)
    assert (state.alive.sum(), after.alive.sum()) == (16, 17)


def test_states_are_never_changed_in_place():
    outcome = run({"structure": {"every": 10}, "steps": 30}, structure="split_or_replicate", placement="eplb")
    before = {k: v.copy() for k, v in vars(outcome.final).items() if isinstance(v, np.ndarray)}
    state = outcome.final
    for _ in range(12):
        state, _ = simulate.step(outcome.setting, state)
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(outcome.final, name), value)


def test_an_indivisible_hotspot_stays_hot_when_split_and_not_when_replicated():
    over = {"world": {"domains": 16, "skew": 1.5, "rho": 0.0}, "structure": {"every": 10}, "steps": 100}
    ratio = {
        name: run(over, structure=name).records["max_over_mean"][:, -1].mean()
        for name in ("fixed", "split", "replicate")
    }
    assert ratio["split"] > 1.5
    assert ratio["replicate"] < 0.75 * ratio["split"]
    halves = run(merged(over, {"world": {"atom": 0.02}, "cluster": {"slots_per_device": 4}}), structure="split")
    assert halves.records["max_over_mean"][:, -1].mean() < 0.8 * ratio["split"]


def test_feeding_keeps_experts_within_the_bound_and_replicated_ones_within_theirs():
    outcome = run({"sampling": {"every": 1, "iterations": 50}, "steps": 100}, sampling="feed_idle")
    assert (outcome.records["max_vio"][:, -1] < 0.11).all()


def test_more_experts_starve_at_few_tokens_and_pay_at_many():
    # The sign of moe-lab (1e9 tokens in all: worse with more experts) and of the Joint MoE law (better above).
    def loss(experts, tokens):
        return run({"experts": experts, "tokens_per_step": tokens, "steps": 150}).records["micro_loss"][:, -1].mean()

    assert loss(8, 1e5) > loss(2, 1e5) > loss(1, 1e5)
    assert loss(8, 1e10) < loss(2, 1e10) < loss(1, 1e10)


def test_a_structure_that_never_acts_is_said():
    over = {
        "policies": {"grows": {"structure": "grow"}, "splits": {"structure": "split"}, "stays": {}},
        "figures": False,
    }
    over["structure"] = {"every": 50}
    made = config(over)
    made["policies"]["grows"] = {"structure": {"policy": "grow", "every": 250}}
    made["policies"]["splits"] = {"structure": {"policy": "split", "every": 20}}
    result = drive(made)
    told = [line for line in result.table.splitlines() if "changed nothing" in line]
    assert told == ["grows: its structure changed nothing in 60 steps; no expert met its terms when asked"]
    assert result.dataset.edits.isel(step=-1).values[:, 0].tolist() == [0, 2, -1]


def test_bands_stay_where_the_quantity_can_be():
    from moesim.balance.figures import band

    two = np.array([[1.1, 1.9], [1.3, 1.1]])  # means 1.2, 1.5; half widths 12.7 x .1, .4
    for name, low, high in (("max_over_mean", 1.0, None), ("utilisation", 0.0, 1.0), ("max_vio", 0.0, None)):
        mean, below, above = band(two, name)
        np.testing.assert_allclose(mean, [1.2, 1.5])
        np.testing.assert_allclose(below, low)
        assert high is None or (above == high).all()
    near = np.array([[5.0], [5.001]])
    np.testing.assert_allclose(band(near)[1:], [[5.0005 - 0.00635], [5.0005 + 0.00635]], atol=1e-4)


@pytest.mark.parametrize("shape", ["merge", "prune"])
def test_no_token_is_lost_in_the_step_of_an_edit(shape):
    over = {"steps": 40, "record_every": 1, "structure": {"every": 10, "below": 0.9}}
    over["structure"] |= {"tail": 0.5} if shape == "prune" else {}
    outcome = run(over, structure=shape)
    assert outcome.final.alive.sum(1).max() < 8
    records = outcome.records
    np.testing.assert_allclose(records["device_loads"].sum(-1), records["loads"].sum(-1), rtol=1e-12)
    np.testing.assert_allclose(records["loads"].sum(-1), outcome.setting.tokens, rtol=1e-12)
    assert (outcome.regrets["regret_schedule"] > -1e-9).all()


def test_forgetting_costs_and_nothing_forgotten_is_nothing_lost():
    keep, lose = run({"active_experts": 2}), run({"active_experts": 2, "forgetting": 1e-9})
    assert lose.final.loss.mean() > keep.final.loss.mean()


def test_selective_updates_save_time_and_freeze_the_finished():
    over = {"selective": 0.5, "structure": {"every": 10}}
    plain, lazy = run(QUICK), run(over)
    assert lazy.records["frozen_share"][:, -1].max() > 0
    assert (lazy.records["time_compute"][:, -1] <= plain.records["time_compute"][:, -1]).all()


def test_coarser_learning_steps_change_little():
    fine, coarse = run({"steps": 200}), run({"steps": 200, "learn_every": 5})
    np.testing.assert_allclose(coarse.records["micro_loss"][:, -1], fine.records["micro_loss"][:, -1], rtol=0.02)


def test_scheduling_on_the_present_is_as_good_as_its_replicas_allow():
    over = {"steps": 30, "record_every": 1, "routing": {"fidelity": "tokens"}, "tokens_per_step": 2e4}
    now, past = (run({**over, "placement": {"every": 10}}, placement=name) for name in ("scheduled", "lagged"))
    np.testing.assert_allclose(now.regrets["regret_schedule"], 0.0, atol=1e-9)
    assert (past.regrets["regret_schedule"] > 1e-3).all()
    assert now.records["max_over_mean"].mean() < past.records["max_over_mean"].mean()
    np.testing.assert_array_equal(now.records["loads"], past.records["loads"])


def test_policies_see_slow_devices():
    # eight equal experts, twelve slots, the first device at half speed
    even = {"reinforcement": 0.0, "affinity": 0.0, "noise": 0.0}
    over = {"routing": even, "steps": 12, "cluster": {"speeds": [0.5, 1.0, 1.0, 1.0]}, "schedule": {"dense_ratio": 0.0}}
    idle = {name: run(over, placement=name).records["idle_share"][:, -1] for name in ("static", "eplb", "scheduled")}
    np.testing.assert_allclose(idle["static"], 1 - (1 + 0.5 + 0.5 + 0.5) / 4)
    assert (idle["scheduled"] < 0.1).all()
    assert (idle["eplb"] < idle["static"]).all()
    static = run(over, placement="static")
    assert (static.records["regret_balance"] > 0.7).all()  # 4 against 8 / 3.5
    # of equal work the mean device needs (1 + .5 + .5 + .5)/4 of the time of the slow one
    assert static.setting.machine.cluster.busy_share == 0.625
    dense = run({"steps": 2, "routing": even, "cluster": over["cluster"], "schedule": {"dense_ratio": 1e9}})
    np.testing.assert_allclose(dense.records["utilisation"], 0.625, rtol=1e-6)


def test_keys_without_effect_are_told():
    from moesim.balance.run import idle

    made = config()
    assert {"routing.batch", "schedule.padding", "schedule.dense_share", "structure.threshold"} <= set(idle(made))
    used = {"routing": {"capacity_factor": 2.0}, "schedule": {"dense_flops_per_token": 1e9}}
    assert not {"schedule.padding", "schedule.dense_share"} & set(idle(config(used)))


def test_slow_migration_is_paid_for():
    free, dear = (run({"placement": {"every": 10}, "chip": {"scale_up": v}}, placement="eplb") for v in (1e15, 1e9))
    assert free.records["time_migration"].max() < 1e-4 < dear.records["time_migration"].max()


def test_bounded_migration_moves_less_than_rebalancing():
    moved = {}
    for name in ("eplb", "bounded"):
        given = setting(config({"steps": 200}, placement=name), (0,))
        moved[name] = sum(state.migrated.sum() for state, _ in simulate.trajectory(given))
    assert moved["bounded"] <= moved["eplb"]


def test_best_cut_of_a_tree():
    assert best_cut(np.array([1.0, 1, 1, 1])) == ((0, 2), 0.5)
    assert best_cut(np.array([0.0, 0, 3, 0]))[1] in (0.0, 1.0)
    assert best_cut(np.array([1.0, 0, 0, 0, 0, 0, 0, 1]))[1] == 0.5


def test_capped_mixture_fills_like_water():
    np.testing.assert_allclose(
        sampling.capped(np.array([[0.6, 0.3, 0.1]]), np.array([[0.3, 1, 1]])), [[0.3, 0.525, 0.175]]
    )


def test_epoch_caps_hold():
    over = {"world": {"domains": 8, "unique_tokens": 2e8}, "sampling": {"epoch_cap": 2.0, "every": 1}}
    outcome = run(over, sampling="temperature")
    assert (outcome.final.seen <= 2.0 * outcome.setting.world.unique * (1 + 1e-9)).all()


def test_proportional_counts_use_every_slot():
    loads = np.random.default_rng(0).lognormal(0, 1.5, (20, 7))
    counts = placement.proportional_counts(loads, 12)
    assert (counts.sum(1) == 12).all()
    assert (counts >= 1).all()


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("a", [0.1, 0.28, 0.5])
def test_optimal_sampling_has_no_regret_without_interference(a, pooled):
    """For a law of each domain's own tokens, and for one of the corpus, which holds for natural sampling."""
    curve = {"coefficients": {"E": 1e-300, "A": 1e-300, "B": 1.0, "beta": a}, "pooled": pooled}
    world = {"domains": 32, "rho": 0.0, "unique_tokens": np.inf, "curve": curve}
    over = {"experts": 1, "world": world, "cluster": {"devices": 1}, "seeds": 1}
    best, natural, flat = (run(over, sampling=name) for name in ("optimal", "natural", "unimax"))
    p, tokens = best.setting.world.natural, best.setting.tokens * 60
    closed = tokens**-a * (p ** (1 / (1 + a))).sum() ** (1 + a) / ((p ** (1 - a)).sum() if pooled else 1.0)
    assert best.records["micro_loss"][0, -1] == pytest.approx(closed, rel=1e-9)
    assert best.records["regret_loss"][0, -1] == pytest.approx(0.0, abs=1e-6 * closed)
    assert natural.records["regret_loss"][0, -1] > 1e-4 * closed
    assert flat.records["regret_loss"][0, -1] > natural.records["regret_loss"][0, -1]


def test_merging_pruning_and_growing_change_the_number_of_experts():
    cold = {"structure": {"every": 10, "below": 0.9}}
    assert run(cold, structure="merge").final.alive.sum(1).max() < 8
    pruned = run({"structure": {"every": 10, "below": 0.9, "tail": 0.5}, "steps": 35}, structure="prune")
    assert pruned.final.alive.sum(1).max() < 8
    assert not np.isfinite(pruned.final.scores[:, 0][~pruned.final.alive]).any()
    grown = run({"structure": {"every": 20, "factor": 1.25}}, structure="grow").records["experts_alive"]
    assert grown[:, -1].min() > 8


def test_clones_come_apart_only_if_success_is_reinforced():
    over = {"structure": {"every": 10, "at_most": 1}, "steps": 300, "max_experts": 9}
    fed = run({**over, "routing": {"reinforcement": 3.0}}, structure="clone")
    left = run({**over, "routing": {"reinforcement": 0.0}}, structure="clone")
    assert np.isfinite(fed.separation[:, 8]).any()  # where one clone takes all of it, nothing is left to compare
    assert np.isnan(left.separation).all()
    assert (fed.final.parent[:, 8] >= 0).all()


def test_tokens_between_updates_are_learned_in_full():
    over = {"routing": {"reinforcement": 0.0, "decay": 0.0}, "structure": {"every": 7}, "sampling": {"every": 3}}
    for choices in ({}, {"structure": "split", "sampling": "feed_idle_power"}):
        fine, coarse = run(over, **choices), run({**over, "learn_every": 4}, **choices)
        np.testing.assert_allclose(coarse.final.learned, fine.final.learned, rtol=1e-10)
        np.testing.assert_allclose(coarse.records["loads"], fine.records["loads"], rtol=1e-10)
        # what an expert was last trained on is followed to the second order of a stride over its inertia
        np.testing.assert_allclose(coarse.final.loss, fine.final.loss, rtol=1e-6)
