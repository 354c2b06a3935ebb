"""Optima against numbers that papers print."""

import numpy as np
import pytest
from test_planning import SPARSITIES, model, values

from moesim import Model, load_architecture, load_law, optimum, sweep

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
