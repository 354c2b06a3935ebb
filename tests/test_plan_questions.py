"""Questions beside a plan: weight sparsity on real kernels, variants of a dense model, published runs, gating."""

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.hardware.sparse import SPARSE, crossbar_area, pays_below, speedup
from moesim.planning import known, variants, weight_sparse
from moesim.planning.budget import Gating
from moesim.planning.model import Model

# Kernel, density -> speed-up; 2:4 as measured, unstructured ones by their published efficiency.
SPEEDUPS = {
    ("dense", 0.1): 1.0,
    ("2:4", 0.52): 1.0,  # no two of four
    ("2:4", 0.5): 1.13,
    ("2:4", 0.1): 1.13,  # fewer non-zeros than two of four gain nothing
    ("unstructured_vector", 0.05): 1.0,
    ("unstructured_vector", 0.017): 2.0,
    ("unstructured_tensor", 0.2): 1.0,
    ("unstructured_tensor", 0.01): 2.1,
    ("skipping", 0.25): 4.0,
}


@pytest.mark.parametrize(("kernel", "density"), SPEEDUPS)
def test_speed_of_sparse_products(kernel, density):
    assert speedup(kernel, density) == pytest.approx(SPEEDUPS[kernel, density])


@pytest.mark.parametrize("kernel", SPARSE)
def test_a_kernel_pays_below_its_density(kernel):
    q = pays_below(kernel)
    assert SPARSE[kernel].source
    if q:
        assert speedup(kernel, 0.9 * q) > 1.0
    assert speedup(kernel, min(1.1 * q + 1e-6, 1.0)) == pytest.approx(1.0, abs=0.14)


def test_published_break_even_densities():
    assert pays_below("2:4") == 0.5
    assert pays_below("unstructured_vector") == pytest.approx(0.034)  # 27 % of 15.7 of 125 TFLOP/s
    assert 0.03 <= pays_below("unstructured_tensor") <= 0.10
    assert crossbar_area(64, 0.01) == pytest.approx(1.64)
    with pytest.raises(InputError, match="no 'magic'; there are dense"):
        speedup("magic", 0.5)
    with pytest.raises(InputError, match="density=0 is outside"):
        speedup("dense", 0.0)


def test_the_efficiency_that_a_sparse_unit_needs():
    """Where the loss is a power of non-zeros alone the needed efficiency is the inverse of the size multiplier.

    frantar2023: m(S) x the non-zeros are worth as much, 1.59 and 2.98 at densities 1/2 and 1/16; at equal time a unit
    of efficiency 1/m trains as many dense equivalents on as many tokens.
    """
    law = moesim.load_law("frantar2023_t5")
    needed = [weight_sparse.needed_efficiency(law, q, 1e22) for q in (0.5, 0.0625)]
    assert needed == pytest.approx([1 / 1.59, 1 / 2.98], rel=0.02)
    assert weight_sparse.needed_efficiency(law, 1.0, 1e22) == pytest.approx(1.0, rel=0.01)


# frantar2023 stopped at 85e6 (T5) and 42e6 non-zeros (ViT), wu2026 at 1.92e9 weights, 42e9 tokens and density 1/16.
# FLOP of the dense run, density -> whether the best runs lie outside.
OUTSIDE = [("frantar2023_t5", 1e22, 0.5, True), ("frantar2023_vit", 1e22, 0.5, True), ("wu2026", 1e22, 0.5, True)]
OUTSIDE += [("wu2026", 1e19, 0.5, False), ("wu2026", 1e19, 0.05, True)]


@pytest.mark.parametrize(("name", "compute", "density", "outside"), OUTSIDE)
def test_weight_sparsity_says_where_it_leaves_the_data(name, compute, density, outside):
    assert weight_sparse.extrapolated(moesim.load_law(name), density, compute) is outside


def config(law="abnar2025"):
    from moesim.config import read

    names = {"law": law, "repetition": "muennighoff2023", "architecture": "fine_grained"}
    return {**{group: read(group, name) for group, name in names.items()}, "choices": names, "budget": {}}


def test_variants_of_llama_3_405b_are_counted_exactly():
    made = variants.variants(Model("abnar2025", "muennighoff2023", "fine_grained"))
    base = made["dense"]
    router = 126 * 16384 * 160
    assert base.total_params == 405_853_388_800
    assert made["same active"].active_params == base.active_params + router
    assert made["same total"].total_params == pytest.approx(base.total_params, rel=0.01)
    for name in ("same active", "same total", "optimum"):
        assert 1 - made[name].active_experts / made[name].experts == 0.95


def test_the_variants_keep_the_compute_and_the_time_of_the_dense_run():
    data, text = variants.llama3_405b_95(config())
    np.testing.assert_allclose(data.flops_per_token * data.tokens, 3.8e25)
    assert float(data.tokens.sel(variant="dense")) == pytest.approx(15.6e12, rel=0.04)
    assert float(data.device_hours.sel(variant="dense")) == pytest.approx(30.84e6, rel=0.25)
    law = moesim.load_law("abnar2025")
    own = law(total_params=float(data.total_params[0]), tokens=float(data.tokens[0]), sparsity=0.0)
    assert float(data.loss.sel(variant="dense", law="abnar2025", repetition="light")) == pytest.approx(own)
    assert "same active" in text


def test_known_runs_are_what_their_files_say():
    data, text = known.known_runs(config())
    at = data.sel(run="deepseek_v3")
    assert float(at.tokens) == 14.8e12
    assert float(at["compute"]) == pytest.approx(14.8e12 * 249.5e9, rel=0.03)
    best = moesim.optimum("abnar2025", repetition="muennighoff2023", architecture="fine_grained",
                          compute=float(at["compute"]), sparsity=float(at.sparsity))  # fmt: skip
    assert float(at.same_sparsity_tokens) == pytest.approx(float(best.optimal_tokens), rel=1e-6)
    assert "llama31_405b" in text
    assert "llama3_405b" not in data.run
    assert set(known.draw(data)) == {"known_runs"}


def test_margins_of_gating():
    """At its margin a sparse run is as good as the dense one; fewer effective experts are a less sparse model."""
    asked = {"devices": 64, "days": 10, "laws": []}
    perfect = moesim.plan(**asked)
    best = perfect.sel(sparsity=float(perfect.chosen_sparsity.sel(choice="best")))
    dense = float(perfect.scan_loss.sel(sparsity=0.0))
    assert float(best.margin_time) == pytest.approx(dense - float(best.scan_loss))
    assert float(perfect.margin_flops.sel(sparsity=0.0)) == 0
    worse = moesim.plan(**asked, gating={"penalty": 1.01 * float(perfect.margin_time.max())})
    assert float(worse.chosen_sparsity.sel(choice="best")) == 0
    law = moesim.load_law("abnar2025")
    arch = moesim.load_architecture("fine_grained")
    share = float(best.margin_experts)
    effective = 1 - (1 - float(best.sparsity)) / share
    at = arch.describe(np.log(float(best.scan_d_model)), effective)
    loss = law(total_params=float(at["total_params"]), tokens=float(best.scan_tokens), sparsity=effective)
    assert loss == pytest.approx(dense, abs=0.02)
    assert Gating(effective=0.5).sparsity(0.9) == pytest.approx(0.8)
    assert Gating(effective=0.01).sparsity(0.9) == 0
    assert Gating(effective=0.5).sparsity(0.0) == 0


# A line of the table of a question: the kernel of vector units pays at no density that is asked for.
TABLES = {
    "weight_sparse": "frantar2023_vit 0.63* 0.46* 0.38* 0.34*",
    "known_runs": "run FLOP S active tokens tokens/advised advised S active tokens",
}


@pytest.mark.parametrize("name", TABLES)
def test_questions_by_experiment(command, name):
    code, out, _ = command("plan", f"experiment={name}", "hydra.run.dir=here")
    assert code == 0
    assert "wrote here/plan.nc" in out
    assert TABLES[name] in [" ".join(line.split()) for line in out.splitlines()]


def test_an_unknown_question_is_refused(command):
    code, _, err = command("plan", "question=why")
    assert code == 2
    assert "no 'why'; there are weight_sparse, llama3_405b_95, known_runs" in err
    code, _, err = command("plan", "question=known_runs", "cluster.devices=8")
    assert code == 2
