"""Counting rules: against counts by hand and by other formulas, and what each must do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim import InputError, config, load_architecture
from moesim.models.architecture import ARCHITECTURES
from moesim.variables import VARIABLES

ARCHITECTURE = {name: load_architecture(name) for name in config.choices("architecture")}
each = pytest.mark.parametrize("architecture", ARCHITECTURE.values(), ids=ARCHITECTURE)
SIZES = np.linspace(5, 9, 9)


def test_proportional_by_hand():
    at = load_architecture("proportional", active_experts=2).describe(np.log(1e9), 0.75)
    assert at["active_params"] == pytest.approx(1e9)
    assert at["total_params"] == pytest.approx(4e9)
    assert at["flops_per_token"] == pytest.approx(6e9)
    assert (at["experts"], at["active_experts"], at["density"]) == pytest.approx((8, 2, 0.25))


def test_ludziejewski_by_hand():
    """Ludziejewski et al. 2025, appendix: d = 1024 (16 layers), 8 experts, vocabulary 50257."""
    at = ARCHITECTURE["ludziejewski2025"].describe(np.log(1024), 7 / 8)
    assert at["active_params"] == pytest.approx(2 * 1024 * 50257 + 13 * 16 * 1024**2)
    assert at["total_params"] == pytest.approx(2 * 1024 * 50257 + (4 + 9 * 8) * 16 * 1024**2)


@pytest.mark.parametrize(
    ("active", "tokens", "granularity", "flops"),
    [(100e6, 4.37e9, 8, 2.95e18), (1e9, 28.94e9, 16, 1.93e20), (3e9, 72.90e9, 16, 1.41e21)],
)
def test_krajewski_flops(active, tokens, granularity, flops):
    """Krajewski et al. 2024, Table 2: F of the runs, 64 x 12/516 sizes being nominal."""
    it = load_architecture("krajewski2024", granularity=granularity)
    d = (active / 12 * 64) ** (1 / 3)
    at = it.describe(np.log(d), 63 / 64)
    assert at["active_params"] == pytest.approx(active)
    assert at["total_params"] / at["active_params"] == pytest.approx(516 / 12)
    assert at["flops_per_token"] * tokens == pytest.approx(flops, rel=0.01)


def test_moe_transformer_by_hand():
    """d = 512, 8 layers, every second with 16 experts of half width, two active, one shared; gated, untied."""
    it = load_architecture(
        "moe_transformer", active_experts=2, granularity=2, shared_experts=1, moe_every=2, vocabulary=1000
    )
    at = it.describe(np.log(512), 7 / 8)
    attention, dense, expert, router = 4 * 512**2, 12 * 512**2, 6 * 512**2, 16 * 512
    embedding = 2 * 1000 * 512
    assert at["active_nonembedding_params"] == pytest.approx(8 * attention + 4 * dense + 4 * (3 * expert + router))
    assert at["nonembedding_params"] == pytest.approx(8 * attention + 4 * dense + 4 * (17 * expert + router))
    assert at["total_params"] - at["nonembedding_params"] == pytest.approx(embedding)
    weights = at["active_nonembedding_params"] + 1000 * 512
    assert at["flops_per_token"] == pytest.approx(6 * weights + 12 * 8 * 512 * 2048 * 0.5)
    assert at["activation_ratio"] == pytest.approx(3 / 17)
    assert at["shared_ratio"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("granularity", [1, 2])
@pytest.mark.parametrize("active_experts", [1, 4])
def test_moe_transformer_flops_are_those_of_abnar(active_experts, granularity):
    """Abnar et al. 2025, eq. 9, full attention; their router constant 14 is 6 d_experts weights here."""
    d, sparsity, C, R, context, vocabulary = 1024.0, 0.9, 6, 14, 2048, 50432
    layers, experts = d / 64, active_experts / (1 - sparsity)
    printed = layers * (4 * C * d**2 + 2 * C * d * context + 12 * C / granularity * active_experts * d**2)
    printed += layers * R * d * experts + C * vocabulary * d
    it = load_architecture("moe_transformer", active_experts=active_experts, granularity=granularity, attended=1)
    ours = it.describe(np.log(d), sparsity)["flops_per_token"]
    assert ours + layers * (R - 6) * d * experts == pytest.approx(printed)


@each
def test_every_quantity_is_in_the_table_and_rises_with_size(architecture):
    at = architecture.describe(SIZES, 0.9)
    assert set(at) <= set(VARIABLES)
    for name in ("active_params", "total_params", "nonembedding_params", "flops_per_token"):
        assert (np.diff(at[name]) > 0).all()
    assert (at["total_params"] > at["active_params"]).all()
    for name, values in at.items():
        assert VARIABLES[name].domain.contains(np.asarray(values)).all(), name


@each
def test_dense_models_are_all_active(architecture):
    at = architecture.describe(SIZES, 0.0)
    assert at["total_params"] == pytest.approx(at["active_params"])
    assert at["experts"] == pytest.approx(at["active_experts"])
    assert at["density"] == pytest.approx(np.ones(9))


@each
@given(
    log_params=st.floats(7.5, 12), sparsity=st.floats(0, 0.99), name=st.sampled_from(["active_params", "total_params"])
)
def test_size_is_found_back(architecture, log_params, sparsity, name):
    params = 10**log_params
    x = architecture.size_of(name, {name: params, "sparsity": sparsity}, lambda _: architecture.fields)
    assert architecture.describe(x, sparsity)[name] == pytest.approx(params, rel=1e-10)


@each
def test_six_flops_per_active_parameter_is_a_choice(architecture):
    it = load_architecture(architecture.name, flops="6N")
    at = it.describe(SIZES, 0.9)
    assert at["flops_per_token"] == pytest.approx(6 * at["active_params"])


@each
def test_fields_broadcast(architecture):
    name = next(iter(architecture.fields))
    values = np.array([1.0, 2.0, 4.0])
    many = architecture.with_fields(**{name: values[:, None]}).describe(SIZES, 0.5)
    for row, value in enumerate(values):
        one = architecture.with_fields(**{name: value}).describe(SIZES, 0.5)
        for quantity, expected in one.items():
            assert np.broadcast_to(many[quantity], (3, 9))[row] == pytest.approx(expected)


def test_refusals():
    with pytest.raises(InputError, match=r"unknown coefficient 'aspct'; it takes .*aspect"):
        load_architecture("moe_transformer", aspct=3)
    with pytest.raises(InputError, match="aspect=-1 is outside its domain"):
        load_architecture("moe_transformer", aspect=-1)
    with pytest.raises(InputError, match="flops='7N'; it takes exact, 6N"):
        load_architecture("proportional", flops="7N")
    with pytest.raises(InputError, match="no-such"):
        load_architecture("no-such")
    assert set(ARCHITECTURES) == {each.form.name for each in ARCHITECTURE.values()}


@pytest.mark.parametrize("experts", [1, 8, 64])
@pytest.mark.parametrize("width", [512, 1024, 4096])
def test_abnar_flops_per_token(width, experts):
    """Their eq. 9 with C = 6 and R = 14: layers (4 C d^2 + 2 C d context + 12 C d^2 K + R d E) + C d vocabulary."""
    found = load_architecture("moe_transformer", attended=1).describe(np.log(width), 1 - 1 / experts)["flops_per_token"]
    layers = width / 64
    own = layers * (24 * width**2 + 12 * width * 2048 + 72 * width**2 + 14 * width * experts) + 6 * width * 50432
    assert 0.987 < found / own <= 1.0
    assert found == pytest.approx(own - 8 * layers * width * experts, rel=1e-12)
