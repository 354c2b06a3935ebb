"""Predictions with intervals, hold-outs, and what is said of runs whose design or residuals tell less than it seems."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from fitting_tools import fit, synthetic

from moesim.errors import InputError
from moesim.fitting.checks import _axes, _bend, _residual
from moesim.fitting.judge import information
from moesim.fitting.runs import load_runs


@pytest.fixture(scope="module")
def chinchilla():
    return fit("hoffmann2022", load_runs("chinchilla"), draws=200, holdout={"largest_compute": 0.2})


def test_a_grid_stays_a_grid(chinchilla):
    """Sizes along one dim, tokens along another: every combination, as one by one, and nothing paired."""
    sizes, tokens = np.array([1e8, 1e9, 1e10]), np.array([1e10, 1e11, 1e12])
    grid = chinchilla.predict(xr.Dataset({"total_params": ("n", sizes), "tokens": ("d", tokens)}))
    assert grid.loss.sizes == {"n": 3, "d": 3}
    assert grid.prediction.dims == ("n", "d", "bound")
    for i, size in enumerate(sizes):
        assert grid.loss.values[i] == pytest.approx(chinchilla.law(total_params=size, tokens=tokens))
        alone = chinchilla.predict({"total_params": size, "tokens": tokens})
        assert grid.confidence.values[i] == pytest.approx(alone.confidence.values)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ({"total_params": [-1e8], "tokens": 1e9}, "total_params=-1e"),
        ({"total_params": [1e8]}, "no tokens"),
        ({"total_params": [1e8, 1e9], "tokens": [1e9, 1e9, 1e9]}, "total_params has 2, tokens has 3"),
        ({"total_params": np.ones((2, 2)), "tokens": 1e9}, "2 dims"),
    ],
)
def test_what_cannot_be_predicted_is_said(chinchilla, runs, words):
    with pytest.raises(InputError, match=words):
        chinchilla.predict(runs)


def test_the_hold_out_is_in_the_table_and_widens(chinchilla):
    """Too few held-out Chinchilla runs lie in their intervals: said, with the share; widened, they do."""
    data, line = chinchilla.to_dataset(), next(w for w in chinchilla.warnings if "held-out runs lie in" in w)
    share = data.coverage.sel(part="held out").item()
    assert 0.3 < share < 0.8 < data.coverage.sel(part="in sample").item()
    assert line.startswith(f"{round(share * 48)} of 48")
    assert f"{share:.0%}" in chinchilla.summary()
    out = chinchilla.runs.isel(run=chinchilla.outside)
    low, high = chinchilla.predict(out, widen="holdout")["prediction"].values.T
    assert np.mean((low <= out.loss) & (out.loss <= high)) >= chinchilla.level - 0.03
    with pytest.raises(InputError, match="without a hold-out"):
        fit("hoffmann2022", chinchilla.runs).predict(out, widen="holdout")


def test_a_share_holds_out_the_largest_compute(chinchilla):
    assert np.array_equal(fit("hoffmann2022", chinchilla.runs, holdout=0.2, starts=1).outside, chinchilla.outside)
    with pytest.raises(InputError, match="largest_compute=2"):
        fit("hoffmann2022", chinchilla.runs, holdout=2)


def test_intervals_without_draws_come_from_the_covariance(chinchilla):
    at = {"total_params": 1e9, "tokens": np.array([1e10, 1e12])}
    widths = [
        one.predict(at).confidence.diff("bound").values.ravel() for one in (chinchilla, replace(chinchilla, draws=None))
    ]
    assert widths[1] == pytest.approx(widths[0], rel=0.4)


def test_scatter_that_falls_with_compute_is_followed():
    """Noise ten times smaller at the largest compute than at the smallest: so are the prediction intervals."""
    runs = synthetic("besiroglu2024", 200)
    effort = np.log(runs.total_params * runs.tokens).values
    sd = 0.02 * 10.0 ** -((effort - effort.min()) / np.ptp(effort))
    noisy = runs.assign(loss=runs.loss * np.exp(sd * np.random.default_rng(0).standard_normal(200)))
    found = fit("hoffmann2022", noisy, objective="squared_log", draws=50)
    ends = found.predict(noisy, level=0.9)["prediction"]
    width = np.log(ends.sel(bound="high") / ends.sel(bound="low")).values
    first, last = width[np.argsort(effort)[:20]].mean(), width[np.argsort(effort)[-20:]].mean()
    assert 4.0 < first / last < 12.0
    same = fit("hoffmann2022", synthetic("besiroglu2024", 200, noise=0.01), draws=50, objective="squared_log")
    width = same.predict(same.runs, level=0.9)["prediction"].diff("bound").values.ravel() / same.runs.loss.values
    assert width[np.argsort(effort)[:20]].mean() == pytest.approx(width[np.argsort(effort)[-20:]].mean(), rel=0.25)


def _plain(n=60, noise=0.005):
    return synthetic("besiroglu2024", n, noise=noise)


def _bent():
    runs = _plain(120)
    return runs.assign(loss=runs.loss * np.exp(0.03 * np.cos(2.5 * np.log10(runs.total_params))))


def _sawtooth():
    """Three seeds of each run that agree, off the law by turns."""
    runs = _plain(20, 0.0).isel(run=np.repeat(np.arange(20), 3))
    off = 0.02 * np.tile(np.repeat([-1.0, 1.0], 3), 10) + 0.001 * np.random.default_rng(0).standard_normal(60)
    return runs.assign(loss=runs.loss * np.exp(off))


def _law_again(runs, **changed):
    values = {name: changed.get(name, runs[name]) for name in ("total_params", "tokens")}
    from moesim.laws import load_law

    scatter = np.exp(0.005 * np.random.default_rng(0).standard_normal(runs.sizes["run"]))
    return runs.assign({**values, "loss": load_law("besiroglu2024")(**values) * scatter})


def _ray():
    return _law_again(_plain(), tokens=20.0 * _plain().total_params)


def _ladder():
    runs = _plain(90)
    return _law_again(runs, total_params=runs.total_params[np.repeat([0, 1, 2], 30)].drop_vars("row"))


def _one_size():
    runs = _plain()
    return _law_again(runs, total_params=0.0 * runs.total_params + 1e9)


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (_bent, "residuals are not noise: they bend along total_params"),
        (_sawtooth, "residuals are not noise: runs of the same inputs"),
        (_ray, "total_params and tokens go together"),
        (_ladder, "look like checkpoints"),
        (_one_size, "total_params has one value"),
        (lambda: _plain(8), "5 coefficients on 8 runs leave 3 degrees of freedom"),
    ],
)
def test_designs_and_residuals_are_checked(runs, words):
    """Each fault is named where it is, and nothing of the kind is said of ordinary runs."""
    assert any(words in line for line in fit("hoffmann2022", runs(), starts=4).warnings)
    assert not any(words in line for line in fit("hoffmann2022", _plain(80), starts=4).warnings)


@pytest.mark.parametrize("grouped", [False, True])
def test_noise_is_no_trend(grouped):
    """Scatter that falls with compute, or that threes of like tokens share: a bend of chance 1 in 20 is as rare."""
    runs, chances = _plain(60, 0.0).sortby("tokens"), []
    effort = np.log(runs.total_params * runs.tokens).values
    size = 0.03 * 10.0 ** -((effort - effort.min()) / np.ptp(effort))
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noise = 0.01 * np.repeat(rng.standard_normal(20), 3) if grouped else size * rng.standard_normal(60)
        noisy = runs.assign(
            loss=runs.loss * np.exp(noise), **({"group": ("run", np.arange(60) // 3)} if grouped else {})
        )
        found = fit("hoffmann2022", noisy, objective="squared_log", starts=2)
        chances += [_bend(found, axis, _residual(found))[0] for axis in _axes(found).values()]
    assert 0.0 < np.mean(np.array(chances) < 0.05) < 0.12


def test_which_run_would_tell():
    """One token count: a run of other tokens tells beta, and one of the sizes at hand does not."""
    runs = _law_again(_plain(12), tokens=0.0 * _plain(12).tokens + 2e10)
    found = fit("hoffmann2022", runs, draws=100)
    line = next(line for line in found.summary().splitlines() if line.startswith("next: ") and "beta by" in line)
    assert "tokens 20B" not in line
    other = {"total_params": np.array([1e9, 1e9]), "tokens": np.array([2e9, 2e10])}
    gain = found.next_runs(other, "beta", 1.0).variance_reduction.values
    assert gain[0] > 3.0 * gain[1]


def test_experts_that_saturate_backwards():
    known = {"E_start": 5.0, "E_max": 2.0}
    found = fit("clark2022_sbase", synthetic("clark2022_sbase", 60), fixed=known, starts=2)
    assert any("E_start = 5 is not below E_max = 2" in line for line in found.warnings)


def test_the_small_sample_criterion():
    """AICc = AIC + 2k(k+1)/(n-k-1), worked out: n = 20, 5 coefficients and a variance: k = 6, 84/13."""
    found = information(1e-3, 20, 5)
    assert found["aicc"] - found["aic"] == pytest.approx(84.0 / 13.0)
    assert information(1e-3, 6, 5)["aicc"] == np.inf
