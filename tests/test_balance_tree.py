"""A router that is a tree: its limits are the flat router and closed forms; its cost, its balance and its splits."""

from dataclasses import replace

import numpy as np
import pytest
from balance_tools import row
from hypothesis import given as drawn
from hypothesis import strategies as st
from scipy.integrate import quad

import moesim
from moesim.balance import branches, routing, setting, simulate
from moesim.balance.branches import Branches, Rule, levels
from moesim.errors import InputError
from moesim.models import tree

L3 = np.log(3.0)
SMALL = {"steps": 60, "seeds": 2, "experts": 8, "record_every": 5, "cluster.devices": 4, "cluster.slots_per_device": 4}


def run(**over):
    return moesim.simulate(**{**SMALL, "routing": "tree", **over})


def grown(depth, gain=np.inf, seeds=1, **options):
    """Trees with leaves at these depths, in order."""
    policy = routing.routing["tree"]
    rule = Rule(**{**policy.takes, **options})
    deep = np.array([depth])
    place = np.cumsum(0.5**deep, axis=1) - 0.5**deep
    return Branches(rule, place, deep, np.full(seeds, gain), np.full(seeds, np.nan))


def shares(made, *logits):
    z = np.array([logits], dtype=float)
    return made.shares(z, np.isfinite(z).all(axis=1))


# Leaves' depths, gain, leak, logits of one domain, shares.
PAPER = {
    "rounded is flat": ((1, 2, 2), np.inf, 0.0, (L3, 0.0, 0.0), (0.6, 0.2, 0.2)),
    # gain 1/sqrt(3): half as sharp. Weights 9 : 1 of a leaf, 3 : 1 a decision; below 1 : 1
    "soft": ((1, 2, 2), 3**-0.5, 0.0, (np.log(18.0), 0.0, 0.0), (0.75, 0.125, 0.125)),
    # 9 : 1 at each decision, so .75, of which a tenth leaks: .7
    "leak": ((2, 2, 2, 2), 3**-0.5, 0.1, (4 * L3, 2 * L3, 2 * L3, 0.0), (0.49, 0.21, 0.21, 0.09)),
    "leak, one": ((1, 1), 3**-0.5, 0.1, (2 * L3, 0.0), (0.7, 0.3)),
    "rounded does not leak": ((1, 1), np.inf, 0.1, (L3, 0.0), (0.75, 0.25)),
    "one leaf": ((0,), 1.0, 0.1, (5.0,), (1.0,)),
    "a leaf that is gone": ((1, 2, 2), 1.0, 0.3, (-np.inf, 0.0, 0.0), (0.0, 0.5, 0.5)),
}


@pytest.mark.parametrize("name", PAPER)
def test_shares_on_paper(name):
    depth, gain, leak, logits, expected = PAPER[name]
    np.testing.assert_allclose(shares(grown(depth, gain, leak=leak), logits), [[expected]], atol=1e-12)


def test_skew_multiplies_down_the_tree():
    """Every decision sends .6 one way: the hottest of 2^d leaves has 1.2^d of the fair share."""
    for depth in (1, 3, 8):
        bits = (np.arange(2**depth)[:, None] >> np.arange(depth)) & 1
        logits = np.log(1.5) * (1 - bits).sum(axis=1)
        hottest = shares(grown([depth] * 2**depth), logits).max() * 2**depth
        assert hottest == pytest.approx(tree.hottest_leaf(depth, 0.1), rel=1e-12)


def test_levels_of_an_uneven_tree():
    """Depths 1, 3, 3, 2: a fork at the root, one below its right branch, one below that one's left."""
    roots, *below = levels(grown((1, 3, 3, 2)).place[0].tobytes())
    assert roots.branch.tolist() == [0, 0, 0, 0]
    assert [level.branch.tolist() for level in below] == [[0, 1, 1, 1], [0, 1, 1, 2], [0, 1, 2, 3]]
    assert [level.forked.tolist() for level in below] == [[1, 1], [0, 1, 1], [0, 1, 1, 0]]
    tilt = below[1].tilt(np.array([[5.0, 3.0, 3.0, 2.0]]))
    np.testing.assert_allclose(tilt, [[0, 0.75 - 2 / 3, 0.25 - 1 / 3]])


@pytest.mark.parametrize(("gain", "size"), [(0.5, 0.0), (1.0, 2.0), (8.0, 0.0), (8.0, 3.3), (15.0, 1.0)])
def test_entropy_of_a_decision_over_tokens_that_differ(gain, size):
    def mean(of):
        density = lambda x: 1 / (4 * np.cosh(x / 2) ** 2)  # noqa: E731
        return quad(lambda x: density(x) * of(1 / (1 + np.exp(-gain * (size + x)))), -40, 40, points=[-size], limit=400)

    at, *values = branches._noisy(gain)
    entropy, falls = (np.interp(size, at, value) for value in values)
    assert entropy == pytest.approx(mean(tree.decision_entropy)[0], abs=3e-3)
    step = 1e-3 * gain
    there, *further = (np.interp(size, *pair) for pair in zip([at] * 2, branches._noisy(gain + step)[1:], strict=True))
    assert falls == pytest.approx((entropy - there) / step, rel=0.01)
    assert further


def test_rounding_is_harmless_from_a_gain_of_about_eight():
    """Far above 1 the entropy of an even decision is pi^2/3 / (4 gain): density 1/4 of the tokens at the edge."""
    made = grown((1, 1), 1.0, seeds=1)
    even, there, mixture = np.zeros((1, 1, 2)), np.ones((1, 2), dtype=bool), row(1.0)
    at = {gain: replace(made, gain=np.array([gain])).hardness(even, there, mixture)[0][0] for gain in (8.0, 8.5, 20.0)}
    assert at[8.5] < tree.HARMLESS < at[8.0]
    assert at[20.0] == pytest.approx(np.pi**2 / 3 / 4 / 20, rel=0.01)


def test_a_hard_tree_is_the_flat_router():
    """One of 2^d leaves by d decisions is top-1 of as many experts."""
    flat, hard = run(routing="topk"), run(**{"routing.training": "hard"})
    for name in ("micro_loss", "loads", "wall_clock"):
        np.testing.assert_allclose(hard[name], flat[name], rtol=1e-12)
    assert not hard.rounding.any()
    assert not hard.decision_entropy.any()
    assert (hard.hardened == 0).all()


def test_soft_training_touches_every_leaf():
    """Eight leaves compute all tokens on four devices, two each; loads stay shares; the dense part stays one leaf's."""
    even = {"routing.affinity": 0.0, "routing.noise": 0.0, "routing.reinforcement": 0.0}
    even |= {"chip.latency": 0.0, "schedule.microbatches": 8}  # products long enough to be efficient
    soft, hard = (run(**even, **{"routing.training": name}) for name in ("soft", "hard"))
    tokens = float(hard.loads.sum("expert")[0, 0])
    np.testing.assert_allclose(soft.loads.sum("expert"), tokens)
    np.testing.assert_allclose(soft.device_loads, 2 * tokens)
    np.testing.assert_allclose(soft.time_compute, 8 * hard.time_compute, rtol=0.01)
    np.testing.assert_allclose(soft.time_dense, hard.time_dense)
    np.testing.assert_allclose(soft.time_wait, 0, atol=1e-9)
    assert (soft.regret_balance > -1e-9).all()
    # each token travels to three other devices, once each; of one leaf's tokens three in four travel
    np.testing.assert_allclose(soft.time_all_to_all, 4 * hard.time_all_to_all)


def test_a_tree_hardens_and_then_computes_one_leaf():
    data = run(steps=300, record_every=10)
    at = data.hardened.isel(step=-1).values
    assert (at > 20).all()
    assert (at < 300).all()
    for seed in range(2):
        own, before = data.isel(seed=seed), data.isel(seed=seed).step.values < at[seed]
        assert (np.diff(own.decision_entropy.values) < 0.02).all()
        assert (own.decision_entropy.values[before] > tree.HARMLESS - 0.02).all()
        assert not own.decision_entropy.values[~before].any()
        assert own.rounding.values[before][-1] < 0.02
        assert own.step_time.values[-1] < 0.5 * own.step_time.values[0]


def test_the_weight_of_the_entropy_says_when():
    """Twice the weight hardens earlier, none never; a weight that rises later, later."""
    weights = [{"routing.entropy": w} for w in (6.0, 3.0)] + [{"routing.begin": 100}, {"routing.rise": 400}]
    fast, plain, late, slow = (run(steps=300, **over).hardened.isel(step=-1).values for over in weights)
    assert (fast < plain).all()
    assert (plain < late).all()
    assert (plain < slow).all()
    assert np.isnan(run(steps=300, **{"routing.entropy": 0.0}).hardened).all()
    rule = Rule(**{**routing.routing["tree"].takes, "begin": 10, "rise": 20})
    assert [rule.weight(step) for step in (0, 10, 20, 30, 99)] == [0, 0, 1.5, 3, 3]


def test_the_gain_rises_as_the_cube_root_of_time():
    """d gain = rate x weight x density x pi^2/3 / gain^2: even decisions have a density of 1/4."""
    over = {"affinity": 0.0, "noise": 0.0, "reinforcement": 0.0, "rate": 1.0, "gain": 12.0, "training": "soft"}
    given = of(**{f"routing.{key}": value for key, value in over.items()})
    state = simulate.start(given)
    for _ in range(600):
        state = replace(branches.advanced(given, state), step=state.step + 1)
    t = 59 * branches.EVERY * 3.0  # nothing in the first of 60 looks
    np.testing.assert_allclose(state.tree.gain, (12.0**3 + t * np.pi**2 / 4) ** (1 / 3), rtol=0.01)


def of(**over):
    """The setting of a run of trees."""
    from test_learning_invariants import whole

    return setting.setting(whole({**SMALL, "routing": "tree", **over}), (0, 1))


@pytest.mark.parametrize(
    ("experts", "active", "depths"),
    [
        (8, 1, [3] * 8),
        (5, 1, [3, 3, 2, 2, 2]),
        (1, 1, [0]),
        (8, 2, [2] * 8),
        (7, 3, [2, 1, 1, 2, 1, 1, 1]),
        (4, 4, [0] * 4),
    ],
)
def test_depth_follows_the_number_of_experts(experts, active, depths):
    """Expert e in tree e mod K; depths as near one another as the number allows; every tree is full (Kraft)."""
    given = of(experts=experts, active_experts=active)
    made = branches.planted(given)
    assert made.depth[0, :experts].tolist() == depths
    assert made.tree[0, :experts].tolist() == [e % active for e in range(experts)]
    full = np.bincount(made.tree[0, :experts], 0.5 ** made.depth[0, :experts])
    assert full.tolist() == [1.0] * active


@drawn(
    loads=st.lists(st.floats(1e-9, 1), min_size=2, max_size=24),
    active=st.integers(1, 2),
)
def test_adapted_trees_are_as_deep_as_the_entropy(loads, active):
    n = len(loads)
    load, there = np.array([loads]), np.ones((1, n), dtype=bool)
    made = grown([5] * n)
    if n < 2 * active:
        active = 1
    made = replace(made, place=np.arange(n)[None] % active + np.arange(n)[None] / 64)
    new = made.adapted(load, there)
    for one in range(active):
        mask = made.tree[0] == one
        own = load[0, mask] / load[0, mask].sum()
        mean, bits = float(own @ new.depth[0, mask]), branches._bits(own)
        assert bits - 1e-6 <= mean < bits + 1
        assert (0.5 ** new.depth[0, mask]).sum() == 1
    assert (new.tree == made.tree).all()
    z = np.random.default_rng(n).standard_normal((1, 3, n))
    np.testing.assert_allclose(new.shares(z, there), made.shares(z, there), rtol=1e-9)  # rounded, a tree is a tree


def test_a_run_adapts_its_trees():
    data = run(steps=200, experts=16, **{"routing.adapt": 50, "routing.training": "hard"}).isel(step=-1)
    assert (data.mean_depth - data.leaf_bits > -1e-6).all()
    assert (data.mean_depth - data.leaf_bits < 1).all()
    even = run(steps=200, experts=16, **{"routing.training": "hard"}).isel(step=-1)
    assert (data.mean_depth < even.mean_depth).all()
    np.testing.assert_allclose(data.micro_loss, even.micro_loss, rtol=1e-9)


def test_a_split_is_one_node_below_a_leaf():
    made = grown((1, 2, 2), 1.0)
    room = replace(made, place=np.append(made.place, [[0.0]], 1), depth=np.append(made.depth, [[0]], 1))
    new = room.split(0, 1, 3)
    assert new.depth.tolist() == [[1, 3, 2, 3]]
    assert new.place.tolist() == [[0, 0.5, 0.75, 0.625]]
    before = shares(made, (1.0, 2.0, 0.5))
    after = shares(new, (1.0, 2.0 + np.log(0.7), 0.5, 2.0 + np.log(0.3)))
    np.testing.assert_allclose(after[..., [0, 2]], before[..., [0, 2]], rtol=1e-12)
    np.testing.assert_allclose(after[..., 1] + after[..., 3], before[..., 1], rtol=1e-12)


def test_a_leaf_cannot_be_split_for_ever():
    made = grown((1, 1))
    made = replace(made, place=np.append(made.place, [[0.0]], 1), depth=np.append(made.depth, [[0]], 1))
    for _ in range(43):
        made = made.split(0, 0, 2)
    with pytest.raises(InputError, match="a leaf 44 levels deep is to be split once more"):
        made.split(0, 0, 2)


STRUCTURES = ["split", "clone", "split_or_replicate", "replicate", "merge", "prune", "grow"]


@pytest.mark.parametrize("active", [1, 2])
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_work_on_trees(name, active):
    """Every token has a leaf of every tree, whatever comes and goes."""
    over = {"structure": name, "structure.every": 10, "active_experts": active, "steps": 60, "world.skew": 1.5}
    over |= {"prune": {"structure.below": 1.0, "structure.tail": 0.9}, "merge": {"structure.below": 2.0}}.get(name, {})
    data = run(**over)
    tokens = active * 2.0**22
    np.testing.assert_allclose(data.loads.sum("expert"), tokens, rtol=1e-9)
    assert (data.edits.isel(step=-1) > 0).any()
    assert (data.mean_depth > 0).all()


def test_the_last_leaf_of_a_tree_stays():
    """Of two trees of four leaves, all that are cold may go but one each."""
    from moesim.balance.structure import prune_edit

    state = simulate.start(of(active_experts=2, structure="prune"))
    for expert in (0, 2, 4, 6):
        state = prune_edit(0, expert)(state)
    assert state.alive[0, :8].tolist() == [False, True] * 3 + [True, True]
    assert state.alive[1, :8].all()


def test_balance_at_each_decision():
    """Loads 6, 2 | 1, 1: the root and its left branch tilt left, the right one is even; half a step on each side."""
    made = grown((2, 2, 2, 2))
    control = routing.controls.only({"policy": "nodes", "step": 0.1, "worth": 2.0})
    ones = np.ones((1, 4), dtype=bool)
    nothing = np.zeros((1, 1, 4))
    _, bias = control(nothing, np.zeros((1, 4)), nothing, row(6.0, 2.0, 1.0, 1.0), row(10.0), ones, made)
    np.testing.assert_allclose(bias, [[-0.2, 0.0, 0.1, 0.1]])


def test_nodes_balance_a_tree_that_nothing_else_balances():
    plain, even = (run(steps=400, **over).isel(step=-1) for over in ({}, {"routing.control": {"policy": "nodes"}}))
    assert (even.max_vio < 0.3 * plain.max_vio).all()
    assert (even.node_tilt < 0.5 * plain.node_tilt).all()
    bound = (1 + 2 * plain.node_tilt) ** 3
    assert (1 + plain.max_vio <= bound + 1e-9).all()


def test_two_trees_choose_one_leaf_each():
    """Companions of an expert are those of the other tree: their expected sum is added, whatever this tree does."""
    from moesim.domains.learning import with_others

    chance = np.array([[[0.25, 0.5, 0.75, 0.5]]])
    term = np.array([[[1.0, 10.0, 2.0, 30.0]]])
    place = np.array([[0, 1, 0, 1]])
    np.testing.assert_allclose(with_others(chance, term, 1, place), [[[21.0, 11.75, 22.0, 31.75]]])


def test_leaves_starve_with_depth():
    """Where all domains are one, and a leaf that sees less knows less: each level halves what it sees, and costs."""
    alike = {"world.domains": 1, "routing.noise": 0.0, "routing.affinity": 0.0, "routing.reinforcement": 0.0}
    alike |= {"cluster.slots_per_device": 8, "capacity": 1e8}
    ends = [run(experts=2**depth, **alike).isel(step=-1) for depth in (0, 1, 3, 5)]
    for depth, end in zip((0, 1, 3, 5), ends, strict=True):
        np.testing.assert_allclose(end.loads.where(end.alive, drop=True), tree.samples_per_leaf(2.0**22, depth))
        np.testing.assert_allclose(end.mean_depth, depth)
    assert (np.diff([float(end.micro_loss.mean()) for end in ends]) > 0.01).all()


def test_bits_are_those_of_one_tree():
    data = run(active_experts=2, **{"routing.affinity": 0.0, "routing.noise": 0.0, "routing.reinforcement": 0.0})
    np.testing.assert_allclose(data.leaf_bits, 2.0)
    np.testing.assert_allclose(data.mean_depth, 2.0)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"routing.leak": 0.7}, "leak=0.7"),
        ({"routing.rise": 0}, "rise=0; it takes a whole number of 1"),
        ({"routing.training": "warm"}, "training='warm'; it takes rounded or soft or hard"),
        ({"routing.gain": 0.0}, "gain=0"),
        ({"routing.capacity_factor": 1.25}, "capacity_factor=1.25 with training=rounded"),
        ({"routing": {"control": {"policy": "nodes"}}}, "control nodes: routing=topk has no nodes; give routing=tree"),
        ({"routing.height": 3}, "unknown option 'height'"),
    ],
)
def test_bad_input(over, message):
    with pytest.raises(InputError, match=message):
        run(**over)


def test_side_by_side_with_a_flat_router():
    data = run(policies={"flat": {"routing": "topk"}, "tree": {}})
    assert np.isnan(data.decision_entropy.sel(policy="flat")).all()
    assert np.isfinite(data.decision_entropy.sel(policy="tree")).all()


def test_single_tokens_are_drawn():
    over = {"steps": 20, "routing.fidelity": "tokens", "tokens_per_step": 1e5, "active_experts": 2}
    data = run(**over)
    np.testing.assert_allclose(data.loads.sum("expert"), 2e5)


def test_the_table_says_when_and_how_deep():
    from moesim.balance import tables

    hard = run(**{"routing.training": "hard"})
    assert "run: decisions round harmlessly from step 0 in 2 of 2 seeds (mean entropy 0.000" in tables.table(hard)
    assert "3.00 decisions above a token's leaf" in tables.table(hard)
    never = run(**{"routing.entropy": 0.0})
    assert "harmlessly never" in tables.table(never)
    assert "decisions" not in tables.table(run(routing="topk"))


def test_a_figure_shows_how_it_hardens():
    from moesim.balance import figures

    assert "tree" in figures.draw(run())
    assert "tree" not in figures.draw(run(routing="topk"))
