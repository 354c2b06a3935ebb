"""Sweeps: axes and sizes, tokens and tolerances, what lies outside, and what is refused."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_planning import ARCHITECTURES, INF, SPARSITIES, model

from moesim import InputError, Model, load_architecture, load_law, load_repetition, optimum, sweep
from moesim.laws import law_from
from moesim.planning.space import Space


@pytest.mark.parametrize("name", ["active_params", "total_params"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fixed_size(name, architecture):
    axes = {"compute": [1e20, 1e21], "sparsity": [0, 0.9], "unique_tokens": [2e9, INF]}
    found = optimum(model("abnar2025", "muennighoff2023", architecture), **axes, **{name: [1e8, 1e10]})
    size = found[f"optimal_{name}"]
    assert (abs(size / size[name] - 1) < 1e-12).all()
    assert (found.optimum_status == "inside").all()
    assert (found.best_loss <= found.optimal_loss.min("sparsity") + 1e-12).all()


def test_a_size_that_no_model_has_is_infeasible():
    found = optimum(model("abnar2025", architecture="moe_transformer"), compute=1e20, total_params=[1.0, 1e9])
    assert found.optimum_status.values.tolist() == ["infeasible", "inside"]
    assert found.best_sparsity_status[0] == "infeasible"
    assert np.isnan([found.optimal_loss[0], found.best_loss[0], found.best_sparsity[0]]).all()
    assert np.isfinite([found.optimal_loss[1], found.best_loss[1], found.best_sparsity[1]]).all()
    curve = sweep(model("abnar2025", architecture="moe_transformer"), compute=1e20, active_params=[1.0, 1e9])
    assert np.isnan(curve.loss.values).tolist() == [True, False]


def test_scalars_and_axes_of_one_value():
    it = model("abnar2025", "muennighoff2023")
    scalar = optimum(it, compute=1e20, sparsity=0.5, unique_tokens=2e9)
    short = optimum(it, compute=[1e20], sparsity=[0.5], unique_tokens=[2e9])
    assert scalar.optimal_loss.dims == () == scalar.best_loss.dims
    assert short.optimal_loss.dims == ("compute", "sparsity", "unique_tokens")
    assert short.best_loss.dims == ("compute", "unique_tokens")
    for name in ("optimal_loss", "best_loss", "best_sparsity"):
        assert short[name].item() == pytest.approx(scalar[name].item(), rel=1e-12)
    assert scalar.optimal_loss.attrs["units"] == "nat/token"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_experts_axis_is_a_sparsity_axis(architecture):
    it = model("abnar2025", architecture=architecture)
    active = it.architecture.describe(0.0, 0.0)["active_experts"]
    experts = np.array([1.0, 4.0, 64.0]) * active
    found = optimum(it, compute=1e20, experts=experts)
    same = optimum(it, compute=1e20, sparsity=1 - active / experts)
    assert found.optimal_loss.dims == ("experts",)
    assert (found.optimal_loss.values == same.optimal_loss.values).all()
    assert found.best_loss.dims == ()


def test_coefficients_of_every_part_as_axes():
    it = Model(
        load_law("abnar2025").with_coefficients(e=[0.9, 1.0]),
        load_repetition("muennighoff2023").with_coefficients(R_D=np.array([3.0, 15.0, 31.0])),
        load_architecture("moe_transformer"),
    )
    found = optimum(it, compute=1e20, unique_tokens=2e9, granularity=[1, 2], shared_experts=1, best=False)
    assert dict(found.optimal_loss.sizes) == {"e": 2, "R_D": 3, "granularity": 2}
    assert found.optimal_loss.diff("e").values == pytest.approx(0.1)
    assert (found.optimal_loss.diff("R_D") < 0).all()


def test_extrapolation_is_flagged():
    found = optimum(model("abnar2025"), compute=1e20, sparsity=[0, 0.95, 0.98], best=False)
    assert found.optimal_extrapolated.values.tolist() == [False, False, True]


def test_an_optimum_beyond_the_sizes_says_so():
    """Clark et al. 2022 has no term in tokens: more parameters always help, up to the largest size."""
    found = optimum(model("clark2022_hash"), compute=1e20, sparsity=0.0, best=False)
    assert found.optimum_status.item() == "at upper bound"
    assert found.optimal_active_params.item() == pytest.approx(1e15)


def test_runs_along_a_dim_of_their_own_keep_their_values():
    compute, sparsity = (xr.DataArray(values, dims="run") for values in ([1e20, 1e21], [0.5, 0.9]))
    found = optimum(model("abnar2025"), compute=compute, sparsity=sparsity)
    assert found.optimal_loss.dims == ("run",) == found.best_loss.dims
    assert found["sparsity"].values.tolist() == [0.5, 0.9]
    alone = optimum(model("abnar2025"), compute=1e21, sparsity=0.9)
    assert found.optimal_loss[1].item() == pytest.approx(alone.optimal_loss.item(), rel=1e-12)


# ---------------------------------------------------------------- by tokens; how flat; how sure

THEOREM = {
    # spread of the loss over sparsities of compute-optimal models of 2e10 and 1e11 tokens (proportional)
    "wu2026": (0, 0),
    "frantar2023_t5": (0, 0),
    "krajewski2024": (0, 0),
    "hossain2025": (0.007, 0.007),
    "abnar2025": (0.015, 0.155),
    "ludziejewski2025": (0.128, 0.010),
    "zhao2025": (0.33, 0.33),
}


@pytest.mark.parametrize("law", THEOREM)
def test_perplexity_at_fixed_tokens(law):
    """If sparsity only scales the size term, the loss at D tokens is E + (1 + beta/alpha) B/D^beta at all of them."""
    loss = optimum(law, tokens=[2e10, 1e11], sparsity=np.linspace(0, 0.98, 50)).optimal_loss
    spread = (loss.max("sparsity") - loss.min("sparsity")).values
    expected = np.array(THEOREM[law])
    assert spread == pytest.approx(expected, abs=1e-9 if not expected.any() else 6e-3)
    assert (spread < 1e-9).all() == (not expected.any())


@pytest.mark.parametrize("repetition", ["none", "muennighoff2023"])
def test_tokens_and_compute_are_two_ways_to_the_same_run(repetition):
    it = model("abnar2025", repetition)
    by_tokens = optimum(it, tokens=[5e9, 4e10], sparsity=[0, 0.9], unique_tokens=2e9)
    assert (by_tokens.optimum_status == "inside").all()
    assert not any(str(name).startswith("best") for name in by_tokens)
    for index in np.ndindex(2, 2):
        cell = by_tokens.isel(dict(zip(("tokens", "sparsity"), index, strict=True)))
        same = optimum(it, compute=cell.optimal_compute.item(), sparsity=cell.sparsity.item(), unique_tokens=2e9)
        assert same.optimal_tokens.item() == pytest.approx(cell["tokens"].item(), rel=1e-9)
        assert same.optimal_loss.item() == pytest.approx(cell.optimal_loss.item(), rel=1e-12)


def test_tokens_give_the_compute_of_a_sweep():
    found = sweep("abnar2025", tokens=2e10, sparsity=[0, 0.9], active_params=[1e8, 1e9], optima=False)
    assert found["compute"].values == pytest.approx([1.2e19, 1.2e20])
    other = sweep("abnar2025", compute=1.2e20, sparsity=[0, 0.9], active_params=[1e9], optima=False)
    assert found.loss.values[:, 1] == pytest.approx(other.loss.values[:, 0], rel=1e-13)


@pytest.mark.parametrize("repetition", ["none", "muennighoff2023", "lovelace2026"])
def test_range_of_sizes_within_a_tolerance(repetition):
    it, axes = model("abnar2025", repetition), {"compute": [1e19, 1e22], "sparsity": [0, 0.9], "unique_tokens": 2e10}
    found = optimum(it, **axes, tolerance=0.02)
    assert (found.optimal_low_params < found.optimal_active_params).all()
    assert (found.optimal_active_params < found.optimal_high_params).all()
    cell = it.with_taught_params(Space.of(it, axes).context)
    for name in ("optimal_low_params", "optimal_high_params"):
        rise = it.loss(np.log(found[name].values), cell) - found.optimal_loss.values
        assert rise == pytest.approx(np.full((2, 2), 0.02), abs=1e-6)


EPOCHS = {4: (13.1, 25.5), 8: (13.2, 26.9), 16: (13.2, 14.5, 16.4, 19.7, 23.7, 26.3, 29.0)}


@pytest.mark.parametrize("window", EPOCHS)
def test_a_parabola_reads_too_many_epochs(window):
    """The bias of approach II: at 1e20 FLOP and 2e9 tokens the law's optima pass 13.0 to 24.4 times over the data."""
    axes = {"compute": 1e20, "unique_tokens": 2e9, "sparsity": [SPARSITIES[0], SPARSITIES[-1]]}
    axes["sparsity"] = SPARSITIES if len(EPOCHS[window]) == 7 else axes["sparsity"]
    found = sweep("abnar2025", window=window, **axes)
    assert found.attrs["window"] == window
    assert 1e20 / (6 * found.parabola_active_params.values) / 2e9 == pytest.approx(EPOCHS[window], abs=0.051)
    assert found.optimal_epochs.values[[0, -1]] == pytest.approx([13.0, 24.4], abs=0.05)


def test_a_law_of_dense_models_has_no_best_sparsity():
    assert not any(str(name).startswith("best") for name in optimum("besiroglu2024", compute=1e21))
    asked = optimum("besiroglu2024", compute=1e21, best=True)
    assert asked.best_extrapolated_by == 1


# At 1e22 FLOP: Frantar's runs end at 85e6 non-zeros; of the others it is not known what was trained.
@pytest.mark.parametrize("law", ["frantar2023_t5", "frantar2023_vit", "zhao2025", "hossain2025"])
def test_every_law_says_where_it_leaves_its_data(law):
    found = optimum(law, compute=1e22)
    assert found.optimal_extrapolated_by.item() == 1 == found.best_extrapolated_by.item()


def test_what_lies_outside_and_of_which_data():
    axes = {"compute": [1e20, 1e21], "sparsity": [0, 0.95, 0.98], "unique_tokens": [2e9, INF]}
    found = optimum(model("abnar2025", "muennighoff2023"), **axes)
    by = found.optimal_extrapolated_by.transpose("unique_tokens", "compute", "sparsity").values
    assert by[1].tolist() == [[0, 0, 1]] * 2  # unlimited data: only the sparsity
    assert by[0].tolist() == [[4, 6, 7]] * 2  # the anchor lies at 1e17 FLOP; R_D was measured on dense models
    large = sweep(model("abnar2025", "muennighoff2023"), optima=False, **axes, active_params=1e11)
    assert (large.epochs < 1).all()
    assert (large.extrapolated_by.sel(unique_tokens=2e9) & 2).all()  # no repeats, but 100B parameters are excess
    assert (found.optimal_extrapolated == (found.optimal_extrapolated_by > 0)).all()
    flags = found.optimal_extrapolated_by
    assert flags.dtype == np.uint8
    assert dict(zip(flags.attrs["flag_meanings"].split(), flags.attrs["flag_masks"].tolist(), strict=True)) == {
        "law": 1,
        "repetition": 2,
        "anchor": 4,
    }
    plain = optimum("abnar2025", compute=1e20, unique_tokens=[2e9, 1e12], best=False)
    assert plain.optimal_extrapolated_by.values.tolist() == [1, 0]  # a law of one epoch, 13 epochs


@settings(max_examples=30, derandomize=True)
@given(
    log_compute=st.floats(17, 26), sparsity=st.floats(0, 0.99), log_unique=st.floats(7, 14), log_params=st.floats(6, 13)
)
def test_no_run_is_better_than_the_optimum(log_compute, sparsity, log_unique, log_params):
    it = model("abnar2025", "muennighoff2023")
    at = {"compute": 10**log_compute, "sparsity": sparsity, "unique_tokens": 10**log_unique}
    run = sweep(it, **at, active_params=[10**log_params], best=False)
    assert run.optimal_loss.item() <= run.loss.item() + 1e-12


# ---------------------------------------------------------------- refusals

REFUSALS = [
    ({}, "optimum: no value for compute"),
    ({"compute": -1e20}, r"axis: compute=-1e\+20 is outside its domain; it takes a number above 0"),
    ({"compute": "much"}, "compute: 'much' is not an axis"),
    ({"compute": [1e20, 1e20]}, r"compute: the value 1e\+20 stands twice"),
    ({"compute": float("nan")}, "compute=nan is outside its domain"),
    ({"compute": []}, "compute: .* is not an axis"),
    ({"compute": 1e20, "sparsity": 1.0}, "sparsity=1 is outside its domain; it takes 0 or more and below 1"),
    ({"compute": 1e20, "unique_tokens": 0}, "unique_tokens=0 is outside its domain"),
    ({"compute": 1e20, "sparsty": 0.5}, "axis 'sparsty': no such axis; there are compute, sparsity"),
    ({"compute": 1e20, "sparsity": 0.5, "experts": 2}, "axes sparsity and experts"),
    ({"compute": 1e20, "experts": 0.5}, "experts=0.5"),
    ({"compute": 1e20, "active_params": 1e9, "total_params": 1e9}, "axes active_params and total_params"),
    ({"compute": {"linspace": [1e19, 1e20]}}, r"compute: linspace: \[1e\+19, 1e\+20\]; it takes \[first, last, n\]"),
    ({"compute": {"geomspace": [0, 1e20, 3]}}, "compute: geomspace from 0 to 1e"),
    ({"compute": {"logspace": [1, 2, 3]}}, "compute: .* is not an axis"),
    ({"compute": 1e20, "sparsity_bounds": (0.5, 0.5)}, "the lower one must be below the upper one"),
    ({"compute": 1e20, "sparsity_bounds": (0.5, 1.0)}, "sparsity_bounds=1 is outside its domain"),
    ({"compute": 1e20, "sparsity_bounds": 0.5}, "sparsity_bounds=0.5"),
    ({"compute": np.ones((2, 2))}, "compute"),
    ({"compute": xr.DataArray(np.zeros(0), dims="compute")}, "dim 'compute' has length 0; it is empty"),
    (
        {
            "compute": xr.DataArray([1e20, 1e21], {"run": [0, 1]}, "run"),
            "unique_tokens": xr.DataArray([1e9, 1e10], {"run": [1, 2]}, "run"),
        },
        "axis unique_tokens: dim 'run' has other labels here than elsewhere",
    ),
]


@pytest.mark.parametrize(("axes", "message"), REFUSALS)
def test_refusals_name_the_thing(axes, message):
    with pytest.raises(InputError, match=message):
        optimum(model("abnar2025"), **axes)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"active_params": [1e9]}, "sweep: axes active_params; it takes compute"),
        (
            {"compute": 1e20, "active_params": 1e8, "total_params": 1e9},
            "sweep: axes compute, .*; it takes compute, and one of active_params, total_params",
        ),
    ],
)
def test_a_sweep_needs_compute_and_a_size(axes, message):
    with pytest.raises(InputError, match=message):
        sweep(model("abnar2025"), **axes)


def test_a_model_takes_names_or_parts():
    with pytest.raises(InputError, match="Model: repetition is of type int; it takes a name or a moesim Repetition"):
        Model("abnar2025", 3)  # pyright: ignore


def test_a_penalty_is_added_to_the_loss():
    """1 + 8/16^0.5 + 24/8 of 16 parameters and 8 tokens, and 2 x 3^2 x (16/2)^1 for 3 repeats of 2 unique tokens."""
    law = law_from("mine", {"form": "hoffmann2022", "coefficients": {"E": 1, "A": 8, "alpha": 0.5, "B": 24, "beta": 1}})
    repetition = load_repetition("lovelace2026", P=2, delta=2, kappa=1)
    cell = {"compute": 6.0 * 16 * 8, "sparsity": 0.0, "unique_tokens": 2.0}
    assert Model(law, repetition).loss(np.log(16.0), cell) == pytest.approx(1 + 2 + 3 + 2 * 9 * 8, rel=1e-12)
    at = Model(law).at(np.log(16.0), {**cell, "sparsity": 0.75})
    assert (at["tokens"], at["total_params"], at["experts"]) == pytest.approx((8, 64, 4))


def test_sizes_without_an_axis_lie_around_the_optima():
    """From a tenth of the smallest optimum to ten times the largest, 24 to a decade, at powers of 10^(1/24)."""
    found = sweep("besiroglu2024", compute=[1e20, 1e21], best=False)
    sizes, optima = np.log10(found.active_params.values), np.log10(found.optimal_active_params.values)
    assert optima.min() - 1 - 1 / 24 < sizes[0] <= optima.min() - 1
    assert optima.max() + 1 <= sizes[-1] < optima.max() + 1 + 1 / 24
    assert sizes * 24 == pytest.approx(np.round(sizes * 24), abs=1e-9)


def test_flags_in_words():
    from moesim.planning.tables import _outside

    assert [_outside(flags) for flags in (0, 1, 5, np.nan)] == ["", "law", "law, anchor", ""]
