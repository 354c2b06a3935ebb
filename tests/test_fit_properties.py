"""What every fit must do: recover, cover, agree with another solver, and not depend on rows, units or starts."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from fitting_tools import fit, one_file_of_each_form, synthetic

from moesim.fitting.bootstrap import bootstrap
from moesim.fitting.identify import student
from moesim.fitting.model import target_of
from moesim.fitting.objective import OBJECTIVES, objective_of
from moesim.fitting.profile import profile
from moesim.fitting.runs import load_runs
from moesim.fitting.solve import AT_BOUND, CONVERGED, Rows, solve
from moesim.fitting.uncertainty import spread
from moesim.laws import load_repetition
from moesim.numerics.derivative import Jet

LAWS = one_file_of_each_form()


@pytest.mark.parametrize("name", LAWS)
def test_recovers_every_law(name):
    """Without noise the identified coefficients come back; A_max of tian2025 (5e16) is the one that has no effect."""
    known = target_of(name).known
    found = fit(name, synthetic(name), starts=32, start=None)
    assert found.status in ("converged", "at bound")
    verdict = dict(zip(found.identification.names, found.identification.verdict, strict=True))
    lost = {c for c, v in verdict.items() if v in ("not identified", "term vanishes")}
    assert lost <= {"A_max"}
    for coefficient in set(verdict) - lost:
        assert found.estimate[coefficient] == pytest.approx(known[coefficient], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_recovers_without_the_known_start(name):
    """The same from random points in the typical ranges alone, as a user's own law would be fitted."""
    runs = synthetic(name)
    target = target_of(name)
    found = fit(replace(target, known={}), runs, starts=48)
    predicted = found.predict(runs)["loss"].values
    assert predicted == pytest.approx(runs.loss.values, rel=1e-7)


REPEATS, NOISE, LEVEL = 200, 2e-4, 0.9
_SLACK = 3.5 * np.sqrt(LEVEL * (1 - LEVEL) / REPEATS)  # 3.5 standard deviations of a share of 200


def repeats_of(name, objective, n=300):
    """(task, x of the truth, log losses of REPEATS noisy repeats) of a law."""
    found = fit(name, synthetic(name, n), objective=objective, starts=0)
    task, truth = found.task, found.task.parameters.x_of(found.task.target.known)
    noise = np.random.default_rng(1).normal(0.0, NOISE, (REPEATS, n))
    return task, truth, np.log(task.loss) + noise


@pytest.mark.parametrize("name", LAWS)
def test_intervals_cover(name):
    """90 % intervals hold the truth in 90 % of 200 repeats [3.5 sd], for every identified coefficient."""
    task, truth, observed = repeats_of(name, "squared_log")
    start = np.repeat(truth[None], REPEATS, axis=0)
    found = solve(task.problem, start, Rows(observed, task.weight), tolerance=1e-12)
    inside, counted = np.zeros(len(truth)), np.zeros(len(truth))
    for x, log_loss, status in zip(found.x, observed, found.status, strict=True):
        local = spread(replace(task, loss=np.exp(log_loss)), x)
        known = np.isfinite(local.error) & (status == CONVERGED) & (local.error < 0.35)
        inside += known & (np.abs(x - truth) <= student(task, LEVEL) * local.error)
        counted += known
    usual = counted > 0.95 * REPEATS
    assert usual.sum() >= min(4, len(truth))
    shares = inside[usual] / counted[usual]
    assert shares.min() >= LEVEL - _SLACK
    assert shares.max() <= min(LEVEL + _SLACK, 1.0)


def test_bootstrap_and_profiles_cover():
    """The same for the bootstrap (200 draws) and profiles of the Chinchilla form under Huber's objective."""
    task, truth, observed = repeats_of("besiroglu2024", "huber_log", n=200)
    found = solve(task.problem, np.repeat(truth[None], REPEATS, axis=0), Rows(observed, task.weight), tolerance=1e-12)
    by_draws, by_profile = np.zeros(5), np.zeros(5)
    rng = np.random.default_rng(0)
    for x, objective, log_loss in zip(found.x, found.objective, observed, strict=True):
        one = replace(task, loss=np.exp(log_loss))
        low, high = np.quantile(bootstrap(one, x, 200, "pairs", rng).x, [0.05, 0.95], axis=0)
        by_draws += (low <= truth) & (truth <= high)
        ends = profile(one, x, objective, spread(one, x), LEVEL).interval
        by_profile += (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    for inside in (by_draws, by_profile):
        assert inside.min() / REPEATS >= LEVEL - _SLACK
        assert inside.max() / REPEATS <= LEVEL + _SLACK


@pytest.mark.parametrize("name", LAWS)
def test_another_solver_agrees(name):
    """SciPy's trust-region least squares from beside the estimate: the same objective and predictions."""
    from scipy.optimize import least_squares

    found = fit(name, synthetic(name, noise=0.003), objective="squared_log", starts=8)
    task, x = found.task, found.optimum.x
    box = (np.maximum(task.parameters.lower, x - 50), np.minimum(task.parameters.upper, x + 50))

    def residual(at):
        return task.residuals(at[None])[0]

    start = np.clip(x * 1.001 + 1e-3, box[0] + 1e-9, box[1] - 1e-9)
    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 2000}
    other = least_squares(residual, start, lambda at: task.effects(at), bounds=box, x_scale="jac", **tight)
    assert other.cost == pytest.approx(found.objective, rel=1e-8)
    assert np.exp(residual(other.x) - residual(x)) == pytest.approx(1.0, abs=1e-6)


def test_another_solver_agrees_on_chinchilla():
    """Huber's objective through SciPy: coefficients to 1e-6, objective to 1e-8."""
    from scipy.optimize import least_squares

    found = fit("hoffmann2022", load_runs("chinchilla"))
    task = found.task
    start = found.optimum.x + np.array([0.01, 0.05, 0.01, -0.05, 0.01])
    settings = {"loss": "huber", "f_scale": 1e-3, "x_scale": "jac", "ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
    other = least_squares(lambda x: task.residuals(x[None])[0], start, task.effects, **settings)
    assert other.cost == pytest.approx(found.objective, rel=1e-8)
    assert other.x == pytest.approx(found.optimum.x, rel=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rows_may_stand_in_any_order(objective):
    """A shuffled table gives the same estimate and the same draws, bit for bit."""
    runs = synthetic("besiroglu2024", n=60, noise=0.01)
    shuffled = runs.isel(run=np.random.default_rng(3).permutation(60))
    one, other = (fit("hoffmann2022", r, objective=objective, draws=20, starts=8) for r in (runs, shuffled))
    assert one.estimate == other.estimate
    assert np.array_equal(one.draws.x, other.draws.x)
    back = np.argsort(shuffled["row"].values)
    assert np.array_equal(one.predict(runs).loss.values, other.predict(shuffled).loss.values[back])


def test_units_change_nothing():
    """Parameters in millions and tokens in billions, said so, give the same fit."""
    runs = synthetic("besiroglu2024", n=60, noise=0.01)
    table = {"N": runs.total_params.values / 1e6, "D": runs.tokens.values / 1e9, "loss": runs.loss.values}
    columns = {"total_params": {"column": "N", "unit": "million"}, "tokens": {"column": "D", "unit": "billion"}}
    one, other = fit("hoffmann2022", runs), fit("hoffmann2022", load_runs(table, columns))
    for name, value in one.estimate.items():
        assert other.estimate[name] == pytest.approx(value, rel=1e-8)


def test_units_unsaid_change_only_amplitudes():
    """Millions and billions taken for units still give the same objective and exponents."""
    runs = synthetic("besiroglu2024", n=60, noise=0.01)
    scaled = runs.assign(total_params=runs.total_params / 1e6, tokens=runs.tokens / 1e9)
    one, other = fit("hoffmann2022", runs), fit("hoffmann2022", scaled)
    assert other.objective == pytest.approx(one.objective, rel=1e-9)
    for name in ("E", "alpha", "beta"):
        assert other.estimate[name] == pytest.approx(one.estimate[name], rel=1e-6)


def test_seed_decides_everything():
    """The same seed gives the same fit, another one other draws."""
    runs = synthetic("besiroglu2024", n=60, noise=0.01)
    one, same, other = (fit("hoffmann2022", runs, draws=30, seed=s) for s in (1, 1, 2))
    xr.testing.assert_identical(one.to_dataset(), same.to_dataset())
    assert not np.array_equal(one.draws.x, other.draws.x)


def test_weight_two_is_the_run_twice():
    runs = synthetic("besiroglu2024", n=40, noise=0.01)
    doubled = runs.isel(run=np.r_[np.arange(40), np.arange(10)])
    weighted = runs.assign(weight=("run", np.r_[np.full(10, 2.0), np.ones(30)]))
    one, other = fit("hoffmann2022", doubled), fit("hoffmann2022", weighted)
    assert one.objective == pytest.approx(other.objective, rel=1e-9)
    assert one.estimate["alpha"] == pytest.approx(other.estimate["alpha"], rel=1e-7)


def test_groups_widen_the_intervals():
    """Checkpoints of one run that share its luck: resampled together the draws scatter more than one by one."""
    rng, group = np.random.default_rng(0), np.repeat(np.arange(40), 4)
    runs = synthetic("besiroglu2024", n=160)
    runs = runs.assign(total_params=("run", runs.total_params.values[group * 4]))
    loss = target_of("besiroglu2024")
    loss = loss.at({name: runs[name].values for name in loss.inputs})(loss.known)
    runs = runs.assign(loss=("run", loss * np.exp(0.01 * rng.standard_normal(40)[group])))
    grouped = runs.assign(group=("run", group))
    alone, together = (fit("hoffmann2022", r, draws=300, objective="squared_log") for r in (runs, grouped))
    assert together.draws.x[:, 0].std() > 1.3 * alone.draws.x[:, 0].std()
    assert together.local.error[0] > 1.3 * alone.local.error[0]


# --- the law wrapped by a repetition ----------------------------------------------------------------------------------

WRAPPED = [
    ("muennighoff2023", "muennighoff2023"),
    ("besiroglu2024", "muennighoff2023"),
    ("besiroglu2024", "muennighoff2023_geometric"),
    ("abnar2025", "muennighoff2023"),
    ("ludziejewski2025", "muennighoff2023"),
    ("tian2025", "muennighoff2023"),
    ("wu2026", "wu2026"),
    ("besiroglu2024", "lovelace2026"),
]
_OPEN = {"P": 0.01, "delta": 1.2, "kappa": 0.6}


@pytest.mark.parametrize(("law", "repetition"), WRAPPED)
def test_derivatives_through_the_repetition(law, repetition):
    """Exact derivatives of the wrapped law in all coefficients, also through the optimum that defines the excess."""
    target = target_of(law, repetition)
    runs = synthetic(law, 40, repetition=repetition, **(_OPEN if repetition == "lovelace2026" else {}))
    known = {**target.known, **(_OPEN if repetition == "lovelace2026" else {})}
    prediction = target.at({name: runs[name].values for name in (*target.inputs,)})
    jets = prediction({name: Jet(np.array([[v]]), {name: np.ones((1, 1))}) for name, v in known.items()})
    for name, value in known.items():
        step = 1e-6 * abs(value)
        high, low = (prediction({**known, name: value + s}) for s in (step, -step))
        slope = np.broadcast_to(jets.first.get(name, 0.0), (1, 40))[0]
        assert slope * value == pytest.approx((high - low) / (2 * step) * value, rel=2e-4, abs=2e-8)


def test_taught_parameters_of_the_chinchilla_form():
    """N_opt(U) = (U G)^(beta/alpha) G with G = (alpha A/(beta B))^(1/(alpha+beta)) (Muennighoff et al. 2023)."""
    target = target_of("besiroglu2024", "muennighoff2023")
    unique = np.array([1e8, 1e9, 2.5e10])
    runs = {"total_params": np.full(3, 1e9), "tokens": 4 * unique, "unique_tokens": unique}
    k = target.known
    G = (k["alpha"] * k["A"] / (k["beta"] * k["B"])) ** (1 / (k["alpha"] + k["beta"]))
    found = target.at(runs).contexts.taught(target.law_values(k))
    assert found == pytest.approx((unique * G) ** (k["beta"] / k["alpha"]) * G, rel=1e-12)


def test_taught_parameters_are_of_the_counted_kind():
    """Of a law of active parameters, in a model with four times as many in all: the total ones that go with them."""
    target = target_of("kang2025_flame_mse", load_repetition("muennighoff2023", excess="total"))
    runs = {"active_params": np.full(2, 1e9), "total_params": np.full(2, 4e9), "tokens": np.array([4e9, 8e9])}
    runs["unique_tokens"] = runs["tokens"] / 4
    k = target.known
    G = (k["alpha"] * k["A"] / (k["beta"] * k["B"])) ** (1 / (k["alpha"] + k["beta"]))
    found = target.at(runs).contexts.taught(target.law_values(k))
    assert found == pytest.approx(4 * (runs["unique_tokens"] * G) ** (k["beta"] / k["alpha"]) * G, rel=1e-9)


def test_repetition_recovered_with_the_law_free():
    """Law and repetition fitted together to runs without noise."""
    runs = synthetic("muennighoff2023_untied", 300, repetition="muennighoff2023")
    found = fit("muennighoff2023_untied", runs, repetition="muennighoff2023", starts=16)
    for name, value in target_of("muennighoff2023_untied", "muennighoff2023").known.items():
        assert found.estimate[name] == pytest.approx(value, rel=1e-6)


def test_statuses_are_true():
    """A row that is called converged has a vanishing gradient; one stopped early is not called so."""
    task = fit("hoffmann2022", load_runs("chinchilla"), starts=1).task
    start = task.parameters.x_of({"E": 1.0, "A": 100.0, "alpha": 0.5, "B": 100.0, "beta": 0.5})[None]
    assert solve(task.problem, start, task.rows, max_steps=3).status[0] not in (CONVERGED, AT_BOUND)
    done = solve(task.problem, start, task.rows)
    assert done.status[0] == CONVERGED
    step = 1e-6 * np.eye(5)
    sums = [np.sum(objective_of("huber_log").rho(task.residuals(done.x + s))[0]) for s in (*step, *-step)]
    assert (np.array(sums[:5]) - np.array(sums[5:])) / 2e-6 == pytest.approx(0.0, abs=1e-7)


def test_taught_parameters_beyond_every_size():
    """Where the gain of size never falls to that of data, more parameters always help; in the reverse, fewer."""
    target = target_of("besiroglu2024", "muennighoff2023")
    runs = {"total_params": np.full(2, 1e9), "tokens": np.full(2, 4e9), "unique_tokens": np.array([1e9, 2e9])}
    k = target.law_values(target.known)
    taught = target.at(runs).contexts.taught
    assert np.all(taught({**k, "B": 1e-300}) > 1e30)
    assert np.all(taught({**k, "A": 1e-300}) <= 100 * (1 + 1e-12))
