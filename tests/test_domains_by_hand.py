"""Metrics, bounds, intervals, curves, learning and the tree of domains on numbers that fit on paper."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from balance_tools import row, world

from moesim.balance import bounds, metrics
from moesim.balance.intervals import interval, verdicts
from moesim.domains import learning, tree
from moesim.domains.curves import curve_of, curves, worth_of
from moesim.domains.overfit import Overfit
from moesim.domains.world import divided, zipf

OWN = [[1.0, 0.0], [0.0, 1.0]]  # each domain has an expert of its own

# Metrics of loads (1, 2, 5): mean 8/3.
METRICS = {
    "max_over_mean": 5 / (8 / 3),
    "max_violation": 5 / (8 / 3) - 1,
    "balancedness": (8 / 3) / 5,
    # ranks -2, 0, 2: (-2 + 10) / (3 x 8)
    "gini": 8 / 24,
}


@pytest.mark.parametrize("name", METRICS)
def test_metrics(name):
    assert getattr(metrics, name)(np.array([5.0, 1.0, 2.0])) == pytest.approx(METRICS[name])


def test_no_placement_beats_the_mean_nor_the_largest_copy():
    loads = np.array([[6.0, 2.0, 1.0]])
    assert (
        bounds.makespan_bound(loads, np.array([[2, 1, 1]]), np.ones(2)) == 4.5
    )  # 9 on two devices, whose copies carry 3
    assert bounds.makespan_bound(loads, np.array([[1, 1, 1]]), np.ones(2)) == 6.0
    # speeds 1 and .5: 9 over 1.5; the largest on the fast one
    assert bounds.makespan_bound(loads, np.array([[1, 1, 1]]), np.array([1.0, 0.5])) == 6.0


def test_speeds_bound_schedules_and_lists():
    # 9 tokens, one expert on both devices, speeds 1 and .5: 6 and 3
    tokens, time = bounds.schedule(np.array([9.0]), np.array([0, 0]), 2, np.array([1.0, 0.5]))
    np.testing.assert_allclose(tokens, [6.0, 3.0])
    assert time == pytest.approx(6.0)
    # 4 to the fast (4 s against 8), 3 to the slow (6 against 7), 2 to the fast (6 against 10)
    assert bounds.lpt([2.0, 4.0, 3.0], np.array([0.5, 1.0])) == 6.0


def test_the_least_loss_is_a_bound_however_well_it_is_solved():
    # losses 1 + 1/n of .8 and .2: the best mixture is 2 : 1, with (.8^.5 + .2^.5)^2 / 10 = .18. All ten for both: 1.1
    given = SimpleNamespace(world=world((0.8, 0.2)), capacity=learning.Capacity(1e300))
    assert bounds.least_loss(given, np.array([10.0]), steps=200) == pytest.approx(1.18, rel=1e-6)
    assert bounds.least_loss(given, np.array([10.0]), steps=0) == pytest.approx(1.1)
    # of .6 and .4 natural sampling has 1.2; slopes 1/6 and 1/4 are at most 1/4 - .2 more at one than along the mixture
    given = SimpleNamespace(world=world((0.6, 0.4)), capacity=learning.Capacity(1e300))
    assert bounds.least_loss(given, np.array([10.0]), steps=1) == pytest.approx(1.2 - 0.05)


def test_the_least_loss_of_steps_is_below_them():
    # 1 until 10 tokens of a domain, then 0: below it a line. 8 tokens remove .8 of the first domain (slope .8/10
    # against .2/10), 18 tokens 1 of it and .8 of the second, 40 all, and what is solved has nothing left to gain
    steps = {"policy": "quanta", "threshold": 10.0, "first_tokens": 1e-9}
    given = SimpleNamespace(world=world((0.8, 0.2), curve=steps), capacity=learning.Capacity(1e300))
    for tokens, least in ((8.0, 1 - 0.8 * 0.8), (18.0, 0.2 * 0.2), (40.0, 0.0)):
        found = bounds.least_loss(given, np.array([tokens]), steps=400)
        assert least - 0.2 < found <= least + 1e-12


def test_tail_and_first_reach():
    # the rarest tenth of twenty is two: those with frequency 1 and 2
    natural = np.arange(20.0, 0.0, -1.0)[None]
    assert metrics.tail_loss(np.arange(20.0)[None], natural) == pytest.approx([18.5])
    assert metrics.tail_loss(row(7.0, 9.0), row(0.9, 0.1)) == pytest.approx([9.0])
    # from 5 to 3 the target 4.5 lies a quarter of the way from 10 to 20
    reached = metrics.first_reach(np.array([[5.0, 3.0, 2.0]] * 3), np.array([[10.0, 20.0, 30.0]] * 3), 4.5)
    np.testing.assert_allclose(reached, 12.5)
    np.testing.assert_array_equal(metrics.first_reach(row(5.0, 4.0), row(1.0, 2.0), 3.0), [np.nan])
    np.testing.assert_array_equal(metrics.first_reach(row(2.0, 1.0), row(7.0, 8.0), 3.0), [7.0])
    there = np.array([[True, False, True]])
    np.testing.assert_array_equal(metrics.over_there(row(1.0, 9.0, 3.0), there, np.max), [3.0])


def test_intervals():
    # mean 2, deviation 1, three seeds: 4.302653 / sqrt(3)
    assert interval(np.array([1.0, 2.0, 3.0])) == pytest.approx((2.0, 4.302653 / np.sqrt(3)))
    assert interval(np.array([4.0])) == (4.0, 0.0)
    gaps = np.array([[-1.0, 1.0, 0.0], [-1.1, 1.1, 1.0], [-0.9, 0.9, -1.0]])
    np.testing.assert_array_equal(verdicts(gaps), [-1, 1, 0])
    np.testing.assert_array_equal(verdicts(gaps[:1]), [0, 0, 0])


# Learning.
def test_curves():
    # 1 + 2 / 4 + 3 / 6 and minus its slope 3 / 36; without limit 1.5; below first_tokens as there
    values = {"E": 1.0, "A": 2.0, "alpha": 1.0, "B": 3.0, "beta": 1.0}
    law = curve_of({"coefficients": values, "first_tokens": 2.0})
    assert replace(law, bound=1.8).loss(4.0, 6.0) == 1.8
    assert replace(law, bound=1.8).gain(4.0, 6.0) == pytest.approx(3 / 36)
    assert law.loss(4.0, 6.0) == pytest.approx(2.0)
    assert law.gain(4.0, 6.0) == pytest.approx(3 / 36)
    assert law.lowest(4.0) == pytest.approx(1.5)
    assert law.loss(4.0, 0.5) == pytest.approx(3.0)
    assert law.exponent() == pytest.approx(1.0)
    # counted in units of 6 tokens the data term is 3 / 1
    assert curve_of({"coefficients": values, "token_unit": 6.0, "first_tokens": 1.0}).loss(4.0, 6.0) == pytest.approx(
        4.5
    )
    # 1 + 2 until 10 tokens are seen; a token before is worth a tenth of the step
    quanta = curve_of({"policy": "quanta", "floor": 1.0, "data_scale": 2.0, "threshold": 10.0, "first_tokens": 1.0})
    np.testing.assert_allclose(quanta.loss(1.0, np.array([9.0, 10.0])), [3.0, 1.0])
    np.testing.assert_allclose(quanta.gain(1.0, np.array([9.0, 10.0])), [0.2, 0.0])
    assert set(curves) == {"law", "quanta"}


def test_a_coefficient_of_each_domain_follows_its_domain():
    made = curve_of({"coefficients": {"B": [1.0, 2.0]}})
    placed = made.placed(np.array([[2, 0, 1]]), np.array([0, 0, 1]))  # leaves hold domains 2, 0, 1 of groups 1, 0, 0
    np.testing.assert_array_equal(placed.values["B"][0, :, 0], [2.0, 1.0, 1.0])


def test_worth_of_repeats():
    # twice 10 unique tokens: 10 + 10 x 2 (1 - exp(-1/2))
    worth = worth_of({"name": "muennighoff2023", "R_D": 2.0})
    assert worth(20.0, 10.0) == pytest.approx(10 + 20 * (1 - np.exp(-0.5)))
    half = world((0.5, 0.5), (10.0, 10.0))
    half = replace(half, worth=lambda tokens, unique: np.minimum(tokens, unique))
    # 8 seen, 4 drawn: 2 of them are new; 4 seen: all
    np.testing.assert_allclose(learning.fresh_worth(half, row(8.0, 4.0), row(4.0, 4.0)), [[0.5, 1.0]])


def test_learning_and_forgetting():
    learned, assigned = np.array([[[10.0, 0.0], [20.0, 4.0]]]), np.array([[[2.0, 1.0], [0.0, 3.0]]])
    frozen, apart = np.array([[False, True]]), world((0.5, 0.5))
    out = learning.learn(apart, learned, assigned, row(0.5, 1.0), frozen)
    np.testing.assert_allclose(out, [[[11.0, 0.0], [20.0, 4.0]]])
    # 1 % of a domain is forgotten per token of another: the second domain of the first expert loses .99^2
    none = np.array([[False, False]])
    out = learning.learn(apart, learned, assigned, row(1.0, 1.0), none, 0.01)
    np.testing.assert_allclose(out, [[[12.0, 1.0], [20.0 * 0.99**2, 3.0 + 4.0 * 0.99]]])
    # of a domain half similar half a token is foreign
    out = learning.learn(world((0.5, 0.5), rho=0.5), learned, assigned, row(1.0, 1.0), none, 0.01)
    np.testing.assert_allclose(out[0, 1, 0], 20.0 * 0.99)
    # who is frozen forgets nothing
    np.testing.assert_allclose(
        learning.learn(apart, learned, assigned, row(1.0, 1.0), frozen, 0.01)[0, :, 1], [0.0, 4.0]
    )


def test_capacity_follows_training():
    # shares (.5, .5); 30 tokens of the second domain over a horizon of 30 / ln 2 halve the old shares; none: as it was
    old, horizon = np.array([[[0.5, 0.5], [0.5, 0.5]]]), 30 / np.log(2)
    new = learning.trained_after(old, np.array([[[0.0, 0.0], [30.0, 0.0]]]), row(30.0, 0.0), horizon)
    np.testing.assert_allclose(new, [[[0.25, 0.5], [0.75, 0.5]]])
    # the first tokens are the shares in full
    new = learning.trained_after(np.zeros((1, 2, 1)), np.array([[[3.0], [1.0]]]), row(4.0), horizon)
    np.testing.assert_allclose(new, [[[0.75], [0.25]]])


def known(trained, learned, common=(0.5, 0.5), all_learned=(0.0, 0.0)):
    return learning.Knowledge(np.array([learned], float), np.array([trained], float), row(*all_learned), row(*common))


def test_parameters_and_experience_of_an_expert():
    one, m = np.ones((1, 1)), np.full((1, 1), 2.0)
    # natural (.8, .2), an expert trained evenly: 100 x (.5/.8)^.5 and 100 x (.5/.2)^.5; experience x 2
    size = learning.Capacity(100.0, focus=0.5)
    params, tokens = learning.abilities(
        world((0.8, 0.2)), size, known([[0.5], [0.5]], [[3.0], [4.0]]), m, one[:, :, None]
    )
    np.testing.assert_allclose(params[0, :, 0], [100 * (0.5 / 0.8) ** 0.5, 100 * 2.5**0.5])
    np.testing.assert_allclose(tokens[0, :, 0], [6.0, 8.0])
    # similarity 1/2: ordinariness (.75, .75) over (.9, .6); experience 3 + 2 and 4 + 1.5
    near = world((0.8, 0.2), rho=0.5)
    params, tokens = learning.abilities(near, size, known([[0.5], [0.5]], [[3.0], [4.0]]), m, one[:, :, None])
    np.testing.assert_allclose(params[0, :, 0], [100 * (0.75 / 0.9) ** 0.5, 100 * 1.25**0.5])
    np.testing.assert_allclose(tokens[0, :, 0], [10.0, 11.0])


def test_experts_of_one_token_add_up():
    # one domain, two of three experts, chances (1, .5, .5), all of 100 parameters, experience 2, 1 and 1: with the
    # first comes one of the others, with each of them the first: 200 parameters, ((2^8 + 1)/2)^(1/8)
    P, size = np.array([[[1.0, 0.5, 0.5]]]), learning.Capacity(100.0, active=2)
    what = known([[1.0, 1.0, 1.0]], [[2.0, 1.0, 1.0]], (1.0,), (2.0,))
    params, tokens = learning.abilities(world((1.0,)), size, what, np.ones((1, 1)), P)
    np.testing.assert_allclose(params, [[[200.0] * 3]])
    np.testing.assert_allclose(tokens, ((2.0**8 + 1) / 2) ** (1 / 8))
    # chances (.9, .6, .5): with the second the others bear .4 of a place, by .09 and .25: the first comes with a chance
    # of .9 - .4 x .09 / .34
    P = np.array([[[0.9, 0.6, 0.5]]])
    what = known([[1.0, 1.0, 1.0]], [[2.0, 0.0, 0.0]], (1.0,), (2.0,))
    apart = learning.abilities(world((1.0,)), size, what, np.ones((1, 1)), P, np.array([[0, 1, 1]]))[1]
    free = learning.abilities(world((1.0,)), size, what, np.ones((1, 1)), P)[1]
    first = 0.9 - 0.4 * 0.09 / 0.34
    np.testing.assert_allclose(free[0, 0, 1], 2 * (first / 2) ** (1 / 8))
    # if the second and third never meet they have 1.1 places and the first bears the rest: it comes for certain
    np.testing.assert_allclose(apart[0, 0, 1], 2 * (1.0 / 2.0) ** (1 / 8))
    # one shared expert more, of experience 2, and a factor of .2 that both have: 80 + 80 + 100 + 20
    more = learning.Capacity(100.0, active=2, shared=1, factor=0.2)
    what = known([[1.0, 1.0]], [[2.0, 1.0]], (1.0,), (2.0,))
    params, tokens = learning.abilities(world((1.0,)), more, what, np.ones((1, 1)), np.ones((1, 1, 2)))
    np.testing.assert_allclose(params, 280.0)
    np.testing.assert_allclose(tokens, ((200 * 2.0**8 + 80) / 280) ** (1 / 8))
    assert (more.total, more.horizon) == (280.0, 70.0)
    # twins count as one: two halves of the first expert or two of the second
    what, P = known([[1.0] * 4], [[2.0, 2.0, 1.0, 1.0]], (1.0,), (2.0,)), np.full((1, 1, 4), 0.5)
    twins = learning.abilities(world((1.0,)), learning.Capacity(50.0, 2, twins=2), what, np.ones((1, 1)), P)
    np.testing.assert_allclose(twins, [[[[100.0] * 4]], [[[2.0, 2.0, 1.0, 1.0]]]])


def test_effective_number_of_domains():
    # data term 1/tokens, frequencies (.8, .2): .8/.8 + .2/.2 = 2; half similar, ordinariness (.9, .6): .8/.9 + .2/.6
    values = {"E": 1.0, "A": 1e-300, "B": 1.0, "beta": 1.0}
    curve = {"coefficients": values, "first_tokens": 1e-9}
    assert world((0.8, 0.2), curve=curve).effective[0, 0] == pytest.approx(2.0)
    root = {**curve, "coefficients": {**values, "beta": 0.5}}  # (.8^.5 + .2^.5)^2
    assert world((0.8, 0.2), curve=root).effective[0, 0] == pytest.approx(1.8)
    assert world((0.8, 0.2), rho=0.5, curve=curve).effective[0, 0] == pytest.approx(0.8 / 0.9 + 1 / 3)
    bounded = world((0.8, 0.2), curve=curve)
    bounded = replace(bounded, curve=replace(bounded.curve, bound=1.1))
    # 12 tokens, plain loss 1 + 1/12: the rare domain is at the bound 1.1, so the other must have more than its law says
    m = learning.effective_number(bounded, 1.0, np.array([12.0]))
    left = 0.8 * min(1.1, 1 + 1 / (12 * 0.8 * m[0, 0])) + 0.2 * min(1.1, 1 + 1 / (12 * 0.2 * m[0, 0]))
    assert left == pytest.approx(1 + 1 / 12, rel=1e-12)
    assert m[0, 0] < 2.0
    np.testing.assert_array_equal(learning.effective_number(world((0.8, 0.2)), 1.0, np.array([9.0])), [[1.0]])


def test_overfitting():
    # .1 x floor 2 x 3^2 x 4^.5 x (2e9/1e9)^-1 = 1.8; one token more of 1e9 x 2 raises it by 2/3 of that for each repeat
    made = Overfit(strength=0.1, rise=2.0, size=0.5, fade=1.0)
    args = (np.array([2.0]), np.array([3.0]), np.array([2e9]), np.array([4.0]))
    assert made.penalty(*args) == pytest.approx(1.8)
    assert made.slope(*args) == pytest.approx(1.8 * 2 / 3 / 2e9)
    assert made.penalty(np.array([2.0]), np.array([0.0]), np.array([np.inf]), np.array([0.0])) == 0.0
    # seen 60 of 20 unique are 2 repeats; half of one expert of 100 parameters is its own: 50/20
    half = replace(world((0.5, 0.5), (20.0, 40.0)), overfit=made)
    at = SimpleNamespace(known=known([[0.5], [0.5]], [[1.0], [1.0]]), seen=row(70.0, 40.0), made=row(10.0, 0.0))
    found = learning.penalty(half, learning.Capacity(100.0), at, np.ones((1, 2, 1)))
    np.testing.assert_allclose(found, [[0.1 * 1.0 * 2.0**2 * 2.5**0.5 / 20e-9, 0.0]])


def test_losses_and_gains():
    # losses (2, 4) chosen 3 : 1; nothing chosen counts nothing
    P, losses = np.array([[[0.75, 0.25], [0.0, 0.0]]]), np.array([[[2.0, 4.0], [9.0, 9.0]]])
    np.testing.assert_allclose(learning.domain_losses(P, losses), [[2.5, 0.0]])
    # loss 1 + 1/tokens: at (2, 4) tokens gains 1/4 and 1/16; experts have loads 4 and 2
    made, learned = world((0.5, 0.5)), np.array([[[2.0, 1.0], [4.0, 1.0]]])
    params = np.full((1, 2, 2), 1e300)
    np.testing.assert_allclose(learning.expert_losses(made, params, learned), [[[1.5, 2.0], [1.25, 2.0]]])
    np.testing.assert_allclose(learning.domain_gains(made, params, learned, np.array([OWN])), [[1 / 4, 1.0]])
    assigned = np.array([[[3.0, 1.0], [1.0, 1.0]]])
    gains = learning.expert_gains(made, params, learned, assigned)
    np.testing.assert_allclose(gains, [[(3 / 4 + 1 / 16) / 4, 1.0]])


def test_the_finished_are_frozen():
    # gains (1, 3, 8) of those there: half the mean 2 is 1; the first is not below it, at .6 x 2 it is
    gains, alive = row(1.0, 3.0, 8.0), np.array([[True, True, False]])
    np.testing.assert_array_equal(learning.nothing_left(gains, alive, 0.5), [[False, False, False]])
    np.testing.assert_array_equal(learning.nothing_left(gains, alive, 0.6), [[True, False, False]])
    np.testing.assert_array_equal(learning.nothing_left(gains, alive, 0.0), [[False, False, False]])
    # gains 3 and 2, of 10 and 90 tokens; where 90 tokens are half noise: 3 x .1, 2 x .5
    np.testing.assert_allclose(learning.heard(row(3.0, 2.0), row(10.0, 90.0), 90.0), [[0.3, 1.0]])


# Domains.
def test_zipf_and_its_parts():
    # 1, 1/2 of 1.5; unique tokens in the same shares; the first of them cut in two by an atom of .4
    made = zipf(30.0, domains=2, skew=1.0)
    np.testing.assert_allclose(made.frequency, [2 / 3, 1 / 3])
    np.testing.assert_allclose(made.unique, [20.0, 10.0])
    parts = divided(made, 0.4)
    np.testing.assert_allclose(parts.frequency, [1 / 3] * 3)
    np.testing.assert_allclose(parts.unique, [10.0] * 3)
    assert parts.group.tolist() == [0, 0, 1]
    assert divided(made, 0.4, 3).group.tolist() == [0, 0, 0, 1, 1, 1]


def test_the_tree():
    # four leaves, rho .4, decay .5: siblings .4, cousins .2
    expected = [[1.0, 0.4, 0.2, 0.2], [0.4, 1.0, 0.2, 0.2], [0.2, 0.2, 1.0, 0.4], [0.2, 0.2, 0.4, 1.0]]
    np.testing.assert_allclose(tree.similarity(4, 0.4, 0.5), expected)
    np.testing.assert_allclose(tree.mix(row(1.0, 0.0, 0.0, 10.0), 0.4, 0.5), [[3.0, 2.4, 4.2, 10.2]])
    assert tree.best_cut(np.array([1.0, 1.0, 2.0, 6.0])) == ((3, 4), 0.6)
    assert tree.best_cut(np.array([0.6, 0.3]))[0] == (0, 1)  # either half is as near; rounding has the second nearer
    assert [tree.divisibility(share) for share in (0.5, 0.25, 1.0)] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("leaves", [1, 2, 5, 8, 9, 70])
@pytest.mark.parametrize(("rho", "decay"), [(0.0, 0.5), (0.3, 0.5), (0.2, 1.0), (0.3, 0.0)])
def test_mixing_is_multiplying_by_the_similarities(leaves, rho, decay):
    """Whatever the number of leaves and of the values that each has."""
    for shape in ((2, leaves), (2, leaves, 3), (1, leaves, 3, 2)):
        values = np.random.default_rng(0).lognormal(size=shape)
        expected = np.einsum("kl,sl...->sk...", tree.similarity(leaves, rho, decay), values)
        np.testing.assert_allclose(tree.mix(values, rho, decay), expected, rtol=1e-13)
