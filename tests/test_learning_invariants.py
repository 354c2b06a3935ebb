"""What must hold whatever the model of learning: no description, limit, sum or split changes a number it may not."""

from dataclasses import replace

import numpy as np
import pytest

import moesim
from moesim.balance import records, simulate, structure
from moesim.balance.setting import setting
from moesim.domains import learning
from moesim.errors import InputError

SMALL = {"steps": 40, "seeds": 2, "experts": 8, "record_every": 5, "cluster.devices": 4, "cluster.slots_per_device": 4}
UNIQUE = {"world.unique_tokens": np.inf}
EVEN = {
    "routing.affinity": 0.0,
    "routing.noise": 0.0,
    "routing.reinforcement": 0.0,
}  # a router that tells nothing apart
LOSSES = ("micro_loss", "macro_loss", "tail_loss", "domain_loss")


def run(**over):
    return moesim.simulate(**{**SMALL, **over})


def same(one, other, rtol, names=LOSSES):
    for name in names:
        np.testing.assert_allclose(one[name].values, other[name].values, rtol=rtol, err_msg=name)


# Description.
HOW = {
    "as it is": {},
    "feeding": {"sampling": "feed_idle"},
    "flatter": {"sampling": "temperature"},
    "capped": {"sampling": "unimax"},
    "best mixture": {"sampling": "optimal"},
    "gains": {"sampling": "marginal_gain"},
    "loss": {"sampling": "bandit"},
    "rare again": {"sampling": "replay"},
    "rare generated": {"sampling": "rehearsal"},
    "two at once": {"active_experts": 2, "shared_experts": 1},
    "forgetting": {"forgetting": 1e-10},
    "overfitting": {"world.unique_tokens": 4e7, "world.overfit": {"strength": 0.01}},
    "balanced": {"routing": "loss_free"},
    "a tree": {"routing": "tree"},
    "two trees": {"routing": {"policy": "tree", "control": "nodes"}, "active_experts": 2},
    "skipped": {"selective": 0.5, "structure.every": 10},
}


@pytest.mark.parametrize("name", HOW)
def test_alike_parts_are_only_a_description(name):
    """Every domain cut in three, or the frequent ones by an atom: nothing that is told changes."""
    over = {"world.domains": 12, "world.rho": 0.1, **HOW[name]}
    whole = run(**over)
    for cut in ({"world.parts": 3}, {"world.atom": 0.05}):
        parts = run(**over, **cut)
        same(whole, parts, 1e-9, (*LOSSES, "loads", "sampling_weight", "wall_clock", "domain_epochs"))


# One expert is the plain law.
def plain(data, capacity, repeats=np.inf):
    tokens = data.tokens.values
    if np.isfinite(repeats):
        U, R = repeats, 15.387756
        tokens = np.where(tokens > U, U + U * R * -np.expm1(-(tokens / U - 1) / R), tokens)
    return 1.69 + 406.4 * capacity**-0.34 + 410.7 * tokens**-0.28


@pytest.mark.parametrize("domains", [1, 7, 64, 300])
@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("unique", [np.inf, 3e7])
def test_one_expert_is_the_plain_law(domains, rho, unique):
    over = {"experts": 1, "capacity": 1e8, "record_every": 1, "world.domains": domains, "world.rho": rho}
    data = run(**over, **{"world.unique_tokens": unique, "world.skew": 1.3})
    expected = plain(data, 1e8, unique)
    assert (expected < np.log(5e4)).all()
    np.testing.assert_allclose(data.micro_loss, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["kaplan2020", "besiroglu2024", "zhao2025"])
def test_one_expert_is_any_law(name):
    from moesim.laws.load import load_law

    law = load_law(name)
    sizes = {key: 1e8 for key in law.inputs if key.endswith("params")}
    others = {"sparsity": 0.0, "experts": 1.0, "active_experts": 1.0, "shared_experts": 0.0, "activation_ratio": 1.0}
    data = run(**{"experts": 1, "capacity": 1e8, "world.curve": {"name": name}, **UNIQUE})
    inputs = {key: {**others, "shared_ratio": 0.0, **sizes}.get(key, data.tokens.values) for key in law.inputs}
    expected = np.minimum(law(**inputs), np.log(5e4))
    np.testing.assert_allclose(data.micro_loss, expected, rtol=1e-10)


# Many active experts add up.
def test_all_experts_are_one_of_their_size():
    for over in (
        {},
        {"shared_experts": 2},
        {"routing": "tree"},
        {"sampling": "temperature"},
        {"world.unique_tokens": 2e7},
    ):
        many = run(**{"active_experts": 8, "capacity": 1e8, **over})
        one = run(**{"experts": 1, "capacity": (8 + over.get("shared_experts", 0)) * 1e8, **over, "shared_experts": 0})
        same(many, one, 1e-9)
        np.testing.assert_allclose(many.loads.sum("expert"), 8 * one.loads.sum("expert"))


TREES = [{"routing": "tree"}, {"routing": "tree", "active_experts": 2}]


@pytest.mark.parametrize("over", [{}, {"structure": "fixed", "sampling": "feed_idle"}, {"active_experts": 2}, *TREES])
def test_twice_as_many_halves_are_the_same(over):
    """Granularity: pairs that share score and noise; affinity follows experts / active_experts."""
    whole = run(**{"capacity": 1e8, **over})
    fine = {"experts": 16, "active_experts": 2 * over.get("active_experts", 1), "twins": 2, "capacity": 5e7}
    same(whole, run(**{**over, **fine}), 1e-9)
    even = {**EVEN, "twins": 1}
    same(run(**{"capacity": 1e8, **over, **EVEN}), run(**{**over, **fine, **even}), 1e-9)


@pytest.mark.parametrize(
    ("router", "over"), [("sinkhorn", {}), ("quantile", {}), ("base", {}), ("topk", EVEN), ("tree", EVEN)]
)
@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_more_active_experts_lower_the_loss(router, over, rho):
    """Of experts of one size, with unrepeated data and a router that balances."""
    ends = [
        run(**{"experts": 16, "active_experts": K, "steps": 150, "routing": router, "world.rho": rho, **UNIQUE, **over})
        for K in (1, 2, 4, 8, 16)
    ]
    losses = np.array([end.micro_loss.values[:, -1] for end in ends])
    assert (np.diff(losses, axis=0) < -0.01).all(), losses


# A split.
def started(steps=30, **over):
    """A setting and its state after some steps."""
    config = {**SMALL, "structure": "split", "structure.every": 1000, **over}
    given = setting(whole(config), (0, 1))
    state = simulate.start(given)
    for _ in range(steps):
        state, _ = simulate.step(given, state)
    return given, state


def whole(config):
    """A config as `simulate` makes it."""
    made = []
    from moesim.balance import policies

    original = policies.compared
    try:
        policies.compared = lambda config: made.append(config) or (_ for _ in ()).throw(KeyError)
        with pytest.raises(KeyError):
            moesim.simulate(**config)
    finally:
        policies.compared = original
    return made[0]


def split(given, state, way, expert=0):
    child = int(state.alive[0].sum())
    for row in range(state.seeds):
        demand = structure.natural_demand(state, given.world.natural)
        view = structure.View(state, given, row, np.array([expert]), demand)
        share = np.clip(structure.ways.only(way)(view, expert), 1e-9, 1 - 1e-9)
        state = structure.split_edit(row, expert, child, share, given.routing.temperature)(state)
    return state


def losses_now(given, state):
    """What the losses are under the routing of the next step, before anything is learned."""
    state = simulate.route_step(given, replace(state, drawn=given.tokens * given.world.natural))
    return simulate._judged(given, state, *given.abilities(state)).loss


SPLIT = {
    "one": {},
    "three": {"active_experts": 3},
    "shared": {"active_experts": 2, "shared_experts": 1, "shared_factor": 0.3},
    "overfitting": {"world.unique_tokens": 4e7, "world.overfit": {"strength": 0.01}},
    "sinkhorn": {"routing": "sinkhorn"},
    "hash": {"routing": "hash", "active_experts": 2},
    "choice": {"routing": "expert_choice"},
    "a tree": {"routing": "tree"},
    "two trees": {"routing": {"policy": "tree", "leak": 0.1}, "active_experts": 2},
    "a hard tree": {"routing": {"policy": "tree", "training": "hard"}},
}


@pytest.mark.parametrize("way", ["along_tree", "clone"])
@pytest.mark.parametrize("name", SPLIT)
def test_a_split_changes_no_loss_in_its_step(name, way):
    given, state = started(**SPLIT[name])
    before = losses_now(given, state)
    once = split(given, state, way)
    np.testing.assert_allclose(losses_now(given, once), before, rtol=1e-9)
    twice = split(given, once, way, expert=8)  # the child again
    np.testing.assert_allclose(losses_now(given, twice), before, rtol=1e-9)


@pytest.mark.parametrize("active", [1, 3])
def test_halves_of_one_mixture_are_never_better(active):
    """Clones that nothing tells apart share the tokens and gain nothing."""
    given, state = started(active_experts=active, **{"routing.reinforcement": 0.0})
    pair = split(given, state, {"policy": "clone", "noise": 0.0})
    for _ in range(60):
        state, pair = (simulate.step(given, at)[0] for at in (state, pair))
        assert (pair.loss >= state.loss * (1 - 1e-12)).all()
    assert (pair.loss > state.loss + 1e-5).any()
    assert (pair.bond[:, 8] == 0).all()


@pytest.mark.parametrize(("similarity", "pays"), [(1.0, False), (0.0, True)])
def test_splitting_pays_where_parts_differ(similarity, pays):
    """Divisible is one thing, different another: one big domain in 8 parts, one expert, split in two."""
    over = {"world.domains": 1, "world.parts": 8, "world.part_similarity": similarity, "experts": 1, "capacity": 1e7}
    given, state = started(**over, **UNIQUE)
    halves = split(given, state, "along_tree")
    for _ in range(60):
        state, halves = (simulate.step(given, at)[0] for at in (state, halves))
    np.testing.assert_allclose(state.loss.mean(axis=1), plain_loss(given, state), rtol=1e-12)
    gain = (state.loss - halves.loss).mean(axis=1)
    assert (gain > 0.02).all() if pays else (gain < 0).all()


def plain_loss(given, state):
    return 1.69 + 406.4 * given.capacity.expert**-0.34 + 410.7 * state.seen.sum(axis=1) ** -0.28


def freed(inertia, capacity, active=1):
    """Tokens of the parent until half of what a split can gain in parameters is gained."""
    over = {"routing.reinforcement": 0.0, "routing.decay": 0.0, "inertia": inertia, "capacity": capacity}
    given, state = started(5, active_experts=active, **over)
    state = split(given, state, {"policy": "along_tree", "leak": 1e-6})
    own = np.argmax(state.scores[0, :, 0])
    params, tokens = [], [0.0]
    for _ in range(400):
        state, _ = simulate.step(given, state)
        params.append(given.abilities(state)[0][0, own, 0])
        tokens.append(tokens[-1] + state.load[0, 0])
    assert (np.diff(params) > -1e-9 * params[0]).all()
    return np.interp(0.5 * (params[0] + params[-1]), params, tokens[1:])


def test_capacity_comes_as_data_part_over_tokens_in_proportion_to_size():
    small, large, quick = freed(1.0, 1e7), freed(1.0, 2e7), freed(0.5, 2e7)
    assert large == pytest.approx(2 * small, rel=0.1)
    assert quick == pytest.approx(small, rel=0.1)


def test_every_change_of_routing_meets_the_same_inertia():
    """Routing turned round: nobody has other parameters for it in that step, and all have after training enough."""
    given, state = started(5, capacity=1e7)
    before = given.abilities(state)[0]
    turned = replace(state, scores=state.scores[:, ::-1], probability=state.probability[:, ::-1])
    np.testing.assert_array_equal(given.abilities(turned)[0], before)
    for _ in range(300):
        turned, _ = simulate.step(given, turned)
    after = given.abilities(turned)[0]
    alive = np.s_[:, :, :8]
    assert np.abs(np.log(after[alive] / before[alive])).max() > 0.5


def test_experts_that_start_apart_are_distinct_and_clones_are_not():
    """In the first step distinct experts have more for what they serve than one that serves all; a clone has not."""
    given, state = started(1)
    best = state.probability.argmax(axis=2)
    params = np.take_along_axis(given.abilities(state)[0], best[:, :, None], axis=2)
    assert np.median(params) > 1.3 * given.capacity.expert
    clones = split(given, state, {"policy": "clone", "noise": 0.0})
    np.testing.assert_array_equal(given.abilities(clones)[0][:, :, 8], given.abilities(state)[0][:, :, 0])


# Bounded.
@pytest.mark.parametrize("over", [{}, {"active_experts": 3}, {"tokens_per_step": 1.0}, {"world.atom": 1e-3}, *TREES])
@pytest.mark.parametrize("precision", ["double", "single"])
def test_no_loss_is_above_that_of_an_untrained_model(over, precision):
    for vocabulary in (5e4, 100.0):
        data = run(**over, precision=precision, record_every=1, **{"world.vocabulary": vocabulary})
        losses = data[[*LOSSES]].to_array().values
        assert np.isfinite(losses[np.isfinite(losses)]).all()
        assert all(np.isfinite(data[name]).all() for name in LOSSES)
        assert max(float(data[name].max()) for name in LOSSES) <= np.log(vocabulary) * (1 + 1e-6)


def test_gains_at_the_bound_are_not_zero():
    given, state = started(1, tokens_per_step=100.0)
    assert (state.loss == np.log(5e4)).any()
    from moesim.balance.sampling import gains

    assert (gains(state, given) > 0).all()


def test_a_domain_that_never_comes_counts_in_no_loss():
    over = {"world": "given", "world.shuffle": False, "experts": 2, "cluster.devices": 2}
    there = run(**over, **{"world.frequency": [0.75, 0.25]})
    more = run(**over, **{"world.frequency": [0.75, 0.25, 0.0]})
    assert all(np.isfinite(more[name]).all() for name in LOSSES)
    assert not more.domain_epochs.sel(domain="2").any()
    np.testing.assert_allclose(more.macro_loss[:, 0], more.domain_loss[:, 0, :2].mean("domain"))
    assert there.sizes["domain"] == 2


# Precision.
@pytest.mark.parametrize("over", [{}, {"active_experts": 3}, {"structure": "split", "sampling": "feed_idle"}, *TREES])
def test_single_precision_agrees(over):
    double, single = (run(**over, **{"structure.every": 10}, precision=name) for name in ("double", "single"))
    for name in LOSSES:
        np.testing.assert_allclose(single[name], double[name], atol=1e-4)


# One size; worlds of different size.
def test_worlds_scale_with_their_experts():
    """16, 64 and 256 experts on 4 domains each: the favourite's share at the start, and the balance at equal tokens."""
    shares, ends = [], []
    for experts in (16, 64, 256):
        over = {"experts": experts, "world.domains": 4 * experts, "world.skew": 0.0, "cluster.devices": 8}
        over |= {"cluster.slots_per_device": experts // 8, "tokens_per_step": 2.0**18 * experts, "seeds": 1}
        state = simulate.start(setting(whole({**SMALL, **over}), (0,)))
        shares.append(float(state.probability.max(axis=2).mean()))
        ends.append(run(**{**over, "steps": 20}).max_over_mean.values[0, -1])
    assert max(shares) - min(shares) < 0.06
    assert max(ends) - min(ends) < 0.5


def test_capacity_is_the_expert_in_place_of_its_width():
    wide = run(**{"expert.d_expert": 704})
    same(wide, run(capacity=24 * 3 * 2048 * 704), 1e-12, (*LOSSES, "wall_clock"))
    with pytest.raises(InputError, match="two sizes of one expert"):
        run(**{"capacity": 1e8, "expert.d_expert": 704})


# Shared experts and factors, generated rehearsal, updates that are skipped.
def test_shared_experts_serve_all_and_cost_their_time():
    plain_run, helped = run(**{"world.rho": 0.0}), run(**{"world.rho": 0.0, "shared_experts": 2})
    assert (helped.macro_loss[:, -1] < plain_run.macro_loss[:, -1]).all()
    assert (helped.wall_clock[:, -1] > plain_run.wall_clock[:, -1]).all()
    one = run(experts=1, capacity=1e8, shared_experts=2)
    np.testing.assert_allclose(one.micro_loss, plain(one, 3e8), rtol=1e-12)


def test_a_shared_factor_pools_experience_and_parts_less_capacity():
    """All of it shared: every expert is the same, trained on everything."""
    nearly = run(shared_factor=1 - 1e-9, capacity=1e8)
    np.testing.assert_allclose(nearly.micro_loss, plain(nearly, 1e8), rtol=1e-6)
    one = run(experts=1, capacity=1e8, shared_factor=0.5)
    np.testing.assert_allclose(one.micro_loss, plain(one, 1e8), rtol=1e-12)


def test_generated_rehearsal_has_a_quality_and_a_price():
    over = {"sampling": "rehearsal", "world.unique_tokens": 2e7}
    poor, good = (run(**over, **{"sampling.quality": q}) for q in (0.1, 0.9))
    dear = run(**over, **{"sampling.quality": 0.9, "sampling.price": 1.0})
    assert (good.tail_loss[:, -1] < poor.tail_loss[:, -1]).all()
    same(good, dear, 1e-12)
    assert (dear.wall_clock[:, -1] > good.wall_clock[:, -1]).all()


def test_updates_are_skipped_by_gain_and_noise_but_never_at_first():
    over = {"selective": 0.5, "structure.every": 10, "record_every": 1, "world.rho": 0.0}
    data = run(**over, gradient_noise=0.0)
    assert (data.frozen_share[:, :10] == 0).all()
    assert data.frozen_share[:, 15:].mean() > 0
    # gains 3 and 2, of 10 and 90 tokens; where 90 tokens are half noise: 3 x .1, 2 x .5
    heard = learning.heard(np.array([[3.0, 2.0]]), np.array([[10.0, 90.0]]), 90.0)
    np.testing.assert_allclose(heard, [[0.3, 1.0]])


def test_the_bound_on_the_loss_holds_from_the_first_step():
    (outcome,) = records.outcomes(whole({**SMALL, "record_every": 1, "world.domains": 16}))
    assert np.nanmin(outcome.records["regret_loss"]) > -1e-9
    assert learning.effective_number(outcome.setting.world, 1e8, np.array([1e3, 1e12])).shape == (2, 1)


# Many things at once, as no policy's own test has them: each of these once broke the books, a bound or a number.
ODD = {
    "idle experts in single": {
        **{"precision": "single", "selective": 0.5, "sampling": "skip_solved", "learn_every": 3, "structure.every": 5},
        **{"world": "dolma", "world.rho": 0.3, "world.parts": 2, "world.part_similarity": 0.5, "shared_experts": 3},
        **{"tokens_per_step": 1e5, "routing": "loss_free_proportional", "structure": "replicate"},
    },
    "all solved": {"world": "quanta", "tokens_per_step": 1e13, "structure": "prune", "placement": "popularity"},
    "wide capacity": {"structure": "split", "tokens_per_step": 1e10, "routing.capacity_factor": 2.0},
    "half dropped": {"active_experts": 8, "routing.capacity_factor": 0.5, "schedule.overlap": True},
    "grown past its neighbours": {
        "structure": "split",
        "structure.every": 10,
        "placement": "lplb",
        "placement.every": 1,
    },
    "nothing repeats": {"world.overfit": {"strength": 0.3}, "sampling": "marginal_gain", "focus": 0.0, **UNIQUE},
    "slow, split, shared, in parts": {
        **{"active_experts": 3, "shared_experts": 1, "shared_factor": 0.2, "world.parts": 2, "sampling": "feed_idle"},
        **{"world.part_similarity": 0.5, "structure": "split_or_replicate", "structure.every": 5, "cluster.stages": 2},
        **{"cluster.speeds": [0.5, 1.0, 1.0, 2.0], "placement": "scheduled", "precision": "single"},
    },
}


@pytest.mark.parametrize("name", ODD)
def test_the_books_and_bounds_hold_however_much_is_asked_at_once(name):
    over = {**ODD[name]}
    data = run(**over)
    wanted = over.get("tokens_per_step", 2.0**22) * over.get("active_experts", 1)
    np.testing.assert_allclose(data.loads.sum("expert") + data.drop_share * wanted, wanted, rtol=1e-5)
    np.testing.assert_allclose(data.device_loads.sum("device"), data.loads.sum("expert"), rtol=1e-9)
    assert (data.micro_loss <= np.log(5e4) * (1 + 1e-6)).all()
    for regret in ("regret_balance", "regret_time", "regret_schedule", "regret_loss"):
        assert np.nanmin(data[regret]) > -1e-4
    unknown = {"regret_loss", "regret_floor", "tokens_to_target", "time_to_target", "separation_steps", "hardened"}
    assert all(np.isfinite(values).all() for name, values in data.items() if name not in unknown)
