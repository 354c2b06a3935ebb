"""Sweeps and optima: numbers printed in papers, what every model must do, and other solvers as peers."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from moesim import InputError, Model, config, load_architecture, load_law, load_repetition, optimum, sweep
from moesim.laws import law_from
from moesim.planning.size import TWO, best_size
from moesim.planning.space import Space
from moesim.planning.sparsity import best_sparsity

LAWS = tuple(name for name in config.choices("law") if name not in ("bhagia2024_hellaswag", "marin2026"))
ARCHITECTURES = tuple(config.choices("architecture"))
REPETITIONS = tuple(config.choices("repetition"))
EXCESS = ("none", "active", "total")
# without a count of parameters nothing is left of the first two; the last says itself what counts beyond active ones
READ_AS = {"bryant2026": EXCESS[1:], "lovelace2026": EXCESS[1:], "lab2026": ("active",)}
INF = float("inf")


def model(law, repetition="none", architecture="proportional", excess=None, taught=None):
    """The model of three names."""
    return Model(load_law(law), load_repetition(repetition, excess, taught), architecture)


def values(dataset, *names):
    """The values of some variables of a Dataset."""
    return tuple(dataset[name].values for name in names)


# ---------------------------------------------------------------- numbers

CHINCHILLA = {
    # Hoffmann et al. 2022, approach 3 (printed digits, TeX digits) and Besiroglu et al. 2024: at 1e20, 1e21 and
    # 5.76e23 FLOP the parameters, tokens and loss of the compute-optimal run
    "hoffmann2022": ((6.449e8, 1.824e9, 3.219e10), (2.585e10, 9.136e10, 2.982e12), (2.5998, 2.3289, 1.9307)),
    "hoffmann2022_tex": ((7.741e8, 2.215e9, 4.031e10), (2.153e10, 7.526e10, 2.382e12), (2.5533, 2.2954, 1.9184)),
    "besiroglu2024": ((8.535e8, 2.778e9, 7.225e10), (1.953e10, 5.999e10, 1.329e12), (2.5534, 2.3055, 1.9744)),
}


@pytest.mark.parametrize("law", CHINCHILLA)
def test_chinchilla_optima(law):
    found = optimum(model(law), compute=[1e20, 1e21, 5.76e23], best=False)
    params, tokens, loss = values(found, "optimal_total_params", "optimal_tokens", "optimal_loss")
    assert (found.optimum_status == "inside").all()
    assert params == pytest.approx(CHINCHILLA[law][0], rel=4e-4)
    assert tokens == pytest.approx(CHINCHILLA[law][1], rel=4e-4)
    assert loss == pytest.approx(CHINCHILLA[law][2], abs=1e-4)


def test_chinchilla_optima_are_the_closed_form():
    law = load_law("besiroglu2024")
    A, alpha, B, beta = (law.coefficients[name] for name in ("A", "alpha", "B", "beta"))
    compute = np.geomspace(1e17, 1e26, 10)
    N = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (compute / 6) ** (beta / (alpha + beta))
    assert optimum(Model(law), compute=compute).optimal_active_params.values == pytest.approx(N, rel=1e-10)


def test_muennighoff_single_epoch_optimum():
    # Muennighoff et al. 2023, notebook: 5.76e23 FLOP on unlimited data
    found = optimum(model("muennighoff2023", "muennighoff2023"), compute=5.76e23)
    assert found.optimal_total_params == pytest.approx(69962173313.5, rel=1e-11)
    assert found.optimal_tokens == pytest.approx(1372170066384.2, rel=1e-11)


# Muennighoff et al. 2023: parameters, tokens and loss that they give as the optimum of 1e22 FLOP on 25e9 unique tokens.
MUENNIGHOFF = 7022364735.88, 237336955477.55, 2.222129283


def test_muennighoff_printed_allocation_is_the_best_of_their_grid():
    """They try 500 factors from 1.0001 to 3 on either side of the single-epoch optimum; so do we, on the same model."""
    it = model("muennighoff2023", "muennighoff2023")
    factors = np.linspace(1.0001, 3, 500)
    base = optimum(it, compute=1e22).optimal_active_params.item()
    curve = sweep(it, compute=1e22, unique_tokens=25e9, active_params=base * np.r_[factors, 1 / factors], optima=False)
    best = curve.isel(active_params=curve.loss.values.argmin())
    assert (best.active_params.item(), best.tokens.item()) == pytest.approx(MUENNIGHOFF[:2], rel=1e-11)
    assert best.loss.item() == pytest.approx(MUENNIGHOFF[2], abs=5e-10)


def test_muennighoff_allocation_is_below_their_grid():
    """The optimum itself (by mpmath, at 40 digits): 5.4e-4 in log N from the printed one, and 8.4e-9 nat lower."""
    found = optimum(model("muennighoff2023", "muennighoff2023"), compute=1e22, unique_tokens=25e9)
    assert found.optimal_total_params.item() == pytest.approx(7026159072.004620, rel=1e-10)
    assert found.optimal_tokens.item() == pytest.approx(237208786420.3668, rel=1e-10)
    assert found.optimal_epochs.item() == pytest.approx(9.488351456814673, rel=1e-10)
    assert found.optimal_loss.item() == pytest.approx(2.222129274870970, rel=1e-14)
    assert found.optimal_loss.item() < MUENNIGHOFF[2]
    assert found.optimal_total_params.item() == pytest.approx(MUENNIGHOFF[0], rel=6e-4)


@pytest.mark.parametrize("law", ["muennighoff2023", "muennighoff2023_untied", "besiroglu2024", "wu2026"])
def test_taught_params_are_the_closed_form(law):
    unique = np.geomspace(1e8, 1e12, 9)
    cell = {"compute": 1e21, "sparsity": 0.0, "unique_tokens": unique}
    c = {"beta": load_law(law).coefficients.get("alpha"), **load_law(law).coefficients}
    G = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / (c["alpha"] + c["beta"]))
    closed = (unique * G) ** (c["beta"] / c["alpha"]) * G  # N_opt(U) of Muennighoff et al. 2023
    found = model(law, "muennighoff2023").with_taught_params(cell)["taught_params"]
    assert found == pytest.approx(closed, rel=1e-9)


def test_anchors():
    """own: the one-epoch optimum at this sparsity; dense: the same at sparsity 0; or a number for each unique token."""
    cell = {"compute": 1e21, "sparsity": np.array([0.0, 0.9]), "unique_tokens": 2e9}
    own, dense, number = (
        model("abnar2025", "muennighoff2023", excess="total", taught=t).with_taught_params(cell)["taught_params"]
        for t in ("own", "dense", 0.051)
    )
    assert own * [1, 0.1] == pytest.approx([4.13e7, 6.14e6], rel=2e-3)
    assert dense == pytest.approx(own[0], rel=1e-12)
    assert number == pytest.approx(0.051 * 2e9)


def test_ni_order_needs_total_parameters_against_a_dense_anchor():
    """U 1e9, 96 epochs: the MoE of 8e9 total, 1e9 active is worse than both its dense peers (Ni et al. 2025)."""
    runs = {"active_params": [1e9, 8e9, 1e9], "sparsity": [0, 0, 0.875]}
    order = {}
    for law in ("abnar2025", "ludziejewski2025", "zhao2025", "wu2026"):
        for excess in ("none", "active", "total"):
            it = model(law, "muennighoff2023", excess=excess, taught="dense")
            size = np.array(runs["active_params"])
            cell = {"compute": 6 * size * 96e9, "sparsity": np.array(runs["sparsity"]), "unique_tokens": 1e9}
            loss = it.loss(np.log(size), it.with_taught_params(cell))
            order[law, excess] = bool(loss.argmax() == 2)
    assert all(order[law, "total"] for law, _ in order)
    assert not any(order[law, "none"] for law, _ in order)


def test_own_anchor_makes_active_and_total_the_same():
    axes = {"compute": [1e20, 1e21], "sparsity": [0, 0.9], "unique_tokens": [2e9, 2e10], "best": False}
    for law in ("abnar2025", "ludziejewski2025", "zhao2025", "wu2026"):
        one, other = (optimum(model(law, "muennighoff2023", excess=e), **axes) for e in ("active", "total"))
        assert one.optimal_loss.values == pytest.approx(other.optimal_loss.values, rel=1e-10)


@pytest.mark.parametrize("law", ["clark2022_sbase"])
def test_a_dense_anchor_needs_a_dense_optimum(law):
    with pytest.raises(
        InputError, match="taught='dense', but law clark2022_sbase has no optimum at sparsity 0; take own"
    ):
        model(law, "muennighoff2023", taught="dense")


SPARSITIES = [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98]
ABNAR_MINIMA = {
    # Abnar et al. 2025, eq. 6 with N_a = (1 - S) N: total parameters, tokens (billions) and loss by sparsity
    3e19: (
        (0.329, 0.400, 0.532, 0.891, 1.85, 3.34, 7.58),
        (15.2, 16.7, 18.8, 22.5, 27.0, 29.9, 33.0),
        (2.8087, 2.7649, 2.7090, 2.6276, 2.5425, 2.4916, 2.4376),
    ),
    1e20: (
        (0.639, 0.787, 1.07, 1.84, 3.97, 7.34, 17.1),
        (26.1, 28.2, 31.3, 36.3, 42.0, 45.4, 48.8),
        (2.5885, 2.5521, 2.5054, 2.4368, 2.3638, 2.3191, 2.2708),
    ),
}


@pytest.mark.parametrize("compute", ABNAR_MINIMA)
def test_abnar_minima_of_the_naive_reading(compute):
    found = optimum(model("abnar2025"), compute=compute, sparsity=SPARSITIES)
    params, tokens, loss = values(found, "optimal_total_params", "optimal_tokens", "optimal_loss")
    assert params / 1e9 == pytest.approx(ABNAR_MINIMA[compute][0], rel=4e-3)
    assert tokens / 1e9 == pytest.approx(ABNAR_MINIMA[compute][1], rel=4e-3)
    assert loss == pytest.approx(ABNAR_MINIMA[compute][2], abs=6e-5)


def test_abnar_sparser_is_better_at_unlimited_data():
    found = optimum(model("abnar2025"), compute=np.geomspace(3e19, 1e21, 5), sparsity=SPARSITIES)
    assert (found.optimal_loss.diff("sparsity") < 0).all()
    assert (found.optimal_total_params.diff("sparsity") > 0).all()
    assert (found.optimal_active_params.diff("sparsity") < 0).all()
    assert (found.best_sparsity == 0.99).all()  # the stated bound
    assert (found.best_sparsity_status == "at upper bound").all()


def test_abnar_best_sparsity_at_fixed_params():
    sizes = [0.3e9, 0.5e9, 1e9, 3e9, 10e9]
    found = optimum(
        model("abnar2025"), compute=[3e19, 1e20, 1e21], total_params=sizes, sparsity_bounds=(0, 0.999)
    ).best_sparsity
    assert found.sel(compute=1e20).values == pytest.approx([0.645, 0.769, 0.872, 0.951, 0.983], abs=6e-4)
    assert (found.diff("total_params") > 0).all()  # rises with N
    assert (found.diff("compute") < 0).all()  # and falls with C


LUDZIEJEWSKI = {
    # Ludziejewski et al. 2025, Table 1: active parameters and tokens in billions for 1, 2, 4 ... 32 experts
    1e20: ((1.7, 1.5, 1.2, 0.990, 0.810, 0.669), (9.7, 11.4, 13.9, 17, 20.7, 24.9)),
    1e21: ((5.7, 5, 4.4, 3.8, 3.3, 2.85), (29.3, 33, 38, 44.3, 51.2, 58.4)),
}


@pytest.mark.parametrize("architecture", ["ludziejewski2025", "proportional"])
@pytest.mark.parametrize("compute", LUDZIEJEWSKI)
def test_ludziejewski_optima(compute, architecture):
    it = model("ludziejewski2025", architecture=architecture)
    found = optimum(it, compute=compute, experts=[1, 2, 4, 8, 16, 32], best=False)
    params, tokens = values(found, "optimal_active_params", "optimal_tokens")
    # 2 %, but for two experts: 1.468 is printed as 1.5
    assert params / 1e9 == pytest.approx(LUDZIEJEWSKI[compute][0], rel=0.0215)
    assert tokens / 1e9 == pytest.approx(LUDZIEJEWSKI[compute][1], rel=0.02)


def test_ludziejewski_losses_at_the_optima():
    found = optimum(model("ludziejewski2025"), compute=[1e20, 1e21], experts=[1, 8, 32], best=False).optimal_loss
    assert found.sel(compute=1e20).values == pytest.approx([2.5897, 2.5291, 2.4724], abs=1e-4)
    assert found.sel(compute=1e21, experts=[1, 32]).values == pytest.approx([2.3502, 2.2483], abs=1e-4)


# Krajewski et al. 2024, Table 2: FLOPs, granularity, active parameters (nominal), tokens and loss of optimal runs
KRAJEWSKI = [(2.95e18, 8, 100e6, 4.37e9, 3.133), (1.93e20, 16, 1e9, 28.94e9, 2.491), (1.41e21, 16, 3e9, 72.90e9, 2.245)]


@pytest.mark.parametrize(("compute", "granularity", "active", "tokens", "loss"), KRAJEWSKI)
def test_krajewski_optima(compute, granularity, active, tokens, loss):
    """By the paper's own counting (expansion 64, router included); the losses come out 0.019 to 0.023 low."""
    it = model("krajewski2024", architecture=load_architecture("krajewski2024", granularity=granularity))
    found = optimum(it, compute=compute, sparsity=63 / 64, best=False)
    at_table = sweep(it, compute=compute, sparsity=63 / 64, active_params=[active], optima=False)
    assert at_table.tokens.item() == pytest.approx(tokens, rel=0.03)
    assert -0.024 < at_table.loss.item() - loss < -0.0175
    assert found.optimal_active_params.item() == pytest.approx(active, rel=0.03)
    assert found.optimal_tokens.item() == pytest.approx(tokens, rel=0.03)
    assert found.optimal_loss.item() == pytest.approx(at_table.loss.item(), abs=2e-5)


def test_krajewski_best_granularity_is_inside_when_routing_costs():
    it = model("krajewski2024", architecture="krajewski2024")
    found = optimum(it, compute=[2.95e18, 1.41e21], sparsity=63 / 64, granularity=[1, 2, 4, 8, 16, 32, 64], best=False)
    best = found.optimal_loss.idxmin("granularity").values
    assert best.tolist() == [8, 16]  # the G of the same table


def test_wu_best_sparsity_of_finite_data():
    """Wu et al. 2026: with fixed data about half the weights; the compute-optimal sparsity is higher."""
    it = model("wu2026", "wu2026")
    fixed = optimum(it, compute=1e24, unique_tokens=5e9, total_params=2.68e8, sparsity_bounds=(0, 0.9375))
    free = optimum(it, compute=1e20, unique_tokens=[5e9, 5e10], sparsity_bounds=(0, 0.9375))
    assert 0.2 < fixed.best_sparsity.item() < 0.6
    assert (free.best_sparsity > fixed.best_sparsity).all()


@pytest.mark.parametrize(("total", "share"), [(30e9, 0.40), (671e9, 0.22)])
def test_zhao_best_active_share(total, share):
    """Zhao et al. 2025: the best N_a/N at a given size, tokens given as well (so compute follows N_a)."""
    law, architecture = load_law("zhao2025"), load_architecture("proportional", active_experts=7)
    active = total * np.linspace(0.05, 0.95, 901)
    at = architecture.describe(np.log(active), 1 - active / total)
    loss = law(total_params=total, active_params=active, tokens=1e13, active_experts=7, shared_ratio=0.31)
    assert at["total_params"] == pytest.approx(total)
    assert active[loss.argmin()] / total == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.969])
def test_tian_optimum_is_the_dense_optimum_at_leverage_times_compute(sparsity):
    found = optimum(model("tian2025"), compute=[1e19, 1e20, 1e21], sparsity=sparsity, best=False)
    dense = [
        optimum(model("besiroglu2024"), compute=c, best=False)
        for c in found["compute"].values * found.optimal_leverage.values
    ]
    assert found.optimal_loss.values == pytest.approx([d.optimal_loss.item() for d in dense], rel=1e-13)


# ---------------------------------------------------------------- what every model must do


def combinations(law):
    """Every repetition, and what may count as excess, on a law; the architectures in turn, so that each meets each."""
    kinds = [(r, e) for r in REPETITIONS for e in READ_AS.get(r, EXCESS) if r != "none" or e == "none"]
    turn = LAWS.index(law)
    return [(*kind, ARCHITECTURES[(turn + i + i // 4) % len(ARCHITECTURES)]) for i, kind in enumerate(kinds)]


def fine_minimum(it, cell, low, high, count=2001):
    """Lowest loss of every cell on a fine grid of log size between low and high."""
    grid = np.linspace(low, high, count)
    full = cell if "taught_params" in cell else it.with_taught_params(cell)
    wide = {name: value[..., None] if np.ndim(value) else value for name, value in full.items()}
    with np.errstate(all="ignore"):
        losses = it.loss(grid, wide)
    return np.where(np.isnan(losses), np.inf, losses).min(axis=-1)


@pytest.mark.parametrize("law", LAWS)
def test_optimum_is_no_worse_than_a_fine_grid(law):
    for repetition, excess, architecture in combinations(law):
        it = model(law, repetition, architecture, excess)
        axes = {"compute": [1e18, 3e22], "sparsity": [0, 0.97], "unique_tokens": [3e8, 2e10, INF]}
        found = optimum(it, **axes, best=False)
        best = fine_minimum(it, Space.of(it, axes).context, *it.architecture.log_size[[0, -1]])
        assert (found.optimal_loss.values - best <= 1e-9).all(), (repetition, excess, architecture)
        assert (found.optimum_status != "failed").all()


def draws(law, count=4, seed=0):
    """The law with a coefficient that varies along a `draw` dim."""
    name = next(name for name, spec in law.form.coefficients.items() if spec.domain.contains(np.array(1e-3)))
    scale = np.random.default_rng(seed).uniform(0.9, 1.1, count)
    return law.with_coefficients(**{name: xr.DataArray(law.coefficients[name] * scale, dims="draw")}), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("repetition", REPETITIONS)
def test_repetition_changes_nothing_at_unlimited_data(repetition, architecture):
    axes = {"compute": [1e19, 1e22], "sparsity": [0, 0.9], "best": False}
    for law in ("abnar2025", "muennighoff2023", "wu2026"):
        without = optimum(model(law, "none", architecture), **axes)
        for plenty in (INF, 1e40):
            found = optimum(model(law, repetition, architecture), **axes, unique_tokens=plenty)
            assert found.optimal_loss.values == pytest.approx(without.optimal_loss.values, rel=1e-12)
            assert found.optimal_active_params.values == pytest.approx(without.optimal_active_params.values, rel=1e-7)


@pytest.mark.parametrize("taught", ["own", "dense", 0.051])
@pytest.mark.parametrize("repetition", REPETITIONS)
def test_unlimited_data_is_the_plain_law_bit_for_bit(repetition, taught):
    axes = {"compute": [1e19, 1e22], "sparsity": [0, 0.9], "active_params": [1e8, 1e9, 1e10], "optima": False}
    for law in ("abnar2025", "ludziejewski2025", "zhao2025", "wu2026"):
        found = sweep(model(law, repetition, taught=taught), **axes, unique_tokens=INF)
        assert (found.loss.values == sweep(model(law), **axes).loss.values).all()


@pytest.mark.parametrize("taught", ["own", "dense", 0.051])
@pytest.mark.parametrize("excess", ["none", "active", "total"])
def test_optima_with_unlimited_data_are_the_plain_ones_bit_for_bit(excess, taught):
    axes = {"compute": [1e20, 1e22], "sparsity": [0, 0.9], "best": False}
    for law, architecture in (("zhao2025", "moe_transformer"), ("abnar2025", "proportional")):
        plain = optimum(model(law, architecture=architecture), **axes)
        for repetition in REPETITIONS:
            if excess in READ_AS.get(repetition, EXCESS):
                found = optimum(model(law, repetition, architecture, excess, taught), **axes, unique_tokens=INF)
                for name in ("optimal_loss", "optimal_active_params"):
                    assert (found[name].values == plain[name].values).all(), (law, repetition, name)


def in_active_params(name):
    """The law, which is written in total parameters, written in active ones: N = N_a / (1 - S)."""
    given = load_law(name)

    def rewritten(active_params, tokens, sparsity, **coefficients):
        return given.form.function(active_params / (1.0 - sparsity), tokens, sparsity, **coefficients)

    form = replace(given.form, function=rewritten, inputs=("active_params", "tokens", "sparsity"))
    return replace(given, form=form)


@pytest.mark.parametrize("taught", ["own", "dense", 0.051])
@pytest.mark.parametrize("excess", ["none", "active", "total"])
def test_a_reading_does_not_depend_on_how_a_law_is_written(excess, taught):
    axes = {"compute": [1e20, 1e21], "sparsity": [0, 0.5, 0.95], "unique_tokens": [2e9, 2e10]}
    for repetition in ("muennighoff2023", "muennighoff2023_geometric", "wu2026"):
        wrapped = load_repetition(repetition, excess=excess, taught=taught)
        laws = load_law("abnar2025"), in_active_params("abnar2025")
        one, other = (optimum(Model(law, wrapped), **axes) for law in laws)
        for name in ("optimal_loss", "optimal_active_params", "best_loss"):
            assert one[name].values == pytest.approx(other[name].values, rel=1e-9)
        assert one.best_sparsity.values == pytest.approx(other.best_sparsity.values, abs=1e-7)


def test_unlimited_data_beside_finite_data_is_the_same_bit_for_bit():
    it, compute = model("abnar2025", "muennighoff2023"), [1e19, 1e21]
    mixed = optimum(it, compute=compute, unique_tokens=[1e9, INF], best=False).sel(unique_tokens=INF)
    alone = optimum(model("abnar2025"), compute=compute, best=False)
    assert (mixed.optimal_active_params.values == alone.optimal_active_params.values).all()
    assert (mixed.optimal_loss.values == alone.optimal_loss.values).all()
    assert (mixed.optimal_epochs == 0).all()


CASES = [
    ("abnar2025", "muennighoff2023", "proportional"),
    ("zhao2025", "muennighoff2023_geometric", "moe_transformer"),
    ("wu2026", "wu2026", "proportional"),
    ("ludziejewski2025", "muennighoff2023_exponent", "ludziejewski2025"),
    ("krajewski2024", "lovelace2026", "krajewski2024"),
]
each_case = pytest.mark.parametrize(("law", "repetition", "architecture"), CASES)
AXES = {"compute": [1e19, 1e21, 1e22], "sparsity": [0.97, 0, 0.6], "unique_tokens": [INF, 3e8, 2e10]}  # unsorted


@each_case
def test_broadcast_equals_loop(law, repetition, architecture):
    it = model(law, repetition, architecture)
    varied, name = draws(it.law)
    whole = optimum(Model(varied, it.repetition, it.architecture), **AXES)
    assert whole.optimal_loss.dims == ("compute", "sparsity", "unique_tokens", "draw")
    assert whole.best_sparsity.dims == ("compute", "unique_tokens", "draw")
    for i, j, k, d in [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (0, 1, 2, 3), (2, 0, 1, 3)]:
        point = {dim: AXES[dim][n] for dim, n in zip(AXES, (i, j, k), strict=True)}
        one = Model(it.law.with_coefficients(**{name: varied.coefficients[name].item(d)}), it.repetition, architecture)
        alone, same = optimum(one, **point), whole.sel(point).isel(draw=d)
        for quantity in ("optimal_loss", "optimal_total_params", "optimal_epochs", "best_loss"):
            assert same[quantity].item() == pytest.approx(alone[quantity].item(), rel=1e-9)
        assert same.optimum_status.item() == alone.optimum_status.item()
        assert same.best_sparsity.item() == pytest.approx(alone.best_sparsity.item(), abs=2e-5)


@each_case
def test_order_of_axes_changes_nothing(law, repetition, architecture):
    it = model(law, repetition, architecture)
    one = optimum(it, **AXES)
    other = optimum(it, **{name: sorted(AXES[name]) for name in reversed(AXES)}).sel(AXES)
    xr.testing.assert_allclose(one, other, rtol=1e-9)


@each_case
def test_sweep_is_the_law_itself(law, repetition, architecture):
    it = model(law, repetition, architecture)
    found = sweep(it, **AXES, active_params=np.geomspace(1e8, 1e10, 5), optima=False)
    none = sweep(model(law, "none", architecture), **AXES, active_params=np.geomspace(1e8, 1e10, 5), optima=False)
    assert found.loss.dims == (*AXES, "active_params")
    here = {"compute": 1e21, "sparsity": 0.6, "unique_tokens": 2e10, "active_params": 1e9}
    cell = none.sel(here)
    at = it.architecture.describe(
        it.architecture.size_of("active_params", here, lambda _: it.architecture.fields), here["sparsity"]
    )
    assert at["active_params"] == pytest.approx(1e9)
    inputs = {**at, **here, "tokens": 1e21 / at["flops_per_token"]}
    assert cell.loss.item() == pytest.approx(it.law(**{name: inputs[name] for name in it.law.inputs}), rel=1e-12)
    assert cell.tokens.item() == pytest.approx(inputs["tokens"])
    assert cell.total_params.item() == pytest.approx(at["total_params"])
    assert cell.epochs.item() == pytest.approx(inputs["tokens"] / 2e10)
    assert (found.loss.sel(unique_tokens=INF).values == none.loss.sel(unique_tokens=INF).values).all()


@each_case
def test_optima_against_the_root_of_a_complex_step(law, repetition, architecture):
    """The peer differentiates by the imaginary part at x + 1e-30 i and finds the root by Brent's method."""
    it = model(law, repetition, architecture)
    found = optimum(it, **AXES, best=False)
    context = Space.of(it, AXES).context
    cells = it.with_taught_params(context)
    smooth = 0
    for index in np.ndindex(3, 3, 3):
        cell = {k: np.broadcast_to(v, (3, 3, 3))[index] if np.ndim(v) else v for k, v in cells.items()}

        def slope(x, cell=cell):
            return it.loss(x + 1e-30j, cell).imag / 1e-30

        x = it.architecture.size_of(
            "active_params",
            {"active_params": found.optimal_active_params.values[index], "sparsity": cell["sparsity"]},
            lambda _: it.architecture.fields,
        )
        near = float(x) + np.array([-1e-3, 1e-3])
        # not on a plateau or a kink, where the loss does not tell to 1e-8
        if found.optimum_status.values[index] not in ("inside", "flat") or not slope(near[0]) < -1e-9 < 1e-9 < slope(
            near[1]
        ):
            continue
        smooth += 1
        assert float(x) == pytest.approx(brentq(slope, *near, xtol=1e-14, rtol=1e-15), abs=1e-8)
    assert smooth > 20


@each_case
def test_best_sparsity_against_brute_force(law, repetition, architecture):
    it = model(law, repetition, architecture)
    axes = {"compute": [1e19, 1e22], "unique_tokens": [3e8, 2e10]}
    found = optimum(it, **axes)
    sparsities = 1 - np.exp(-np.linspace(0, -np.log(0.01), 801))
    sparsities[-1] = 0.99
    brute = optimum(it, **axes, sparsity=sparsities, best=False).optimal_loss
    assert (found.best_loss.values <= brute.min("sparsity").values + 1e-9).all()
    assert found.best_loss.values == pytest.approx(brute.min("sparsity").values, abs=1e-4)
    inside = (found.best_sparsity_status == "inside").values
    apart = np.abs(np.log1p(-found.best_sparsity) - np.log1p(-brute.idxmin("sparsity"))).values
    assert (apart[inside] < 0.006).all()
    ends = {"at lower bound": 0.0, "at upper bound": 0.99}
    for status, end in ends.items():
        assert (found.best_sparsity.values[found.best_sparsity_status.values == status] == end).all()


WENT_WRONG = [
    # law, repetition, architecture, excess, compute, unique tokens, best sparsity, best loss
    # (for the first 0.956 and 2.78024 were noted elsewhere; no size reaches that: 2.780267 at 0.956, 2.780265 at 0.954)
    ("wu2026", "muennighoff2023_geometric", "moe_transformer", "total", 4.19e19, 9255875019.227453, 0.954, 2.78026),
    ("frantar2023_t5", "wu2026", "proportional", "none", 3.16227766e22, 1e9, 0.893, 1.3463248),
]


@pytest.mark.parametrize(
    ("law", "repetition", "architecture", "excess", "compute", "unique", "best", "loss"), WENT_WRONG
)
def test_searches_that_went_wrong(law, repetition, architecture, excess, compute, unique, best, loss):
    """Two dips in sparsity, and a best size on a kink: published forms for which the search once failed or misled."""
    found = optimum(model(law, repetition, architecture, excess), compute=compute, unique_tokens=unique)
    assert found.best_sparsity_status == "inside"
    assert found.best_sparsity.item() == pytest.approx(best, abs=1e-3)
    assert found.best_loss.item() == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("unique", [2e8, 9e8])
def test_a_penalty_of_infinite_slope_has_its_best_at_one_epoch(unique):
    for law in ("kaplan2020", "muennighoff2023"):
        found = optimum(model(law, "lovelace2026"), compute=1e24, unique_tokens=unique)
        assert found.optimum_status == "inside"
        assert found.optimal_epochs.item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_random_cells_of_every_combination_against_fine_grids(seed):
    """No size and no sparsity of a fine grid is better, whatever is combined (thousands more: the benchmarks)."""
    rng = np.random.default_rng(seed)
    for it, cell in random_models(rng, 4, 6):
        full = it.with_taught_params({**cell, "sparsity": rng.choice([0, 0.3, 0.9, 0.98], 6)})
        with np.errstate(all="ignore"):
            found = best_size(it, full)
            assert (found.loss <= fine_minimum(it, full, *it.architecture.log_size[[0, -1]]) * (1 + 1e-12)).all()
            _, best = best_sparsity(it, cell, (0.0, 0.98))
            t = np.linspace(0, -np.log(0.02), 65)
            grid = {**{name: value[:, None] for name, value in cell.items()}, "sparsity": -np.expm1(-t)}
            assert (best.loss <= best_size(it, it.with_taught_params(grid)).loss.min(axis=1) + 1e-10).all()


def random_models(rng, count, cells):
    """Models of any law, repetition, excess, anchor and architecture that may be combined, with random budgets."""
    while count:
        law, repetition, architecture = (rng.choice(names) for names in (LAWS, REPETITIONS, ARCHITECTURES))
        excess, taught = str(rng.choice(["none", "active", "total"])), ["own", "dense", 0.051][rng.integers(3)]
        try:
            it = model(str(law), str(repetition), str(architecture), excess, taught)
        except InputError:
            continue
        count -= 1
        yield it, {"compute": 10 ** rng.uniform(18, 25, cells), "unique_tokens": 10 ** rng.uniform(8, 12, cells)}


def test_every_dip_of_three_is_looked_into():
    """Between the sizes where repeats of tokens, and of parameters, are worth nothing more, the third dip is lowest."""
    it = model("abnar2025", "muennighoff2023_exponent", "krajewski2024", "total", 0.051)
    found = optimum(it, compute=[4.995483e24, 5.045438e24], sparsity=0.717874, unique_tokens=1.0400136e9, best=False)
    assert found.optimal_loss.values == pytest.approx([3002.27, 3181.33], rel=1e-3)


def test_of_several_taught_sizes_it_is_the_first():
    """Embeddings count in FLOPs and not in the sparse part: two sizes are one-epoch optima, and U moves the first."""
    it = model("sardana2024_250", "muennighoff2023_earlier", "ludziejewski2025", "total", "own")
    unique = 2.1646e8 * np.array([0.98, 1.0, 1.01, 1.05])
    taught = it.with_taught_params({"sparsity": 0.89278687, "unique_tokens": unique})["taught_log_size"]
    assert taught == pytest.approx([2.6539, 2.6806, 2.6936, 2.7443], abs=5e-3)


STATUSES = [
    # what is told of a size where another may stand in its place
    ("besiroglu2024", "none", "proportional", "total", 1e22, 0.0, "inside"),
    ("besiroglu2024", "muennighoff2023", "proportional", "total", 1e23, 0.0, "flat"),
    ("frantar2023_t5", "wu2026", "proportional", "total", 1e20, 0.98, "inside"),
    ("kaplan2020", "lovelace2026", "proportional", "total", 1e24, 0.0, "inside"),
]


@pytest.mark.parametrize(("law", "repetition", "architecture", "excess", "compute", "sparsity", "status"), STATUSES)
def test_status_tells_how_sure_a_size_is(law, repetition, architecture, excess, compute, sparsity, status):
    it = model(law, repetition, architecture, excess)
    found = optimum(it, compute=compute, sparsity=sparsity, unique_tokens=2e9, best=False)
    assert found.optimum_status == status


@pytest.mark.parametrize("sparsity", [0.957855, 0.967855])
def test_a_dip_at_one_epoch_beside_another_is_told(sparsity):
    """The best size is on the kink at D = U for the one, and in the dip below it for the other."""
    it = model("sardana2024_500", "lovelace2026", "moe_transformer", "active")
    found = optimum(it, compute=3.7267762e20, sparsity=sparsity, unique_tokens=4.0226274e10, best=False)
    assert found.optimum_status == "two dips"


@pytest.mark.parametrize("seed", range(8))
def test_a_small_step_moves_an_optimum_little_or_a_status_says_why(seed):
    """.01 of sparsity, or 1 % of C or U, moves N_a by no more than 30 % unless two dips swap or the loss is flat.

    Near sparsity 1 a step of .01 is up to twice the experts, and total parameters and routing FLOPs grow with them:
    there N_a may move as the square of the active share does.
    """
    rng = np.random.default_rng(seed)
    for it, cell in random_models(rng, 6, 20):
        here = {**cell, "sparsity": rng.uniform(0, 0.98, 20)}
        steps = {"sparsity": lambda s: s + 0.01, "compute": lambda c: 1.01 * c, "unique_tokens": lambda u: 1.01 * u}
        moved = [{**here, name: step(here[name])} for name, step in steps.items()]
        size, told, sane = sized(it, here)
        for there in moved:
            other, also, meant = sized(it, there)
            allowed = np.maximum(np.log(1.3), 2 * np.log((1 - here["sparsity"]) / (1 - there["sparsity"])))
            far = np.abs(np.log(other / size)) > allowed
            assert not (far & sane & meant & ~told & ~also).any(), (it, there)


def sized(it, cell):
    """N_a of the best size, whether its status says that another may stand in its place, and whether the loss means
    something: no more than of a uniform guess among the words (11 nat), at a size within those that are searched."""
    with np.errstate(all="ignore"):
        found = best_size(it, it.with_taught_params(cell))
    size = it.described(found.log_size, cell)["active_params"]
    edge = it.architecture.log_size[[0, -1]] + [0.1, -0.1]
    meant = (found.loss < 11) & (found.log_size > edge[0]) & (found.log_size < edge[1])
    return size, found.status >= TWO, meant


def test_best_sparsity_is_where_the_derivative_vanishes():
    """At the best sparsity the envelope of the optima is stationary: central differences of exact optima."""
    it = model("abnar2025", "muennighoff2023")
    axes = {"compute": 3e20, "unique_tokens": 2e9}
    found = optimum(it, **axes)
    assert found.best_sparsity_status == "inside"
    t = -np.log1p(-found.best_sparsity.item()) + np.array([-0.02, -0.01, 0, 0.01, 0.02])
    beside = optimum(it, **axes, sparsity=-np.expm1(-t), best=False).optimal_loss.values
    slope = (beside @ [1, -8, 0, 8, -1]) / 0.12
    bend = (beside @ [-1, 16, -30, 16, -1]) / 0.0012
    assert abs(slope / bend) < 1e-6


def test_a_law_that_ignores_sparsity_is_best_dense():
    found = optimum(model("kang2025_flame_mse"), compute=[1e19, 1e21])
    assert (found.best_sparsity == 0).all()


def test_best_sparsity_keeps_to_its_bounds():
    it = model("abnar2025")
    found = optimum(it, compute=1e20, sparsity_bounds=(0.3, 0.7))
    assert found.best_sparsity.item() == pytest.approx(0.7)
    assert found.best_sparsity_status == "at upper bound"
    assert found.attrs["sparsity_bounds"] == [0.3, 0.7]
    small = optimum(it, compute=1e22, total_params=1e8, sparsity_bounds=(0.3, 0.7))
    assert small.best_sparsity.item() == pytest.approx(0.3)
    assert small.best_sparsity_status == "at lower bound"


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
