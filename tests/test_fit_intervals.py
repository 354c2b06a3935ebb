"""Intervals that tell the truth: what runs do not determine is wide or open, and so is all that is made of it."""

import numpy as np
import pytest
import xarray as xr
from fitting_tools import fit

from moesim.fitting.identify import AT_BOUND, IDENTIFIED, LOOSE, NOT_IDENTIFIED, VANISHES, WEAK
from moesim.fitting.runs import load_runs
from moesim.laws import load_law
from moesim.planning.optimum import optimum


def grid(law, noise, seed=0, repeats=1, **axes):
    """Runs of a law on a product of axes, each `repeats` times, with normal scatter of the log loss."""
    inputs = dict(zip(axes, (np.repeat(a.ravel(), repeats) for a in np.meshgrid(*axes.values())), strict=True))
    loss = load_law(law)(**inputs) if isinstance(law, str) else law(**inputs)
    scatter = noise * np.random.default_rng(seed).standard_normal(len(loss))
    columns = {**inputs, "loss": loss * np.exp(scatter)}
    rows = {"row": ("run", np.arange(1, len(loss) + 1))}
    return xr.Dataset({name: ("run", column) for name, column in columns.items()}, coords=rows)


SIZES, TOKENS = np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e11, 5)


def one_token_count():
    return grid("besiroglu2024", 0.001, total_params=SIZES, tokens=np.array([2e10]))


def two_token_counts():
    return grid("besiroglu2024", 0.005, repeats=2, total_params=SIZES[::2], tokens=TOKENS[[0, -1]])


def one_sparsity():
    return grid("abnar2025", 0.002, total_params=SIZES, tokens=TOKENS, sparsity=np.array([0.75]))


def one_expert_count():
    return grid("clark2022_sbase", 0.002, active_params=np.geomspace(1e7, 1e9, 12), experts=np.array([64.0]))


# law, runs, settings, coefficients that cannot be told, truth of some of them.
UNTOLD = {
    "one token count": ("hoffmann2022", one_token_count, {}, ("B", "beta"), {"E": 1.817, "beta": 0.3658}),
    "two token counts": ("hoffmann2022", two_token_counts, {"objective": "squared"}, ("B",), {"beta": 0.3658}),
    "one sparsity": ("abnar2025", one_sparsity, {"starts": 8}, ("lam", "delta"), {"delta": 0.1666, "lam": -0.1666}),
    "one expert count": ("clark2022_sbase", one_expert_count, {"starts": 8}, ("b", "c"), {}),
}


@pytest.fixture(scope="module")
def untold():
    made = {}

    def one(name):
        law, runs, settings, _, _ = UNTOLD[name]
        if name not in made:
            made[name] = fit(law, runs(), draws=120, **settings)
        return made[name]

    return one


@pytest.mark.parametrize("name", UNTOLD)
def test_what_runs_do_not_determine_is_wide(name, untold):
    """The verdict says so, the interval is open or as wide as the typical range, and holds the truth."""
    found = untold(name)
    for method in ("bootstrap", "normal"):
        ends = found.interval(0.95, method)
        for coefficient in UNTOLD[name][3]:
            assert found.verdict[coefficient] in LOOSE
            low, high = ends[coefficient]
            typical = found.task.parameters.specs[coefficient].typical
            assert high - low > 0.8 * (typical[1] - typical[0])
        for coefficient, value in UNTOLD[name][4].items():
            assert ends[coefficient][0] <= value <= ends[coefficient][1]


@pytest.mark.parametrize("name", ["one token count", "two token counts"])
def test_what_is_computed_from_it_inherits_that(name, untold):
    """Draws run along the valley, so a prediction and an optimum far away are as unsure as they should be."""
    found = untold(name)
    far = {"total_params": np.array([1e9]), "tokens": np.array([1e13])}
    low, high = found.predict(far, level=0.95)["confidence"].values[0]
    truth = load_law("besiroglu2024")(total_params=1e9, tokens=1e13)
    assert low < truth < high
    assert high - low > 0.05
    best = optimum(found, compute=1e22, best=False).optimal_tokens
    assert best.quantile(0.95) > 2.0 * best.quantile(0.05)


# what runs of one level say of another level, and of their own: law, inputs at their level and at another.
LEVELS = {
    "one expert count": ("clark2022_sbase", {"active_params": 1e8, "experts": np.array([64.0, 512.0])}),
    "one sparsity": ("abnar2025", {"total_params": 1e9, "tokens": 1e10, "sparsity": np.array([0.75, 0.98])}),
}


@pytest.mark.parametrize("name", LEVELS)
def test_another_level_is_unknown_and_the_own_is_not(name, untold):
    law, at = LEVELS[name]
    ends = untold(name).predict(at, level=0.95)["confidence"].values
    assert ends[0, 1] - ends[0, 0] < 0.02
    assert ends[1, 1] - ends[1, 0] > 0.5
    assert ends[1, 0] < load_law(law)(**at)[1] < ends[1, 1]


def test_the_profile_of_a_term_that_is_one_number_is_flat():
    """All runs have the same tokens: any beta fits as well, to 1e-9, and its interval has no ends."""
    found = fit("hoffmann2022", one_token_count(), draws=0, profiles=True)
    j = found.task.parameters.free.index("beta")
    solved = found.profiles.solved[j]
    inside = solved & (np.abs(found.profiles.points[j]) < 3)
    assert inside.sum() > 8
    assert found.profiles.objective[j][inside] == pytest.approx(found.objective, rel=1e-6)
    assert found.interval(method="profile")["beta"] == (0.0, np.inf)


@pytest.mark.parametrize("coefficient", ["lam", "a", "c"])
def test_profiles_are_minima(coefficient, moe):
    """Every point of a profile within the interval is what a fit of many starts finds with the coefficient fixed."""
    j = moe.task.parameters.free.index(coefficient)
    found, move = moe.profiles, moe.task.parameters.transforms[j]
    near = np.flatnonzero(found.solved[j] & (found.objective[j] < 1.1 * moe.objective))
    for i in (near[0], near[len(near) // 4], near[-1]):
        value = float(move.forward(found.points[j][i]))
        again = fit("abnar2025", moe.runs, objective="squared_log", fixed={coefficient: value}, starts=12)
        assert found.objective[j][i] <= again.objective * (1 + 1e-6)


@pytest.fixture(scope="module")
def moe():
    runs = grid(
        "abnar2025", 0.003, seed=1, total_params=SIZES, tokens=TOKENS, sparsity=np.array([0.0, 0.5, 0.75, 0.9, 0.95])
    )
    return fit("abnar2025", runs, objective="squared_log", profiles=True)


def test_profiles_say_whether_they_are_unimodal(moe):
    """Unimodal here; the words are in the file, and points that are no minimum are marked."""
    data = moe.to_dataset()
    assert set(data.profile_shape.values) <= {"unimodal", "incomplete"}
    assert set(data.profile_status.values.ravel()) <= {"converged", "at bound", "stalled", ""}


def no_floor(total_params, tokens):
    return 0.02 + 20.0 * total_params**-0.08 + 30.0 * tokens**-0.11


# runs whose best fit lies at the edge: law, coefficient, truth, runs from a seed.
AT_THE_EDGE = {
    "no loss floor": ("hoffmann2022", "E", 0.02, lambda s: grid(no_floor, 0.004, s, total_params=SIZES, tokens=TOKENS)),
    "a bound of the user": (
        "hoffmann2022", "alpha", 0.3478, lambda s: grid("besiroglu2024", 0.01, s, total_params=SIZES, tokens=TOKENS)
    ),
    "no floor beside experts": (
        "abnar2025", "e", 0.0, lambda s: grid(_no_floor_moe, 0.004, s, total_params=SIZES, tokens=TOKENS, sparsity=_S)
    ),
}  # fmt: skip
_S = np.array([0.0, 0.5, 0.9])


def _no_floor_moe(**inputs):
    return load_law("abnar2025").with_coefficients(e=1e-9)(**inputs)


@pytest.mark.parametrize("name", AT_THE_EDGE)
def test_at_a_bound_the_interval_is_one_sided_and_covers(name):
    law, coefficient, truth, runs = AT_THE_EDGE[name]
    bounds = {"alpha": [0.3478, 1.0]} if coefficient == "alpha" else None
    seen = 0
    for seed in range(6):
        made = runs(seed)
        if fit(law, made, objective="squared_log", starts=4, bounds=bounds).status != "at bound":
            continue
        found = fit(law, made, draws=60, objective="squared_log", starts=4, level=0.9, bounds=bounds)
        edge = 0.3478 if coefficient == "alpha" else 0.0
        if found.verdict[coefficient] != AT_BOUND:
            continue
        seen += 1
        for method in ("bootstrap", "profile", "normal"):
            low, high = found.interval(0.9, method)[coefficient]
            assert low == pytest.approx(edge)
            assert low <= truth <= high
            assert high > low + 1e-3
        if seen == 2:
            break
    assert seen


def test_a_term_that_vanishes():
    """Runs without a size term: its amplitude goes to 0, and neither it nor its exponent is called identified."""
    runs = grid(
        lambda total_params, tokens: 1.8 + 400.0 * tokens**-0.3 + 0.0 * total_params,
        0.003, total_params=SIZES, tokens=TOKENS,
    )  # fmt: skip
    found = fit("hoffmann2022", runs, draws=60, objective="squared_log", bounds={"alpha": [0.1, 1.0]})
    assert found.verdict["A"] in (VANISHES, NOT_IDENTIFIED)
    assert found.verdict["alpha"] in LOOSE
    assert found.interval()["A"][0] == 0.0
    assert {*found.verdict.values()} <= {IDENTIFIED, WEAK, NOT_IDENTIFIED, AT_BOUND, VANISHES}


# law, runs, settings: dense and routed laws, published and made tables, of all kinds of verdicts.
MOVED = {
    "chinchilla": ("hoffmann2022", lambda: load_runs("chinchilla"), {"draws": 200, "profiles": True}),
    "gadre2024": ("hoffmann2022", lambda: load_runs("gadre2024"), {"draws": 60}),
    "one token count": ("hoffmann2022", one_token_count, {"draws": 60}),
    "two token counts": ("hoffmann2022", two_token_counts, {"draws": 60}),
    "two token counts, squares": ("hoffmann2022", two_token_counts, {"draws": 60, "objective": "squared"}),
    "no loss floor": ("hoffmann2022", lambda: AT_THE_EDGE["no loss floor"][3](1), {"draws": 60}),
    "clark2022": ("clark2022_sbase", lambda: load_runs("clark2022"), {"draws": 60, "starts": 8}),
    "one expert count": ("clark2022_sbase", one_expert_count, {"draws": 60, "starts": 8}),
}


@pytest.mark.parametrize("name", MOVED)
def test_a_millionth_of_the_losses_moves_no_end(name):
    """Losses changed by 1e-6: each end stays within 1 % of the interval's width, open ends stay open."""
    law, runs, settings = MOVED[name]
    made = runs()
    moved = 1.0 + 1e-6 * np.random.default_rng(3).standard_normal(made.sizes["run"])
    one, other = fit(law, made, **settings), fit(law, made.assign(loss=made["loss"] * moved), **settings)
    assert one.verdict == other.verdict
    for name, (low, high) in one.interval(0.9).items():
        width = high - low if np.isfinite(high - low) else 1.0
        for here, there in zip((low, high), other.interval(0.9)[name], strict=True):
            assert here == there or abs(here - there) <= 0.01 * width
