"""Pages as a person meets them, in a real browser: sliders, bands, commands, keys, small screens, hostile files."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from browser_tools import Seen, chromium

import moesim

HOSTILE = "<img src=x onerror=alert(1)>"
SWEEP = {"compute": [1e20, 1e21], "sparsity": [0.0, 0.5, 0.9], "unique_tokens": [2e9, np.inf]}


@pytest.fixture(scope="module")
def browser():
    with chromium() as it:
        yield it


@pytest.fixture(scope="module")
def swept():
    return moesim.sweep("abnar2025", repetition="muennighoff2023", **SWEEP)


@pytest.fixture
def see(browser, tmp_path):
    """Write the page of Datasets and open it."""
    opened = []

    def look(*datasets, **options):
        opened.append(Seen(browser, moesim.page(*datasets, to=tmp_path / "page.html"), **options))
        return opened[-1]

    yield look
    for seen in opened:
        seen.close()


def give(seen, label: str, value: str) -> None:
    """Type a value beside a slider, and wait for all that follows from it."""
    live = seen.page.locator("section.live")
    done = int(live.get_attribute("data-done"))
    box = live.get_by_label(f"{label}, typed", exact=True)
    box.fill(value)
    box.press("Enter")
    seen.settled(done)


def rows(live) -> list[list[str]]:
    """The table of the best runs."""
    return [row.locator("td").all_inner_texts() for row in live.locator("tbody tr").all()[:20]]


def best(live) -> dict:
    return json.loads(live.get_attribute("data-best"))


def test_sliders_move_what_python_would_give(see, swept):
    seen = see(swept)
    live = seen.settled()
    found = moesim.optimum("abnar2025", repetition="muennighoff2023", compute=1e20, unique_tokens=2e9)
    assert best(live)["sparsity"] == pytest.approx(float(found.best_sparsity), rel=1e-6)
    live.locator("summary", has_text="law:").click()
    for label, value in {"compute": "3e20", "unique tokens": "5e9", "R_D": "9", "beta": "0.52"}.items():
        give(seen, label, value)
    live.get_by_label("excess").select_option("active")
    give(seen, "sparsity", "0.8")
    law = moesim.load_law("abnar2025", beta=0.52)
    repetition = moesim.load_repetition("muennighoff2023", excess="active", R_D=9.0)
    given = {"compute": 3e20, "unique_tokens": 5e9, "sparsity": SWEEP["sparsity"]}
    found = moesim.optimum(law, repetition=repetition, **given)
    assert best(live)["sparsity"] == pytest.approx(float(found.best_sparsity), rel=1e-6)
    assert best(live)["active_params"] == pytest.approx(float(found.best_active_params), rel=1e-6)
    assert best(live)["loss"] == pytest.approx(float(found.best_loss), rel=1e-9)
    assert [row[5] for row in rows(live)] == [f"{v:.5g}" for v in found.optimal_loss.values]
    outside = ["outside" in row[-1] for row in rows(live)]
    assert outside == found.optimal_extrapolated.values.tolist()
    assert seen.fine(), (seen.said, seen.asked)


def test_the_command_that_is_copied_gives_what_the_page_shows(see, swept, command):
    seen = see(swept)
    live = seen.settled()
    give(seen, "unique tokens", "7e9")
    give(seen, "R_D", "8")
    shell, python = live.locator(".command code").all_inner_texts()
    shown = [row[5] for row in rows(live)]
    assert command(*shlex.split(shell)[1:], "figures=false", "hydra.run.dir=copied")[0] == 0
    for found in (moesim.open_result("copied"), eval(python, {"moesim": moesim})):
        assert [f"{v:.5g}" for v in found.optimal_loss.squeeze().values] == shown


def test_draws_are_bands(see):
    rng = np.random.default_rng(3)
    draws = {
        name: xr.DataArray(value * np.exp(0.02 * rng.normal(size=40)), dims="draw")
        for name, value in {"alpha": 0.35, "beta": 0.37}.items()
    }
    law = moesim.load_law("besiroglu2024", **draws)
    seen = see(moesim.sweep(law, compute=[1e21, 1e22]))
    seen.settled()
    line = seen.page.evaluate("""() => {
        const root = document.querySelector('section.live');
        const one = root.shown()[0];
        return { x: one.curve.map((at) => at.log_size), low: one.low, high: one.high, band: one.band };
    }""")
    model = moesim.Model(law, "none")
    cell = {name: value.values[:, None] for name, value in model.varying().items()}
    losses = model.loss(np.array(line["x"]), {**cell, "compute": 1e21, "sparsity": 0.0, "unique_tokens": np.inf})
    np.testing.assert_allclose(line["low"], np.quantile(losses, 0.05, axis=0), rtol=1e-9)
    np.testing.assert_allclose(line["high"], np.quantile(losses, 0.95, axis=0), rtol=1e-9)
    assert line["band"][0] < line["band"][1]
    assert seen.fine(), seen.said


def test_a_hostile_result_is_text_and_runs_nothing(see, swept):
    data = swept.rename({"loss": HOSTILE}).assign_attrs(law=HOSTILE, law_source=HOSTILE, warnings=HOSTILE)
    held = json.loads(data.attrs["formula"])
    held["names"] = dict.fromkeys(held["names"], HOSTILE)
    held["known"]["law"] |= {"caveats": [HOSTILE], "definitions": {HOSTILE: HOSTILE}, "source": HOSTILE}
    held["about"] = {name: {**one, "unit": HOSTILE} for name, one in held["about"].items()}
    overrides = json.dumps([HOSTILE, "plugins=[evil.py]", "law=evil.py:law"])
    seen = see(data.assign_attrs(formula=json.dumps(held), overrides=overrides))
    live = seen.settled()
    live.get_by_text("Evidence and caveats").click()
    text = seen.page.locator("body").inner_text()
    assert HOSTILE in text
    assert "evil" not in text
    assert seen.page.locator("img").count() == 0
    assert seen.fine(), seen.said


def test_a_page_runs_only_what_it_was_made_with(see, swept):
    seen = see(swept)
    seen.settled()
    seen.page.evaluate("""() => {
        const code = document.createElement('script');
        code.textContent = 'window.ran = true';
        document.body.append(code);
        const image = document.createElement('img');
        image.setAttribute('onerror', 'window.ran = true');
        image.src = 'x';
        document.body.append(image);
    }""")
    assert seen.page.evaluate("fetch('https://example.org').then(() => 'went', () => 'stayed')") == "stayed"
    assert not seen.page.evaluate("window.ran")


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1200, "light")])
def test_nothing_hangs_over_the_edge_and_all_text_can_be_read(see, swept, width, scheme):
    seen = see(swept, width=width, color_scheme=scheme)
    seen.settled()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
    contrast = seen.page.evaluate(CONTRAST)
    assert min(contrast.values()) >= 4.5, contrast
    assert seen.page.evaluate(UNNAMED) == []


# Contrast of every text with what lies behind it (WCAG 2.2), the least of each class.
CONTRAST = """() => {
  const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parsed(getComputedStyle(e).backgroundColor);
      if (c[3] === undefined || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const out = {};
  for (const e of document.querySelectorAll('p, td, th, button, label, summary, text, h1, h2, code, output, option')) {
    const style = getComputedStyle(e), own = parsed(e.tagName === 'text' ? style.fill : style.color);
    const [a, b] = [light(own), light(behind(e))].sort((x, y) => y - x);
    const name = e.tagName + '.' + e.getAttribute('class');
    out[name] = Math.min(out[name] ?? 99, (a + 0.05) / (b + 0.05));
  }
  return out;
}"""
# What a person who sees nothing could not tell: controls and pictures without a name.
UNNAMED = """() => [...document.querySelectorAll('input, select, button, svg[role=img]')].filter((e) =>
  !e.getAttribute('aria-label') && !e.getAttribute('aria-labelledby') && !e.textContent.trim() && !e.labels?.length
).map((e) => e.outerHTML.slice(0, 80))"""


def test_plots_are_read_off_by_keys_and_zoomed(see, swept):
    seen = see(swept)
    live = seen.settled()
    plot = live.locator("figure.plot").first
    plot.locator("svg").focus()
    seen.page.keyboard.press("ArrowRight")
    said = plot.locator(".readout").inner_text()
    assert re.search(r"active parameters [\d.]+[KMB]?", said)
    assert "S 0.9 " in said
    wide = plot.locator(".tick").all_inner_texts()
    seen.page.keyboard.press("+")
    assert plot.locator(".tick").all_inner_texts() != wide
    plot.get_by_text("whole range").click()
    assert plot.locator(".tick").all_inner_texts() == wide
    plot.get_by_role("button", name="S 0.9").click()
    plot.locator("svg").focus()
    seen.page.keyboard.press("Home")
    assert "S 0.9 " not in plot.locator(".readout").inner_text()
    plot.get_by_role("button", name="table").click()
    assert plot.locator("tbody tr").count() > 50


def test_every_control_is_reached_and_moved_by_keys(see, swept):
    seen = see(swept)
    live = seen.settled()
    before, done = best(live), int(live.get_attribute("data-done"))
    live.locator("input[type=range][aria-label='unique tokens']").focus()
    for _ in range(40):
        seen.page.keyboard.press("ArrowRight")
    seen.settled(done)
    assert best(live)["loss"] < before["loss"]


def test_csv_of_any_variable(see, swept):
    seen = see(swept)
    seen.settled()
    box = seen.page.locator("section.explore")
    box.get_by_label("variable").select_option("optimal_loss")
    with seen.page.expect_download() as got:
        box.get_by_text("download CSV").click()
    lines = got.value.path().read_text("utf-8").splitlines()
    assert lines[0] == "compute,sparsity,unique_tokens,optimal_loss"
    held = swept.optimal_loss.transpose("compute", "sparsity", "unique_tokens")
    assert len(lines) == 1 + held.size
    assert float(lines[1].split(",")[-1]) == pytest.approx(float(held[0, 0, 0]), rel=1e-8)
    assert seen.fine()


def test_no_result_is_too_empty_for_a_page(see):
    empty = xr.Dataset(attrs={"verb": "sweep", "moesim_version": moesim.__version__})
    nothing = xr.Dataset({"loss": ("run", [np.nan, np.nan]), "word": "text"}, attrs=empty.attrs)
    seen = see(empty, nothing)
    assert seen.page.get_by_text("This result has no variables.").count() == 1
    assert seen.fine(), seen.said


@pytest.fixture(scope="module")
def fitted():
    return moesim.fit("hoffmann2022", "chinchilla", draws=40, profiles=True)


def test_a_fit_names_its_runs_and_says_which_pull(see, fitted):
    seen = see(fitted.to_dataset())
    seen.settled()
    runs = seen.page.locator("section[aria-label='Runs'] figure").first
    runs.locator("svg circle").first.hover(force=True)
    assert re.search(r"row \d+: .*N .*D ", runs.locator(".readout").inner_text())
    pulls = seen.page.locator("section[aria-label='Which runs pull a coefficient']")
    pulls.get_by_label("coefficient").select_option(label="beta")
    assert pulls.locator("figcaption").inner_text() == "Pull on beta"
    assert seen.page.locator("section[aria-label='Profiles'] figure").count() == 5
    assert seen.fine(), seen.said


def test_a_plan_shows_its_rivals(see):
    plan = moesim.plan(chip="h100", devices=64, days=3, unique_tokens=1e11)
    seen = see(plan)
    seen.settled()
    table = seen.page.locator("section[aria-label='Rivals']")
    assert table.locator("th").all_inner_texts()[1:3] == ["best", "dense"]
    loss = float(plan.scan_loss.sel(sparsity=float(plan.chosen_sparsity.sel(choice="best"))))
    ladder = seen.page.locator("section[aria-label='At equal time'] figure").first
    ladder.get_by_role("button", name="table").click()
    assert f"{loss:.5g}" in ladder.inner_text()
    assert seen.fine(), seen.said


def test_laws_of_a_comparison_are_opened_one_by_one(see, swept):
    other = moesim.optimum("ludziejewski2025", **SWEEP)
    formulas = {"abnar2025": swept.formula, "ludziejewski2025": other.formula}
    both = swept[["optimal_loss"]].drop_attrs().assign_attrs(verb="sweep", formulas=json.dumps(formulas))
    seen = see(both)
    live = seen.page.locator("section.live").nth(1)
    assert live.locator("svg").count() == 0
    live.get_by_text("open", exact=True).click()
    live.locator("svg").nth(2).wait_for()
    assert "ludziejewski2025" in live.inner_text()
    assert seen.fine(), seen.said


# A verb's small run -> titles of sections that its page must have.
RUNS = {
    "balance steps=10 seeds=2": ["Busy time of each device", "Tokens of each expert", "Who serves what"],
    "sites hours=20 seeds=2": ["Timeline", "Loss", "Hours of each site"],
    "flops model=mixtral_8x7b": ["Layers, sgd", "Weights", "Backward over forward"],
}


@pytest.mark.parametrize("line", RUNS)
def test_the_page_of_every_verb(browser, command, line):
    verb, *words = line.split()
    code, _, err = command(verb, *words, "figures=false", "page=true", "hydra.run.dir=run")
    assert code == 0, err
    (file,) = Path("run").glob("*.html")
    seen = Seen(browser, file)
    titles = seen.page.locator("h2").all_inner_texts()
    assert set(RUNS[line]) <= set(titles), titles
    sliders = seen.page.locator("section.plot input[type=range]")
    if sliders.count():
        picture = seen.page.locator("section.plot", has=seen.page.locator("input[type=range]")).first.locator("svg")
        before = picture.inner_html()
        sliders.first.focus()
        seen.page.keyboard.press("End")
        assert picture.inner_html() != before
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1200
    assert seen.fine(), seen.said
    seen.close()
