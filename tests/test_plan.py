"""`moesim plan`: what fits the machine and the time, against `optimum`, the ideal machine, and by hand."""

import json

import numpy as np
import pytest
import xarray as xr

import moesim
from moesim.cli import main
from moesim.errors import InputError
from moesim.hardware import release
from moesim.hardware.chip import chip_of
from moesim.hardware.failures import goodput
from moesim.models.transformer import Transformer
from moesim.planning import paged
from moesim.planning.budget import Cluster, budget_of
from moesim.planning.isotime import SPREADS, best_batch
from moesim.planning.model import Model
from moesim.planning.shape import config_json, shape

SMALL = {"devices": 64, "days": 10, "unique_tokens": 1e11}
FIELDS = dict(moesim.load_architecture("fine_grained").fields)


@pytest.fixture(scope="module")
def small():
    return moesim.plan(**SMALL)


def test_a_plan_has_what_its_contract_says(small):
    per_choice = ["active_params", "total_params", "experts", "active_experts", "tokens", "epochs", "step_seconds"]
    per_choice += ["mfu", "memory", "hours", "device_hours", "cost", "energy"]
    assert all(small[name].dims == ("choice",) for name in per_choice)
    assert small.loss.dims == ("choice", "law", "repetition", "draw")
    assert list(small.choice.values) == ["best", "dense", "sparser", "denser"]
    assert small.repetition.values.tolist() == ["muennighoff2023", "light", "heavy"]
    assert all("units" in small[name].attrs for name in [*per_choice, "loss", "scan_loss", "gain"])


def test_time_money_and_energy_add_up(small):
    best = small.sel(choice="best")
    useful = goodput(30.0, 5.07e4 * 3600 / 64, 600.0)
    assert float(best.goodput) == pytest.approx(useful)
    assert float(best.hours) == pytest.approx(240.0)
    steps = float(best.tokens / best.batch_tokens)
    assert steps * float(best.step_seconds) / 3600 == pytest.approx(240.0 * useful)
    assert float(best.device_hours) == pytest.approx(64 * 240.0)
    assert float(best.cost) == pytest.approx(64 * 240.0 * 2.35)
    assert float(best.energy) == pytest.approx(64 * 240.0 * 0.7)
    assert float(best.epochs) == pytest.approx(float(best.tokens) / 1e11)
    assert float(best.memory) <= 80e9


def test_the_best_is_the_lowest_of_the_ladder_and_its_neighbours_stand_beside_it(small):
    place = int(np.argmin(small.scan_loss.values))
    wanted = [small.sparsity.values[i] if 0 <= i < len(SPREADS) else np.nan for i in (place, 0, place + 1, place - 1)]
    np.testing.assert_array_equal(small.chosen_sparsity, wanted)
    own = small.loss.isel(law=0, repetition=0, draw=0)
    np.testing.assert_allclose(own.sel(choice="best"), small.scan_loss.min())
    assert (small.odds.sel(choice="best") == 0).all()


def test_no_plan_is_better_than_the_optimum_at_its_flops(small):
    model = Model("abnar2025", "muennighoff2023", "fine_grained")
    for name in small.choice.values:
        at = small.sel(choice=name)
        if not np.isfinite(at.tokens):
            continue
        cost = model.architecture.describe(np.log(float(at.d_model)), float(at.chosen_sparsity))["flops_per_token"]
        fixed = {"sparsity": float(at.chosen_sparsity), "unique_tokens": 1e11}
        best = moesim.optimum(model, compute=float(cost * at.tokens), best=False, **fixed)
        assert float(best.optimal_loss) <= float(at.loss[0, 0, 0]) + 1e-9
        assert float(at.loss[0, 0, 0]) < float(best.optimal_loss) + 0.06


def test_equal_time_is_equal_flops_where_everything_runs_at_peak(monkeypatch):
    """Memory and links without limit, no overhead: every FLOP takes the same time whatever the sparsity."""
    ideal = release.Release(rows=0.0, core=3.5 / 3.0, passes=0.0, exposed=0.0, launches=0.0)
    monkeypatch.setitem(release.RELEASES, "26.06", ideal)
    chip = {
        "flops": 1e15,
        "memory": 1e30,
        "memory_bandwidth": 1e30,
        "scale_up": 1e30,
        "scale_out": 1e30,
        "peak_share": 1.0,
    }
    plan = moesim.plan(chip=chip, devices=8, days=5, unique_tokens=1e11, cluster={"failure_hours": np.inf})
    assert plan.scan_mfu.values == pytest.approx(1.0, abs=0.01)
    flops = 8e15 * 5 * 86400
    at = moesim.optimum(
        Model("abnar2025", "muennighoff2023", "fine_grained"), compute=flops, sparsity=plan.sparsity.values,
        unique_tokens=1e11, best=False,
    )  # fmt: skip
    np.testing.assert_allclose(plan.scan_loss, at.optimal_loss, atol=0.003)
    assert int(np.argmin(at.optimal_loss.values)) == int(np.argmin(plan.scan_loss.values))
    assert plan.sparsity.values[int(np.argmin(plan.scan_loss.values))] == pytest.approx(
        float(plan.equal_flop_sparsity), abs=0.05
    )


def test_more_time_and_data_are_never_worse(small):
    later = moesim.plan(devices=64, days=[10, 40], unique_tokens=[1e11, 1e12])
    loss = later.loss.sel(choice="best").isel(law=0, repetition=0, draw=0)
    assert (loss.diff("days") < 0).all()
    assert (loss.diff("unique_tokens") <= 1e-3).all()
    np.testing.assert_allclose(loss.sel(days=10, unique_tokens=1e11), small.loss.sel(choice="best")[0, 0, 0])
    assert (small.gain >= 0).all()
    assert small.resource.values[int(np.argmax(small.gain.values))] == small.binds.item()


def test_serving_takes_from_the_same_budget(small):
    served = moesim.plan(**SMALL, serving={"tokens": 1e12})
    best = served.sel(choice="best")
    model = moesim.load_architecture("fine_grained")
    cost = model.describe(np.log(float(best.d_model)), float(best.chosen_sparsity))["flops_per_token"]
    seconds = 1e12 * float(cost) / 3 / (0.1 * 989e12 * 64)
    assert float(best.hours) == pytest.approx(240.0 - seconds / 3600)
    assert float(best.active_params) < float(small.active_params.sel(choice="best"))
    assert float(served.gain.sel(resource="serving")) > 0


@pytest.mark.parametrize("spread", [1, 8])
def test_the_config_of_a_plan_is_its_model(spread):
    model = shape(FIELDS, 1024, spread)
    again = Transformer.from_config(config_json(model, 4096))
    assert again.total_params == model.total_params
    assert again.active_params == model.active_params
    assert again.training_flops(4096) == model.training_flops(4096)
    counted = moesim.load_architecture("fine_grained").describe(np.log(1024.0), 1 - 1 / spread)
    assert model.total_params == pytest.approx(float(counted["total_params"]), rel=2e-3)
    assert model.active_params == pytest.approx(float(counted["active_params"]), rel=2e-3)
    assert model.training_flops(4096) == pytest.approx(float(counted["flops_per_token"]), rel=2e-3)


def test_the_best_batch_follows_the_step_law():
    assert best_batch(1e12, 4096) == 1024  # 0.58 x 1e12^0.571 = 4.1e6 tokens
    assert best_batch(1.0, 4096) == 1


BUDGETS = {
    "days": ({"days": 2}, 2 * 86400.0, None),
    "device_hours": ({"device_hours": 640}, 36000.0, None),
    "cost": ({"cost": 2350.0}, 36000.0, None),
    "date": ({"date": "2027-01-31", "start": "2027-01-01"}, 30 * 86400.0, None),
    "compute": ({"compute": 1e22}, None, 1e22),
    "none": ({}, 30 * 86400.0, None),
}


@pytest.mark.parametrize("name", BUDGETS)
def test_budgets_by_hand(name):
    given, seconds, compute = BUDGETS[name]
    found = budget_of(given, chip_of("h100"), 64 if name != "cost" else 100)
    assert (found.seconds, found.compute) == (pytest.approx(seconds) if seconds else None, compute)


def test_a_budget_of_flops_says_how_long_it_takes():
    plan = moesim.plan(devices=64, compute=1e22, unique_tokens=1e12)
    best = plan.sel(choice="best")
    cost = moesim.load_architecture("fine_grained").describe(np.log(float(best.d_model)), float(best.chosen_sparsity))
    assert float(best.tokens * cost["flops_per_token"]) == pytest.approx(1e22)
    rate = float(best.tokens * cost["flops_per_token"] / (best.hours * 3600 * 64 * 989e12))
    assert rate == pytest.approx(float(best.mfu * best.goodput), rel=0.01)


REFUSED = [
    ({"days": 3, "device_hours": 10}, "days=3 and device_hours=10; give one of budget.days"),
    ({"days": -1}, "days=-1 is outside"),
    ({"date": "soon"}, "date='soon' from start=None; give them as YYYY-MM-DD"),
    ({"date": "2020-01-01", "start": "2021-01-01"}, "is not after 2021-01-01"),
    ({"cost": 100, "chip": "b200"}, "price=None, which is needed here"),
    ({"chip": "h1000"}, "no 'h1000'"),
    ({"chip": "custom"}, "flops=None, which is needed"),
    ({"chip": "a100", "precision": "fp8"}, "no peak in precision='fp8'; it takes bf16"),
    ({"devices": 0}, "devices=0; it takes a whole number"),
    ({"unique_tokens": 0}, "unique_tokens=0 is outside"),
    ({"architecture": "proportional"}, "the architecture has no aspect; take moe_transformer or fine_grained"),
    ({"architecture": moesim.load_architecture("fine_grained", shared_experts=1)}, "shared_experts=1; a plan is for"),
    ({"serving": {"token": 1}}, "unknown key 'token'"),
    ({"serving": 1e12}, "serving: 1000000000000.0; it takes a mapping of tokens, mfu"),
    ({"laws": "nobody2020"}, "no 'nobody2020'"),
    ({"cluster": {"restart": -1}}, "restart=-1 is outside"),
    ({"serving": {"tokens": 1e20}}, "no model fits this machine, or serving leaves no time"),
    ({"release": "1.0"}, "no constants for '1.0'"),
    ({"laws": ["nobody2020"]}, "no 'nobody2020'"),
]


@pytest.mark.parametrize(("over", "says"), REFUSED)
def test_bad_input_is_refused(over, says):
    with pytest.raises(InputError, match=says):
        moesim.plan(**{"devices": 8, **over})


def test_the_verb_writes_what_python_gives(tmp_path, capsys, small):
    typed = ["cluster.devices=64", "budget.days=10", "space.unique_tokens=1e11", f"hydra.run.dir={tmp_path}"]
    main(["plan", *typed])
    verb = moesim.open_result(tmp_path / "plan.nc")
    for name in ("loss", "tokens", "scan_loss", "memory", "layout"):
        np.testing.assert_array_equal(verb[name], small[name])
    page = (tmp_path / "page.md").read_text()
    assert page in capsys.readouterr().out
    for said in ("what binds", "at equal time", "odds that another choice", "ludziejewski2025", "layout"):
        assert said in page
    assert (tmp_path / "iso_time.png").exists()
    model = Transformer.load(tmp_path / "config.json")
    assert model.total_params == float(verb.total_params.sel(choice="best"))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] in ("mixtral", "llama")


def test_a_plan_from_python_is_repeated_from_its_file(tmp_path, capsys):
    data = moesim.plan(chip="b200", devices=8, days=2, unique_tokens=1e10, laws=[], cluster={"restart": 60.0})
    moesim.save(data, tmp_path / "mine.nc")
    main(["rerun", str(tmp_path / "mine.nc")])
    assert "the same bit for bit" in capsys.readouterr().out


def test_plans_of_a_multirun_stand_in_one_table(command):
    small = ("cluster.devices=8", "budget.days=2", "space.unique_tokens=1e10", "laws=[]", "figures=false")
    code, out, _ = command("plan", "-m", "repetition=none,muennighoff2023", *small)
    assert code == 0
    assert "collected 2 of 2" in out
    rows = [line.split() for line in out.splitlines() if "  best  " in line]
    assert [row[0] for row in rows] == ["none", "muennighoff2023"]
    assert all(0 < float(row[-1]) < 5 for row in rows)


def test_the_primary_config_says_what_the_code_does():
    from moesim.config import shipped
    from moesim.planning.budget import KINDS, Gating, Serving
    from moesim.planning.plan import LAWS
    from moesim.settings import defaults

    config = shipped("plan")
    for group, cls in {"cluster": Cluster, "serving": Serving, "gating": Gating}.items():
        assert config[group] == defaults(cls)
    assert set(config["budget"]) == {*KINDS, "start"}
    assert tuple(config["laws"]) == LAWS


def test_draws_of_a_fit_become_a_dim():
    fitted = moesim.fit("hoffmann2022", "chinchilla", draws=20, starts=2, profiles=False)
    plan = moesim.plan(fitted, devices=64, days=10, laws=["abnar2025"])
    assert plan.sizes["draw"] == 20
    assert plan.loss.isel(law=0).std("draw").sel(choice="best").item() > 0
    assert plan.loss.isel(law=1).std("draw").sel(choice="best").item() == pytest.approx(0, abs=1e-12)


def test_an_array_is_an_axis_and_a_loss_above_that_of_guessing_is_told():
    """One H100 for 9 s: 14.4 nat/token, where guessing among 129,280 tokens is ln of that."""
    found = moesim.plan(devices=1, days=xr.DataArray([1e-4, 10.0], dims="days"))
    assert found.days.values.tolist() == [1e-4, 10.0]
    said = [paged.warnings(found.sel(days=days)) for days in (1e-4, 10.0)]
    assert ["above that of guessing" in " ".join(lines) for lines in said] == [True, False]
    assert found.attrs["guessing_loss"] == pytest.approx(np.log(FIELDS["vocabulary"]))
