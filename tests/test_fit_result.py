"""What a fit hands back: Dataset, coefficient files, laws with draws, comparisons, figures, and the verb."""

import pickle

import numpy as np
import pytest
import xarray as xr
from fitting_tools import fit, synthetic

import moesim
from moesim.fitting import figures, tables
from moesim.fitting.files import files
from moesim.fitting.judge import in_sample
from moesim.fitting.repeated import compare
from moesim.fitting.runs import load_runs
from moesim.laws import load_law, load_repetition
from moesim.planning.model import Model
from moesim.planning.optimum import optimum


@pytest.fixture(scope="module")
def chinchilla():
    return fit("hoffmann2022", load_runs("chinchilla"), draws=300, profiles=True, holdout={"largest_compute": 0.2})


@pytest.fixture(scope="module")
def wrapped():
    runs = synthetic("muennighoff2023", 120, noise=0.003, repetition="muennighoff2023")
    return fit("muennighoff2023", runs, repetition="muennighoff2023", hold="law", draws=100, profiles=True)


@pytest.mark.parametrize("which", ["chinchilla", "wrapped"])
def test_dataset_survives_the_disk(which, request, tmp_path):
    """fit.nc holds everything of the issue, with units, and reads back as it was."""
    data = request.getfixturevalue(which).to_dataset()
    data.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "fit.nc", engine="h5netcdf") as back:
        xr.testing.assert_allclose(back, data)
    dims = {
        "estimate": ("coefficient",),
        "draws": ("draw", "coefficient"),
        "draw_status": ("draw",),
        "interval": ("coefficient", "bound"),
        "profile_objective": ("free_coefficient", "point"),
        "predicted": ("run",),
        "residual": ("run",),
        "start_status": ("start",),
        "objective": (),
        "status": (),
    }
    assert {name: data[name].dims for name in dims} == dims
    assert data.loss.attrs["units"] == "nat/token"


def test_influence_is_the_estimate_less_that_without_the_run():
    """Against fits that leave the run out, in standard errors; the run that pulls most, and one that hardly does."""
    runs = synthetic("hoffmann2022", 60, noise=0.01)
    data = fit("hoffmann2022", runs, objective="squared_log").to_dataset()
    pulls = np.abs(data.influence.sel(coefficient="E").values)
    for i in (int(pulls.argmax()), int(pulls.argsort()[len(pulls) // 2])):
        rest = fit("hoffmann2022", runs.isel(run=np.arange(60) != i), objective="squared_log").to_dataset()
        moved = (data.estimate - rest.estimate) / data.standard_error
        for name in ("E", "alpha", "beta"):
            expected = moved.sel(coefficient=name).item()
            assert data.influence.sel(coefficient=name).values[i] == pytest.approx(expected, rel=0.25, abs=0.02)


def test_influence_is_of_runs_that_were_fitted_and_of_coefficients_that_were_free():
    runs = synthetic("hoffmann2022", 40, noise=0.01)
    data = fit("hoffmann2022", runs, fixed={"E": 1.7}, holdout={"largest_compute": 0.2}).to_dataset()
    assert data.influence.sel(coefficient="E").isnull().all()
    assert (data.influence.sel(coefficient="alpha").isnull() == data.held_out).all()
    assert abs(float(data.influence.sel(coefficient="alpha").sum())) < 1.0  # the pulls nearly balance


def test_law_file_is_taken_by_law(chinchilla, wrapped, tmp_path):
    """law.yaml and repetition.yaml load, and predict what the fit predicts."""
    for found in (chinchilla, wrapped):
        for name, text in files(found).items():
            (tmp_path / name).write_text(text)
        law = load_law(tmp_path / "law.yaml")
        assert dict(law.coefficients) == {c: found.estimate[c] for c in law.coefficients}
        assert law.data_range["tokens"][0] > 0
    repetition = load_repetition(tmp_path / "repetition.yaml")
    assert repetition.coefficients["R_D"] == wrapped.estimate["R_D"]


def test_law_with_draws_plans_with_bands(chinchilla):
    """draws_law carries a draw dim through the law and through planning; the interval of the optimum is honest."""
    law = chinchilla.draws_law
    loss = law(total_params=xr.DataArray([1e8, 1e9], dims="n"), tokens=1e10)
    assert set(loss.dims) == {"n", "draw"}
    found = optimum(Model(law), compute=[1e21], sparsity=[0.0], unique_tokens=[np.inf], best=False)
    low, high = found.optimal_active_params.quantile([0.025, 0.975], "draw").values.ravel()
    best = optimum(Model(chinchilla.law), compute=[1e21], sparsity=[0.0], unique_tokens=[np.inf], best=False)
    assert low < best.optimal_active_params.item() < high < 2 * low


def test_intervals(chinchilla):
    """Three methods give similar intervals around the estimate; wider at a higher level."""
    for method in ("bootstrap", "profile", "normal"):
        narrow, wide = chinchilla.interval(0.5, method), chinchilla.interval(0.95, method)
        for name in ("E", "alpha", "beta"):
            assert wide[name][0] < narrow[name][0] < chinchilla.estimate[name] < narrow[name][1] < wide[name][1]
    by = [chinchilla.interval(0.95, method)["alpha"] for method in ("bootstrap", "profile", "normal")]
    widths = [high - low for low, high in by]
    assert max(widths) < 2 * min(widths)


def test_prediction_intervals_include_the_scatter(chinchilla):
    """The interval of a further run is wider than that of the law, and holds most of the runs."""
    out = chinchilla.predict(chinchilla.runs, level=0.9)
    law, run = (out[name].diff("bound").mean().item() for name in ("confidence", "prediction"))
    assert run > 2 * law
    low, high = out.prediction.values.T
    assert 0.8 < np.mean((low <= chinchilla.runs.loss) & (chinchilla.runs.loss <= high)) <= 1.0


def test_compare_several_laws():
    """Laws side by side on the same runs and hold-out: AIC and BIC only where the objective is a likelihood's."""
    runs = synthetic("besiroglu2024", 80, noise=0.005)
    settings = {"objective": "squared_log", "holdout": {"largest_compute": 0.2}}
    fits = {name: fit(name, runs, **settings) for name in ("hoffmann2022", "gadre2024_redpajama")}
    data = compare({**fits, "huber": fit("hoffmann2022", runs, holdout={"largest_compute": 0.2})})
    assert data.fit.values.tolist() == [*fits, "huber"]
    assert np.isfinite(data.bic.values).tolist() == [True, True, False]
    assert data.mape.sel(part="held out").notnull().all()
    text = tables.comparison(data)
    assert "held-out MAPE" in text
    assert "gadre2024_redpajama" in text


def test_information_criteria_are_those_of_a_normal_likelihood():
    runs = synthetic("besiroglu2024", 80, noise=0.005)
    found = fit("hoffmann2022", runs, objective="squared_log")
    residual = found.task.residuals(found.optimum.x[None])[0]
    likelihood = -40 * (np.log(2 * np.pi * np.mean(residual**2)) + 1)
    assert in_sample(found)["aic"] == pytest.approx(12 - 2 * likelihood)
    assert in_sample(found)["bic"] == pytest.approx(6 * np.log(80) - 2 * likelihood)


@pytest.mark.parametrize("resample", ["pairs", "residual"])
def test_bootstraps_agree_on_ordinary_runs(resample):
    runs = synthetic("besiroglu2024", 200, noise=0.003)
    found = fit("hoffmann2022", runs, objective="squared_log", draws=400, resample=resample)
    scatter = found.draws.x.std(axis=0)
    assert scatter == pytest.approx(found.local.error, rel=0.25)


def test_figures_and_table(chinchilla, wrapped):
    """Every figure is drawn; the table names estimate, interval and verdict."""
    drawn = figures.draw(chinchilla)
    assert set(drawn) == {"predictions", "isoflop", "allocation", "profiles", "trade_offs"}
    assert "isoflop" not in figures.draw(wrapped)
    text = tables.table(chinchilla.to_dataset())
    assert "weak, trades off with alpha" in text
    assert "held out" in text


def test_verb_writes_everything(command, tmp_path):
    """moesim fit: result, coefficient file, figures; the coefficient file is a choice of law at once."""
    code, out, _ = command("fit", "fit.draws=50", "fit.starts=4", "hydra.run.dir=one")
    assert code == 0
    assert "0.001018274018" in out
    written = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"fit.nc", "law.yaml", "isoflop.png", "profiles.svg", "trade_offs.png", "predictions.png"} <= written
    code, _, err = command(
        "fit", "law=one/law.yaml", "fit.starts=0", "fit.draws=0", "figures=false", "hydra.run.dir=two"
    )
    assert code == 0, err


def test_verb_takes_a_table_of_ones_own(command, tmp_path):
    synthetic("besiroglu2024", 30, noise=0.01).to_dataframe().to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "own.yaml").write_text("file: own.csv\n")
    code, out, err = command("fit", "runs=own.yaml", "fit.draws=0", "figures=false")
    assert code == 0, err
    assert "on runs own (30 runs)" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit.fixed.gamma=1"], "unknown coefficient 'gamma'"),
        (["runs.where.router=1"], "'router'"),
        (["fit.objective=l1"], "huber_log"),
        (["law=abnar2025"], "no sparsity"),
    ],
)
def test_verb_says_what_is_wrong(command, arguments, words):
    code, _, err = command("fit", *arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_multirun_collects_to_one_table(command, tmp_path):
    """moesim fit -m law=A,B, collected: the same table as compare."""
    same = ["fit.draws=0", "fit.profiles=false", "figures=false", "fit.holdout={largest_compute: 0.2}"]
    assert command("fit", "-m", "law=hoffmann2022,gadre2024_redpajama", *same, "hydra.sweep.dir=many")[0] == 0
    assert command("collect", "many")[0] == 0
    with xr.open_dataset(tmp_path / "many" / "collected.nc", engine="h5netcdf") as data:
        text = tables.comparison(data, "law")
    assert text.splitlines()[1].startswith("hoffmann2022")
    assert "held-out MAPE" in text


def test_by_default_a_fit_has_draws():
    """The library's default: intervals from a bootstrap, and a law that carries its draws into planning."""
    found = moesim.fit("hoffmann2022", moesim.load_runs("chinchilla"))
    assert found.draws_law.coefficients["alpha"].dims == ("draw",)
    # Besiroglu et al. 2024: 95 % bootstrap interval of alpha (.317, .372), within 10 % of its width.
    assert found.interval(0.95)["alpha"] == pytest.approx((0.317, 0.372), abs=0.0055)
    plan = moesim.optimum(moesim.Model(found), compute=1e22, best=False)
    assert plan.optimal_active_params.dims == ("draw",)


def test_a_multirun_of_fits_ends_with_one_table(command):
    arguments = ("fit", "-m", "law=hoffmann2022,kaplan2020,gadre2024_redpajama", "fit.draws=0", "figures=false")
    code, out, _ = command(*arguments, "fit.holdout={largest_compute: 0.2}")
    table = out[out.rindex("held-out R2") :]
    assert code == 1  # kaplan2020 takes parameters without embeddings, which these runs do not give
    assert "hoffmann2022" in table
    assert "gadre2024_redpajama" in table
    assert "failed: law=kaplan2020" in table


def test_columns_named_like_parts_of_the_result(tmp_path):
    """A table may have columns of any name: those of the result stay its own."""
    names = ["status", "predicted", "objective", "draws", "draw", "coefficient", "part", "bias", "estimate", "other"]
    runs = synthetic("besiroglu2024", 40, noise=0.003)
    runs = runs.assign({name: ("run", np.arange(40.0)) for name in names})
    data = fit("hoffmann2022", runs, draws=20).to_dataset()
    data.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    assert data.status.item() == "converged"
    assert data.draws.dims == ("draw", "coefficient")
    for name in names:
        assert data[f"{name}_column"].values.tolist() == list(range(40))


@pytest.mark.parametrize("which", ["chinchilla", "wrapped"])
@pytest.mark.parametrize("way", ["file", "pickle"])
def test_a_fit_comes_back_whole(which, way, request, tmp_path):
    """Saved and loaded, or pickled: the same estimate, intervals, profiles, verdicts and predictions."""
    fit = request.getfixturevalue(which)
    if way == "file":
        fit.save(tmp_path / "fit.nc")
        back = moesim.load_fit(tmp_path / "fit.nc")
    else:
        back = pickle.loads(pickle.dumps(fit))
    xr.testing.assert_allclose(back.to_dataset(), fit.to_dataset(), rtol=1e-9)
    assert back.summary() == fit.summary()


def test_a_file_that_is_no_fit_is_refused(tmp_path):
    moesim.optimum(moesim.Model("besiroglu2024"), compute=1e20).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(moesim.InputError, match=r"other\.nc"):
        moesim.load_fit(tmp_path / "other.nc")


def test_the_law_is_the_estimate_and_takes_arrays(chinchilla):
    """As many sizes as draws: nothing pairs size i with draw i."""
    n = int(chinchilla.draws.usable.sum())
    sizes = np.geomspace(1e8, 1e11, n)
    loss = chinchilla.law(total_params=sizes, tokens=20 * sizes)
    known = chinchilla.estimate
    by_hand = known["E"] + known["A"] * sizes ** -known["alpha"] + known["B"] * (20 * sizes) ** -known["beta"]
    assert loss == pytest.approx(by_hand, rel=1e-12)
    with pytest.raises(moesim.InputError, match="DataArray with dims"):
        chinchilla.draws_law(total_params=sizes, tokens=20 * sizes)
    plan = moesim.optimum(chinchilla, compute=1e21, best=False)
    assert plan.optimal_active_params.sizes == {"draw": n}


def test_the_estimates_as_a_data_frame(chinchilla):
    frame = chinchilla.to_dataframe()
    assert frame.loc["alpha", "estimate"] == chinchilla.estimate["alpha"]
    assert tuple(frame.loc["alpha", ["low", "high"]]) == chinchilla.interval()["alpha"]


@pytest.mark.parametrize("name", ["besiroglu2024", "abnar2025", "clark2022_sbase"])
def test_arrays_without_dims_are_not_paired_with_coefficients_that_have_some(name):
    law = load_law(name)
    first = next(iter(law.coefficients))
    varied = law.with_coefficients(**{first: xr.DataArray(np.full(3, law.coefficients[first]), dims="draw")})
    inputs = {variable: np.full(3, 0.5 if variable == "sparsity" else 8.0) for variable in law.inputs}
    with pytest.raises(moesim.InputError, match="have the dim draw"):
        varied(**inputs)
    assert varied(**{variable: value[0] for variable, value in inputs.items()}).dims == ("draw",)
