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

from moesim import load_runs
from moesim.lab import compared
from moesim.lab.compared import ANY_RECIPE, ANY_STOP, BY_LOAD, LATER, Interval

ROOT = Path(__file__).resolve().parent.parent
LOG, FINDING, DATA = "docs/log.md", "docs/findings/small_models.md", "docs/findings/finite_data.md"
U, FRESH = 2**15, 2**21
ARMS = DENSE, MOE, TOTAL = "dense", "moe 8", "dense x8"
SMALL = {"d_model": 32, **LATER}
WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_NUMBER = rf"([+-]?(?:\d+(?:\.\d+)?|\.\d+)|\b(?:{'|'.join(WORDS)})\b)"


@cache
def rows(table: str = "text", rate: Any = 0.01) -> Any:
    """Rows of the three arms on one amount of data and none: what the docs speak of; all rates, and seeds, for None."""
    whole = compared.frame(load_runs(f"lab_{table}"))
    whole = whole[whole.pool.isin([U, np.inf]) & whole.arm.str.removesuffix(BY_LOAD).isin(ARMS)]
    for name, value in SMALL.items():
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
def tuned() -> Any:
    """Rows at the recipe that is best on the seed that is in no mean, or of those that other seeds have."""
    return compared.tuned(compared.last(rows(rate=None)))


def tuned_gap(other: str, unique: int) -> Interval:
    return gap(MOE, other, of(tuned(), unique_tokens=unique), at=ANY_RECIPE)


def recipe(arm: str, unique: int) -> tuple[float, float]:
    """The learning rate and the weight decay that were chosen for an arm."""
    own = of(tuned(), unique_tokens=unique, arm=arm)
    return own.learning_rate.iloc[0], own.weight_decay.iloc[0]


def tuned_decay(unique: int) -> float:
    """The decay that was chosen, if it is the same for the three arms and the rate is the usual one, else NaN."""
    recipes = {recipe(arm, unique) for arm in ARMS}
    return next((decay for rate, decay in recipes if rate == 0.01 and len(recipes) == 1), np.nan)


def tuned_penalty(other: str) -> Interval:
    return gap(MOE, other, compared.penalties(tuned(), ANY_RECIPE), "penalty", ANY_RECIPE)


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


def line(decay: float, unique: int, table: str = "text") -> list[Any]:
    """Cells of a line of the tables: losses, differences, and the index as the docs write it."""
    own = ends(decay, unique, table)
    gaps = [gap(MOE, other, own) for other in (DENSE, TOTAL)]
    found = index(decay, table) if unique == U else None
    measured = unique == U and {*ARMS} <= {*of(paid(table), weight_decay=decay).arm}
    told = f" {found:.2f} ".replace("0.", ".") if found else " noise " if measured else "  "
    seeds = f" {', '.join(dict.fromkeys(str(each.seeds) for each in gaps))} "
    return [seeds, *(own[own.arm == arm].loss.mean() for arm in ARMS), *gaps, told]


_LINE = "| # | # | # | # [#, #] | # [#, #] |@|"


def _text(decay: float, unique: int, name: str) -> tuple[str, str, Any]:
    return LOG, f"| {name} |@{_LINE}", partial(line, decay, unique)


def _facts(unique: int, name: str) -> tuple[str, str, Any]:
    return LOG, f"| {name} {_LINE}", lambda: line(0.1, unique, "synthetic")[1:]


SAID = (
    _text(0.1, FRESH, "fresh, decay 0.1"),
    _text(0.3, FRESH, "fresh, 0.3"),
    _text(1.0, FRESH, "fresh, 1"),
    _text(0.1, U, "64 epochs, decay 0.1"),
    _text(0.3, U, "64 epochs, 0.3"),
    _text(0.6, U, "64 epochs, 0.6"),
    _text(1.0, U, "64 epochs, 1"),
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
    (LOG, "model, # [#, #] (# seeds), has become", lambda: _counted(tuned_gap(DENSE, FRESH))),
    (LOG, "has become # [#, #] (# seeds), a change", lambda: _counted(tuned_gap(DENSE, U))),
    (LOG, "a change of # [#, #]: nothing", lambda: [tuned_penalty(DENSE)]),
    (LOG, "To the always-on model it is # [#, #] fresh (# seeds)", lambda: _counted(tuned_gap(TOTAL, FRESH))),
    (LOG, "it is # for each of the three under", lambda: [tuned_decay(U)]),
    (LOG, "(fresh data: #, with", lambda: [tuned_decay(FRESH)]),
    (LOG, "and # [#, #] at # (# seeds;", lambda: [tuned_gap(TOTAL, U), tuned_decay(U), tuned_gap(TOTAL, U).seeds]),
    (LOG, "# [#, #] at decay 1, # seeds): that", lambda: _counted(gap(MOE, TOTAL, ends(1.0, U)))),
    (LOG, "it is worse by # [#, #]** at decay 1", lambda: [by_load(1.0)]),
    (LOG, "what it has seen (# against #)", lambda: seen(1.0)),
    _facts(FRESH, "fresh"),
    _facts(U, "64 epochs"),
    (LOG, "Penalties are # [#, #], # [#, #], # [#, #]:", lambda: [penalty(arm, 0.1, "synthetic") for arm in ARMS]),
    (LOG, "# of each arm at 16 epochs", lambda: [across(np.mean, usual(16, "synthetic"))]),
    (LOG, "level with the dense model (# [#, #])", lambda: [stop(DENSE, table="synthetic")]),
    (LOG, "and # [#, #] behind the always-on", lambda: [stop(TOTAL, table="synthetic")]),
    (FINDING, "# of the way (90 % # to #, # seeds)", lambda: _counted(index(0.1))),
    (FINDING, "the Mixture pays # more than the dense model (# to #, # seeds)", lambda: _counted(tuned_penalty(DENSE))),
    (
        FINDING,
        "the Mixture is # nat/byte better than the dense model (# to #)",
        lambda: [gap(DENSE, MOE, usual_fresh())],
    ),
    (FINDING, "after 64 passes # worse at decay 0.1", lambda: [gap(MOE, DENSE, ends(0.1, U)).value]),
    (FINDING, "and # worse (# to #, # seeds) at #", lambda: [*_counted(tuned_gap(DENSE, U)), tuned_decay(U)]),
    (FINDING, "Mixture is # better fresh", lambda: [gap(DENSE, MOE, ends(0.1, FRESH, "synthetic")).value]),
    (FINDING, "and # worse (# to #) after 64 passes", lambda: [gap(MOE, DENSE, ends(0.1, U, "synthetic"))]),
    (FINDING, "after 64 passes, # of the way (# to #)", lambda: [index(0.1, "synthetic")]),
    (FINDING, "there is none (# worse, # to #)", lambda: [half_way(DENSE)]),
    (FINDING, "At decay 0.3 the interval (# to #)", lambda: [*index(0.3)[1:3]]),
    (FINDING, "single seeds lie from # to #", lambda: [*of_single_seeds(32)]),
    (FINDING, "# is in nat, in log penalties it is #", lambda: [index(0.1).value, index_of_logs()]),
    (DATA, "from active to total (#, 90 % # to #)", lambda: [index(0.1)]),
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
