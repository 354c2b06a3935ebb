"""The page of runs of small models: its numbers are those of `moesim.lab.compared`, whatever arm was not run."""

import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from browser_tools import Seen, chromium

import moesim
from moesim.lab.compared import LATER, SETTING, TRIAL, differences, excess_index, frame, last, mean, penalties, reported
from moesim.pages.lab import view

END = 2**14
ARMS = {"dense": (1, 1, 1.0), "dense x8": (1, 1, 1.6), "moe 8": (8, 1, 1.3)}
SAID = ["corpus", "width", "layers", "unique bytes", "learning rate", "weight decay"]
USUAL = {"corpus": "facts", "d_model": 32, "layers": 2, "learning_rate": 0.01, "weight_decay": 0.1}
OTHERS = [{}, {"weight_decay": 1.0}, {"learning_rate": 0.003, "weight_decay": 0.3}, {"corpus": "text", "d_model": 64}]


def made() -> xr.Dataset:
    """Runs of two corpora, sizes, rates, pools and three decays, of three seeds and one that stands in no mean; in text
    without the dense model of the total size, at decay 1 without fresh data."""
    rng, rows = np.random.default_rng(4), []
    for k, (other, arm, pool, seed) in enumerate(product(OTHERS, ARMS, (2**11, 2**13, END), (0, 1, 2, TRIAL))):
        at, (experts, active, wear) = USUAL | other, ARMS[arm]
        if (at["corpus"], arm) == ("text", "dense x8") or (at["weight_decay"], pool) == (1.0, END):
            continue
        alike = {**at, "hash": at["corpus"], "arm": arm, "seed": float(seed), "trajectory": f"run {k}"}
        for tokens in (2**13, END) if pool != 2**13 else (END,):  # no run is measured within its first pass
            loss = 3.0 - 0.1 * np.log(tokens) + wear * 0.02 * tokens / min(pool, tokens) + 0.003 * rng.normal()
            own = {"tokens": tokens, "unique_tokens": min(pool, tokens), "loss": loss}
            sizes = {"active_params": 1e4, "total_params": 1e4 * wear}
            rows.append(alike | own | sizes | {"experts": experts, "active_experts": active})
    data = xr.Dataset({name: ("run", column.to_numpy()) for name, column in pd.DataFrame(rows).items()})
    return data.assign_attrs(verb="lab", moesim_version=moesim.__version__)


@pytest.fixture(scope="module")
def runs():
    return made()


@pytest.fixture(scope="module")
def content(runs):
    return view(runs)[0].content


def panel(one: dict, title: str) -> dict:
    """The lines of a panel, by name, without those of single seeds."""
    (found,) = (spec for spec in one["panels"] if spec["title"] == title)
    return {line["name"]: line for line in found["lines"] if "label" not in line}


def settings(content):
    """(the setting in numbers, the frame) of each that there is."""
    for one in content["frames"]:
        told = dict(zip(content["choose"], one["at"], strict=True))
        at = {"corpus": told["corpus"], "hash": told["corpus"], "d_model": int(told["width"]), "layers": 2}
        at |= {"learning_rate": float(told["learning rate"]), "weight_decay": float(told["weight decay"])}
        at |= {"batch": 2048, "cooldown": 0.0}
        yield at | {"unique_tokens": {"2.05K": 2**11, "8.19K": 2**13}[told["unique bytes"]]}, one


def equal(one, title, name, where, expected) -> bool:
    """Whether a line of a panel has an Interval at a place, or nothing there where none is expected."""
    line = panel(one, title).get(name, {"x": np.array([])})
    (found,) = np.nonzero(line["x"] == where)
    if expected is None or not len(found):
        return expected is None and not len(found)
    return [line[end][found[0]] for end in ("y", "low", "high")] == pytest.approx(expected[:3], rel=1e-8)


def test_every_setting_can_be_chosen(content):
    assert content["choose"][: len(SAID)] == SAID
    assert len(content["frames"]) == len(OTHERS) * 2
    assert len({len(one["panels"]) for one in content["frames"]}) == 1


def key(at, **other):
    return tuple({**LATER, **at, **other}[name] for name in SETTING)


def test_means_are_those_of_the_tables(runs, content):
    rows = reported(frame(runs))
    for column, title, table in (("loss", "Loss", rows), ("penalty", "Penalty", penalties(rows))):
        found = table[table.unique_tokens < table.tokens].groupby([*SETTING, "arm"])[column].apply(mean).to_dict()
        assert len(found) > 20
        for (at, one), tokens, arm in product(settings(content), (2**13, END), ARMS):
            expected = found.pop((*key(at, tokens=tokens), arm), None)
            assert equal(one, title, arm, tokens / at["unique_tokens"], expected)
        assert not found


@pytest.mark.parametrize("other", ["dense", "dense x8"])
def test_differences_are_those_of_the_tables(runs, content, other):
    found = differences(reported(frame(runs)), "moe 8", other).to_dict()
    for (at, one), tokens in product(settings(content), (2**13, END)):
        again = tokens > at["unique_tokens"]
        for said, unique in (("", at["unique_tokens"]), (", fresh", tokens)):
            expected = found.get(key(at, tokens=tokens, unique_tokens=unique)) if again else None
            where = tokens / at["unique_tokens"]
            assert equal(one, "Loss of moe 8 less that of others", f"less {other}{said}", where, expected)


def test_indices_are_those_of_the_tables(runs, content):
    found = excess_index(last(penalties(reported(frame(runs)))), "moe 8", "dense", "dense x8").to_dict()
    assert len(found) == 4
    for (at, one), decay in product(settings(content), (0.1, 0.3, 1.0)):
        expected = found.get(key(at, tokens=END, weight_decay=decay))
        assert equal(one, "Excess index at the end", "moe 8", decay, expected)


def test_penalties_by_pool_are_those_over_epochs(content):
    for at, one in settings(content):
        for arm, line in panel(one, "Penalty at the end").items():
            assert line["x"].tolist() == [2**11, 2**13]
            other = panel(one, "Penalty")[arm]
            (i,) = np.flatnonzero(line["x"] == at["unique_tokens"])
            assert line["y"][i] == other["y"][list(other["x"]).index(END / at["unique_tokens"])]


def test_an_arm_has_one_colour_and_its_seeds_go_with_it(content):
    colours = {
        (line["name"].split(",")[0], line["colour"]) for one in content["frames"] for line in one["panels"][0]["lines"]
    }
    assert len(colours) == len(ARMS)
    labels = {line["label"] for one in content["frames"] for line in one["panels"][0]["lines"] if "label" in line}
    assert labels == {f"{arm}, seed {seed}" for arm in ARMS for seed in (0, 1, 2)}


def test_corpora_of_one_name_are_told_apart(runs):
    rows = runs.assign(corpus=runs.corpus.str.replace("text", "facts"))
    corpora = {one["at"][0] for one in view(rows)[0].content["frames"]}
    assert corpora == {"facts facts", "facts text"}


def test_fresh_data_alone_is_shown_over_bytes(runs):
    (one, *_) = view(runs.where(runs.unique_tokens == runs.tokens, drop=True))[0].content["frames"]
    assert [spec["title"] for spec in one["panels"]] == ["Loss", "Loss of moe 8 less that of others"]
    assert panel(one, "Loss")["dense"]["x"].tolist() == [2**13, 2**14]


@pytest.fixture(scope="module")
def browser():
    with chromium() as it:
        yield it


def test_a_person_chooses_and_reads_off(browser, runs, tmp_path):
    seen = Seen(browser, moesim.page(runs, to=tmp_path / "page.html"), width=390, height=800)
    section = seen.page.locator("section[aria-label='Small models on finite data']")
    assert section.locator(".choice > span").all_inner_texts() == [name for name in SAID if name != "layers"]

    def choice(name):
        return section.locator(".choice", has=seen.page.get_by_text(name, exact=True)).locator("select")

    def read(title):
        figure = section.locator("figure", has=seen.page.locator("figcaption", has_text=re.compile(f"^{title}$")))
        figure.locator("svg").focus()
        seen.page.keyboard.press("End")
        return figure.locator(".readout").inner_text()

    rows = reported(frame(runs))
    rows = rows[(rows.corpus == "facts") & (rows.weight_decay == 0.1)]
    value, low, high, _ = (
        differences(rows, "moe 8", "dense").xs(END, level="tokens").xs(2**11, level="unique_tokens").iloc[0]
    )
    choice("learning rate").select_option("0.01")
    assert choice("weight decay").input_value() == "0.1"
    assert f"epochs 8; less dense {value:.6g} ({low:.6g} to {high:.6g})" in read("Loss of moe 8 less that of others")
    choice("weight decay").select_option("1")
    assert read("Penalty") == "nothing to compare with in this setting"
    choice("corpus").select_option("text")
    assert choice("width").input_value() == "64"
    assert choice("weight decay").input_value() == "0.1"
    assert "dense x8" not in read("Loss")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert seen.fine(), seen.said
    seen.close()
