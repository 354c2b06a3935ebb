"""Fits beside each other: recipes draw by draw, below cuts of compute, without folds, and with checkpoints weighed."""

import numpy as np
import pytest
from fitting_tools import fit, synthetic

import moesim
from moesim.errors import InputError
from moesim.fitting.checkpoints import autocorrelation, effective
from moesim.fitting.runs import load_runs

COMPUTE = np.geomspace(1e18, 3e20, 8)
PINNED = {"fixed": {"L_inf": 1.6}, "objective": "squared_log", "draws": 400}


def recipe(gain, seed, noise=0.002):
    """The best runs of a recipe that needs 1/gain of the compute of Marin's."""
    rng = np.random.default_rng(seed)
    loss = moesim.load_law("marin2026")(compute=COMPUTE * gain) * np.exp(noise * rng.standard_normal(8))
    return fit("marin2026", {"compute": COMPUTE, "loss": loss}, **PINNED)


def test_the_speed_up_of_a_recipe_is_that_of_the_formula():
    """((L_worse - L_inf)/(L_better - L_inf))^(1/alpha), the same at each budget where both share L_inf and alpha."""
    plain, better = recipe(1.0, 0, noise=0.0), recipe(1.3, 0, noise=0.0)
    found = moesim.versus(better, plain, compute=[1e20, 1e23])
    worse, good = (one.law(compute=1e20) for one in (plain, better))
    by_hand = ((worse - 1.6) / (good - 1.6)) ** (1 / 0.0941)
    assert by_hand == pytest.approx(1.3, rel=1e-6)
    assert found.compute_gain.values == pytest.approx(by_hand, rel=1e-6)
    assert moesim.versus(plain, better, compute=1e20).compute_gain.item() == pytest.approx(1 / 1.3, rel=1e-6)
    assert (found.p_better == 1.0).all()
    assert (moesim.versus(plain, better, compute=1e20).p_better == 0.0).all()


def test_how_sure_a_recipe_is_better():
    """Shares of draws; wider and less sure further ahead; the truth is in its 90 % interval."""
    found = moesim.versus(recipe(1.2, 1, noise=0.006), recipe(1.0, 2, noise=0.006), compute=[1e20, 1e23])
    low, high = found.compute_gain_interval.values.T
    assert (low < 1.2).all()
    assert (high > 1.2).all()
    assert high[1] - low[1] > 2 * (high[0] - low[0])
    loss = found.loss
    share = (loss.sel(fit="one") < loss.sel(fit="other")).mean("draw")
    assert found.p_better.values == pytest.approx(share.values)
    assert found.p_better[0] > found.p_better[1] > 0.5
    gap = (loss.sel(fit="one") - loss.sel(fit="other")).values
    assert found.difference_interval.values[0] == pytest.approx(np.quantile(gap[:, 0], [0.05, 0.95]), abs=2e-3)


def test_common_draws_cancel_what_recipes_share():
    """The same runs, 1 % lower: each loss is unsure, the difference is not; the gain is where the other gets there."""
    runs = synthetic("besiroglu2024", 100, noise=0.01)
    one, other = (fit("hoffmann2022", runs.assign(loss=runs.loss * s), draws=200) for s in (0.99, 1.0))
    found = moesim.versus(one, other, compute=[1e22], level=0.9)
    spread = np.ptp(found.loss.sel(fit="one").quantile([0.05, 0.95], "draw").values)
    assert np.ptp(found.difference_interval.values) < 0.1 * spread
    ahead = 1e22 * found.compute_gain.item()
    reached = other.allocation(compute=[ahead]).optimal_loss_estimate.item()
    assert reached == pytest.approx(one.allocation(compute=[1e22]).optimal_loss_estimate.item(), rel=1e-6)
    at = moesim.versus(one, other, runs={"total_params": [1e9, 1e10], "tokens": 1e11})
    laws = [f.law(total_params=np.array([1e9, 1e10]), tokens=1e11) for f in (one, other)]
    assert at.difference.values == pytest.approx(laws[0] - laws[1])
    assert "compute_gain" not in at


def test_a_loss_out_of_reach_takes_unlimited_compute():
    """Below the other's floor: no compute gets there."""
    plain = recipe(1.0, 0, noise=0.0)
    floor = {"compute": COMPUTE, "loss": 1.5 + 30.0 * COMPUTE**-0.0941}
    low = fit("marin2026", floor, **{**PINNED, "fixed": {"L_inf": 1.5}})
    found = moesim.versus(low, plain, compute=[1e30])
    assert found.compute_gain.item() == np.inf


def test_what_versus_cannot_answer():
    plain = recipe(1.0, 0)
    undrawn = fit("marin2026", {"compute": COMPUTE, "loss": 1.6 + 95.0 * COMPUTE**-0.094})
    for arguments, words in (({}, "give one of them"), ({"compute": 1e20, "runs": {}}, "give one of them")):
        with pytest.raises(InputError, match=words):
            moesim.versus(plain, plain, **arguments)
    with pytest.raises(InputError, match="without draws"):
        moesim.versus(plain, undrawn, compute=1e20)


def test_fitted_below_a_cut_and_judged_above(command, tmp_path):
    """By hand for one cut: the fit of the runs up to it, its error on the others; the verb says the same."""
    runs = load_runs("chinchilla")
    found = moesim.rolling(fit("hoffmann2022", runs, draws=50), [1e20, 1e21])
    below = runs["compute"].values <= 1e20
    alone = fit("hoffmann2022", runs.isel(run=np.flatnonzero(below)))
    above = runs.isel(run=np.flatnonzero(~below))
    ahead = alone.law(total_params=above.total_params.values, tokens=above.tokens.values)
    assert found.mape.values[0] == pytest.approx(np.mean(np.abs(ahead / above.loss.values - 1.0)), rel=1e-5)
    assert (found.below.values[0], found.above.values[0]) == (below.sum(), (~below).sum())
    assert found.estimate.sel(coefficient="alpha").values[0] == pytest.approx(alone.estimate["alpha"], rel=1e-5)
    assert len(moesim.rolling(fit("hoffmann2022", runs), 3).cut) == 3
    settings = ("fit.draws=50", "fit.profiles=false", "figures=false", "hydra.run.dir=one")
    code, out, err = command("fit", "rolling=[1e20, 1e21]", *settings)
    assert code == 0, err
    assert f"{found.mape.values[0]:.3%}" in out
    assert moesim.open_result(tmp_path / "one").rolling_mape.values == pytest.approx(found.mape.values, rel=1e-5)
    assert moesim.load_fit(tmp_path / "one").status == "converged"


@pytest.mark.parametrize("cuts", [0, True, [1e10], [1e30], "many", []])
def test_cuts_lie_within_the_runs(cuts):
    found = fit("hoffmann2022", load_runs("chinchilla"))
    with pytest.raises(InputError, match="rolling: cuts="):
        moesim.rolling(found, cuts)


def test_cross_validation_tells_forms_apart(command):
    """Runs of a law with two exponents: one exponent is behind by more than its error; by hand for two folds."""
    law, sizes, tokens = moesim.load_law("besiroglu2024", beta=0.7, B=4e6), *_design()
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(len(sizes)))
    runs = load_runs({"total_params": sizes, "tokens": tokens, "loss": law(total_params=sizes, tokens=tokens) * noise})
    fits = {name: fit(name, runs, objective="squared_log") for name in ("hoffmann2022", "gadre2024_redpajama")}
    found = moesim.compare(fits, folds=5)
    assert found.cv_behind.sel(fit="hoffmann2022") == 0.0
    assert found.cv_behind.sel(fit="gadre2024_redpajama") > 2 * found.cv_behind_error.sel(fit="gadre2024_redpajama") > 0
    assert found.cv_error.sel(fit="hoffmann2022") == pytest.approx(0.003, rel=0.3)
    whole = moesim.compare(fits, folds=len(sizes)).cv_error.sel(fit="hoffmann2022")
    assert whole == pytest.approx(found.cv_error.sel(fit="hoffmann2022").item(), rel=0.1)
    compared = "compare={two: {law: hoffmann2022}, one: {law: gadre2024_redpajama}}"
    code, out, err = command("fit", compared, "folds=4", "fit.draws=0", "fit.profiles=false", "figures=false")
    assert code == 0, err
    assert "square above the best" in out


def _design():
    return (a.ravel() for a in np.meshgrid(np.geomspace(1e8, 1e10, 8), np.geomspace(2e9, 2e11, 8)))


@pytest.mark.parametrize("folds", [1, 3.0, 1000, True])
def test_folds_are_a_number_of_groups(folds):
    found = fit("hoffmann2022", load_runs("chinchilla"))
    with pytest.raises(InputError, match="folds="):
        moesim.compare({"one": found}, folds=folds)
    other = fit("hoffmann2022", load_runs("gadre2024"))
    with pytest.raises(InputError, match="the same runs"):
        moesim.compare({"one": found, "two": other}, folds=3)


@pytest.mark.parametrize(
    ("n", "r", "worth"), [(5, 0.0, 5.0), (2, 0.5, 4 / 3), (3, 0.5, 3 / (1 + 2 * (1 / 3 + 1 / 12)))]
)
def test_the_worth_of_correlated_rows(n, r, worth):
    """n / (1 + 2 sum (1 - k/n) r^k): for n rows the variance of their mean, worked out; in the limit n (1-r)/(1+r)."""
    assert effective(n, r) == pytest.approx(worth)
    assert effective(10**5, 0.8) == pytest.approx(1e5 / 9, rel=1e-3)
    places = np.arange(n)
    variance = np.mean(r ** np.abs(places[:, None] - places))
    assert effective(n, r) == pytest.approx(1.0 / variance)


def ladders(r=0.9, seed=0, rows=40):
    """Eight runs of 40 checkpoints, and 60 single runs: log errors of .01, autocorrelated within a run."""
    rng, law = np.random.default_rng(seed), moesim.load_law("besiroglu2024")
    sizes = np.repeat(np.geomspace(1e8, 1e10, 8), rows)
    tokens = np.tile(np.geomspace(2e9, 2e11, rows), 8)
    error = np.zeros((8, rows))
    error[:, 0] = rng.standard_normal(8)
    for i in range(1, rows):
        error[:, i] = r * error[:, i - 1] + np.sqrt(1 - r**2) * rng.standard_normal(8)
    single = 10 ** rng.uniform(8, 10, 60), 10 ** rng.uniform(9.3, 11.3, 60)
    sizes, tokens = np.append(sizes, single[0]), np.append(tokens, single[1])
    loss = law(total_params=sizes, tokens=tokens) * np.exp(0.01 * np.append(error, rng.standard_normal(60)))
    group = np.append(np.repeat(np.arange(8), rows), 100 + np.arange(60))
    return load_runs({"total_params": sizes, "tokens": tokens, "loss": loss, "name": group}, group="name")


def test_checkpoints_weigh_as_their_autocorrelation_leaves():
    """.97 between neighbours: 40 checkpoints are worth about 1.4 runs; the law comes closer to the truth for it."""
    truth, points = moesim.load_law("besiroglu2024"), {"total_params": 1e9, "tokens": 2e10}
    off = {True: [], False: []}
    for seed in range(12):
        runs = ladders(0.97, seed)
        for weighed in off:
            found = fit("hoffmann2022", runs, checkpoints=weighed, objective="squared_log", starts=4)
            off[weighed].append(np.log(found.law(**points) / truth(**points)))
            if weighed and not seed:
                assert found.runs.attrs["autocorrelation"] == pytest.approx(0.97, abs=0.03)
                weight = found.runs.weight.values
                assert weight[-60:] == pytest.approx(1.0)
                assert 0.025 < weight[0] < 0.1
                assert "checkpoints: autocorrelation 0." in found.report()
                assert found.runs.attrs["effective_runs"] == pytest.approx(weight.sum())
    errors = {weighed: np.sqrt(np.mean(np.square(values))) for weighed, values in off.items()}
    assert errors[True] < 0.75 * errors[False]


def test_checkpoints_need_their_runs():
    with pytest.raises(InputError, match="group=COLUMN"):
        fit("hoffmann2022", load_runs("chinchilla"), checkpoints=True)


def test_autocorrelation_is_along_tokens_within_runs():
    """Rows in any order; neighbours of different runs do not count: (1 x 2 + 2 x 4)/sqrt((1 + 4)(4 + 16)) = 1."""
    residual, group = np.array([4.0, 1.0, 2.0, -5.0]), np.array([0, 0, 0, 1])
    assert autocorrelation(residual, group, np.array([3.0, 1.0, 2.0, 1.0])) == 0.999
    assert autocorrelation(residual, group, np.array([2.0, 1.0, 3.0, 1.0])) == pytest.approx(12 / np.sqrt(17 * 20))
    assert autocorrelation(np.zeros(4), group, np.arange(4.0)) == 0.0
