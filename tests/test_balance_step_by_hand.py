"""One step of the loop, and what two experts a token or another temperature change, on numbers that fit on paper."""

from dataclasses import replace

import numpy as np
from balance_tools import row, state

from moesim.balance import routing, simulate, structure
from moesim.domains import learning


def test_two_active_experts_are_shares_too():
    # (1, .5, .5) of two: half of 2 + .5 x 4 + .5 x 6
    losses = learning.domain_losses(np.array([[[1.0, 0.5, 0.5]]]), np.array([[[2.0, 4.0, 6.0]]]))
    np.testing.assert_allclose(losses, [[3.5]])
    # twice the probabilities (.75, .25), (.5, .5) press the same: see CONTROL
    act = routing.controls.only({"policy": "auxiliary", "weight": 0.1, "worth": 2.0})
    P, alive = np.array([[[1.5, 0.5], [1.0, 1.0]]]), np.ones((1, 2), dtype=bool)
    _, bias = act(np.zeros((1, 2, 2)), np.zeros((1, 2)), P, row(30.0, 10.0), row(3.0, 1.0), alive)
    np.testing.assert_allclose(bias, [[-0.2 * 0.375, 0.2 * 0.375]])


def test_splits_and_merges_in_units_of_the_temperature():
    # at temperature 2 weights are exp(score / 2): .25 and .75 of the parent's 1, and back
    at = state([[1.0, 0.0, 0.0]], scores=np.array([[[0.0, -np.inf, -np.inf]]]))
    after = structure.split_edit(0, 0, 1, np.array([0.25]), 2.0)(at)
    np.testing.assert_allclose(np.exp(after.scores[0, 0, :2] / 2.0), [0.75, 0.25])
    merged = structure.merge_edit(0, 0, 1, 2.0)(after)
    np.testing.assert_allclose(merged.scores[0, 0], [0.0, -np.inf, -np.inf], atol=1e-12)


def small_run(**over):
    """100 tokens a step for two experts on two domains (.8, .2); loss 1 + 1/tokens; nothing repeats."""
    from test_balance_run import config, merged

    from moesim.balance.setting import setting as of

    curve = {"coefficients": {"E": 1.0, "A": 1e-300, "B": 1.0, "beta": 1.0}, "first_tokens": 1e-9, "pooled": False}
    domains = {"frequency": [0.8, 0.2], "unique_tokens": np.inf, "rho": 0.0, "shuffle": False, "curve": curve}
    router = {"reinforcement": 2.0, "decay": 0.1, "control": {"policy": "sign", "step": 0.1, "worth": 1.0}}
    sizes = {"tokens_per_step": 100.0, "experts": 2, "steps": 100, "seeds": 1, "cluster": {"devices": 2}}
    return of(config(merged({**sizes, "world": domains, "routing": router}, over), world="given"))


ROUTED = [[0.75, 0.25], [0.5, 0.5]]  # 80 and 20 tokens: (60, 20) and (10, 10), loads 70 and 30


def test_one_step_of_routing_and_learning():
    given = small_run()
    at = simulate.route_step(given, state(ROUTED, step=3, drawn=row(80.0, 20.0), mean_load=row(50.0, 50.0)))
    np.testing.assert_allclose(at.assigned, [[[60.0, 20.0], [10.0, 10.0]]])
    np.testing.assert_allclose(at.load, [[70.0, 30.0]])
    np.testing.assert_allclose(at.mean_load, [[52.0, 48.0]])  # .9 x 50 + .1 x 70
    np.testing.assert_array_equal(at.dropped, [0.0])
    after = simulate.learn_step(given, at)
    np.testing.assert_allclose(after.learned, at.assigned)
    np.testing.assert_allclose(after.seen, [[80.0, 20.0]])
    # .75 / 60 + .25 / 20 = .025
    np.testing.assert_allclose(after.loss, [[1.025, 1.1]])
    # advantages .025 - 1/60 = 1/120 and .025 - 1/20 = -.025: .9 S + 2 x .75 / 120 and .9 S - 2 x .25 x .025
    moved = after.scores - 0.9 * at.scores
    np.testing.assert_allclose(moved, [[[0.0125, -0.0125], [0.0, 0.0]]], atol=1e-12)
    np.testing.assert_allclose(after.bias, [[-0.1, 0.1]])


def test_capacity_drops_what_does_not_fit():
    # room 1.25 x 100 / 2 = 62.5 of 70; what is kept of each domain is the same share
    given = small_run(routing={"capacity_factor": 1.25})
    at = simulate.route_step(given, state(ROUTED, step=3, drawn=row(80.0, 20.0)))
    np.testing.assert_allclose(at.load, [[62.5, 30.0]])
    np.testing.assert_allclose(at.dropped, [7.5])
    np.testing.assert_allclose(at.assigned[0, :, 0], np.array([60.0, 10.0]) * 62.5 / 70)


def test_between_updates_tokens_wait_and_are_credited_by_their_routing():
    given = small_run(learn_every=2)
    at = simulate.route_step(given, state(ROUTED, step=3, drawn=row(80.0, 20.0)))
    np.testing.assert_allclose(at.load, [[70.0, 30.0]])
    at = simulate.learn_step(given, at)
    np.testing.assert_allclose(at.pending, [[80.0, 20.0]])
    assert at.learned.sum() == 0.0
    at = simulate.route_step(given, replace(at, step=4))
    np.testing.assert_allclose(at.learned, [[[60.0, 20.0], [10.0, 10.0]]])
    np.testing.assert_allclose(simulate.learn_step(given, at).learned, [[[120.0, 40.0], [20.0, 20.0]]])
    # reinforcement makes up for the step left out: 2 x (2 x P x advantage) and 1 - 2 x .1
    moved = simulate.learn_step(given, at).scores - 0.8 * at.scores
    np.testing.assert_allclose(moved, [[[0.0125, -0.0125], [0.0, 0.0]]], atol=1e-12)


def test_the_finished_are_frozen_at_a_window():
    # a token of its mixture gains the first (60/3600 + 10/100)/70 = .001667, the second (20/400 + 10/100)/30 = .005;
    # half the mean
    window = {"structure": {"every": 10}}
    given, lower = (small_run(selective=part, gradient_noise=0.0, **window) for part in (0.6, 0.4))
    little = np.full((1, 2, 2), 1e-9)
    at = simulate.route_step(given, state(ROUTED, step=20, drawn=row(80.0, 20.0), learned=little))
    assert simulate.learn_step(given, at).frozen.tolist() == [[True, False]]
    assert simulate.learn_step(lower, at).frozen.tolist() == [[False, False]]
    assert simulate.learn_step(given, replace(at, step=21)).frozen.tolist() == [[False, False]]
    # who has learned nothing before is not skipped
    assert simulate.learn_step(given, replace(at, learned=0.0 * little)).frozen.tolist() == [[False, False]]
    # where gradients of 70 tokens are half noise: .001667 x .5 and .005 x .3; of 10 tokens .005 x .125
    noisy = small_run(selective=0.9, gradient_noise=70.0, **window)
    assert simulate.learn_step(noisy, at).frozen.tolist() == [[True, False]]
    assert simulate.learn_step(noisy, replace(at, load=row(70.0, 10.0))).frozen.tolist() == [[False, True]]


def test_the_first_scores_lean_to_the_own_part_of_the_tree():
    # four domains, homes at leaves 1 and 3: siblings 1, cousins 1/2, times the affinity x ln 2 / ln 16
    given = small_run(world={"frequency": [0.25] * 4}, routing={"affinity": 16.0, "noise": 0.0})
    at = simulate.start(given)
    np.testing.assert_allclose(at.scores, [[[4.0, 2.0], [4.0, 2.0], [2.0, 4.0], [2.0, 4.0]]])
    np.testing.assert_allclose(at.mean_load, [[50.0, 50.0]])
    np.testing.assert_allclose(at.probability[0, 0, 0], 1 / (1 + np.exp(-2.0)))


def test_a_sampled_step_draws_the_mixture():
    given = small_run(sampling={"policy": "temperature", "exponent": 0.5, "every": 10})
    at = simulate.sample_step(given, state(ROUTED, step=20))
    np.testing.assert_allclose(at.drawn, [[200 / 3, 100 / 3]])
    np.testing.assert_allclose(simulate.sample_step(given, state(ROUTED, step=21)).drawn, [[50.0, 50.0]])


def test_room_for_an_expert_that_is_not_there():
    """Never chosen, nobody's child, its own place; one that has room already is left as it is."""
    two = state([[0.25, 0.75]], bias=row(1.0, 2.0), bond=np.array([[0, 0]]), alive=[True, True])
    three = two.widened(3)
    np.testing.assert_array_equal(three.scores, [[[np.log(0.25), np.log(0.75), -np.inf]]])
    np.testing.assert_array_equal(three.probability, [[[0.25, 0.75, 0.0]]])
    found = [getattr(three, name).tolist() for name in ("bias", "bond", "parent", "alive", "copies")]
    assert found == [[[1, 2, 0]], [[0, 0, 2]], [[-1, -1, -1]], [[True, True, False]], [[1, 1, 0]]]
    assert (three.experts, three.widened(2)) == (3, three)
