"""What every law must do, and what its files and arguments are refused for."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from test_laws import EVERY_LAW, RANGES, each_law, points

from moesim.errors import InputError
from moesim.laws import FORMS, Law, law_from, load_law
from moesim.numerics.derivative import Jet, slope_of
from moesim.variables import POSITIVE, REAL, VARIABLES

# ---------------------------------------------------------------- every law


def test_every_form_has_coefficients_and_every_law_a_source():
    assert {law.form.name for law in EVERY_LAW.values()} == set(FORMS)
    for law in EVERY_LAW.values():
        assert all((law.source, law.marking, law.definitions, law.caveats)), law.name
        assert law.form.function.__doc__.startswith(("L = ", "log10 L = ", "The dense law", "accuracy = ")), law.name
        assert set(law.data_range) <= set(VARIABLES)


@each_law
def test_broadcast_equals_loop_and_kinds_agree(law):
    row = points(law)
    first, *rest = law.inputs
    grid = law(**{first: row[first][:, None]}, **{name: row[name] for name in rest})
    loop = [[law(**{first: x}, **{n: float(row[n][j]) for n in rest}) for j in range(5)] for x in row[first].tolist()]
    assert np.isscalar(loop[0][0])
    np.testing.assert_allclose(np.broadcast_to(grid, (5, 5)), loop, rtol=1e-13)
    named = law(**{first: xr.DataArray(row[first], dims=first)}, **{n: xr.DataArray(row[n], dims="z") for n in rest})
    np.testing.assert_allclose(named.transpose(first, ...).values, grid if rest else grid[:, 0], rtol=1e-13)


@each_law
def test_coefficients_with_a_draw_dim(law):
    name, value = next(iter(law.coefficients.items()))
    drawn = law.with_coefficients(**{name: xr.DataArray([value, value * 1.01], dims="draw")})
    single = {k: float(v[0]) for k, v in points(law).items()}
    assert drawn(**single).dims == ("draw",)
    assert drawn(**single)[0] == pytest.approx(law(**single), rel=1e-14)


ALWAYS_FALLS = ("tokens", "total_params", "nonembedding_params", "active_params", "granularity")
NOT_EVERYWHERE = {("zhao2025", "active_params"), ("tian2025", "granularity")}  # both have an optimum inside
NOT_EVERYWHERE |= {("bryant2026", "total_params")}  # overfits


@each_law
def test_loss_falls_with_size_and_tokens(law):
    names = {n for n in law.inputs if n in ALWAYS_FALLS and (law.form.name, n) not in NOT_EVERYWHERE}
    for name in names - ({"granularity"} if law.coefficients.get("g") == 0 else set()):
        at = {k: v[:, None] for k, v in points(law).items()}
        losses = law(**{**at, name: np.geomspace(*RANGES[name], 50)})
        assert (np.diff(losses) < 0).all(), name


@each_law
def test_derivative_equals_central_difference(law):
    at, h = points(law), 1e-5
    for name in law.inputs:
        along = {**at, name: Jet(at[name], {name: at[name]})}
        exact = slope_of(law.form.function(**along, **law.coefficients), name)
        up, down = (law(**{**at, name: at[name] * np.exp(s)}) for s in (h, -h))
        np.testing.assert_allclose(exact, (up - down) / (2 * h), rtol=1e-5, atol=1e-9, err_msg=name)


@each_law
@settings(max_examples=30)
@given(data=st.data())
def test_loss_lies_between_those_of_the_largest_and_the_smallest_run(law, data):
    inside = {n: data.draw(st.floats(*RANGES[n]), label=n) for n in law.inputs}
    falls = [n for n in law.inputs if n in ALWAYS_FALLS and (law.form.name, n) not in NOT_EVERYWHERE]
    least, most = (law(**{**inside, **{n: RANGES[n][end] for n in falls}}) for end in (1, 0))
    assert 0 < least <= law(**inside) * (1 + 1e-12)
    assert law(**inside) <= most * (1 + 1e-12)


# ---------------------------------------------------------------- bad input

BAD_INPUTS = {
    "compute": (-1e20, 0, np.nan, np.inf, "much", None, True),
    "active_params": (-1, 0, np.nan, "1e9"),
    "total_params": (-1, 0, np.nan, [1e9, -1], "big"),
    "nonembedding_params": (-1, 0, np.nan, "big"),
    "tokens": (-1, 0, np.nan, "all", [1e9, 0]),
    "unique_tokens": (-1, 0, np.nan, "all"),
    "sparsity": (1, 1.5, -0.1, np.nan, "sparse"),
    "density": (0, 1.1, -0.1, np.nan, "dense"),
    "experts": (0, 0.5, -8, np.nan, "eight"),
    "active_experts": (0, -1, np.nan, "one"),
    "shared_ratio": (1, -0.1, np.nan, "half"),
    "activation_ratio": (0, 1.1, np.nan, "half"),
    "granularity": (0, -1, np.nan, "fine"),
}
BAD_COEFFICIENTS = {REAL: (np.nan, np.inf, "x", True), POSITIVE: (-1.0, 0.0, np.nan, np.inf, "x", True)}


@each_law
def test_bad_input_is_named(law):
    good = {name: float(v[0]) for name, v in points(law).items()}
    for name in law.inputs:
        for bad in BAD_INPUTS[name]:
            with pytest.raises(InputError, match=f"{law.name}: {name}="):
                law(**{**good, name: bad})
        with pytest.raises(InputError, match=f"{law.name}: no value for input '{name}'"):
            law(**{k: v for k, v in good.items() if k != name})
    with pytest.raises(InputError, match=f"{law.name}: the value 1000000000.0 has no name; write .*{law.inputs[0]}="):
        law(1e9, 2e10)
    with pytest.raises(InputError, match="unknown input 'tokenz'; it takes .*" + law.inputs[0]):
        law(**good, tokenz=1)
    with pytest.raises(InputError, match=f"{law.name}: no report 'nothing'"):
        law.report("nothing", **good)


@each_law
def test_bad_coefficient_is_named(law):
    for name, spec in law.form.coefficients.items():
        for bad in BAD_COEFFICIENTS.get(spec.domain, (-1.0, np.nan, "x")):
            with pytest.raises(InputError, match=f"{law.name}: {name}="):
                load_law(law.name, **{name: bad})
        with pytest.raises(InputError, match=f"{law.name}: no value for coefficient '{name}'"):
            load_law(law.name, **{name: None})
    with pytest.raises(InputError, match=f"{law.name}: unknown coefficient 'betta'; it takes "):
        load_law(law.name, betta=1.0)


@each_law
def test_typical_ranges_lie_in_the_domain(law):
    for name, spec in law.form.coefficients.items():
        low, high = spec.typical
        assert low < high, name
        assert spec.domain.contains(np.array([high])).all(), name


# ---------------------------------------------------------------- files

GOOD = {"form": "hoffmann2022", "coefficients": {"E": 1.7, "A": 400, "alpha": 0.34, "B": 410, "beta": 0.28}}
BAD_FILES = [
    # what replaces keys of a good file, and the message
    ({"source": 5}, "law mine: source=5 is not a text"),
    ({"form": "hofman"}, "law mine: no form 'hofman'; it takes .*hoffmann2022"),
    ({"sauce": "x"}, "law mine: unknown key 'sauce'; it takes form, coefficients"),
    ({"coefficients": [1, 2]}, r"law mine: coefficients=\[1, 2\] is not a mapping"),
    ({"coefficients": {}}, "mine: no value for coefficient 'E'"),
    ({"coefficients": {**GOOD["coefficients"], "A": "many"}}, "mine: A='many' is not a number"),
    ({"coefficients": {**GOOD["coefficients"], "gamma": 1}}, "mine: unknown coefficient 'gamma'"),
    ({"data_range": {"size": [0, 1]}}, "law mine: data_range names 'size'; it takes compute"),
    ({"data_range": {"tokens": 5}}, "law mine: data_range of tokens is 5; it takes"),
    ({"data_range": {"tokens": [5, 1]}}, "law mine: data_range of tokens is .* it takes"),
    ({"data_range": {"tokens": ["a", 1]}}, "law mine: data_range of tokens is .* it takes"),
    ({"caveats": "none"}, "law mine: caveats='none' is not a list"),
]


@pytest.mark.parametrize(("change", "message"), BAD_FILES)
def test_bad_law_file(change, message):
    with pytest.raises(InputError, match=message):
        law_from("mine", {**GOOD, **change})


@pytest.mark.parametrize("key", GOOD)
def test_missing_key(key):
    with pytest.raises(InputError, match=f"law mine: no key '{key}'"):
        law_from("mine", {k: v for k, v in GOOD.items() if k != key})


def test_law_of_your_own_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "form: hoffmann2022\ncoefficients: {E: 1.7, A: 4e2, alpha: .34, B: null, beta: .28}\n"
        "data_range: {tokens: [1e9, .inf]}\ncaveats: [made up]\n"
    )
    law = load_law(path, B=410)
    assert isinstance(law, Law)
    assert (law.name, law.coefficients["A"], law.coefficients["B"]) == ("mine", 400, 410)
    assert law.caveats == ("made up",)
    assert law.data_range == {"tokens": (1e9, np.inf)}
    assert bool(law.outside({"tokens": 1e8}))
    assert not law.outside({"tokens": 1e20})
    with pytest.raises(InputError, match="mine: no value for coefficient 'B'"):
        load_law(path)
    with pytest.raises(InputError, match=r"there are .*abnar2025"):
        load_law("clark2022")


def test_dense_laws_flag_sparse_models():
    assert bool(load_law("besiroglu2024").outside({"sparsity": 0.5, "tokens": 1e10}))
    assert not load_law("besiroglu2024").outside({"sparsity": 0.0, "tokens": 1e10})
