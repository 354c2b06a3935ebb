"""Laws in the page against Python's, in a real browser: every law with every repetition, at random settings."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from browser_tools import chromium

import moesim
from moesim.config import choices
from moesim.errors import InputError
from moesim.pages.script import script
from moesim.pages.values import as_json
from moesim.planning.formula import formula
from moesim.planning.formula import read as read_formula
from moesim.variables import REAL

JS = Path(moesim.pages.__file__).parent / "js"
# of another kind than loss in size and tokens
NOT_PLANNED = {name for name in choices("law") if not {"tokens"} < {*moesim.load_law(name).inputs}}
GIVEN = {"lovelace2026": {"P": 0.01, "delta": 1.1, "kappa": 0.8}}
CELLS = 2
# What the browser finds for a case; the rises tell whether the best is one place: else any near it is as good.
FIND = """
(cases) => cases.map((c) => {
  const model = moesim.model(c.held, moesim.laws[c.law]), v = model.cell(c.settings);
  const losses = c.sizes.map((x) => model.loss(v, x)), found = model.best(v), at = model.run(v, found.log_size);
  const rise = Math.min(...[-0.01, 0.01].map((by) => model.loss(v, found.log_size + by))) - found.loss;
  const best = model.bestSparsity(v, [0, 0.99]), t = -Math.log1p(-best.sparsity);
  const envelope = (t) => model.best(model.cell({ ...c.settings, sparsity: -Math.expm1(-t) })).loss;
  const beside = Math.min(envelope(t - 0.02), envelope(t + 0.02)) - best.loss;
  const outside = model.outside(v, at).length > 0;
  const beyond = [v, best.cell].some((cell) => cell.taught < model.grid[0]);
  return { beyond, losses, loss: found.loss, active: at.active_params, status: found.status, outside, rise,
    best: best.loss, sparsity: best.sparsity, beside };
})
"""


def moved(rng, part):
    """The coefficients of a law or repetition, each up to a tenth away; those of either sign a hundredth."""
    forms, out = part.form.coefficients, {}
    for name, value in part.coefficients.items():
        most = 0.01 if forms[name].domain is REAL else 0.1
        out[name] = float(value * np.exp(rng.uniform(-most, most)))
    return out


def cases(seed: int = 17):
    """(what it is, the case for the browser, the JavaScript, Python's answers) for every law with every repetition."""
    rng = np.random.default_rng(seed)
    for law, name in product((one for one in choices("law") if one not in NOT_PLANNED), choices("repetition")):
        repetition, architecture = (
            moesim.load_repetition(name, **GIVEN.get(name, {})),
            str(rng.choice(choices("architecture"))),
        )
        held = read_formula(json.dumps(formula(moesim.Model(law, repetition, architecture))))
        can = [name.removeprefix("loss.") for name in held["graph"].outputs if name.startswith("loss.")]
        excess = str(rng.choice(can))
        anchor = ["own", "dense", 10 ** rng.uniform(-2, 1)][rng.integers(3)]
        new_law = moesim.load_law(law, **moved(rng, moesim.load_law(law)))
        how = {"excess": excess, **moved(rng, repetition)}
        try:
            model = moesim.Model(new_law, moesim.load_repetition(name, taught=anchor, **how), architecture)
        except InputError:  # a law without an optimum at sparsity 0
            anchor = "own"
            model = moesim.Model(new_law, moesim.load_repetition(name, taught=anchor, **how), architecture)
        cells = {
            "compute": 10 ** rng.uniform(18, 25, CELLS),
            "unique_tokens": np.where(rng.random(CELLS) < 0.15, np.inf, 10 ** rng.uniform(8, 13, CELLS)),
            "sparsity": rng.choice([0.0, 0.3, 0.8, 0.95, 0.985], CELLS),
        }
        found = moesim.optimum(model, best=True, **{n: xr.DataArray(v, dims="cell") for n, v in cells.items()})
        sizes = rng.uniform(*model.architecture.log_size[[20, -20]], 3)
        values = {
            f"{part}.{n}": v for part in ("law", "repetition") for n, v in getattr(model, part).coefficients.items()
        }
        for i in range(CELLS):
            cell = {name: float(column[i]) for name, column in cells.items()}
            full = model.with_taught_params(cell)
            settings = {**cell, **values, "excess": excess, "anchor": anchor}
            told = {n: v for n, v in held.items() if n != "graph"}
            with np.errstate(all="ignore"):
                answer = {"losses": [float(model.loss(x, full)) for x in sizes], "found": found.isel(cell=i)}
            what = f"{law} {name} {architecture} {excess} {anchor} {cell}"
            yield what, {"held": told, "settings": settings, "sizes": sizes}, script(held), answer


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """(what it is, the browser's answer, Python's) for every case."""
    with chromium() as browser:
        rows = list(cases())
        codes = list(dict.fromkeys(code for _, _, code, _ in rows))
        core = "\n".join((JS / f"{name}.js").read_text("utf-8") for name in ("core", "solve"))
        laws = "\n".join(f"moesim.laws.push({code});" for code in codes)
        file = tmp_path_factory.mktemp("laws") / "laws.html"
        file.write_text(f"<!doctype html><meta charset=utf-8><script>{core}\n{laws}</script>", "utf-8")
        page = browser.new_page()
        page.goto(file.as_uri())
        given = as_json([{**case, "law": codes.index(code)} for _, case, code, _ in rows])
        found = page.evaluate(f"(text) => JSON.stringify(({FIND})(JSON.parse(text)))", given)
    every = [(what, its, answer) for (what, _, _, answer), its in zip(rows, json.loads(found), strict=True)]
    kept = [row for row in every if not row[1]["beyond"]]  # a taught size below any is found by luck (laws.wrapped)
    assert len(kept) > 0.97 * len(every)
    return kept


def number(value):
    return np.nan if value is None else value


def apart(rows):
    """What is further apart than allowed, a line each: what, browser, Python."""
    return "\n".join(str(row) for row in rows if row[1] != pytest.approx(row[2], rel=row[3], abs=0, nan_ok=True))


def equal(mine, theirs):
    """Whether two least losses are the same to rounding, a kink's included: where they lie no loss can tell."""
    return abs(mine - float(theirs)) < 1e-12 * abs(float(theirs))


def deeper(rows):
    """Least losses further apart than 1e-9, but where the browser's is lower by no more than 1e-7: a dip that the scan
    of Python's search steps over. What a loss is at a size is the same."""
    return apart(row for row in rows if np.isfinite(row[2]) and not row[2] * (1 - 1e-7) < row[1] < row[2])


@pytest.mark.slow
def test_losses_are_pythons_to_1e_9(answers):
    rows = [
        (what, number(mine), theirs, 1e-9)
        for what, its, answer in answers
        for mine, theirs in zip(its["losses"], answer["losses"], strict=True)
        if np.isfinite(theirs)
    ]
    assert len(rows) > 3000
    assert apart(rows) == ""


@pytest.mark.slow
def test_optima_are_pythons(answers):
    losses = [(what, number(its["loss"]), float(a["found"].optimal_loss), 1e-9) for what, its, a in answers]
    assert deeper(losses) == ""
    sharp = [(what, its, a["found"]) for what, its, a in answers if number(its["rise"]) > 1e-10]
    assert len(sharp) > 0.6 * len(answers)
    assert apart((what, its["active"], float(one.optimal_active_params), 1e-6) for what, its, one in sharp) == ""
    repeating = [
        row for row in sharp if abs(float(row[2].optimal_epochs) - 1.0) > 1e-6
    ]  # at one epoch rounding decides
    assert not [what for what, its, one in repeating if its["outside"] != bool(one.optimal_extrapolated)]
    assert not [
        (what, its["status"], str(one.optimum_status.values))
        for what, its, one in sharp
        if its["status"] != one.optimum_status
    ]


@pytest.mark.slow
def test_best_sparsities_are_pythons(answers):
    losses = [(what, number(its["best"]), float(a["found"].best_loss), 1e-9) for what, its, a in answers]
    assert deeper(losses) == ""
    sharp = [(what, its, a["found"]) for what, its, a in answers if number(its["beside"]) > 1e-9]
    assert len(sharp) > 40  # most laws are best at a bound
    told = [row for row in sharp if not equal(row[1]["best"], row[2].best_loss)]
    assert apart((what, 1 - its["sparsity"], 1 - float(one.best_sparsity), 1e-6) for what, its, one in told) == ""
    same = [(what, 1 - its["sparsity"], 1 - float(one.best_sparsity), 1e-6) for what, its, one in sharp]
    assert len(apart(same).splitlines()) < 0.1 * len(same)
