"""The balance wing against published numbers and theory: EPLB, bounds, floors, collapse, mixtures, clones."""

from itertools import combinations_with_replacement, product

import balance_theory as theory
import numpy as np
import pytest

from moesim.balance import bounds, eplb, metrics
from moesim.balance.packing import pack, replicate
from moesim.errors import InputError

# deepseek-ai/EPLB README; asserted as arrays upstream.
README = np.array(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ]
)
# (loads, replicas, groups, nodes, devices) -> slots, max/mean. Configurations after vLLM's test_eplb_algo.py.
FIXTURES = {
    "readme": (
        README,
        (16, 4, 2, 8),
        [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]],
        [1.2081, 1.2422],
    ),
    "readme, global": (
        README,
        (16, 1, 1, 8),
        [[10, 6, 10, 7, 0, 2, 11, 4, 5, 9, 5, 4, 8, 3, 1, 1], [1, 10, 2, 4, 5, 11, 5, 0, 6, 7, 6, 3, 8, 8, 9, 7]],
        [1.0726, 1.1903],
    ),
    "eight experts": (
        np.array([[100, 50, 200, 75, 150, 25, 300, 80]]),
        (12, 4, 2, 4),
        [[6, 6, 7, 0, 6, 1, 2, 3, 4, 2, 4, 5]],
        [1.1429],
    ),
    "one node": (np.array([[10, 20, 30, 40]]), (6, 2, 1, 2), [[3, 3, 0, 1, 2, 2]], [1.0]),
}


@pytest.mark.parametrize("name", FIXTURES)
def test_eplb_places_as_published(name):
    loads, arguments, slots, ratio = FIXTURES[name]
    balanced = eplb(loads, *arguments)
    np.testing.assert_array_equal(balanced.slots, slots)
    np.testing.assert_allclose(balanced.max_over_mean(loads), ratio, atol=5e-5)


def test_eplb_readme_counts_and_device_loads():
    balanced = eplb(README, replicas=16, groups=4, nodes=2, devices=8)
    expected = [[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1], [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1]]
    np.testing.assert_array_equal(balanced.counts, expected)
    loads = [[121.5, 86.5, 125, 113, 147.5, 131.5, 156, 152], [173, 179.5, 120.5, 172, 123, 152, 118.5, 117.5]]
    np.testing.assert_allclose(balanced.device_loads(README), loads, rtol=1e-14)
    np.testing.assert_allclose(balanced.device_loads(README).sum(axis=1), README.sum(axis=1), rtol=1e-14)


def test_eplb_falls_back_to_global_when_groups_do_not_fit_the_nodes():
    np.testing.assert_array_equal(eplb(README, 16, 3, 2, 8).slots, eplb(README, 16, 1, 1, 8).slots)


def test_eplb_takes_one_layer_and_idle_experts():
    assert eplb([0.0, 0.0, 0.0], 4, devices=2).counts.sum() == 4


@pytest.mark.parametrize("seed", range(30))
def test_greedy_replication_is_the_best_there_is(seed):
    rng = np.random.default_rng(seed)
    experts, extra = int(rng.integers(2, 6)), int(rng.integers(0, 5))
    loads = rng.integers(1, 200, (1, experts)).astype(float)
    best = np.inf
    for chosen in combinations_with_replacement(range(experts), extra):
        counts = 1 + np.bincount(np.array(chosen, dtype=int), minlength=experts)
        best = min(best, (loads[0] / counts).max())
    _, counts = replicate(loads, experts + extra)
    assert (loads / counts).max() == pytest.approx(best, rel=1e-14)


def test_packing_fills_every_pack_alike_and_breaks_ties_by_index():
    index, place = pack(np.array([[5.0, 5.0, 5.0, 5.0, 1.0, 1.0]]), 3)
    np.testing.assert_array_equal(index, [[0, 1, 2, 0, 1, 2]])
    np.testing.assert_array_equal(place, [[0, 0, 0, 1, 1, 1]])


BAD_EPLB = {
    "fewer slots than experts": ({"loads": [1.0, 2, 3], "replicas": 2}, "fewer than 3 experts"),
    "negative": ({"loads": [1.0, -2], "replicas": 2}, "0 or more"),
    "not a number": ({"loads": [1.0, np.nan], "replicas": 2}, "loads=nan is outside"),
    "devices": ({"loads": [1.0, 2, 3], "replicas": 4, "devices": 3}, "do not divide"),
    "groups": (
        {"loads": [1.0, 2, 3], "replicas": 4, "groups": 2, "nodes": 2, "devices": 2},
        "do not divide into groups",
    ),
    "nodes": ({"loads": [1.0, 2, 3, 4], "replicas": 6, "groups": 2, "nodes": 2, "devices": 3}, "among nodes"),
    "zero": ({"loads": [1.0], "replicas": 1, "devices": 0}, "whole number"),
    "shape": ({"loads": np.ones((1, 1, 2)), "replicas": 2}, "layer, expert"),
}


@pytest.mark.parametrize("name", BAD_EPLB)
def test_eplb_names_bad_input(name):
    arguments, message = BAD_EPLB[name]
    with pytest.raises(InputError, match=message):
        eplb(**arguments)


@pytest.mark.parametrize("seed", range(40))
def test_linear_programme_reaches_the_hall_bound(seed):
    rng = np.random.default_rng(seed)
    devices, per_device = int(rng.integers(2, 9)), int(rng.integers(1, 4))
    slots = devices * per_device
    experts = int(rng.integers(1, slots + 1))
    placed = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, slots - experts)]))
    loads = rng.random(experts) * 1000
    tokens, most = bounds.schedule(loads, placed, devices)
    bound = theory.hall_bound(loads, placed, devices)
    assert most == pytest.approx(bound, rel=1e-9)
    np.testing.assert_allclose(np.bincount(placed, tokens, experts), loads, rtol=1e-9, atol=1e-9)
    assert tokens.reshape(devices, -1).sum(axis=1).max() <= bound * (1 + 1e-9)
    even = loads[placed] / np.bincount(placed, minlength=experts)[placed]
    assert even.reshape(devices, -1).sum(axis=1).max() >= bound * (1 - 1e-12)
    homes = theory._homes(placed, experts, devices)
    assert theory._dinkelbach(loads, homes) == pytest.approx(bound, rel=1e-9)


def test_hall_bound_of_more_devices_than_can_be_enumerated():
    rng = np.random.default_rng(3)
    placed = rng.permutation(np.concatenate([np.arange(40), rng.integers(0, 40, 20)]))
    loads = rng.lognormal(0, 1, 40)
    assert bounds.schedule(loads, placed, 20)[1] == pytest.approx(theory.hall_bound(loads, placed, 20), rel=1e-9)


def test_schedule_names_an_expert_without_a_slot():
    with pytest.raises(InputError, match="expert 1 has load but no slot"):
        bounds.schedule(np.array([1.0, 2.0]), np.array([0, 0]), 2)


# LPLB's tolerances at loads N(1, .3) x 4096 on its fixed topologies: the heaviest experts copied along r2o.
CUBE = [[3, 0, 1, 2, 7, 4, 5, 6], [6, 7, 4, 5, 0, 1, 2, 3]]


@pytest.mark.parametrize(("per_device", "limit"), [(4, 1.07), (8, 1.10)])
def test_token_schedules_on_the_cube_stay_within_lplb_tolerances(per_device, limit):
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(8):
        loads = np.maximum(rng.normal(1, 0.3, 8 * per_device), 0.01) * 4096
        home = np.argsort(np.argsort(-loads)) % 8
        slots = [list(np.flatnonzero(home == g)) for g in range(8)]
        ranked = [sorted(own, key=lambda e: -loads[e]) for own in slots]
        for copy, row in enumerate(CUBE):
            for device, source in enumerate(row):
                slots[device] = [*slots[device], ranked[source][copy]]
        _, most = bounds.schedule(loads, np.concatenate(slots), 8)
        ratios.append(most / (loads.sum() / 8))
    assert np.mean(ratios) < limit


@pytest.mark.parametrize("machines", [2, 3, 4, 5, 6])
def test_lpt_worst_cases(machines):
    # Graham 1969: {2m-1, 2m-1, ..., m+1, m+1, m, m, m}, optimum 3m.
    weights = [w for w in range(2 * machines - 1, machines, -1) for _ in range(2)] + [machines] * 3
    assert bounds.lpt(weights, np.ones(machines)) / (3 * machines) == pytest.approx(
        4 / 3 - 1 / (3 * machines), rel=1e-14
    )
    if machines < 4:
        assert theory.least_makespan(weights, machines) == 3 * machines


# Monte-Carlo means of max/mean - 1 for uniform multinomial routing.
FLOORS = {
    8: {16: 0.3744, 64: 0.1814, 256: 0.0907, 1024: 0.0451, 4096: 0.0225, 16384: 0.0110},
    64: {16: 0.6337, 64: 0.3047, 256: 0.1493, 1024: 0.0739, 4096: 0.0367, 16384: 0.0182},
}


@pytest.mark.parametrize(("experts", "tokens"), [(n, m) for n, row in FLOORS.items() for m in row])
def test_sampling_floor(experts, tokens):
    assert bounds.sampling_floor(tokens, experts) == pytest.approx(FLOORS[experts][tokens], rel=0.02)


@pytest.mark.parametrize(
    ("tokens", "experts", "active"), [(8, 16, 1), (32, 64, 8), (16, 8, 2), (100, 10, 5), (2, 64, 1)]
)
def test_sampling_floor_equals_simulation(tokens, experts, active):
    rng = np.random.default_rng(1)
    drawn, found = int(tokens * experts / active), []
    for _ in range(1500):
        picks = rng.random((drawn, experts)).argpartition(active - 1, axis=1)[:, :active]
        counts = np.bincount(picks.ravel(), minlength=experts)
        found.append(counts.max() / counts.mean() - 1)
    assert bounds.sampling_floor(tokens, experts, active) == pytest.approx(np.mean(found), rel=0.025)


def test_sampling_floor_meets_the_gaussian_limit_and_its_ends():
    assert bounds.sampling_floor(1e5, 256, 8) == pytest.approx(theory.gaussian_floor(1e5, 256, 8), rel=0.01)
    assert bounds.sampling_floor(10, 8, 8) == 0.0
    for n, z in {8: 1.424, 16: 1.766, 32: 2.070, 64: 2.344, 128: 2.595, 256: 2.827, 896: 3.210}.items():
        assert bounds.zmax(n) == pytest.approx(z, abs=1.5e-3)


# Exact Poisson drop shares by tokens per expert and capacity factor.
DROPS = {
    (8, 1.0): 0.1396, (8, 1.25): 0.0532, (8, 1.5): 0.0162, (8, 2.0): 0.0008, (32, 1.0): 0.0703, (32, 1.25): 0.0073,
    (32, 1.5): 0.00025, (64, 1.0): 0.0498, (64, 1.25): 0.0013, (128, 1.0): 0.0352, (512, 1.0): 0.0176,
    (2048, 1.0): 0.0088,
}  # fmt: skip


@pytest.mark.parametrize(("tokens", "capacity"), DROPS)
def test_drop_law(tokens, capacity):
    assert theory.drop_fraction(tokens, capacity) == pytest.approx(DROPS[tokens, capacity], rel=0.02, abs=4e-5)


def test_collapse_at_the_threshold_is_continuous_for_two_experts_and_a_jump_for_more():
    def largest(experts, part):
        return theory.fed_share(part * theory.collapse_threshold(experts, 0.5, 0.01), experts, 0.5, 0.01)

    for experts in (2, 3, 8):
        assert largest(experts, 0.98) == pytest.approx(1.0, abs=1e-3)
        assert largest(experts, 1.02) > 1.1
    assert largest(3, 1.05) == pytest.approx(2.56, rel=0.02)
    assert largest(8, 1.05) == pytest.approx(7.99, rel=0.02)
    for part in (1.02, 1.2, 1.5):  # pitchfork of two: x = part tanh x, N p_max = 1 + tanh x
        x = 2.0
        for _ in range(20000):
            x = part * np.tanh(x)
        assert largest(2, part) == pytest.approx(1 + np.tanh(x), rel=1e-4)
    assert largest(2, 1.02) < 1.3 < 2.2 < largest(3, 1.02)


@pytest.mark.parametrize("a", [0.1, 0.28, 0.5, 1.0])
def test_optimal_mixture_is_frequency_to_the_power_one_over_one_plus_a(a):
    p = 1 / np.arange(1, 1001.0)
    p /= p.sum()
    q = theory.optimal_mixture(p, 1.0, a)
    expected = p ** (1 / (1 + a))
    np.testing.assert_allclose(q, expected / expected.sum(), rtol=1e-6)
    loss = (p * q**-a).sum()
    assert loss == pytest.approx((p ** (1 / (1 + a))).sum() ** (1 + a), rel=1e-12)
    natural = (p * p**-a).sum()
    saving = {0.1: 1.02, 0.5: 1.37, 1.0: 1.96}  # tokens for the same loss, Zipf 1.0, 1000 domains
    if a in saving:
        assert (natural / loss) ** (1 / a) == pytest.approx(saving[a], abs=0.006)


def test_optimal_mixture_of_unequal_exponents_has_equal_marginal_gains():
    rng = np.random.default_rng(0)
    w, b, a = rng.random(20), 1 + rng.random(20), 0.1 + rng.random(20)
    q = theory.optimal_mixture(w, b, a, tokens=1e6)
    marginal = w * b * a * 1e6**-a * q ** (-a - 1)
    np.testing.assert_allclose(marginal, marginal[0], rtol=1e-9)
    assert q.sum() == pytest.approx(1, rel=1e-12)


def test_quanta_slopes():
    # Michaud et al. 2023: alpha/(1+alpha) for natural sampling, alpha when solved quanta are skipped.
    for skip, slope, tokens in ((False, -0.5, np.geomspace(1e6, 1e10, 30)), (True, -1.0, np.geomspace(1e3, 3e4, 30))):
        loss = theory.quanta_loss(tokens, 1.0, 2_000_000, skip=skip)
        assert np.polyfit(np.log(tokens), np.log(loss), 1)[0] == pytest.approx(slope, abs=0.02)


@pytest.mark.parametrize(
    ("growth", "noise", "start", "steps", "median"),
    [(0.01, 1e-3, 0, 495, 542), (0.01, 1e-3, 0.01, 440, 463), (0.05, 1e-4, 0, 161, 174), (0.02, 0, 1e-4, 460, 466)],
)
def test_clones_separate_when_the_formula_says(growth, noise, start, steps, median):
    time = theory.clone_separation_time(growth, noise, start)
    assert time == pytest.approx(steps, abs=1)
    rng, distance = np.random.default_rng(0), np.full(2000, float(start))
    first = np.full(2000, np.inf)
    for step in range(1, 2000):
        distance = distance + growth * distance + noise * rng.standard_normal(2000)
        first = np.where((np.abs(distance) >= 1) & np.isinf(first), step, first)
    assert time * 0.99 <= np.median(first) <= time * 1.11
    assert np.median(first) == pytest.approx(median, rel=0.03)


def test_clones_below_the_threshold_never_separate():
    assert theory.clone_separation_time(theory.pair_growth(0.01, 1.0, 0.01), 1e-3, 0.01) == np.inf
    assert theory.pair_growth(2 * 0.5 * 0.01, 0.5, 0.01) == pytest.approx(0.0)


def test_tilt_is_the_nearest_mixture_within_the_bound():
    from scipy.optimize import minimize

    rng = np.random.default_rng(2)
    p = rng.dirichlet(np.ones(6))
    part = rng.dirichlet(0.5 * np.ones(3), 6)
    bound = 0.43
    q = theory.tilt(p, part, bound)
    assert q.sum() == pytest.approx(1)
    assert (q @ part).max() <= bound * (1 + 1e-6)
    limits = [{"type": "eq", "fun": lambda x: x.sum() - 1}, {"type": "ineq", "fun": lambda x: bound - x @ part}]
    peer = minimize(lambda x: (x * np.log(x / p)).sum(), p, constraints=limits, bounds=[(1e-9, 1)] * 6, tol=1e-12)
    np.testing.assert_allclose(q, peer.x, atol=2e-5)


def test_tilt_says_which_domain_makes_a_bound_unreachable():
    part = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    with pytest.raises(InputError, match="domain 0 makes it so"):
        theory.tilt([0.8, 0.1, 0.1], part, 0.55, least=0.9)
    with pytest.raises(InputError, match="cannot be brought to the load bound"):
        theory.tilt([0.5, 0.25, 0.25], part, 0.45)


def test_gini_and_effective_experts():
    assert metrics.gini([1, 1, 1, 1]) == 0
    assert metrics.gini([0, 0, 0, 5]) == pytest.approx(0.75)
    assert metrics.balancedness([100, 0, 0, 0]) == 0.25
    assert theory.effective_experts([1, 1, 0, 0]) == pytest.approx(2)
    for n, delta in product(
        (3, 8), (0.1, 0.2)
    ):  # worst leaf of a tree router whose nodes are (1/2 + delta, 1/2 - delta)
        leaves = np.array([1.0])
        for _ in range(n):
            leaves = np.concatenate([leaves * (0.5 + delta), leaves * (0.5 - delta)])
        assert metrics.max_over_mean(leaves) == pytest.approx((1 + 2 * delta) ** n, rel=1e-12)
