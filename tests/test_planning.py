"""Sweeps and optima: what every model must do, and other solvers as peers."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import brentq

from moesim import InputError, Model, config, load_law, load_repetition, optimum, sweep
from moesim.planning.size import TWO, best_size
from moesim.planning.space import Space
from moesim.planning.sparsity import best_sparsity

LAWS = tuple(name for name in config.choices("law") if {"tokens"} < {*load_law(name).inputs})
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
