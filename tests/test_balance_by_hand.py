"""Every policy, control, curve and metric on numbers that fit on paper: the arithmetic stands beside each row."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from balance_tools import row, setting, state, world

from moesim.balance import placement, routing, sampling, structure
from moesim.balance.placement import even

L3 = np.log(3.0)
EXPLORE = np.sqrt(np.log(2.0) / 4.0)
OWN = [[1.0, 0.0], [0.0, 1.0]]  # each domain has an expert of its own
APART = even(np.array([[0, 1]]), 2)  # and each expert a device

# Sampling: options, natural, changes of the state, the mixture. Tokens 10 a step, 100 steps, decision every 10.
SAMPLING = {
    "natural": ({}, (0.8, 0.2), {}, (0.8, 0.2)),
    # 0.8^2 : 0.2^2
    "temperature": ({"exponent": 2.0}, (0.8, 0.2), {}, (16 / 17, 1 / 17)),
    # 4 epochs of 225 and 50 tokens are .9 and .2 of the run's 1000: half each, the second capped at .2
    "unimax": ({"epochs": 4.0}, (0.6, 0.4), {"unique": (225.0, 50.0)}, (0.8, 0.2)),
    # a = 1 (the curve's exponent), target (.9, .1): sqrt(.9) : sqrt(.1) = 3 : 1
    "optimal": ({}, (0.8, 0.2), {"target": (0.9, 0.1)}, (0.75, 0.25)),
    # a = 3: fourth roots of 16 : 1 = 2 : 1
    "optimal, a given": ({"exponent": 3.0}, (0.8, 0.2), {"target": (16 / 17, 1 / 17)}, (2 / 3, 1 / 3)),
    # nobody above 1.1 x half of the tokens
    "feed_idle": ({"iterations": 200}, (0.8, 0.2), {}, (0.55, 0.45)),
    # the first expert has two of three copies: 1.1 x 2/3
    "feed_idle, copies": ({"iterations": 200}, (0.8, 0.2), {"copies": np.array([[2, 1]])}, (1.1 * 2 / 3, 1 - 2.2 / 3)),
    # half of .8 is kept; .4 + .5 f = .55 leaves f = .3
    "feed_idle, least": ({"iterations": 500, "least": 0.5}, (0.8, 0.2), {}, (0.55, 0.45)),
    # p / load^.5 = sqrt(.8) : sqrt(.2)
    "feed_idle_power": ({"strength": 0.5}, (0.8, 0.2), {}, (2 / 3, 1 / 3)),
    # a device each, one twice as fast (4/3 and 2/3 of the mean): 1.1 x 2/3 and what is left; .8/(.8/2) : .2/(.2/1)
    "feed_idle, speeds": (
        {"iterations": 200},
        (0.8, 0.2),
        {"placement": APART, "speed": (2.0, 1.0)},
        (2.2 / 3, 0.8 / 3),
    ),
    "feed_idle_power, speeds": ({}, (0.8, 0.2), {"placement": APART, "speed": (2.0, 1.0)}, (2 / 3, 1 / 3)),
    # loads per copy .4 and .2: .8/.4 : .2/.2 = 2 : 1
    "feed_idle_power, copies": ({}, (0.8, 0.2), {"copies": np.array([[2, 1]])}, (2 / 3, 1 / 3)),
    # speed = tokens x 1/tokens^2: .25 and 1; .8 x .25 x sqrt(.64) : .2 x 1 x sqrt(.36) = .16 : .12 = 4/7 : 3/7;
    # .9 (.64, .36) + .1 (4/7, 3/7); then .99 of it + .01 (.8, .2)
    "marginal_gain": (
        {},
        (0.8, 0.2),
        {"learned": np.array([[[4.0, 0.0], [0.0, 1.0]]]), "mixture": row(0.64, 0.36)},
        (0.99 * (0.576 + 0.4 / 7) + 0.008, 0.99 * (0.324 + 0.3 / 7) + 0.002),
    ),
    # turn 2: explore x = sqrt(ln 2 / 4); rewards .1 x (2/.8, 3/.2) = (.25, 1.5), so the odds are exp(1.25 x) to 1;
    # (1 - 2 x) x chances + x
    "bandit": (
        {},
        (0.8, 0.2),
        {"step": 20, "loss": row(2.0, 3.0), "mixture": row(0.8, 0.2)},
        tuple((1 - 2 * EXPLORE) / (1 + np.exp(sign * 1.25 * EXPLORE)) + EXPLORE for sign in (1, -1)),
    ),
    # seen + 5 = (40, 20), inverse 1 : 2; .8 (.8, .2) + .2 (1/3, 2/3)
    "replay": ({}, (0.8, 0.2), {"seen": row(35.0, 15.0)}, (0.64 + 0.2 / 3, 0.16 + 0.4 / 3)),
    # the same weights, the second part generated
    "rehearsal": ({}, (0.8, 0.2), {"seen": row(35.0, 15.0)}, (0.64 + 0.2 / 3, 0.16 + 0.4 / 3)),
    # gains 1/tokens^2: 1e-18 of the largest is solved
    "skip_solved": ({}, (0.8, 0.2), {"learned": np.array([[[1e9, 0.0], [0.0, 1.0]]])}, (0.0, 1.0)),
    # and 1e-2 of it is not
    "skip_solved, open": ({}, (0.8, 0.2), {"learned": np.array([[[10.0, 0.0], [0.0, 1.0]]])}, (0.8, 0.2)),
}


@pytest.mark.parametrize("name", SAMPLING)
def test_sampling(name):
    options, natural, over, expected = SAMPLING[name]
    over = dict(over)
    fast = over.pop("speed", (1.0, 1.0))
    given = setting(world(natural, over.pop("unique", None), over.pop("target", None)), speed=fast)
    policy = sampling.sampling.only({"policy": name.partition(",")[0], **options})
    mixture, _ = policy(state(OWN, **over), given)
    np.testing.assert_allclose(mixture, [expected], rtol=1e-6, atol=1e-12)


def test_every_sampler_has_a_row():
    assert {name.partition(",")[0] for name in SAMPLING} == set(sampling.sampling)


def test_a_mixture_stays_between_decisions_and_within_the_epoch_cap():
    # 2 epochs of (30, 500) leave 60 - 40 = 20 tokens of the first domain for 10 steps of 10: a weight of .2
    policy = sampling.build({"policy": "natural", "every": 10, "epoch_cap": 2.0})
    given = setting(world((0.8, 0.2), (30.0, 500.0)))
    at = state(OWN, seen=row(40.0, 0.0), mixture=row(0.5, 0.5))
    np.testing.assert_allclose(sampling.sample(policy, at, given)[0], [[0.2, 0.8]])
    np.testing.assert_array_equal(sampling.sample(policy, replace(at, step=11), given)[0], [[0.5, 0.5]])
    # 5 steps before the end the same 20 tokens are .4
    late = replace(at, step=90)
    np.testing.assert_allclose(sampling.sample(policy, late, setting(given.world, steps=95))[0], [[0.4, 0.6]])


# Routing: logits (domain, expert), tokens of the domains, active, options, alive, probabilities.
ASSIGN = {
    "topk": ([[L3, 0.0]], (1.0,), 1, {}, [[0.75, 0.25]]),
    # 8 : 1 : 1 of two: the first is capped at 1, the others share the second place
    "topk, two": ([[np.log(8.0), 0.0, 0.0]], (1.0,), 2, {}, [[1.0, 0.5, 0.5]]),
    # 9E3779B97F4 is even, twice the constant 3C6EF372FE9 odd
    "hash": ([[9.0, 0.0], [9.0, 0.0]], (1.0, 1.0), 1, {}, [[1.0, 0.0], [0.0, 1.0]]),
    "hash, salt": ([[0.0, 0.0]], (1.0,), 1, {"salt": 1}, [[0.0, 1.0]]),
    "hash, two": ([[0.0, 0.0, -np.inf]], (1.0,), 2, {}, [[1.0, 1.0, 0.0]]),
    # room 50 each; the first expert likes the first domain (.75 > .5): 50 of its 60 tokens; the second takes all
    # 40 of the second domain (.5 > .25) and 10 of the first
    "expert_choice": ([[L3, 0.0], [0.0, 0.0]], (60.0, 40.0), 1, {}, [[5 / 6, 1 / 6], [0.0, 1.0]]),
    # half the room: 25 of 60, 25 of 40
    "expert_choice, half": ([[L3, 0.0], [0.0, 0.0]], (60.0, 40.0), 1, {"capacity": 0.5}, [[5 / 12, 0], [0.0, 5 / 8]]),
    # one domain: equal loads halve it
    "balanced": ([[L3, 0.0]], (1.0,), 1, {}, [[0.5, 0.5]]),
    # mirror images are even as they are; sharpness 2 squares the odds
    "balanced, sharp": ([[L3, 0.0], [0.0, L3]], (1.0, 1.0), 1, {"sharpness": 2.0}, [[0.9, 0.1], [0.1, 0.9]]),
}


@pytest.mark.parametrize("name", ASSIGN)
def test_assignment(name):
    z, tokens, active, options, expected = ASSIGN[name]
    policy = routing.routing.only({"policy": name.partition(",")[0], **options})
    z = np.array([z])
    alive = np.isfinite(z).all(axis=1)
    np.testing.assert_allclose(policy(z, row(*tokens), alive, active), [expected], rtol=1e-9, atol=1e-12)


def test_balanced_loads_are_equal_where_they_were_not():
    z, tokens = np.array([[[L3, 0.0], [0.0, L3]]]), row(3.0, 1.0)
    chosen = routing.routing.only("balanced")(z, tokens, np.ones((1, 2), dtype=bool), 1)
    np.testing.assert_allclose((tokens[:, :, None] * chosen).sum(axis=1), [[2.0, 2.0]], rtol=1e-9)


def test_logits_are_biased_and_tempered():
    np.testing.assert_allclose(routing.logits(np.array([[[4.0, 0.0]]]), row(1.0, -1.0), 2.0), [[[2.5, -0.5]]])


# Controls: loads (30, 10) and an expert that is not there, mean 20: excess (.5, -.5, 0).
# Router (.75, .25) on 3 tokens and (.5, .5) on 1: shares f = (2.75, 1.25)/4; experts x f = (1.375, .625). Scores are
# even, so the gate is (.5, .5): mean pressure 1, step 2 x .5 x .375 = .375 in both domains, all of it in common.
# Micro: pressure is twice the own share, (1.5, .5) and (1, 1): steps .5 and 0, in common .75 x .5 = .375.
CONTROL = {
    "none": ({}, (0.0, 0.0), (0.0, 0.0)),
    "sign": ({"step": 0.1, "worth": 2.0}, (-0.2, 0.2), (0.0, 0.0)),
    "proportional": ({"step": 0.1, "worth": 2.0}, (-0.1, 0.1), (0.0, 0.0)),
    "auxiliary": ({"weight": 0.1, "worth": 2.0}, (-0.2 * 0.375, 0.2 * 0.375), (0.0, 0.0)),
    "auxiliary, micro": (
        {"weight": 0.1, "worth": 2.0, "scope": "micro"},
        (-0.2 * 0.375, 0.2 * 0.375),
        (-0.2 * 0.125, 0.2 * 0.375),
    ),
}


@pytest.mark.parametrize("name", CONTROL)
def test_control(name):
    options, bias, moved = CONTROL[name]
    act = routing.controls.only({"policy": name.partition(",")[0], **options})
    P = np.array([[[0.75, 0.25, 0.0], [0.5, 0.5, 0.0]]])
    alive, load = np.array([[True, True, False]]), row(30.0, 10.0, 0.0)
    start = np.where(alive, np.zeros((1, 2, 3)), -np.inf)
    scores, new = act(start, np.zeros((1, 3)), P, load, row(3.0, 1.0), alive)
    np.testing.assert_allclose(new, [[*bias, 0.0]], atol=1e-15)
    np.testing.assert_allclose(scores[..., :2], [[[moved[0], -moved[0]], [moved[1], -moved[1]]]], atol=1e-15)
    assert np.isneginf(scores[..., 2]).all()


def test_the_auxiliary_loss_is_drawn_back_and_sees_the_gate():
    # even loads: nothing but the pull, .9 of the bias left
    alive, P = np.ones((1, 2), dtype=bool), np.array([[[0.5, 0.5]]])
    act = routing.controls.only({"policy": "auxiliary", "pull": 0.1})
    _, bias = act(np.zeros((1, 1, 2)), row(1.0, -2.0), P, row(1.0, 1.0), row(1.0), alive)
    np.testing.assert_allclose(bias, [[0.9, -1.8]])
    # gate (.75, .25) at a score of 5 ln 3; all tokens to the first: pressure (2, 0), mean 1.5, 2 x .75 x .5 = .75
    act = routing.controls.only({"policy": "auxiliary", "weight": 1.0, "worth": 1.0})
    P, scores = np.array([[[1.0, 0.0]]]), np.array([[[5 * L3, 0.0]]])
    _, bias = act(scores, np.zeros((1, 2)), P, row(1.0, 0.0), row(1.0), alive)
    np.testing.assert_allclose(bias, [[-0.75, 0.75]])


def test_quantile_control_finds_the_prices_that_balance():
    # odds 3 : 1 of one domain: prices -+ ln(3)/2, mean zero, whatever the step size
    act = routing.controls.only("quantile")
    P, alive = np.array([[[0.75, 0.25]]]), np.ones((1, 2), dtype=bool)
    _, bias = act(np.array([[[L3, 0.0]]]), np.zeros((1, 2)), P, row(30.0, 10.0), row(4.0), alive)
    np.testing.assert_allclose(bias, [[-L3 / 2, L3 / 2]])


def of_no_tree(kind):
    """Those of trees have their rows in test_balance_tree."""
    return {name for name, policy in kind.items() if not policy.traits["tree"]}


def test_every_control_has_a_row():
    assert {name.partition(",")[0] for name in CONTROL} | {"quantile"} == of_no_tree(routing.controls)
    assert {name.partition(",")[0] for name in ASSIGN} == of_no_tree(routing.routing)


def test_rewards_and_reinforcement():
    expert_loss = np.array([[[1.0, 3.0]]])
    advantage = routing.rewards.only("advantage")(None, expert_loss, row(2.0))
    np.testing.assert_array_equal(advantage, [[[1.0, -1.0]]])
    assert routing.rewards.only("popularity")(None, expert_loss, row(2.0)) == 1.0
    # .9 x 1 + 2 x .75 x 1 and 0 - 2 x .25
    P = np.array([[[0.75, 0.25]]])
    np.testing.assert_allclose(routing.reinforce(np.array([[[1.0, 0.0]]]), P, advantage, 2.0, 0.1), [[[2.4, -0.5]]])


def test_reinforcement_ends_at_the_reach():
    # 4 + 3 passes 5 by 2: all give way by 2, and the last ends at -5; what was below it stays there
    S, P = np.array([[[4.0, 1.0, -4.0, -9.0]]]), np.array([[[1.0, 0.0, 0.0, 0.0]]])
    np.testing.assert_allclose(routing.reinforce(S, P, np.array(1.0), 3.0, 0.0, 5.0), [[[5.0, -1.0, -5.0, -9.0]]])
    np.testing.assert_allclose(routing.reinforce(S, P, np.array(1.0), 3.0, 0.0), [[[7.0, 1.0, -4.0, -9.0]]])


def test_each_token_is_drawn():
    # a token takes the first expert and one of the other two; all tokens of a domain with one choice take it
    P = np.array([[1.0, 0.5, 0.5], [1.0, 1.0, 0.0]])
    chosen = routing.draw_experts(P, np.array([1000.0, 7.0]), 0, 0)
    np.testing.assert_array_equal(chosen[:, 0], [1000, 7])
    np.testing.assert_array_equal(chosen.sum(axis=1), [2000, 14])
    np.testing.assert_array_equal(chosen[1], [7, 7, 0])
    assert 440 < chosen[0, 1] < 560  # 500 +- 16
    # .9 + .9 + .2: the third comes with one of the others only, so these miss 100 and 100 of 1000 together
    P = np.array([[0.9, 0.9, 0.2]])
    chosen = routing.draw_experts(P, np.array([100_000.0]), 1, 0)[0]
    np.testing.assert_allclose(chosen, [9e4, 9e4, 2e4], rtol=0.03)
    assert chosen[2] == (1e5 - chosen[0]) + (1e5 - chosen[1])


@pytest.mark.parametrize("row", [[0.1] * 20, [0.7, 0.7, 0.6], [0.4] * 5, [1.0, 0.7, 0.2, 0.1]])
def test_nobody_draws_by_rounding(row):
    """1e12 tokens would show a part in 1e8; who is not chosen has none, wherever it stands."""
    P = np.array([[*row, 0.0], [0.0, *row]], dtype=np.float32)
    chosen = routing.draw_experts(P, np.array([1e12, 1e12]), 0, 0)
    assert chosen[0, -1] == chosen[1, 0] == 0
    np.testing.assert_array_equal(chosen.sum(axis=1), round(sum(row)) * 1e12)
    np.testing.assert_allclose(chosen, 1e12 * P, rtol=1e-4)


def test_draws_do_not_hang_on_rounding_nor_on_room_for_experts():
    P = np.array([[1.0, 0.3, 0.3, 0.2, 0.1, 0.1], [0.4, 0.4, 0.3, 0.3, 0.3, 0.3]])
    near = np.concatenate([P * (1 + 3e-16 * np.arange(6)), np.zeros((2, 3))], axis=1)
    first, other = (routing.draw_experts(p, np.array([1e5, 1e5]), 0, 0) for p in (P, near))
    np.testing.assert_array_equal(other, np.pad(first, ((0, 0), (0, 3))))


def test_the_spread_of_drawn_tokens_is_that_of_single_ones():
    # 10,000 tokens, a quarter to each of four experts: variance 10,000 x 1/4 x 3/4, over 400 steps
    counts = [routing.draw_experts(np.full((1, 4), 0.25), np.array([1e4]), 3, step)[0] for step in range(400)]
    assert np.var(counts) == pytest.approx(1e4 * 3 / 16, rel=0.1)
    drawn = [routing.draw_domains(np.array([0.25, 0.75]), 1e4, 3, step)[0] for step in range(400)]
    assert np.var(drawn) == pytest.approx(1e4 * 3 / 16, rel=0.2)
    assert np.mean(drawn) == pytest.approx(2500, rel=0.01)
    np.testing.assert_array_equal(routing.draw_domains(np.array([0.25, 0.75]), 1e4, 3, 7)[0], drawn[7])


# Structure. Two or three experts of four or two domains; demand = natural x probability.
def view(P, natural, hot=(0,), **kwargs):
    given = setting(world(natural), **{k: kwargs.pop(k) for k in ("slots", "active") if k in kwargs})
    at = state(P, **kwargs)
    demand = structure.natural_demand(at, given.world.natural)
    return structure.View(at, given, 0, np.array(hot, dtype=int), demand)


def applied(policy, seen):
    out = seen.state
    for edit in structure.structure.only(policy)(seen):
        out = edit(out)
    return out


FOUR = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]  # three domains on the first expert, one on the second
ROOM = {"alive": [True, True, False]}


def wide(P):
    """The probabilities with one more expert that is not there."""
    return np.pad(np.array(P), ((0, 0), (0, 1)))


def test_demand_overload_and_patience():
    # natural (.75, .25) on (1, 0), (.5, .5): demand (.875, .125); with copies (2, 1) per copy .4375 and .125 over 1/3
    at = state([[1.0, 0.0], [0.5, 0.5]], copies=np.array([[2, 1]]))
    demand = structure.natural_demand(at, row(0.75, 0.25))
    np.testing.assert_allclose(demand, [[0.875, 0.125]])
    np.testing.assert_allclose(structure.overload(at, demand), [[1.3125, 0.375]])
    asked = []
    policy = structure.build(
        {"policy": lambda view: asked.append(view.hot.tolist()) or [], "patience": 2, "threshold": 1.3}
    )
    at = structure.restructure(policy, replace(at, step=100), setting(world((0.75, 0.25))))
    assert (asked, at.hot.tolist()) == ([[]], [[1, 0]])
    at = structure.restructure(policy, replace(at, step=150), setting(world((0.75, 0.25))))
    assert len(asked) == 1  # between windows nobody is asked
    at = structure.restructure(policy, replace(at, step=200), setting(world((0.75, 0.25))))
    assert (asked, at.hot.tolist()) == ([[], [0]], [[2, 0]])


def test_an_expert_on_a_slow_device_is_hot_sooner():
    # demand .6 and .4; devices 4/3 and 2/3 of their mean speed: .45 and .6, over their mean .525
    asked = []

    def ask(view):
        asked.append((view.hot.tolist(), view.demand[0].tolist(), view.flow(1).tolist()))
        return []

    policy = structure.build({"policy": ask, "threshold": 1.1})
    at = state(OWN, placement=APART, step=100)
    structure.restructure(policy, at, setting(world((0.6, 0.4)), speed=(2.0, 1.0)))
    ((hot, demand, flow),) = asked
    assert hot == [1]
    np.testing.assert_allclose([*demand, *flow], [0.45, 0.6, 0.0, 0.6])


def test_pace_is_the_mean_speed_of_the_devices_that_serve():
    # expert 0 at home on the first of (.5, 1.5), expert 1 a quarter there, expert 2 nowhere
    placed = placement.Placement(np.array([[0, 1, 1, -1]]), np.array([[1.0, 0.25, 0.75, 0.0]]))
    np.testing.assert_allclose(placed.pace(3, np.array([0.5, 1.5])), [[0.5, 1.25, 1.0]])
    np.testing.assert_array_equal(placed.pace(3, np.array([0.5, 0.5])), [[1.0] * 3])


def test_the_hottest_is_asked_about_first():
    # demand .3, .5, .2 over a mean of 1/3: .9, 1.5, .6; hot above .7 (a threshold of 1 or more is for runs)
    asked = []

    def ask(view):
        asked.extend(view.hot.tolist())
        return []

    policy = replace(structure.build({"policy": ask}), threshold=0.7)
    at = state([[0.3, 0.5, 0.2]], step=100)
    structure.restructure(policy, at, setting(world((1.0,))))
    assert asked == [1, 0]


def test_split_halves_the_domains_along_the_tree():
    # natural (.25, .25, .25, .25): the best cut of three quarters leaves (0, 1) or one of them; share of (0, 1) is 2/3,
    # of a leaf 1/3: both 1/6 from a half, the first of the largest node wins. The child takes .98 of domains 0, 1.
    seen = view(
        wide(FOUR),
        (0.25,) * 4,
        scores=np.log(np.maximum(wide(FOUR), 1e-9))[None],
        learned=7.0 * wide(FOUR)[None],
        **ROOM,
    )
    out = applied("split", seen)
    np.testing.assert_array_equal(out.alive, [[True, True, True]])
    pair = np.exp(out.scores[0][:, [0, 2]])
    np.testing.assert_allclose(pair[:3], [[0.02, 0.98], [0.02, 0.98], [0.98, 0.02]])
    np.testing.assert_array_equal(out.learned[0, :, 2], out.learned[0, :, 0])
    # the child's part of the load: .98 + .98 + .02 of 3
    np.testing.assert_allclose(out.mean_load, [[3 - 1.98, 1.0, 1.98]])
    assert (out.parent.tolist(), out.born.tolist(), out.splits.tolist()) == ([[-1, -1, 0]], [[0, 0, 10]], [1])
    assert out.copies.tolist() == [[1, 1, 1]]


def test_a_clone_takes_half():
    seen = view(wide(FOUR), (0.25,) * 4, scores=np.zeros((1, 4, 3)), **ROOM)
    out = applied({"policy": "split", "way": {"policy": "clone", "noise": 0.0}}, seen)
    np.testing.assert_allclose(np.exp(out.scores[0][:, [0, 2]]), 0.5)


def test_criteria():
    # loads .75 and .25; losses above the floor 1: (.5, 2); the first divides 2 : 1, the second not at all
    seen = view(FOUR, (0.25,) * 4, expert_loss=np.broadcast_to(np.array([1.5, 3.0]), (1, 4, 2)))
    rank = {name: [structure.criteria.only(name)(seen, e) for e in (0, 1)] for name in structure.criteria}
    np.testing.assert_allclose(rank["load"], [0.75, 0.25])
    np.testing.assert_allclose(rank["residual"], [0.75 * 0.5, 0.25 * 2.0])
    np.testing.assert_allclose(rank["divisible"], [0.75 * 2 / 3, 0.0], atol=1e-12)
    assert set(rank) == {"load", "residual", "divisible"}


def test_the_hot_are_split_by_the_criterion_while_there_is_room():
    seen = view(wide(FOUR), (0.25,) * 4, hot=(0, 1), expert_loss=np.broadcast_to([1.5, 3.0, 1.0], (1, 4, 3)), **ROOM)
    assert applied("split", seen).parent.tolist() == [[-1, -1, 0]]
    assert applied({"policy": "split", "by": "residual"}, seen).parent.tolist() == [[-1, -1, 1]]
    assert applied({"policy": "split", "at_most": 0}, seen).parent.tolist() == [[-1, -1, -1]]
    full = view(wide(FOUR), (0.25,) * 4, slots=2, **ROOM)
    assert applied("split", full).splits.tolist() == [0]


def test_what_divides_is_split_and_what_does_not_is_replicated():
    seen = view(wide(FOUR), (0.25,) * 4, hot=(0, 1), **ROOM)
    out = applied("split_or_replicate", seen)  # quality 2/3 of the first, 0 of the second
    assert (out.parent.tolist(), out.copies.tolist()) == ([[-1, -1, 0]], [[1, 2, 1]])
    out = applied({"policy": "split_or_replicate", "divisibility": 0.7}, seen)
    assert (out.parent.tolist(), out.copies.tolist()) == ([[-1, -1, -1]], [[2, 2, 0]])


def test_replicas_share_one_expert():
    seen = (
        view(FOUR, (0.25,) * 4, hot=(0, 1), slots=3, hot_=None)
        if False
        else view(FOUR, (0.25,) * 4, hot=(0, 1), slots=3)
    )
    out = applied("replicate", seen)  # one slot is left
    assert (out.copies.tolist(), out.hot.tolist()) == ([[2, 1]], [[0, 0]])
    assert applied("fixed", seen) is seen.state


def test_merge_weighs_by_load():
    # demand .1 and .05 of (.85, .1, .05) are below half the mean 1/3: the lighter goes into the heavier
    P = [[0.85, 0.1, 0.05]]
    seen = view(
        P, (1.0,), learned=np.array([[[5.0, 10.0, 2.0]]]), mean_load=row(17.0, 3.0, 1.0), bias=row(0.0, 0.0, 9.0)
    )
    out = applied("merge", seen)
    assert out.alive.tolist() == [[True, True, False]]
    np.testing.assert_allclose(out.learned, [[[5.0, (3 * 10.0 + 1 * 2.0) / 4, 0.0]]])
    np.testing.assert_allclose(np.exp(out.scores[0, 0, :2]), [0.85, 0.15])
    np.testing.assert_allclose(out.mean_load, [[17.0, 4.0, 0.0]])
    assert (out.scores[0, 0, 2], out.bias.tolist(), out.copies.tolist()) == (-np.inf, [[0.0, 0.0, 0.0]], [[1, 1, 0]])
    # .4 and .1 of (.5, .4, .1): .4 is not below half the mean
    assert applied("merge", view([[0.5, 0.4, 0.1]], (1.0,))).alive.all()
    # two active experts need three to merge from
    assert applied("merge", view([[0.96, 0.02, 0.02]], (1.0,), active=3)).alive.all()


def test_prune_takes_the_cold_tail():
    # .02 is below a tenth of the mean 1/3 and below 5 % of all; .03 in a tail of .05 is not
    out = applied("prune", view([[0.90, 0.08, 0.02]], (1.0,)))
    assert out.alive.tolist() == [[True, True, False]]
    assert applied({"policy": "prune", "tail": 0.02}, view([[0.90, 0.08, 0.02]], (1.0,))).alive.all()
    assert applied({"policy": "prune", "below": 0.05}, view([[0.90, 0.08, 0.02]], (1.0,))).alive.all()
    assert applied("prune", view([[0.98, 0.02]], (1.0,), active=2)).alive.all()


def test_growth_doubles_the_most_loaded_first():
    P = np.pad(np.array([[0.3, 0.7]]), ((0, 0), (0, 2)))
    alive = [True, True, False, False]
    out = applied({"policy": "grow", "factor": 2.0}, view(P, (1.0,), alive=alive, scores=np.zeros((1, 1, 4))))
    assert out.parent.tolist() == [[-1, -1, 1, 0]]
    out = applied({"policy": "grow", "factor": 1.5}, view(P, (1.0,), alive=alive, scores=np.zeros((1, 1, 4))))
    assert out.parent.tolist() == [[-1, -1, 1, -1]]
    # after step 10 of 10 tokens 110 have been seen: one budget of two is spent, and two experts are four
    for budgets, grown in (([110.0, 120.0], [-1, -1, 1, 0]), ([111.0], [-1] * 4)):
        seen = view(P, (1.0,), alive=alive, scores=np.zeros((1, 1, 4)))
        seen.setting.run = SimpleNamespace(experts=2)
        out = applied({"policy": "grow", "budgets": budgets}, seen)
        assert out.parent.tolist() == [grown]


def test_every_structure_is_tested_here():
    assert set(structure.structure) == {
        "fixed",
        "split",
        "split_or_replicate",
        "replicate",
        "merge",
        "prune",
        "grow",
    }
    assert set(structure.ways) == {"along_tree", "clone"}


def test_separation_is_the_total_variation_from_the_parent():
    # shares (.5, .5) of the parent and (.9, .1) of the child: half of .4 + .4
    at = state([[5.0, 9.0], [5.0, 1.0]], parent=np.array([[-1, 0]]))
    np.testing.assert_allclose(structure.separation(at), [[np.nan, 0.4]])
