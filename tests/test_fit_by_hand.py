"""Pieces of a fit worked out on paper: objectives, signs, scores, intervals of predictions, derived columns."""

import numpy as np
import pytest
from fitting_tools import fit

from moesim.fitting.bootstrap import freedom_of, percentiles
from moesim.fitting.judge import held_out, information, scores
from moesim.fitting.objective import OBJECTIVES, objective_of
from moesim.fitting.result import data_range
from moesim.fitting.runs import DERIVED, load_runs
from moesim.laws import load_law

# Objective, predicted and observed loss, then rho, psi, psi' and psi/z of z = predicted - observed, of logs if it says
# so: delta = 0.5, and 0.2 as much where the observed loss lies above the prediction.
BY_HAND = [
    ("huber_log", np.exp(0.25), 1.0, (0.25**2 / 2, 0.25, 1, 1)),
    ("huber_log", np.exp(1.0), 1.0, (0.5 * (1 - 0.25), 0.5, 0, 0.5)),
    ("huber_log", 1.0, np.exp(2.0), (0.5 * (2 - 0.25), -0.5, 0, 0.25)),
    ("squared_log", np.exp(2.0), 1.0, (2, 2, 1, 1)),
    ("squared_log", 1.0, np.exp(3.0), (4.5, -3, 1, 1)),
    ("squared", 2.0, 5.0, (4.5, -3, 1, 1)),
    ("squared", 5.0, 3.0, (2, 2, 1, 1)),
    ("huber", 2.25, 2.0, (0.25**2 / 2, 0.25, 1, 1)),
    ("huber", 2.0, 4.0, (0.5 * (2 - 0.25), -0.5, 0, 0.25)),
    ("asymmetric_huber_log", np.exp(1.0), 1.0, (0.375, 0.5, 0, 0.5)),
    ("asymmetric_huber_log", 1.0, np.exp(1.0), (0.2 * 0.375, -0.2 * 0.5, 0, 0.2 * 0.5)),
    ("asymmetric_huber_log", 1.0, np.exp(0.25), (0.2 * 0.03125, -0.2 * 0.25, 0.2, 0.2)),
]


@pytest.mark.parametrize(("name", "predicted", "observed", "expected"), BY_HAND)
def test_objectives_by_hand(name, predicted, observed, expected):
    objective = objective_of(name, delta=0.5, above=0.2)
    predicted, observed = np.array([predicted]), np.array([observed])
    residual, slope = objective.residual(predicted, objective.observed(observed))
    assert [float(part[0]) for part in objective.rho(residual)] == pytest.approx(expected, rel=1e-12)
    assert float(np.ravel(slope)[0]) == (1 / predicted[0] if name.endswith("log") else 1)
    assert objective.sum(predicted, observed, 3.0) == pytest.approx(3 * expected[0], rel=1e-12)


def test_every_objective_is_worked_out():
    assert {name for name, *_ in BY_HAND} == set(OBJECTIVES)


def test_scores_by_hand():
    """Predicted 2 and 5 for 1 and 4 and for 10: off by 1, 1 and -5."""
    found = scores(np.array([2.0, 5.0, 5.0]), np.array([1.0, 4.0, 10.0]))
    assert found == pytest.approx(
        {"r2": 1 - 27 / 42, "mape": (1 + 0.25 + 0.5) / 3, "rmse": 3.0, "bias": -1.0, "worst": 1.0}
    )
    assert np.isnan(scores(np.array([2.0, 2.0]), np.array([3.0, 3.0]))["r2"])


def test_information_by_hand():
    """Half the sum of squares 16 over 8 runs is a variance of 4; k = 3: 2 coefficients and the variance."""
    deviance = 8 * np.log(4) + 8 * (1 + np.log(2 * np.pi))
    expected = {"aic": deviance + 6, "aicc": deviance + 6 + 2 * 3 * 4 / (8 - 4), "bic": deviance + 3 * np.log(8)}
    assert information(16.0, 8, 2) == pytest.approx(expected)


# ---------------------------------------------------------------- a law of which the floor alone is free

KNOWN = dict(load_law("besiroglu2024").coefficients)
HELD = {name: value for name, value in KNOWN.items() if name != "E"}


def skewed(log):
    """100 runs of which each tenth lies 9 % (or 0.9 nat/token) above the law and the others 1 % (0.1) below."""
    rng = np.random.default_rng(0)
    table = {"total_params": 10 ** rng.uniform(8, 10, 100), "tokens": 10 ** rng.uniform(10, 12, 100)}
    noise = np.where(np.arange(100) % 10 == 0, 0.09, -0.01)
    loss = load_law("besiroglu2024")(**table)
    return load_runs({**table, "loss": loss * np.exp(noise) if log else loss + 10 * noise})


@pytest.mark.parametrize("objective", ["squared_log", "squared"])
def test_predictions_scatter_as_the_runs_do(objective):
    """The interval of a further run reaches as far up and down as the runs lie; the residual is positive above."""
    log = objective == "squared_log"
    found = fit("besiroglu2024", skewed(log), objective=objective, fixed=HELD, draws=100)
    assert found.estimate["E"] == pytest.approx(KNOWN["E"], abs=0.02)
    out = found.predict({"total_params": 1e9, "tokens": 1e11}, level=0.9)
    low, high = out.prediction.values[0]
    law = load_law("besiroglu2024")(total_params=1e9, tokens=1e11)
    low, high = (low / law, high / law) if log else (low - law, high - law)
    expected = (np.exp(-0.01), np.exp(0.09)) if log else (-0.1, 0.9)
    assert (low, high) == pytest.approx(expected, abs=0.03 if log else 0.2)
    assert out.confidence.values[0] == pytest.approx(law, rel=0.02 if log else 0.1)
    residual = found.to_dataset().residual.values
    assert (residual > 0).tolist() == (np.arange(100) % 10 == 0).tolist()
    assert (found.task.residuals(found.optimum.x[None])[0] < 0).sum() == 10  # inside the fit: predicted - observed


def test_the_data_range_is_that_of_the_runs_fitted():
    """Held-out runs are not behind the law."""
    runs = skewed(log=True)
    found = fit("besiroglu2024", runs, fixed=HELD, holdout={"largest_compute": 0.2})
    compute = runs.total_params.values * runs.tokens.values
    kept = np.argsort(compute)[:80]
    assert sorted(np.flatnonzero(~found.outside)) == sorted(kept)
    for name in ("total_params", "tokens"):
        values = runs[name].values[kept]
        assert found.law.data_range[name] == (values.min(), values.max())
    assert data_range(runs)["tokens"][1] > found.law.data_range["tokens"][1]


# ---------------------------------------------------------------- columns and hold-outs

COLUMNS = {"active_params": 2.0, "total_params": 8.0, "tokens": 5.0, "compute": 60.0, "epochs": 4.0}
COLUMNS |= {"unique_tokens": 1.25, "experts": 8.0, "active_experts": 2.0}
MADE = {"tokens_from_compute": 5, "compute_from_tokens": 60, "unique_tokens_from_epochs": 1.25}
MADE |= {"epochs_from_unique_tokens": 4, "sparsity_from_experts": 0.75, "density_from_params": 0.25}
MADE |= {"total_params_from_compute": 2, "active_params_from_compute": 2}


@pytest.mark.parametrize("name", DERIVED)
def test_derived_columns_by_hand(name):
    _, needs, formula = DERIVED[name]
    assert formula(*(np.array(COLUMNS[need]) for need in needs)) == MADE[name]


def test_hold_outs_by_hand():
    """Compute 12, 24, 12, 6 (e12): half of the runs are those of 24 and both of 12, which tie."""
    table = {"active_params": [1e6, 2e6, 2e6, 1e6], "tokens": [2e6, 2e6, 1e6, 1e6], "loss": [4, 3, 2, 1]}
    runs = load_runs({**table, "g": list("aabb")})
    rng = np.random.default_rng(0)
    assert held_out(runs, {"largest_compute": 0.5}, rng).tolist() == [True, True, True, False]
    assert held_out(runs, {"largest_compute": 0.25}, rng).tolist() == [False, True, False, False]
    assert held_out(runs, {"column": "g", "value": "b"}, rng).tolist() == [False, False, True, True]
    grouped = runs.assign(group=runs.g)
    assert held_out(grouped, {"fraction": 0.5}, rng).tolist() in (
        [True, True, False, False],
        [False, False, True, True],
    )


def test_the_normal_interval_of_a_mean():
    """With the floor alone free and squared losses it is Student's: t s/sqrt(n) on both sides, t of 99 runs."""
    found = fit("besiroglu2024", skewed(log=False), objective="squared", fixed=HELD)
    noise = np.where(np.arange(100) % 10 == 0, 0.9, -0.1)
    reach = 1.6603911559963902 * np.std(noise, ddof=1) / 10
    assert found.estimate["E"] == pytest.approx(KNOWN["E"] + noise.mean(), rel=1e-9)
    ends = (found.estimate["E"] - reach, found.estimate["E"] + reach)
    assert found.interval(0.9, "normal")["E"] == pytest.approx(ends, rel=1e-6)


def test_percentiles_by_hand():
    """Of 19 draws 1 .. 19 the next one lies between the first and the last with chance 18/20."""
    assert percentiles(np.arange(1.0, 20.0), 0.9) == pytest.approx([1.0, 19.0])
    assert percentiles(np.arange(1.0, 20.0), 0.8) == pytest.approx([2.0, 18.0])


def test_degrees_of_freedom_by_hand():
    """A law of one number on eight runs: it is their mean, so its parts are the squares of the errors.

    All of one size: 3 x 8^2 / 8 = 24, at most the 8 runs less one. Seven of 1 and one of 5: 3 (7 + 25)^2 / (7 + 625) =
    4.861. Errors 1 and 2 alone: 3 (1 + 4)^2 / (1 + 16) = 4.412, and 3 if the two are one group.
    """
    runs = {"total_params": np.geomspace(1e8, 1e9, 8), "tokens": np.full(8, 1e10), "loss": np.full(8, 2.0)}
    settings = {"fixed": {"A": 1e-9, "alpha": 0.3, "B": 1e-9, "beta": 0.3}, "objective": "squared", "starts": 2}
    one = fit("hoffmann2022", runs, **settings)
    pair = fit("hoffmann2022", {**runs, "group": np.array([0, 1, 2, 3, 4, 5, 6, 6])}, **settings)
    for errors, found, freedom in (
        (np.ones(8), one, 7.0),
        ([1, 1, 1, 1, 1, 1, 1, -5], one, 4.861),
        ([0, 0, 0, 0, 0, 0, 1, 2], one, 4.412),
        ([0, 0, 0, 0, 0, 0, 1, 2], pair, 3.0),
    ):
        assert freedom_of(found.task, found.optimum.x, np.array(errors, float)) == pytest.approx(freedom, rel=1e-3)
