"""What people fit for: allocations with intervals, the next run, minima at fixed compute, a report."""

import inspect
import sys

import numpy as np
import pytest
from fitting_tools import fit, synthetic
from omegaconf import OmegaConf

import moesim
from moesim.config import conf_dir
from moesim.errors import InputError
from moesim.fitting import tables
from moesim.fitting.judge import compute_of
from moesim.fitting.runs import RunsWarning, load_runs


@pytest.fixture(scope="module")
def chinchilla():
    return fit("hoffmann2022", load_runs("chinchilla"), draws=200)


def test_the_allocation_is_that_of_the_law(chinchilla):
    """N* ~ C^(beta/(alpha + beta)), D* ~ C^(alpha/(alpha + beta)) (Hoffmann et al. 2022, eq. 4), in every draw."""
    found = chinchilla.allocation(compute=[1e21, 1e23], level=0.9)
    known = chinchilla.estimate
    a = known["beta"] / (known["alpha"] + known["beta"])
    assert found.exponent_params.attrs["estimate"] == pytest.approx(a, rel=1e-6)
    drawn = chinchilla.draws_law.coefficients
    share = (drawn["beta"] / (drawn["alpha"] + drawn["beta"])).values
    assert found.exponent_params.values == pytest.approx(np.quantile(share, [0.05, 0.95]), rel=1e-5)
    assert found.exponent_tokens.values == pytest.approx(np.quantile(1 - share, [0.05, 0.95]), rel=1e-5)
    G = (known["alpha"] * known["A"] / (known["beta"] * known["B"])) ** (1 / (known["alpha"] + known["beta"]))
    low, high = found.optimal_active_params_interval.sel(compute=1e21).values
    assert low < G * (1e21 / 6) ** a < high < 1.5 * low
    assert found.optimal_extrapolated.sel(compute=1e23).all()
    assert not found.optimal_extrapolated.sel(compute=1e21).any()
    ratio = found.optimal_tokens / found.optimal_active_params
    assert found.optimal_tokens_per_param.values == pytest.approx(ratio.values)


def test_every_fit_says_how_to_spend_budgets(chinchilla, tmp_path):
    """In fit.nc, the table and a figure: what `allocation` says at powers of ten, from 1e20 to 1e24 here."""
    chinchilla.save(tmp_path / "fit.nc")
    data = moesim.open_result(tmp_path / "fit.nc")
    assert data.budget.values.tolist() == [1e20, 1e21, 1e22, 1e23, 1e24]
    own = chinchilla.allocation(level=chinchilla.level)
    known = chinchilla.estimate
    a = known["beta"] / (known["alpha"] + known["beta"])
    G = (known["alpha"] * known["A"] / (known["beta"] * known["B"])) ** (1 / (known["alpha"] + known["beta"]))
    assert data.optimal_active_params.values == pytest.approx(G * (data.budget.values / 6) ** a, rel=1e-6)
    assert data.optimal_tokens_interval.values == pytest.approx(own.optimal_tokens_interval.values)
    assert data.optimal_extrapolated.values.tolist() == [False, False, False, True, True]
    assert data.exponent_params.attrs["estimate"] == pytest.approx(a, rel=1e-6)
    text = chinchilla.summary()
    for words in ("N* ~ C^0.514 (", "D* ~ C^0.486 (", "1e23*", "tokens/active", "*: outside the runs"):
        assert words in text
    drawn = moesim.plot.draw(data)["allocation"]
    assert [axes.get_ylabel() for axes in drawn.axes] == ["active parameters", "tokens", "tokens / active parameter"]


def test_an_allocation_is_made_at_the_runs_own_sparsity_and_data():
    """The middle sparsity of the runs, and all their unique data; both can be chosen; without draws by covariance."""
    moe = fit("abnar2025", synthetic("abnar2025", 150, noise=0.002), starts=2, objective="squared_log")
    found = moe.allocation(compute=1e21)
    assert found.sparsity == 0.75
    low, high = found.optimal_active_params_interval.values[0]
    assert low < found.optimal_active_params_estimate.item() < high < 1.3 * low
    assert moe.allocation(compute=1e21, sparsity=0.5).sparsity == 0.5
    assert ">0.99 (" in moe.summary()
    runs = synthetic("muennighoff2023", 80, noise=0.003, repetition="muennighoff2023")
    data = fit("muennighoff2023", runs, repetition="muennighoff2023", hold="law", starts=2).to_dataset()
    assert data.allocation_unique_tokens == runs.unique_tokens.max()
    assert data.optimal_epochs.values[-1] > 5.0
    with pytest.raises(InputError, match="needs a law in size and tokens"):
        fit("marin2026", MARIN, fixed={"L_inf": 1.6}).allocation()


def test_compute_counts_active_parameters():
    """6 x total x (1 - sparsity) x tokens where the table has no compute: 6 x 1e9 x 0.25 x 2e10."""
    runs = load_runs({"total_params": [1e9], "sparsity": [0.75], "tokens": [2e10], "loss": [3.0]})
    assert compute_of(runs, "test").tolist() == [3e19]


def test_one_budget_has_exponents_too_and_moe_a_best_sparsity(chinchilla):
    one = chinchilla.allocation(compute=1e22)
    assert one.sizes["compute"] == 1
    assert one.exponent_params.values == pytest.approx(
        chinchilla.allocation(compute=[1e21, 1e22]).exponent_params.values
    )
    moe = fit("abnar2025", synthetic("abnar2025", 150, noise=0.002), draws=8, starts=2, objective="squared_log")
    best = moe.allocation(compute=1e21).best_sparsity_interval
    assert 0.0 <= best.values.min() <= best.values.max() <= 1.0


def test_the_next_run_is_where_the_draws_disagree(chinchilla):
    """For beta, few tokens tell more than many; for the loss of one run, a run like it; both cheaper for less."""
    sizes, tokens = np.full(4, 1e9), np.array([1e9, 1e10, 1e11, 1e12])
    found = chinchilla.next_runs({"total_params": sizes, "tokens": tokens}, "beta", cost=1.0)
    assert np.argmax(found.variance_reduction.values) == np.argmax(found.order.values == 1) == 0
    one = {"total_params": 1e9, "tokens": 1e12}
    found = chinchilla.next_runs({"total_params": sizes, "tokens": tokens}, one, cost=1.0, count=2)
    assert np.argmax(found.variance_reduction.values) == 3
    assert sorted(found.order.values) == [0, 0, 1, 2]
    lines = np.log(chinchilla.draws_law(**one).values)
    noise = np.var(chinchilla.task.centred(chinchilla.optimum.x))
    assert found.variance_reduction.values[3] == pytest.approx(np.var(lines) / (np.var(lines) + noise), rel=1e-6)
    assert found.attrs["left_after_ranked"] <= 1 - found.variance_reduction.max().item() + 1e-9
    flops = chinchilla.next_runs({"total_params": sizes, "tokens": tokens}, one)
    assert flops.cost.values == pytest.approx(6 * sizes * tokens)


def test_next_runs_for_a_quantity_at_a_budget_and_by_hours(chinchilla):
    """The best size at a budget is a log of the allocation's; hours are FLOPs over 3600 s x share x peak."""
    runs = {"total_params": np.array([1e9, 1e10]), "tokens": np.array([1e11, 1e11])}
    named = chinchilla.next_runs(runs, ("optimal_active_params", 1e22), {"chip": "h100", "utilisation": 0.4})
    drawn = np.log(chinchilla.allocation(compute=[1e22]).optimal_active_params.values.ravel())
    same = chinchilla.next_runs(runs, drawn)
    assert named.variance_reduction.values == pytest.approx(same.variance_reduction.values)
    assert named.cost.values == pytest.approx(same.cost.values / (3600 * 0.4 * 989e12))
    squared = fit("hoffmann2022", load_runs("chinchilla"), objective="squared", draws=100)
    found = squared.next_runs(runs, {"total_params": 1e10, "tokens": 1e11}, cost=1.0)
    lines = squared.draws_law(total_params=1e10, tokens=1e11).values
    noise = np.var(squared.task.centred(squared.optimum.x))
    assert found.variance_reduction.values[1] == pytest.approx(np.var(lines) / (np.var(lines) + noise), rel=1e-6)


def test_a_fit_says_which_run_would_tell():
    """One token count: what tells B, beta and E are runs at other counts; nothing dearer than the dearest run."""
    rng = np.random.default_rng(0)
    sizes = np.geomspace(1e8, 1e10, 24)
    law = moesim.load_law("besiroglu2024")
    loss = law(total_params=sizes, tokens=np.full(24, 2e10)) * np.exp(0.003 * rng.standard_normal(24))
    found = fit("hoffmann2022", {"total_params": sizes, "tokens": np.full(24, 2e10), "loss": loss}, draws=200, starts=8)
    lines = [line for line in found.summary().splitlines() if line.startswith("next: ")]
    assert any(" beta by" in line or " B by" in line for line in lines)
    assert lines[0].removeprefix("next: ") in found.report()
    clear = fit("hoffmann2022", load_runs("chinchilla"), draws=100, fixed={"A": 480.0, "B": 2000.0})
    assert "next: " not in clear.summary()


@pytest.mark.parametrize("cost", [{"chip": "h100"}, {"chip": "h100", "utilisation": 4.0}])
def test_a_cost_by_chip_takes_a_share(chinchilla, cost):
    with pytest.raises(InputError, match="utilisation"):
        chinchilla.next_runs({"total_params": 1e9, "tokens": 1e10}, "beta", cost=cost)


@pytest.mark.parametrize(
    ("target", "cost", "words"),
    [
        ("gamma", None, "free coefficient"),
        (("speed", 1e22), None, "best|optimal_tokens"),
        ([1.0, 2.0], None, "one value for each of"),
        ("beta", -1.0, "above 0"),
        ("beta", "FLOP", "cost='FLOP' is not a number"),
        ("beta", [1.0, 2.0], "2 values of cost for 1 candidates"),
        (len, None, "target=<built-in function len> is not a number"),
    ],
)
def test_what_next_runs_cannot_answer(chinchilla, target, cost, words):
    with pytest.raises(InputError, match=words):
        chinchilla.next_runs({"total_params": 1e9, "tokens": 1e10}, target, cost=cost)


def _isoflops(noise=0.0):
    """Nine sizes around the optimum of each of four budgets, tokens from compute."""
    law = moesim.load_law("besiroglu2024")
    budgets = np.repeat(np.geomspace(1e19, 1e22, 4), 9)
    sizes = 0.08 * np.sqrt(budgets) * np.tile(np.geomspace(0.2, 5.0, 9), 4)
    tokens = budgets / (6 * sizes)
    loss = law(total_params=sizes, tokens=tokens) * np.exp(noise * np.random.default_rng(0).standard_normal(36))
    return {"compute": budgets, "tokens": tokens, "loss": loss}


@pytest.mark.parametrize("degree", [2, 3])
def test_minima_at_fixed_compute(degree):
    """Exponents of the law behind the runs to 0.02 by parabola, to 0.005 by a cubic; sizes derived from compute."""
    runs = load_runs(_isoflops(), derive=["total_params_from_compute"])
    found = moesim.isoflop(runs, degree=degree)
    k = moesim.load_law("besiroglu2024").coefficients
    a = k["beta"] / (k["alpha"] + k["beta"])
    assert set(found.status.values) == {"inside"}
    assert found.exponent_params.item() == pytest.approx(a, abs={2: 0.02, 3: 0.005}[degree])
    assert found.exponent_params.item() + found.exponent_tokens.item() == pytest.approx(1.0, abs=0.01)


def test_a_budget_whose_minimum_is_not_bracketed_says_so():
    runs = load_runs(_isoflops(), derive=["total_params_from_compute"])
    large = runs.isel(run=np.flatnonzero(runs.total_params.values > 0.13 * np.sqrt(runs["compute"].values)))
    found = moesim.isoflop(large)
    assert set(found.status.values) == {"at the smallest size"}
    small = runs.isel(run=np.flatnonzero(runs.total_params.values < 0.05 * np.sqrt(runs["compute"].values)))
    assert set(moesim.isoflop(small).status.values) == {"at the largest size"}
    assert np.isnan(found.optimal_total_params).all()
    assert np.isnan(found.exponent_params)
    assert set(moesim.isoflop(runs.isel(run=slice(0, 36, 8))).status.values) == {"too few"}
    with pytest.raises(InputError, match="degree=4"):
        moesim.isoflop(runs, degree=4)


def test_the_minima_of_chinchilla():
    """Approach 2 of Hoffmann et al. 2022 (Table 2): a .49, b .51; here from runs read off its figure, budgets named."""
    budgets = [6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21]
    for degree in (2, 3):
        found = moesim.isoflop("chinchilla", budgets=budgets, degree=degree)
        assert set(found.status.values) == {"inside"}
        assert found.exponent_params.item() == pytest.approx(0.49, abs=0.03)
        assert found.exponent_tokens.item() == pytest.approx(0.51, abs=0.03)
    assert moesim.isoflop("chinchilla", budgets=1e21).sizes["budget"] == 1
    with pytest.raises(InputError, match="no runs near budgets"):
        moesim.isoflop("chinchilla", budgets=[1e10])


def test_runs_of_many_budgets_are_not_one():
    """Compute that goes on without a gap: no budget; and a fit says what the runs' own minima are beside the law's."""
    one = _isoflops()
    mixed = {**one, "compute": np.geomspace(1e20, 3e20, 36)}
    found = moesim.isoflop(load_runs(mixed, derive=["total_params_from_compute"]))
    assert found.status.values.tolist() == ["not one budget"]
    runs = load_runs(_isoflops(0.001), derive=["total_params_from_compute"])
    data = fit("hoffmann2022", runs, draws=50).to_dataset()
    own = moesim.isoflop(runs, degree=3)
    assert data.isoflop_exponent_params.sel(degree=3) == own.exponent_params
    assert data.isoflop_exponent_tokens_error.sel(degree=3) == own.exponent_tokens.attrs["standard_error"]
    line = next(line for line in tables.table(data).splitlines() if "minima of 4 budgets (parabola)" in line)
    assert f"N* ~ C^{moesim.isoflop(runs).exponent_params.item():.3f} +- " in line
    assert "minima" not in fit("marin2026", MARIN, fixed={"L_inf": 1.6}).summary()


def test_parameters_from_compute_fit_as_the_parameters_themselves():
    runs = load_runs(_isoflops(), derive=["total_params_from_compute"])
    found = fit("hoffmann2022", runs, objective="squared_log")
    for name, value in moesim.load_law("besiroglu2024").coefficients.items():
        assert found.estimate[name] == pytest.approx(value, rel=1e-6)


def test_the_report_fills_the_checklist(chinchilla):
    """What was left out, how it is counted, starts, objective, selection, version: all said."""
    text = chinchilla.report()
    said = ("5 of at least 245 rows", "embeddings counted", "start range of alpha: 0.2 to 0.6", "huber_log", "seed 0")
    for words in (*said, " converged", f"moesim {moesim.__version__}", "held out: 0"):
        assert words in text
    assert "left out of the table: 0 of" in fit("hoffmann2022", synthetic("besiroglu2024", 30)).report()


def test_a_fit_plans_with_its_draws_on_the_command_line(command, tmp_path, chinchilla):
    """law=fit.nc: the optimum has the draw dim of the fit, and the same values as in Python; so has repetition=."""
    chinchilla.save(tmp_path / "fit.nc")
    space = ["space.compute=[1e21]", "space.sparsity=[0.0]", "space.active_params=[1e9, 1e10]", "figures=false"]
    code, _, err = command("sweep", "law=fit.nc", "repetition=none", *space, "hydra.run.dir=plan")
    assert code == 0, err
    found = moesim.open_result(tmp_path / "plan")
    assert found.optimal_active_params.sizes["draw"] == int(chinchilla.draws.usable.sum())
    own = moesim.optimum(chinchilla, compute=1e21, best=False).optimal_active_params.values
    planned = found.optimal_active_params.isel(unique_tokens=0).values.ravel()
    assert np.sort(planned) == pytest.approx(np.sort(own), rel=1e-9)
    law = moesim.load_law(tmp_path / "fit.nc", E=2.0)
    assert law.coefficients["E"] == 2.0
    assert law.coefficients["alpha"].dims == ("draw",)
    with pytest.raises(InputError, match="no fitted repetition"):
        moesim.load_repetition(tmp_path / "fit.nc")


def test_a_law_file_points_to_its_draws(command, tmp_path):
    """law.yaml beside fit.nc: named after form and runs, planned with its draws; warnings stand once."""
    code, out, err = command("fit", "fit.draws=60", "fit.starts=4", "figures=false", "hydra.run.dir=one")
    assert code == 0
    assert (out + err).count("A is only weakly identified") == 1
    law = moesim.load_law(tmp_path / "one" / "law.yaml")
    assert (law.name, law.coefficients["alpha"].dims) == ("hoffmann2022_chinchilla", ("draw",))
    assert law.data_range["sparsity"] == (0.0, 0.0)
    fitted = moesim.load_fit(tmp_path / "one")
    assert law.coefficients["B"].values == pytest.approx(fitted.draws_law.coefficients["B"].values)
    plan = ("space.compute=[1e21]", "space.unique_tokens=[inf]", "figures=false", "hydra.run.dir=two")
    code, out, err = command("sweep", "law=one/law.yaml", "repetition=none", *plan)
    assert code == 0, err
    low, high = np.quantile(moesim.open_result(tmp_path / "two").optimal_loss.values, [0.05, 0.95])
    assert f"{low:.4f} to {high:.4f}" in out
    assert "medians of" in out
    (tmp_path / "one" / "fit.nc").unlink()
    code, _, err = command("sweep", "law=one/law.yaml", *plan[:-1])
    assert code == 2
    assert "fit.nc" in err


def test_the_verb_has_the_defaults_of_the_function():
    """All but profiles, which cost as much as the fit and are drawn by the verb."""
    chosen = OmegaConf.load(conf_dir() / "fit.yaml").fit
    defaults = {name: p.default for name, p in inspect.signature(moesim.fit).parameters.items() if name in chosen}
    differ = {name for name, value in defaults.items() if (chosen[name] or None) != (value or None)}
    assert set(defaults) == set(chosen)
    assert differ == {"profiles"}


def test_a_fitted_repetition_comes_with_its_draws(tmp_path):
    runs = synthetic("muennighoff2023", 80, noise=0.003, repetition="muennighoff2023")
    found = fit("muennighoff2023", runs, repetition="muennighoff2023", hold="law", draws=12, starts=2)
    found.save(tmp_path / "fit.nc")
    back = moesim.load_repetition(tmp_path / "fit.nc")
    assert back.coefficients["R_D"].values == pytest.approx(found.draws_repetition.coefficients["R_D"].values)


MARIN = {"compute": [1e18, 3e18, 1e19, 3e19, 1e20, 3e20], "loss": [3.5273, 3.3398, 3.1494, 3.0066, 2.8509, 2.7222]}


def test_the_envelope_of_marin():
    """Best runs of its README, floor pinned: A 96.15, alpha .0943, and 2.599 was measured at 1e21 FLOP."""
    found = fit("marin2026", MARIN, fixed={"L_inf": 1.6}, objective="squared_log")
    assert found.estimate["A"] == pytest.approx(96.15, rel=1e-4)
    assert found.estimate["alpha"] == pytest.approx(0.0943, abs=5e-5)
    assert found.law(compute=1e21) == pytest.approx(2.599, abs=0.01)


def _task(noise=0.003, n=60):
    """Losses and accuracies of checkpoints, by a sigmoid."""
    rng = np.random.default_rng(5)
    loss = np.linspace(0.6, 1.8, n)
    accuracy = 0.25 + 0.7 / (1 + np.exp(8.0 * (loss - 1.0))) + noise * rng.standard_normal(n)
    return {"loss": loss, "accuracy": accuracy}


def test_accuracy_from_loss():
    """The sigmoid comes back, with intervals that hold the truth; its Dataset, table, figures and file are whole."""
    found = fit("bhagia2024_hellaswag", _task(), objective="squared", draws=200, holdout={"fraction": 0.2})
    truth = {"low": 0.25, "high": 0.95, "k": 8.0, "L_0": 1.0}
    for name, (low, high) in found.interval(0.99).items():
        assert low < truth[name] < high < low + 0.35 * truth[name]
    assert found.predict({"loss": [1.0]}).accuracy.item() == pytest.approx(0.6, abs=0.004)
    assert found.to_dataset().predicted.values == pytest.approx(found.observed, abs=0.02)
    assert "bhagia2024" in found.summary()


def test_accuracy_from_size_and_data(chinchilla):
    """Chained: the sigmoid at the law's loss; the intervals carry the spread of both fits, and widen with either."""
    points = _task(noise=0.012)
    task = fit("bhagia2024_hellaswag", {**points, "loss": points["loss"] + 1.4}, objective="squared", draws=300)
    runs = {"total_params": [1e9, 7e9], "tokens": [2e10, 1.4e11]}
    chained = task.predict(runs, level=0.9, via=chinchilla)
    loss = chinchilla.law(**{name: np.array(values) for name, values in runs.items()})
    k = task.estimate
    by_hand = k["low"] + (k["high"] - k["low"]) / (1 + np.exp(k["k"] * (loss - k["L_0"])))
    assert chained.accuracy.values == pytest.approx(by_hand, rel=1e-12)
    law = np.ptp(chained.confidence.values, axis=1)
    alone = np.ptp(task.predict({"loss": loss}, level=0.9).confidence.values, axis=1)
    slope = k["k"] * (by_hand - k["low"]) * (k["high"] - by_hand) / (k["high"] - k["low"])
    from_loss = slope * np.ptp(chinchilla.predict(runs, level=0.9).confidence.values, axis=1)
    assert law == pytest.approx(np.hypot(alone, from_loss), rel=0.25)
    assert (np.ptp(chained.prediction.values, axis=1) > law).all()
    with pytest.raises(InputError, match="via takes the fit of a law that predicts loss"):
        chinchilla.predict(runs, via=task)
    for law, gives in (("bhagia2024_hellaswag", "accuracy from loss"), ("marin2026", "loss from compute")):
        with pytest.raises(InputError, match=f"{gives}; plans take"):
            moesim.optimum(law, compute=1e20)


def test_the_posterior_agrees_with_the_bootstrap_where_runs_are_many():
    """300 runs: the same 90 % intervals within a sixth of their width; so for a plan made with either."""
    pytest.importorskip("emcee")
    found = fit("hoffmann2022", synthetic("besiroglu2024", 300, noise=0.01), objective="squared_log", draws=1000)
    drawn = found.posterior()
    for name, (low, high) in found.interval(0.9).items():
        assert drawn.interval(0.9)[name] == pytest.approx((low, high), abs=(high - low) / 6)
    ends = [one.allocation(compute=[1e22], level=0.9).exponent_params.values for one in (found, drawn)]
    assert ends[1] == pytest.approx(ends[0], abs=np.ptp(ends[0]) / 6)
    assert drawn.estimate == found.estimate
    assert (drawn.settings["resample"], drawn.draws_law.coefficients["B"].sizes["draw"]) == ("posterior", 1000)


def test_what_runs_do_not_determine_follows_its_prior():
    """One token count: beta is as its typical range (central 68 %: 0.2 to 0.6), or as the prior that was given."""
    pytest.importorskip("emcee")
    law, sizes = moesim.load_law("besiroglu2024"), np.geomspace(1e8, 1e10, 30)
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(30))
    runs = {"total_params": sizes, "tokens": 0 * sizes + 2e10}
    runs["loss"] = law(total_params=sizes, tokens=runs["tokens"]) * noise
    kept = {"E": 1.8172, "A": 482.01, "alpha": 0.3478}
    for prior, middle, half in (({}, 0.4, 0.2), ({"beta": {"mean": 0.3, "sd": 0.01}}, 0.3, 0.01)):
        drawn = fit("hoffmann2022", runs, fixed=kept, prior=prior).posterior(draws=2000)
        beta = drawn.draws_law.coefficients["beta"].values
        assert np.median(beta) == pytest.approx(middle, abs=0.35 * half)
        assert np.diff(np.quantile(beta, [0.16, 0.84])) == pytest.approx(2 * half, rel=0.35)


def test_a_posterior_needs_emcee(chinchilla, monkeypatch):
    monkeypatch.setitem(sys.modules, "emcee", None)
    with pytest.raises(InputError, match=r"pip install 'moesim\[posterior\]'"):
        chinchilla.posterior()


def test_a_short_chain_says_so(chinchilla):
    pytest.importorskip("emcee")
    with pytest.warns(RunsWarning, match="500 steps are .* autocorrelation times, not 50"):
        chinchilla.posterior(steps=500)
