"""The numbers that the docs give of the small models, against the shipped rows.

    python tests/lab_prose.py

writes into the docs every number that differs from the rows (words stay: read the sentences that it names again), and
lists the sentences that the docs lack or that say what is not so any more (their number is NaN), and the lines of the
docs whose numbers nothing here holds. A sentence that changes is changed in both places.

A row of SAID is a file, a sentence that stands in it once, and what it is about. In a sentence `#` is a number, with as
many digits as the docs give, and a sign or a zero before the point where they have one; a count of seeds may be a word.
`@` is what a cell holds.
"""

from __future__ import annotations

import re
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from moesim import load_runs
from moesim.lab import compared
from moesim.lab.compared import ANY_RECIPE, ANY_STOP, BY_LOAD, LATER, Interval

ROOT = Path(__file__).resolve().parent.parent
LOG, FINDING, DATA = "docs/log.md", "docs/findings/small_models.md", "docs/findings/finite_data.md"
U, FRESH = 2**15, 2**21
ARMS = DENSE, MOE, TOTAL = "dense", "moe 8", "dense x8"
RECIPES = {FRESH: (0.02, 0.03), U: (0.04, 0.2)}
SHARP: dict[str, Any] = {"attention_scale": 1.0}
WIDE: dict[str, Any] = {**SHARP, "d_model": 64}
SMALL = {"d_model": 32, **LATER}
DECAYS = ((0.1, "decay 0.1"), (0.3, "0.3"), (1.0, "1"))
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBER = rf"([+-]?(?:\d+(?:\.\d+)?|\.\d+)|\b(?:{'|'.join(WORDS)})\b)"


@cache
def rows(table: str = "text", rate: Any = 0.01, **net: Any) -> Any:
    """Rows of the three arms on one amount of data and none: what the docs speak of; all rates, and seeds, for None.

    `net`: what differs from the usual network or training.
    """
    whole = compared.frame(load_runs(f"lab_{table}"))
    whole = whole[whole.pool.isin([U, np.inf]) & whole.arm.str.removesuffix(BY_LOAD).isin(ARMS)]
    for name, value in (SMALL | net).items():
        whole = whole[whole[name] == value]
    return whole if rate is None else compared.reported(whole[whole.learning_rate == rate])


@cache
def paid(table: str = "text", last: bool = True) -> Any:
    """Penalties at the last mark, or at all."""
    found = compared.penalties(rows(table))
    return compared.last(found) if last else found


def of(found: Any, **at: Any) -> Any:
    """The rows where each column has that value, or one of those."""
    for name, value in at.items():
        found = found[found[name].isin(value if isinstance(value, tuple) else (value,))]
    return found


def ends(decay: float, unique: int, table: str = "text") -> Any:
    """Rows at the last mark of one decay and amount of data."""
    return of(compared.last(rows(table)), weight_decay=decay, unique_tokens=unique)


def gap(first: str, second: str, found: Any, column: str = "loss", at: Any = compared.SETTING) -> Interval:
    """The paired difference in the one setting of these rows."""
    (value,) = compared.differences(found, first, second, column, at)
    return value


def penalty(arm: str, decay: float, table: str = "text") -> Interval:
    return compared.mean(of(paid(table), arm=arm, weight_decay=decay).penalty)


def index(decay: float, table: str = "text", epochs: int = 64) -> Interval | None:
    """The excess index; None where it is noise."""
    own = of(paid(table, last=False), weight_decay=decay, epochs=epochs)
    return next(iter(compared.excess_index(own, MOE, DENSE, TOTAL)), None)


def stop(other: str, decay: float = 0.1, table: str = "text") -> Interval:
    """The Mixture less another arm, each stopped where its loss is lowest."""
    return gap(MOE, other, of(compared.stopped(rows(table)), weight_decay=decay), at=ANY_STOP)


@cache
def tuned(**net: Any) -> Any:
    """Rows at the recipe that is best on the seed that is in no mean, of those that other seeds have."""
    return compared.tuned(compared.last(rows(rate=None, **net)))


def tuned_gap(other: str, unique: int, **net: Any) -> Interval:
    return gap(MOE, other, of(tuned(**net), unique_tokens=unique), at=ANY_RECIPE)


def recipes(unique: int, arms: tuple[str, ...] = ARMS, **net: Any) -> list[float]:
    """The learning rates and weight decays that were chosen for these arms."""
    found = {arm: of(tuned(**net), unique_tokens=unique, arm=arm).iloc[0] for arm in arms}
    return [value for arm in arms for value in (found[arm].learning_rate, found[arm].weight_decay)]


def common(unique: int, **net: Any) -> Any:
    """Reported rows at one recipe for all arms: one under 64 epochs, one on fresh data."""
    rate, decay = RECIPES[unique]
    own = compared.reported(compared.last(rows(rate=None, **net)))
    return of(own, learning_rate=rate, weight_decay=decay, unique_tokens=unique)


def common_gap(other: str = DENSE, **net: Any) -> Interval:
    """How repetition changes what the Mixture is less another arm, at these recipes."""
    both = pd.concat([common(U, **net), common(FRESH, **net)])
    return gap(MOE, other, compared.penalties(both, ANY_RECIPE), "penalty", ANY_RECIPE)


def best_decays() -> float:
    """The decay of lowest loss on the trial seed at the usual rate under 64 epochs, NaN if the three arms differ."""
    trial = of(compared.last(rows(rate=None)), seed=compared.TRIAL, unique_tokens=U, learning_rate=0.01, arm=ARMS)
    best = set(trial.loc[trial.groupby("arm").loss.idxmin()].weight_decay)
    return best.pop() if len(best) == 1 else np.nan


def tuned_penalty(other: str = DENSE, **net: Any) -> Interval:
    return gap(MOE, other, compared.penalties(tuned(**net), ANY_RECIPE), "penalty", ANY_RECIPE)


def index_of(own: Any) -> Interval:
    """The excess index of rows whose recipes may differ."""
    (found,) = compared.excess_index(compared.penalties(own, ANY_RECIPE), MOE, DENSE, TOTAL, ANY_RECIPE)
    return found


def tuned_index() -> Interval:
    """With a recipe of its own for each arm."""
    return index_of(tuned())


def decay_index() -> Interval:
    """At the usual rate, each decay the best of its data: fresh and under 64 epochs."""
    return index_of(pd.concat([ends(0.1, FRESH), ends(0.6, U)]))


def at_64(decay: float) -> Interval:
    """The Mixture less the dense model of d 64, at the usual rate and attention."""
    return gap(MOE, DENSE, of(compared.last(rows(d_model=64)), weight_decay=decay, unique_tokens=U))


def by_load(decay: float, column: str = "loss") -> Interval:
    """What decay in proportion to the load changes."""
    return gap(MOE + BY_LOAD, MOE, ends(decay, U), column)


def seen(decay: float) -> list[float]:
    """Loss on what was trained on, with decay by load and without, of the seeds that have both."""
    arms = [MOE + BY_LOAD, MOE]
    table = ends(decay, U).pivot_table("loss_seen", index="seed", columns="arm")[arms].dropna()
    return [*table.mean()]


def half_way(other: str) -> Interval:
    """On fresh data of half the length, decay 0.1."""
    return gap(MOE, other, of(rows(), weight_decay=0.1, tokens=FRESH // 2, unique_tokens=FRESH // 2))


def across(function: Any, found: Any) -> float:
    """The smallest or largest mean penalty of an arm at a decay and a mark."""
    return function(found.groupby(["arm", "weight_decay", "epochs"]).penalty.mean())


def least_above_best_fresh() -> float:
    """What the arms pay above fresh data at the decay 0.1, whatever decay they have themselves: the least of it."""
    fresh = ends(0.1, FRESH).set_index(["arm", "seed"]).loss.rename("fresh")
    own = of(compared.last(rows()), unique_tokens=U, arm=ARMS).join(fresh, on=["arm", "seed"], how="inner")
    return (own.loss - own.fresh).groupby([own.arm, own.weight_decay]).mean().min()


def of_single_seeds(epochs: int) -> tuple[float, float]:
    """Ends of the excess index of single seeds at the decay 0.1."""
    own = of(paid(last=False), weight_decay=0.1, epochs=epochs)
    table = own.pivot_table("penalty", index="seed", columns="arm").dropna()
    found = (table[MOE] - table[DENSE]) / (table[TOTAL] - table[DENSE])
    return found.min(), found.max()


def index_of_logs(decay: float = 0.1) -> float:
    """The excess index of logarithms of the mean penalties."""
    logs = {arm: np.log(penalty(arm, decay).value) for arm in ARMS}
    return (logs[MOE] - logs[DENSE]) / (logs[TOTAL] - logs[DENSE])


def placed(by: str, unique: int) -> Any:
    """Where the Mixture stands on the dense ladder at the usual recipe."""
    whole = whole_ladder()
    own = of(compared.last(whole if by == "loss" else compared.penalties(whole)), unique_tokens=unique)
    (found,) = (each for cell, each in compared.equivalents(own, by).items() if cell[-1] == MOE)
    return found


@cache
def whole_ladder() -> Any:
    """Reported rows of all widths, d 32, at the usual recipe and network."""
    return of(compared.reported(compared.frame(load_runs("lab_text"))), weight_decay=0.1, learning_rate=0.01, **SMALL)


def fit_and_damage(arm: str) -> list[float]:
    """Loss on seen data and penalty after 64 epochs."""
    own = of(compared.last(compared.penalties(whole_ladder())), unique_tokens=U, arm=arm)
    return [own.loss_seen.mean(), own.penalty.mean()]


def ladder(by: str, unique: int) -> list[Any]:
    """Thousands of parameters of the dense model with the same loss or penalty, and the share of the way."""
    own = placed(by, unique)
    return [own.params.value / 1e3, own.share]


def share(by: str, unique: int) -> float:
    return placed(by, unique).share.value


def real_decay(unique: int) -> list[float]:
    """Loss of the Mixture where the rate falls to zero at the end, and with averaged weights, of the same seeds."""
    own = pd.concat([rows(cooldown=0.2), rows()])
    own = of(compared.last(own), arm=MOE, weight_decay=0.1, unique_tokens=unique)
    return [*own.pivot_table("loss", "seed", "cooldown")[[0.2, 0.0]].dropna().mean()]


def cooled(cooldown: float) -> Any:
    """Penalties of the usual recipe at the end, with averaged weights or, at a share of the run, with a real decay."""
    own = compared.last(compared.penalties(rows(cooldown=cooldown)))
    return of(own, weight_decay=0.1, arm=(DENSE, MOE))


def of_decay(cooldown: float, arm: str) -> Interval:
    return compared.mean(of(cooled(cooldown), arm=arm).penalty)


def paid_more(cooldown: float) -> Interval:
    return gap(MOE, DENSE, cooled(cooldown), "penalty")


def facts_gap(first: str, second: str, decay: float, unique: int) -> Interval:
    return gap(first, second, ends(decay, unique, "synthetic"))


def short(own: Any) -> list[Any]:
    """Cells of a line of the table of recipes."""
    found = gap(MOE, DENSE, own, at=ANY_RECIPE)
    return [found.seeds, *(own[own.arm == arm].loss.mean() for arm in (DENSE, MOE)), found]


def line(decay: float, unique: int, table: str = "text") -> list[Any]:
    """Cells of a line of the tables: losses, differences, and the index as the docs write it."""
    own = ends(decay, unique, table)
    gaps = [gap(MOE, other, own) for other in (DENSE, TOTAL)]
    found = index(decay, table) if unique == U else None
    measured = unique == U and {*ARMS} <= {*of(paid(table), weight_decay=decay).arm}
    told = f" {found:.2f} ".replace("0.", ".") if found else " noise " if measured else "  "
    seeds = f" {', '.join(dict.fromkeys(str(each.seeds) for each in gaps))} "
    return [seeds, *(own[own.arm == arm].loss.mean() for arm in ARMS), *gaps, told]


LINES = [(d, u, f"{n}, {t}") for u, n in ((FRESH, "fresh"), (U, "64 epochs")) for d, t in DECAYS]
_LINE = "| # | # | # | # [#, #] | # [#, #] |@|"


def _text(decay: float, unique: int, name: str) -> tuple[str, str, Any]:
    return LOG, f"| {name} |@{_LINE}", partial(line, decay, unique)


def _facts(decay: float, unique: int, name: str) -> tuple[str, str, Any]:
    return LOG, f"| facts, {name} {_LINE}", lambda: line(decay, unique, "synthetic")[1:]


def _recipe(name: str, own: Any) -> tuple[str, str, Any]:
    return LOG, f"| {name} | # | # | # | # [#, #] |", lambda: short(own())


def _four_sharp() -> list[Any]:
    """With sharper attention: fresh and repeated, each with its own recipe and then with one for both."""
    fresh, own = (
        -tuned_gap(DENSE, FRESH, **SHARP).value,
        gap(DENSE, MOE, of(tuned(**SHARP), unique_tokens=FRESH), at=ANY_RECIPE),
    )
    repeated, both = _ahead((U, FRESH), **SHARP)
    assert np.isclose(fresh, -both.value), "one recipe for both is that of each its own on fresh data"
    return [own, tuned_gap(DENSE, U, **SHARP), fresh, repeated]


def _ahead(pools: tuple[int, ...], other: str = DENSE, **net: Any) -> list[Interval]:
    """The Mixture less another arm, at the recipe that is one for both."""
    return [gap(MOE, other, common(unique, **net), at=ANY_RECIPE) for unique in pools]


def own_penalties() -> list[Interval]:
    """What each arm pays at the recipes of its own."""
    paid_there = compared.penalties(tuned(), ANY_RECIPE)
    return [compared.mean(paid_there[paid_there.arm == arm].penalty) for arm in ARMS]


SAID = (
    *(_text(*where) for where in (*LINES, (0.6, U, "64 epochs, 0.6"))),
    (LOG, "the mean penalty of every arm lies between # and #", lambda: [across(f, few()) for f in (min, max)]),
    (LOG, "At 32 epochs it is # to # at decay 0.1", lambda: [across(f, usual(32)) for f in (min, max)]),
    (LOG, "at 64 # [#, #] (dense), # [#, #] (Mixture), # [#, #] (always on)", lambda: [penalty(a, 0.1) for a in ARMS]),
    (LOG, "Ni's order: by # [#, #] against the dense model", lambda: [stop(DENSE)]),
    (LOG, "and # [#, #] against the always-on one at decay 0.1", lambda: [stop(TOTAL)]),
    (LOG, "length it is # [#, #] to the dense model", lambda: [half_way(DENSE)]),
    (LOG, "# [#, #] to the always-on one (# seeds); its advantage", lambda: [half_way(TOTAL), half_way(TOTAL).seeds]),
    (LOG, "at 1 none is above #", lambda: [max(penalty(arm, 1.0).value for arm in ARMS)]),
    (LOG, "decay 1 costs # (dense), # (Mixture) and # (always on)", lambda: [cost(arm) for arm in ARMS]),
    (LOG, "each arm pays # or more at any decay", lambda: [least_above_best_fresh()]),
    (LOG, "rate 0.01 the best decay under 64 epochs is # for all three", lambda: [best_decays()]),
    (LOG, "and the Mixture # [#, #] behind the dense model", lambda: [gap(MOE, DENSE, ends(0.6, U))]),
    (LOG, "fresh # and #, # and #, # and #;", lambda: recipes(FRESH)),
    (LOG, "; under 64 epochs # and #, # and #, # and #; with sharper", lambda: recipes(U)),
    (LOG, "dense and Mixture fresh # and #, under 64", lambda: recipes(FRESH, (DENSE, MOE), **SHARP)[:2]),
    (LOG, "under 64 epochs # and #, # and #). One seed", lambda: recipes(U, (DENSE, MOE), **SHARP)),
    _recipe("fresh, each its own, attention 1", lambda: of(tuned(**SHARP), unique_tokens=FRESH)),
    _recipe("64 epochs, each its own, attention 1", lambda: of(tuned(**SHARP), unique_tokens=U)),
    _recipe("fresh, each its own", lambda: of(tuned(), unique_tokens=FRESH)),
    _recipe("64 epochs, each its own", lambda: of(tuned(), unique_tokens=U)),
    _recipe("fresh, rate 0.02, decay 0.03", lambda: common(FRESH)),
    _recipe("64 epochs, rate 0.04, decay 0.2", lambda: common(U)),
    _recipe("fresh, the same, attention 1", lambda: common(FRESH, **SHARP)),
    _recipe("64 epochs, the same, attention 1", lambda: common(U, **SHARP)),
    _recipe("fresh, the same, attention 1, d 64", lambda: common(FRESH, **WIDE)),
    _recipe("64 epochs, the same, attention 1, d 64", lambda: common(U, **WIDE)),
    (LOG, "by # [#, #] with recipes of their own and # [#, #] with one", lambda: [tuned_penalty(), common_gap()]),
    (LOG, "(below) by # [#, #] and # [#, #], and", lambda: [tuned_penalty(**SHARP), common_gap(**SHARP)]),
    (LOG, "and by # [#, #] at four times the size", lambda: [common_gap(**WIDE)]),
    (
        LOG,
        "Mixture is # [#, #] behind after 64 epochs at decay 0.1 and # [#, #] at 0.6.",
        lambda: [at_64(0.1), at_64(0.6)],
    ),
    (LOG, "that is # [#, #] of the way (# seeds)", lambda: _counted(tuned_index())),
    (LOG, "rate 0.01) it is # [#, #] (# seeds)", lambda: _counted(decay_index())),
    (LOG, "penalties are # [#, #] (dense), # [#, #] (Mixture), # [#, #] (always on)", lambda: own_penalties()),
    (
        LOG,
        "To the always-on model it is # [#, #] fresh and # [#, #] after 64 epochs",
        lambda: [tuned_gap(TOTAL, u) for u in (FRESH, U)],
    ),
    (LOG, "one recipe # [#, #] and # [#, #], at three seeds", lambda: _ahead((FRESH, U), TOTAL, **SHARP)),
    (LOG, "it is worse by # [#, #]** at decay 1", lambda: [by_load(1.0)]),
    (LOG, "by # [#, #] at 0.6, and makes no difference", lambda: [by_load(0.6)]),
    (LOG, "no difference at 0.3 (# [#, #])", lambda: [by_load(0.3)]),
    (LOG, "what it has seen (# against #)", lambda: seen(1.0)),
    (LOG, "fresh loss is that of #e3 parameters, # [#, #] of the way", lambda: ladder("loss", FRESH)),
    (LOG, "its penalty that of #e3, # [#, #] of the way", lambda: ladder("penalty", U)),
    (LOG, "loss after 64 epochs that of #e3, # [#, #]:", lambda: ladder("loss", U)),
    (LOG, "with a loss of # on what it has seen, pays #;", lambda: fit_and_damage(MOE)),
    (LOG, "four times as wide, has # and pays #.", lambda: fit_and_damage("dense x4")),
    (LOG, "as averaged weights do (the Mixture # for #)", lambda: real_decay(FRESH)),
    (LOG, "hide part of the damage (# for # after 64 epochs", lambda: real_decay(U)),
    (LOG, "then # [#, #] (dense) and # [#, #] (Mixture), and", lambda: [of_decay(0.2, arm) for arm in (DENSE, MOE)]),
    (LOG, "the Mixture pays # [#, #] more, for # [#, #] here", lambda: [paid_more(0.2), paid_more(0.0)]),
    (LOG, "the Mixture is # [#, #] ahead of the dense model after", lambda: [facts_gap(DENSE, MOE, 0.3, U)]),
    (LOG, "(fresh at 0.1: # [#, #])", lambda: [facts_gap(DENSE, MOE, 0.1, FRESH)]),
    (LOG, "and # [#, #] behind the always-on one: on facts about", lambda: [facts_gap(MOE, TOTAL, 0.3, U)]),
    *(_facts(*where) for where in LINES),
    (
        LOG,
        "At decay 0.1 penalties are # [#, #], # [#, #], # [#, #]:",
        lambda: [penalty(arm, 0.1, "synthetic") for arm in ARMS],
    ),
    (LOG, "# of each arm at 16 epochs", lambda: [across(np.mean, usual(16, "synthetic"))]),
    (LOG, "level with the dense model (# [#, #])", lambda: [stop(DENSE, table="synthetic")]),
    (LOG, "and # [#, #] behind the always-on one: on facts the order", lambda: [stop(TOTAL, table="synthetic")]),
    (FINDING, "# of the way (90 % # to #, # seeds)", lambda: _counted(index(0.1))),
    (FINDING, "alone tuned it is # (# to #, # seeds) of", lambda: _counted(decay_index())),
    (FINDING, "tuned for each # (# to #, # seeds). Most", lambda: _counted(tuned_index())),
    (
        FINDING,
        "# nat/byte for 64 passes become # (# to #, # seeds)",
        lambda: [paid_more(0.0).value, *_counted(tuned_penalty())],
    ),
    (
        FINDING,
        "more seed it is # better (# to #) fresh",
        lambda: [gap(DENSE, MOE, of(tuned(), unique_tokens=FRESH), at=ANY_RECIPE)],
    ),
    (FINDING, "fresh and # worse (# to #) repeated; with", lambda: [tuned_gap(DENSE, U)]),
    (FINDING, "better for it, # better (# to #) and", lambda: [gap(DENSE, MOE, common(FRESH), at=ANY_RECIPE)]),
    (FINDING, "and # worse (# to #). With sharper", lambda: [gap(MOE, DENSE, common(U), at=ANY_RECIPE)]),
    (
        FINDING,
        "these four are # better (# to #), # worse (# to #), # better and # worse (# to #).",
        lambda: _four_sharp(),
    ),
    (FINDING, "it is # worse fresh (# to #) and # worse repeated (# to #).", lambda: _ahead((FRESH, U), **WIDE)),
    (FINDING, "passes cost at most # at any decay", lambda: [across(max, few())]),
    (
        FINDING,
        "the Mixture is # nat/byte better than the dense model (# to #)",
        lambda: [gap(DENSE, MOE, usual_fresh())],
    ),
    (FINDING, "fresh and # worse after 64 passes; at decay", lambda: [gap(MOE, DENSE, ends(0.1, U)).value]),
    (FINDING, "best of four there, # worse (# to #, # seeds)", lambda: _counted(gap(MOE, DENSE, ends(0.6, U)))),
    (FINDING, "Mixture is # better fresh", lambda: [gap(DENSE, MOE, ends(0.1, FRESH, "synthetic")).value]),
    (FINDING, "at decay 0.1, # worse (# to #) after 64 passes", lambda: [gap(MOE, DENSE, ends(0.1, U, "synthetic"))]),
    (FINDING, "after 64 passes, # of the way (# to #)", lambda: [index(0.1, "synthetic")]),
    (FINDING, "at decay 0.3 it is # better", lambda: [gap(DENSE, MOE, ends(0.3, U, "synthetic")).value]),
    (FINDING, "fresh loss of # of the way and the penalty of #", lambda: [share("loss", FRESH), share("penalty", U)]),
    (FINDING, "At decay 0.3 the interval (# to #)", lambda: [*index(0.3)[1:3]]),
    (FINDING, "single seeds lie from # to #", lambda: [*of_single_seeds(32)]),
    (FINDING, "# is in nat, in log penalties it is #", lambda: [index(0.1).value, index_of_logs()]),
    (DATA, "from active to total (#, 90 % # to #)", lambda: [index(0.1)]),
    (DATA, "the index is # (# to #), and the Mixture pays # (# to #)", lambda: [tuned_index(), tuned_penalty()]),
)


def few() -> Any:
    return paid(last=False).query("epochs <= 16")


def usual(epochs: int, table: str = "text") -> Any:
    return of(paid(table, last=False), epochs=epochs, weight_decay=0.1)


def usual_fresh() -> Any:
    return ends(0.1, FRESH)


def cost(arm: str) -> float:
    """What decay 1 costs on fresh data, of the seeds that have both."""
    both = of(compared.last(rows()), unique_tokens=FRESH, arm=arm).pivot_table("loss", "seed", "weight_decay")
    return (both[1.0] - both[0.1]).mean()


def _counted(value: Interval | None) -> list[Any]:
    return [value, value.seeds if value else np.nan]


def told(values: Any) -> list[Any]:
    """Numbers and texts in the order of a sentence: an Interval is its mean and its ends, one that is not there NaN."""
    parts = (
        [np.nan] * 3 if value is None else value[:3] if isinstance(value, Interval) else [value] for value in values
    )
    return [each for part in parts for each in part]


def styled(value: Any, like: str) -> str:
    """A value in the style of another number: its digits, its sign and whether a zero stands before the point."""
    if isinstance(value, str):
        return value
    if like in WORDS:
        return WORDS[int(value)]
    text = f"{value:{'+' if like[0] in '+-' else ''}.{len(like.partition('.')[2])}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and re.match(r"[+-]?\.", like) else text


def mended(text: str, sentence: str, values: Any) -> list[tuple[str, str]]:
    """(how it stands, how it should) wherever the sentence is found."""
    marks = {"#": _NUMBER, "@": r"([^|\n]*)"}
    parts = re.split(r"([#@])", sentence)
    pattern = "".join(marks.get(part) or re.sub(r"(\\ )+", r"\\s+", re.escape(part)) for part in parts)
    return [(match[0], _filled(match, told(values))) for match in re.finditer(pattern, text)]


def _filled(match: re.Match[str], values: list[Any]) -> str:
    if len(values) != len(match.groups()):
        raise ValueError(f"{match[0]!r} has {len(match.groups())} numbers; its row of SAID gives {len(values)}")
    text = match[0]
    for group in range(len(values), 0, -1):
        start, end = (place - match.start() for place in match.span(group))
        text = text[:start] + styled(values[group - 1], match[group]) + text[end:]
    return text


def unheld(text: str, held: list[str]) -> list[str]:
    """Lines of the small models in which a number with a point is in no sentence of SAID."""
    for sentence in held:
        text = text.replace(sentence, re.sub(r"\d", "", sentence))
    part = text.partition("(lab)=")[2] or text.partition("## The simulator")[0]
    return [line.strip() for line in part.splitlines() if re.search(r"\d*\.\d", line)]


def main() -> int:
    texts = {file: (ROOT / file).read_text() for file in (LOG, FINDING, DATA)}
    held: dict[str, list[str]] = {file: [] for file in texts}
    missing = 0
    for file, sentence, values in SAID:
        found = mended(texts[file], sentence, values())
        for old, new in found[:1]:
            held[file].append(new)
            if old != new:
                print(f"{file}\n  was {old}\n  now {new}")
            if "nan" not in new:
                texts[file] = texts[file].replace(old, new)
        if len(found) != 1 or "nan" in found[0][1]:
            missing += 1
            print(f"{file}: to be said in other words, and in SAID ({len(found)} such sentences): {sentence}")
    for file, text in texts.items():
        (ROOT / file).write_text(text)
    for file in (LOG, FINDING):
        print(f"{file}, numbers that no row of SAID holds:", *unheld(texts[file], held[file]), sep="\n  ")
    return missing > 0


if __name__ == "__main__":
    sys.exit(main())
