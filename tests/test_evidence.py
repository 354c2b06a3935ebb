"""Readings of repetition against what is published about it, the band of what is unknown, and what would settle it."""

import itertools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from fitting_tools import fit
from result_tools import multirun

import moesim
from moesim import config, open_result, plot
from moesim.fitting import evidence as of
from moesim.fitting.runs import load_runs
from moesim.lab.compared import excess_index, frame, last, penalties, reported
from moesim.laws import load_repetition
from moesim.planning import settling
from moesim.planning.model import Model
from moesim.planning.optimum import optimum
from moesim.planning.readings import band

INF = float("inf")
FOUR = ["abnar2025", "ludziejewski2025", "zhao2025", "wu2026"]
RISING = {"lovelace2026", "bryant2026", "lab2026"}  # forms by which the loss can rise with epochs


def reading(law, form, **choices):
    return Model(law, load_repetition(form, **choices))


@pytest.fixture(scope="module")
def found():
    return of.evidence()


@pytest.fixture(scope="module")
def passes(found):
    return found.passes


# ---------------------------------------------------------------- what passes

# (form, excess, taught) -> the number of laws under which the checks are passed, of eight (Li et al.) or seven
PASSED = {
    ("muennighoff2023", "none", "own"): {"error": 8, "order": 8, "once": 7, "worst": 0, "rises": 0, "total": 0},
    ("muennighoff2023", "active", "dense"): {"error": 7, "order": 7, "once": 7, "worst": 0, "total": 0},
    ("muennighoff2023", "total", "dense"): {"error": 7, "order": 7, "once": 1, "worst": 6, "rises": 0, "total": 6},
    ("muennighoff2023", "total", "0.051"): {"error": 8, "order": 8, "once": 2, "worst": 5, "rises": 0, "total": 6},
    ("lovelace2026", "active", "own"): {"error": 8, "order": 8, "once": 7, "worst": 0, "rises": 7, "total": 0},
    ("lovelace2026", "total", "own"): {"error": 8, "order": 8, "once": 7, "worst": 5, "rises": 7, "total": 7},
    ("bryant2026", "total", "own"): {"error": 0, "once": 1, "rises": 7, "index": 0},
    ("lab2026", "active", "own"): {"error": 8, "order": 8, "once": 7, "worst": 0, "rises": 7, "total": 7, "index": 7},
}


@pytest.mark.parametrize("choices", PASSED)
def test_how_many_laws_pass(passes, choices):
    cell = passes.sel(dict(zip(("form", "excess", "taught"), choices, strict=True))).sum("law")
    assert {check: int(cell.sel(check=check)) for check in PASSED[choices]} == PASSED[choices]


def test_total_against_a_dense_anchor_has_the_order_of_ni_under_all_four_laws(passes):
    four = passes.sel(law=FOUR, check="worst") == 1
    every = [choices for choices in of.readings(passes.to_dataset(name="passes")) if four.sel(_at(choices)).all()]
    assert {("total", "dense")} == {choices[1:] for choices in every}
    assert not four.sel(excess="none").any("law").any()


def test_the_index_of_small_models_is_that_of_the_shipped_runs():
    """By decay 0.1, the usual one; readings that count active parameters are at 0, those that count all near 1."""
    where = {"weight_decay": 0.1, "learning_rate": 0.01, "d_model": 32}
    rows = last(penalties(reported(frame(load_runs("lab_text", where=where)))))
    (index,) = excess_index(rows[rows.pool == 2**15], "moe 8", "dense", "dense x8")
    assert (of.CHECKS["index"].above, of.CHECKS["index"].below) == pytest.approx(index[1:3], abs=0.005)


def test_a_share_of_the_idle_parameters_lies_between_by_hand(found):
    """Ni's sizes under lab2026: n^kappa with n of 1, 8 and 8^idle times: (8^(idle kappa) - 1)/(8^kappa - 1)."""
    known = load_repetition("lab2026").coefficients
    index = (8 ** (known["idle"] * known["kappa"]) - 1) / (8 ** known["kappa"] - 1)
    at = found.value.sel(form="lab2026", excess="active", taught="own", check="index").dropna("law")
    assert at.values == pytest.approx(index, rel=1e-6)
    for excess, value in (("active", 0.0), ("total", 1.0)):
        at = found.value.sel(form="lovelace2026", excess=excess, taught="own", check="index").dropna("law")
        assert at.values == pytest.approx(value, abs=1e-6)


def _at(choices):
    return dict(zip(("form", "excess", "taught"), choices, strict=True))


def test_only_forms_that_rise_make_a_large_dense_model_worse(passes):
    rises = passes.sel(check="rises").max(["law", "excess", "taught"])
    assert {str(f) for f in rises.form.values if rises.sel(form=f) == 1} == RISING
    bears = passes.sel(check="density").max(["law", "excess", "taught"])
    assert [str(f) for f in bears.form.values if bears.sel(form=f) == 1] == ["wu2026"]


def test_one_reading_passes_all_that_tells_what_is_counted(found):
    whole = (found.passes.sel(check=["error", "order", "once", "worst", "rises", "total"]) == 1).all("check")
    laws = {str(law) for law in whole.law.values if whole.sel(law=law).any()}
    assert {(str(f), str(e)) for f, e, _ in of.readings(found) if whole.sel(form=f, excess=e).any()} == {
        ("lovelace2026", "total")
    }
    assert laws == {"abnar2025", "ludziejewski2025", "wu2026", "tian2025", "frantar2023_t5"}
    assert "passed by: lovelace2026, total counted: abnar2025, ludziejewski2025, wu2026" in of.table(found)
    assert "muennighoff2023, total counted against own: abnar2025, ludziejewski2025;" in of.table(
        found
    )  # without rises


@pytest.mark.parametrize(("law", "turn"), [("abnar2025", 61), ("ludziejewski2025", 33), ("wu2026", 16)])
def test_the_rising_form_has_the_order_of_ni_not_the_size(law, turn):
    """A dense 1e9 on 1e9 unique tokens turns up after 4 or 5 epochs in their figures, much later by this form."""
    epochs = np.geomspace(1, 96, 600)
    model = reading(law, "lovelace2026")
    cell = {"sparsity": 0.0 * epochs, "unique_tokens": np.full(600, 1e9), "tokens": epochs * 1e9}
    assert epochs[model.loss(np.log(1e9), cell).argmin()] == pytest.approx(turn, rel=0.02)


# ---------------------------------------------------------------- Li et al.


def test_the_rows_of_li_need_the_repeated_ones_to_be_predicted_to_the_noise(found):
    """The form made for these runs, fitted to the unrepeated rows: 0.0021 BPC on the 29 others, which it never saw."""
    error = found.value.sel(law="li2026", form="li2026", excess="none", taught="own", check="error")
    assert error.item() == pytest.approx(0.0021, abs=5e-5)


@pytest.mark.parametrize("characters", [3.0, 6.0])
@pytest.mark.parametrize("excess", ["active", "total"])
def test_characters_to_a_token_change_nothing(characters, excess):
    """Their number is not stated: what passes at 4.5 passes from 3 to 6; unconverted, total would not."""
    again = of._rows().isel(run=np.flatnonzero(of._rows().epochs > 1.05))
    runs, model = (
        {str(n): again[n].values for n in again.data_vars},
        reading("abnar2025", "lovelace2026", excess=excess),
    )
    error = {
        bits: np.sqrt(np.mean((of._predicted(model, runs, bits) - runs["loss"]) ** 2))
        for bits in (1 / np.log(2) / characters, 1.0)
    }
    assert error.pop(1 / np.log(2) / characters) < of.CHECKS["error"].below
    assert (error[1.0] > 0.004) == (excess == "total")


@pytest.mark.parametrize(("half", "scale"), [("sparser", 6.2), ("denser", 4.7)])
def test_the_same_scale_of_repeats_at_every_sparsity(half, scale):
    """R_D by the unrepeated rows and one half of the repeated ones; an independent fit of both at once: 6.2 and 4.7."""
    runs = load_runs("li2026", where={"table": [9, 10, 11, 12, 14, 15, 16]})
    share, again = runs.active_params / runs.total_params, runs.epochs > 1.05
    mine = (share <= share[again].median()) == (half == "sparser")
    fixed = {"R_N": INF, "alpha": 0.1}
    kept = runs.isel(run=np.flatnonzero(~again | mine))
    found = fit("li2026", kept, repetition="li2026", fixed=fixed, objective="squared", draws=0)
    assert found.estimate["R_D"] == pytest.approx(scale, rel=0.2)
    assert 4 < found.estimate["R_D"] < 9


def test_the_interval_of_independent_scatter():
    """R_D 3.8 to 12: the chi-square of independent scatter rises by 2.71 (90 %) there."""
    runs = load_runs("li2026", where={"table": [9, 10, 11, 12, 14, 15, 16]})
    rise = {}
    for value in (5.77361, 3.8, 12.3):
        fixed = {"R_N": INF, "alpha": 0.1, "R_D": value}
        rise[value] = fit("li2026", runs, repetition="li2026", fixed=fixed, objective="squared", draws=0).objective
    lowest = rise.pop(5.77361)
    assert [(one / lowest - 1) * (63 - 7) for one in rise.values()] == pytest.approx([2.71, 2.71], abs=0.25)


COMMANDS = {
    (group, name): marked[1]
    for group in ("law", "repetition")
    for name in config.choices(group)
    if (marked := re.search("derived: (moesim fit .*)", config.read(group, name)["marking"]))
}


@pytest.mark.parametrize(("group", "name"), COMMANDS)
def test_the_command_of_a_file_gives_its_coefficients(command, group, name):
    """Every coefficient of our own, by the command that the file names (with fewer starts, and without draws)."""
    line = COMMANDS[group, name].replace("starts=64", "starts=8").replace("fit.level=0.9", "fit.draws=0")
    code, _, errors = command(*shlex.split(line)[1:], "figures=false")
    assert code == 0, errors
    (path,) = Path("outputs").rglob(f"{group}.yaml")
    fitted, own = (config.read(group, one)["coefficients"] for one in (path, name))
    assert {n: float(v) for n, v in fitted.items()} == pytest.approx({n: float(v) for n, v in own.items()}, rel=1e-4)


# Best N_a/N at the N and C of Li et al.: 2.15e9 and 9.1e20; 3.29e9, 1.39e21 (two U); 6.52e9, 2.86e21 (and U 6.8e10)
SHARES = {
    "abnar2025": (0.196, 0.133, 0.158, 0.195, 0.184),
    "zhao2025": (0.113, 0.086, 0.098, 0.113, 0.108),
    "wu2026": (0.508, 0.378, 0.401, 0.476, 0.463),
}


@pytest.mark.parametrize("law", SHARES)
def test_best_share_of_active_parameters(law, found, passes):
    at = {"law": law, "form": "muennighoff2023", "excess": "none", "taught": "own"}
    assert found.best_share.sel(at).values == pytest.approx(SHARES[law], rel=0.012)
    assert bool(passes.sel(at, drop=True).sel(check="share")) == (law == "abnar2025")  # measured: 0.20 everywhere


def test_cost_of_a_share_by_hand():
    """Table 10: 0.4856... at 0.1994 is best, 0.4907 at 0.2744; half way between in log share costs half of it."""
    best = [0.20, 0.2007, 0.2007, 0.1884, 0.1884]
    middle = np.sqrt(4.29e8 * 5.9e8) / 2.15e9
    assert of._cost([middle, *best[1:]]) == pytest.approx((0.4907 - 0.4857) / 2, rel=0.02)
    assert of._cost([0.1, *best[1:]]) == INF


# ---------------------------------------------------------------- the band


def test_the_band_of_readings():
    both = band(Model("abnar2025", "muennighoff2023"), {"compute": [1e20], "unique_tokens": [2e9, INF]})
    assert both is not None
    scarce, free = (both.sel(unique_tokens=unique).isel(compute=0) for unique in (2e9, INF))
    light, heavy = (scarce.sel(reading=name) for name in ("light", "heavy"))
    assert light.reading_best_sparsity_status == "at upper bound"
    assert heavy.reading_best_sparsity.item() == pytest.approx(0.326, abs=1e-3)
    assert free.reading_best_loss.values[0] == free.reading_best_loss.values[1]  # unlimited data: one answer
    assert band(Model("abnar2025"), {"compute": 1e20, "unique_tokens": 2e9}) is None
    assert band(Model("besiroglu2024", "muennighoff2023"), {"compute": 1e20, "unique_tokens": 2e9}) is None


# ---------------------------------------------------------------- what would settle it


@pytest.fixture(scope="module")
def settled():
    return settling.settling()


def test_the_designs_are_inside_what_was_measured(settled):
    assert (settled.active_params / (1 - settled.sparsity) <= 8.7e9).all()
    assert (settled.sparsity <= 15 / 16).all()
    assert (settled.unique_tokens >= 1e8).all()
    ratio = settled.tokens / settled.active_params
    assert ((ratio >= 20) & (ratio <= 1000)).all()
    assert settled["compute"].values == pytest.approx(4 * 6 * settled.active_params.values * settled.tokens.values)
    assert (settled["compute"] <= settled.budget).all()


def test_every_world_tells_total_from_active(settled):
    """Threefold moves of every unmeasured coefficient and of the anchor, four laws: the outcomes never overlap."""
    active, total = (settled.isel(reading=slice(*half)) for half in ((0, 3), (3, 6)))
    assert (total.outcome_lowest.min("reading") > active.outcome_highest.max("reading")).all()
    assert (settled.odds > 0.98).all()
    assert (settled.in_noise > 5).all()


def test_outcomes_by_hand():
    """lovelace2026 adds P R^delta (N/U)^kappa: two models of 1e8 active parameters, total 1.6e9, 16 epochs of 2.5e8."""
    one = {"active_params": 1e8, "sparsity": 0.9375, "unique_tokens": 2.5e8, "epochs": 16.0, "tokens": 4e9}
    found, noise = settling._outcomes(
        settling.COUNTED["total, rising"], {name: np.array([v]) for name, v in one.items()}
    )
    P, delta, kappa = load_repetition("lovelace2026").coefficients.values()
    penalty = np.array(
        [[P * 15**delta * (N / 2.5e8) ** kappa * third for third in (1 / 3, 1, 3)] for N in (1.6e9, 1e8)]
    )
    assert found.reshape(4, 3) == pytest.approx(np.tile(penalty[0] - penalty[1], (4, 1)), rel=1e-9)
    expected = np.sqrt(4 * 0.005**2 + 0.01 * (penalty**2).sum(axis=0))
    assert noise.reshape(4, 3) == pytest.approx(np.tile(expected, (4, 1)), rel=1e-9)
    none, _ = settling._outcomes(settling.COUNTED["none"], {name: np.array([v]) for name, v in one.items()})
    assert none[:3] == pytest.approx(0.0, abs=1e-12)  # abnar2025: sparsity and repetition in different terms


def test_an_anchor_by_hand_moves_what_the_data_teach():
    """0.051 parameters for each unique token, threefold, are 0.153."""
    one = {"active_params": 1e8, "sparsity": 0.9375, "unique_tokens": 2.5e8, "tokens": 4e9}
    runs = {name: np.array([value]) for name, value in one.items()}
    moved, given = (reading("abnar2025", "muennighoff2023", excess="total", taught=n) for n in (0.051, 0.153))
    once, thrice = (settling._penalty(settling.World(moved, anchor, 0.0), runs) for anchor in (1.0, 3.0))
    expected = settling._penalty(settling.World(given, 1.0, 0.0), runs)
    assert thrice == pytest.approx(expected, rel=1e-9)
    assert once > 1.1 * expected


def test_idle_parameters_by_hand():
    """At S 15/16 all idle ones count 16 times the active ones: as with total; half of them, in logs, 4 times."""
    one = {"active_params": 1e8, "sparsity": 0.9375, "unique_tokens": 2.5e8, "tokens": 4e9}
    runs = {name: np.array([value]) for name, value in one.items()}
    for name, choices in {"muennighoff2023": {"taught": 0.051}, "lovelace2026": {}}.items():
        active, total = (reading("abnar2025", name, excess=excess, **choices) for excess in ("active", "total"))
        every = settling._penalty(settling.World(active, 1.0, 1.0), runs)
        assert every == pytest.approx(settling._penalty(settling.World(total, 1.0, 0.0), runs), rel=1e-9)
    kappa = load_repetition("lovelace2026").coefficients["kappa"]
    half, none = (settling._penalty(settling.World(active, 1.0, idle), runs) for idle in (0.5, 0.0))
    assert half / none == pytest.approx(4**kappa, rel=1e-9)


def test_the_line_tells_nothing_of_worlds_between(settled):
    assert ((settled.between_above > 0.6) & (settled.between_above < 0.75)).all()


def test_odds_by_hand():
    """Outcomes 0 and 0.1 with a noise of 0.05: the line is 0.05, one deviation from both: Phi(1) = 0.8413."""
    worlds = [(np.array([[value]]), np.array([[0.05]])) for value in (0.0, 0.1)]
    odds, line = settling._odds(worlds)
    assert (odds[0], line[0]) == pytest.approx((0.841345, 0.05), abs=1e-6)
    assert settling._in_noise(worlds)[0] == pytest.approx(0.1 / (0.05 * np.sqrt(2)))
    same, _ = settling._odds([worlds[0], worlds[0]])
    assert same[0] == pytest.approx(0.5)


def test_the_nearest_two_readings_of_different_kind_count():
    """Active 0 and 0.02, total 0.5 and 0.1, each with a noise of 0.01: 0.08 apart."""
    worlds = [(np.array([[value]]), np.array([[0.01]])) for value in (0.0, 0.02, 0.5, 0.1)]
    assert settling._in_noise(worlds)[0] == pytest.approx(0.08 / (0.01 * np.sqrt(2)))


def test_whether_90_to_95_is_better_than_98_by_what_is_counted(settled):
    """Threefold moves of everything unmeasured, four laws; the rising form by `optimum`, which searches otherwise."""
    denser, sparser = settled.denser_wins, settled.sparser_wins
    assert (denser.sel(weighed=["none", "active, dense", "active, rising"], question=[0, 1, 2]) == 0).all()
    assert (denser.sel(weighed=["total, 0.051", "total, dense"], question=[0, 1]) > 0.98).all()
    between = denser.sel(weighed=list(settling.BETWEEN), question=0)
    assert ((between > 0.2) & (between < 0.7)).all()
    rising = load_repetition("lovelace2026")
    by_search = np.zeros((2, 3))
    for law, factor in itertools.product(FOUR, (1 / 3, 1, 3)):
        model = Model(law, rising.with_coefficients(P=rising.coefficients["P"] * factor))
        for i, (compute, unique, _) in enumerate(settling.QUESTIONS[:3]):
            found = optimum(model, compute=compute, unique_tokens=unique, sparsity=[0.9, 0.95, 0.98], best=False)
            gain = float(found.optimal_loss[2] - found.optimal_loss[:2].min())
            by_search[:, i] += np.array([gain > settling.SEED, gain < -settling.SEED]) / 12
    assert denser.sel(weighed="total, rising").values[:3] == pytest.approx(by_search[0])
    assert sparser.sel(weighed="total, rising").values[:3] == pytest.approx(by_search[1])


ROWS_OF_THE_PAGE = {
    "none |": ["none"],
    "active |": ["active, dense", "active, rising"],
    "√(active · total), between": list(settling.BETWEEN),
    "total, `muennighoff2023`": ["total, 0.051", "total, dense"],
    "total, `lovelace2026`": ["total, rising"],
    "either, against": ["active or total, own"],
}


@pytest.mark.parametrize("start", ROWS_OF_THE_PAGE)
def test_the_table_of_the_finding(settled, start):
    text = (Path(__file__).parent.parent / "docs" / "findings" / "finite_data.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {start}"))
    shares = settled.sel(weighed=ROWS_OF_THE_PAGE[start])
    for cell, question in zip(line.split("|")[2:-1], range(4), strict=True):
        at = shares.isel(question=question)
        for said, wins in zip(cell.replace(" %", "").split(","), (at.denser_wins, at.sparser_wins), strict=True):
            low, high = (round(100 * float(end)) for end in (wins.min(), wins.max()))
            assert said.strip() == (f"{low} to {high}" if high > low else f"{low}")


def test_the_table_says_what_to_run(settled):
    said = settling.told(settled)
    assert "9.6e+18    100M  0.938   1.6B    250M      16" in said
    assert isinstance(settled, xr.Dataset)


# ---------------------------------------------------------------- what a user sees


def test_a_sweep_shows_the_band_and_says_how_to_move_it(command):
    _, out, _ = command("sweep", "figures=false", "space.compute=[1e20,1e21]")
    band_lines = [line.split() for line in out.splitlines() if "  light  " in line or "  heavy  " in line]
    assert [(line[0], line[2], line[3]) for line in band_lines] == [
        ("1e20", "light", "0.990"),
        ("1e20", "heavy", "0.326*"),
        ("1e21", "light", "0.990"),
        ("1e21", "heavy", "0.000"),
    ]
    assert "1e21                         2B  0.000 (lower bound)*" in out  # no dense best without a mark
    assert "repetition.coefficients.R_D=[2.9,15.4,31.5] makes it an axis" in out


def test_what_does_not_fit_into_the_table_is_named(command):
    _, out, _ = command("sweep", "figures=false")
    assert "in the result only: optimal_epochs, optimal_low_params, optimal_high_params, parabola_active_params" in out


def test_the_band_along_a_coefficient(command):
    """The heavy end at 1e20 FLOP and 2e9 tokens: 0.00, 0.33, 0.48 for R_D 4.4, 15.4, 31.5."""
    given = ("space.compute=[1e20]", "space.unique_tokens=[2e9]", "repetition.coefficients.R_D=[4.4,15.387756,31.5]")
    _, out, _ = command("sweep", "figures=false", *given)
    found = [float(line.split()[4].rstrip("*")) for line in out.splitlines() if "  heavy  " in line]
    assert found == pytest.approx([0.0, 0.326, 0.475], abs=1e-3)
    assert "makes it an axis" not in out


# Over S 0 to 0.98 at 2e10 and 1e11 tokens; zero where the theorem is exact
SPREADS = {
    "wu2026": (0.0, 0.0),
    "frantar2023_t5": (0.0, 0.0),
    "krajewski2024": (0.0, 0.0),
    "hossain2025": (0.007, 0.007),
    "abnar2025": (0.015, 0.155),
    "ludziejewski2025": (0.128, 0.010),
    "tian2025": (0.12, 0.09),
    "zhao2025": (0.33, 0.33),
}


def test_the_spread_of_perplexity_at_fixed_data(command):
    _, out, _ = command("sweep", "experiment=fixed_data_perplexity", "figures=false")
    rows = [line.split() for line in out.splitlines() if line.split()[:1] and line.split()[0] in SPREADS]
    found = {law: tuple(float(row[-1]) for row in rows if row[0] == law) for law in SPREADS}
    assert found == {law: pytest.approx(spread, abs=5e-3) for law, spread in SPREADS.items()}


def test_the_figure_of_perplexity_at_fixed_data(command):
    command("sweep", "experiment=fixed_data_perplexity", "space.sparsity=[0,0.98]")
    (path,) = Path("outputs").rglob("result.nc")
    assert path.with_name("perplexity.png").exists()
    figure = plot.draw(open_result(path))["perplexity"]
    ends = np.array([line.get_ydata()[-1] for line in figure.axes[0].lines], float)
    assert np.nanmax(ends) == pytest.approx(0.128, abs=1e-3)  # ludziejewski2025
    assert np.nanmin(ends) == pytest.approx(-0.326, abs=1e-3)  # zhao2025
    assert np.sum(np.abs(ends) < 1e-9) == 3  # where the theorem is exact


def test_what_a_parabola_reads_stands_in_the_table(command):
    _, out, _ = command("sweep", "experiment=parabola_epochs", "figures=false")
    lines = out.splitlines()
    read, law = (lines[lines.index(title) + 2].split()[2:] for title in _EPOCHS)
    assert [float(word.rstrip("*")) for word in read] == [13.2, 14.4, 16.1, 19, 22.5, 24.7, 26.9]
    assert [float(word.rstrip("*")) for word in law] == [13, 14.1, 15.6, 18.1, 21, 22.7, 24.4]
    assert "active parameters within 0.01 nat/token of it" in lines


def test_what_a_parabola_reads_stands_in_the_figure_of_one_budget():
    one = moesim.sweep("abnar2025", compute=1e20, sparsity=[0, 0.9, 0.98], unique_tokens=2e9)
    (drawn,) = (line for line in moesim.plot.sparsity(one).axes[2].lines if line.get_marker() == "x")
    assert drawn.get_ydata() == pytest.approx([13.2, 22.5, 26.9], abs=0.05)


_EPOCHS = ("epochs that it reads", "epochs of the compute-optimal run")


def test_a_comparison_marks_what_is_outside(command):
    given = ("compare={excess: [none, total]}", "space.compute=1e20", "space.unique_tokens=[2e9]")
    _, out, _ = command("sweep", *given, "figures=false")
    cells = [line.split()[1:8] for line in out.splitlines() if line.split()[:1] in (["none"], ["total"])]
    assert len(cells) == 2
    assert all(cell.endswith("*") for row in cells for cell in row[1:])
    assert "*: outside the data behind the law" in out


def test_a_comparison_says_of_all_only_what_holds_for_all(command):
    given = ("compare={reading: [light, heavy], repetition: [muennighoff2023, wu2026]}", "space.compute=1e20")
    code, _, errors = command("sweep", *given, "space.unique_tokens=[2e9]", "figures=false")
    assert code == 0, errors
    (path,) = Path("outputs").rglob("result.nc")
    attrs = open_result(path).attrs
    assert attrs["law"] == "abnar2025"
    assert not {"repetition", "excess", "taught"} & set(attrs)


def test_the_table_of_a_multirun_has_the_flat_range_too(command):
    code, out, errors, _ = multirun(command, "space.unique_tokens=[2e9],[2e10]")
    assert code == 0, errors
    assert "active parameters within tolerance nat/token of it" in out
