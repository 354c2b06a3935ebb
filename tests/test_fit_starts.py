"""Where fits start and how their starts are followed: the best optimum is found, and what is linear is solved for."""

import numpy as np
import pytest
from fitting_tools import fit, synthetic

from moesim.fitting.solve import CONVERGED, STALLED, Solution, values
from moesim.fitting.starts import linear_entries, starting_points
from moesim.fitting.task import optimum, settled
from moesim.forms import Coefficient, Form
from moesim.variables import REAL

# By the printed formulas: what stands before a power of the inputs, alone or as a floor; Clark's law is 10^(...), of
# Kaplan's terms a power is taken, tied exponents change nothing, and the size that repeated tokens can teach depends on
# all of the law.
LINEAR = {
    "hoffmann2022": ({}, "E A B"),
    "muennighoff2023": ({"tied": {"beta": "alpha"}}, "E A B"),
    "besiroglu2024": ({"fixed": {"A": 482.0}}, "E B"),
    "abnar2025": ({}, "a b c d e"),
    "krajewski2024": ({}, "c g a b"),
    "clark2022_sbase": ({}, ""),
    "kaplan2020": ({}, ""),
}


@pytest.mark.parametrize("law", LINEAR)
def test_linear_coefficients(law):
    settings, linear = LINEAR[law]
    task = fit(law, synthetic(law, 40, noise=0.01), starts=0, **settings).task
    assert [task.parameters.free[j] for j in linear_entries(task)] == linear.split()


def test_linear_coefficients_of_a_repeated_law():
    """N_opt(U) moves with A and B, not with E."""
    runs = synthetic("besiroglu2024", 40, noise=0.01, repetition="muennighoff2023")
    task = fit("besiroglu2024", runs, repetition="muennighoff2023", starts=0).task
    assert [task.parameters.free[j] for j in linear_entries(task)] == ["E"]


@pytest.mark.parametrize("objective", ["huber_log", "squared"])
def test_starts_have_the_linear_coefficients_right(objective):
    """With the exponents known and no noise every start is the truth already, in any units of the loss."""
    fixed = {"alpha": 0.3478, "beta": 0.3658}
    task = fit("hoffmann2022", synthetic("besiroglu2024", 60), objective=objective, fixed=fixed, starts=0).task
    points = task.parameters.natural(starting_points(task, 3, np.random.default_rng(0)))
    for name, value in (("E", 1.8172), ("A", 482.01), ("B", 2085.43)):
        assert points[name] == pytest.approx(value, rel=1e-3)


def test_starts_stay_near_the_typical_ranges():
    """An amplitude that least squares would make negative stands at a factor e^2 below its range, not at nothing."""
    runs = synthetic("besiroglu2024", 60)
    task = fit("hoffmann2022", runs.assign(loss=runs.loss.max() + 1.0 - runs.loss), starts=0).task
    points = task.parameters.natural(starting_points(task, 8, np.random.default_rng(0)))
    assert min(points["A"]) == pytest.approx(10.0 * np.exp(-2.0))


def test_starts_are_the_best_of_their_candidates():
    """Where nothing is linear: the best of 16 random points is worse than half of all once in 2^16."""
    task = fit("clark2022_sbase", synthetic("clark2022_sbase", 40, noise=0.01), starts=0).task
    rng, (low, high) = np.random.default_rng(0), task.parameters.typical()
    points, usual = starting_points(task, 8, rng), rng.uniform(low, high, (400, len(low)))
    objective = [values(task.problem, x, task.rows) for x in (points, usual)]
    assert objective[0].max() < np.median(objective[1])


def _dips(total_params, tokens, *, E, theta, B, beta):
    """Two valleys in theta: a wide one at -2, and one at 2 that is lower and 0.4 wide; the rest as in a power law."""
    off = 0.5 + 0.1 * (theta + 2.0) ** 2 - 2.1 * np.exp(-25.0 * (theta - 2.0) ** 2)
    return E + 0.05 * off * np.log(total_params / 1e8) ** 2 + B * tokens**-beta


DIPS = Form.of(
    _dips,
    "test",
    {
        "E": Coefficient(typical=(1.0, 2.0)),
        "theta": Coefficient(typical=(-4.0, 3.0), domain=REAL),
        "B": Coefficient(typical=(1e2, 1e4)),
        "beta": Coefficient(typical=(0.2, 0.6)),
    },
)


@pytest.mark.parametrize("objective", ["huber_log", "squared_log"])
def test_the_deeper_of_two_dips(objective):
    """Of eight starts some end in the higher valley, and for each of 20 seeds one in the deeper."""
    runs = synthetic("besiroglu2024", 80)
    truth = {"E": 1.7, "theta": 2.0, "B": 2e3, "beta": 0.36}
    loss = _dips(runs.total_params.values, runs.tokens.values, **truth)
    noisy = runs.assign(loss=("run", loss * np.exp(0.003 * np.random.default_rng(0).standard_normal(80))))
    task = fit(DIPS, noisy, objective=objective, starts=0, start=truth).task
    found = [optimum(task, 8, np.random.default_rng(seed)) for seed in range(20)]
    lowest = min(one.objective for one in found)
    assert [one.objective for one in found] == pytest.approx([lowest] * 20, rel=1e-9)
    assert task.parameters.natural(found[0].x[None])["theta"] == pytest.approx(2.0, abs=0.05)
    assert min(one.share for one in found) < 1.0


# objectives of the starts that have ended, and of one still under way: whether more optima are to be expected. With one
# found by seven, 1 x 6/4 = 1.5 optima are, by eight 1.4; with two found by 16, 2 x 15/12 = 2.5, by 17 2.46.
SETTLED = {
    "one, seven times": ([1.0] * 7, 2.0, False),
    "one, eight times": ([1.0] * 8, 2.0, True),
    "the same but for rounding": ([1.0, *[1.0 + 1e-8] * 7], 2.0, True),
    "two in 16": ([1.0, *[1.5] * 15], 2.0, False),
    "two in 17": ([1.0, *[1.5] * 16], 2.0, True),
    "each start another": ([1.0 + i for i in range(40)], 99.0, False),
    "one under way is the best": ([1.0] * 8, 0.5, False),
    "none has ended": ([], 1.0, False),
}


@pytest.mark.parametrize("case", SETTLED)
def test_when_no_other_optimum_is_expected(case):
    ended, under_way, enough = SETTLED[case]
    objective = np.array([*ended, under_way])
    status = np.array([CONVERGED] * len(ended) + [STALLED])
    n = len(objective)
    assert settled(Solution(np.zeros((n, 1)), objective, status, np.zeros(n), np.zeros(n, int))) is enough
