"""What `moesim lab` prints: losses of the arms side by side, what repetition cost each, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.lab.compared import (
    ANY_RECIPE,
    ANY_STOP,
    BY_LOAD,
    SETTING,
    TRIAL,
    Frame,
    Interval,
    chosen,
    differences,
    equivalents,
    excess_index,
    frame,
    last,
    mean,
    penalties,
    reported,
    stopped,
    trios,
    tuned,
)
from moesim.output.text import aligned, count, plain

if TYPE_CHECKING:
    import xarray as xr

Row = Sequence[str]
_WORDS = {
    "corpus": ("corpus", str),
    "hash": ("text", str),
    "d_model": ("d", plain),
    "layers": ("layers", plain),
    "batch": ("batch", plain),
    "cooldown": ("cooldown", plain),
    "attention_scale": ("attention", plain),
    "decay_embedding": ("embedding decays", plain),
    "unique_tokens": ("unique", count),
    "learning_rate": ("rate", plain),
    "weight_decay": ("decay", plain),
    "epochs": ("epochs", "{:.3g}".format),
}
"""Head and style of what a line is told by, outermost first."""
_ALWAYS = ("unique_tokens", "weight_decay", "epochs")


def table(runs: xr.Dataset) -> str:
    """Losses at the last mark by setting; penalties at every mark; differences of pairs, and tuned; equivalent sizes.

    A line is one setting. What is the same in all of them stands in the heading.
    """
    whole = frame(runs)
    whole = whole.assign(epochs=whole.tokens / whole.unique_tokens)
    rows, told = reported(whole), told_by(whole)
    ends, repeated = last(rows), penalties(rows)
    parts = [_heading(rows, told), "loss, nat/byte", _by_arm(ends, "loss", told)]
    if len(repeated):
        parts += ["penalty: loss above that of fresh data, nat/byte", _by_arm(repeated, "penalty", told)]
    for moe, dense, total in trios(rows):
        parts += [f"{moe} against {dense} (equal active size) and {total} (equal total size), paired by seed"]
        parts += [_pairs(ends, last(repeated), (moe, dense, total), told)]
        if {moe, dense, total} <= {*(best := stopped(rows)).arm}:
            parts += ["repeated data, each stopped where its loss is lowest"]
            parts += [_stops(best, (moe, dense, total), told)]
    parts += _by_load(ends, SETTING, told)
    parts += _equivalents(ends, last(repeated), told)
    if len(rows) < len(whole):
        parts += _tuned(last(whole), told)
    return "\n".join(parts)


def told_by(rows: Frame) -> list[str]:
    """What a setting needs to be told from the others: what is not the same in all rows."""
    varied = [name for name in _WORDS if name in _ALWAYS or rows[name].nunique() > 1]
    return [name for name in varied if name != "hash" or rows.hash.nunique() > rows.corpus.nunique()]


def in_words(told: Sequence[str], at: Mapping[str, Any]) -> str:
    """A setting in words: 'unique 32.8K, decay 0.1, epochs 64'."""
    return ", ".join(map(" ".join, zip(_heads(told), _cells(told, at), strict=True)))


def _heading(rows: Frame, told: Sequence[str]) -> str:
    tokens, corpora = count(rows.tokens.max()), ", ".join(sorted(set(rows.corpus)))
    alike = (name for name in _WORDS if name not in (*told, "corpus", "hash"))
    same = ", ".join(f"{_WORDS[name][0]} {_WORDS[name][1](rows[name].iloc[0])}" for name in alike)
    seeds = f"{rows.seed.nunique()} seeds" if rows.seed.nunique() > 1 else "one seed (of several come intervals)"
    return (
        f"{rows.trajectory.nunique()} runs of small models on {corpora}, {seeds}, to {tokens} bytes"
        f"; all of {same}\n90 % t intervals over seeds; small models, bytes: signs and sizes of differences, not for "
        "planning"
    )


def _heads(told: Sequence[str]) -> Row:
    return [_WORDS[name][0] for name in told]


def _cells(told: Sequence[str], at: Mapping[str, Any]) -> Row:
    """A setting in the words of its columns; what it leaves open is a dash."""
    return [_WORDS[name][1](at[name]) if name in at else "-" for name in told]


def named(names: Sequence[str], setting: Any) -> dict[str, Any]:
    """A setting by name, with its epochs where it has both sizes of data."""
    at = dict(zip(names, setting, strict=False))
    return at | ({"epochs": at["tokens"] / at["unique_tokens"]} if {"tokens", "unique_tokens"} <= {*at} else {})


def _halved(value: Interval, digits: str = ".3f") -> str:
    half = "" if np.isnan(value.high) else f" ± {value.high - value.value:{digits}}"
    return f"{value.value:{digits}}{half}"


def _by_arm(rows: Frame, column: str, told: Sequence[str]) -> str:
    """A line for each setting and mark, a column for each arm: the mean over seeds and half its interval."""
    arms = list(dict.fromkeys(rows.sort_values("total_params", kind="stable").arm))
    names = [*dict.fromkeys([*_WORDS, *SETTING])]
    lines: list[Row] = [(*_heads(told), *arms)]
    for setting, group in rows.groupby(names):
        by_arm = group.groupby("arm")[column].apply(mean)
        cells = (_halved(by_arm[arm]) if arm in by_arm else "-" for arm in arms)
        lines.append((*_cells(told, named(names, setting)), *cells))
    return aligned(lines, 2)


def _pairs(ends: Frame, repeated: Frame, trio: Sequence[str], told: Sequence[str]) -> str:
    moe, dense, total = trio
    by_dense, by_total = (differences(ends, moe, other) for other in (dense, total))
    index = excess_index(repeated, moe, dense, total) if len(repeated) else {}
    paid = repeated[repeated.arm.isin(trio)].groupby(SETTING).arm.nunique()
    lines: list[Row] = [(*_heads(told), "seeds", f"less {dense}", f"less {total}", "excess index")]
    for setting, value in by_dense.items():
        gaps, there = (value, by_total.get(setting)), paid.get(setting) == len(trio)
        share = f"{index[setting]:.2f}" if setting in index else _no_index(bool(there), value.seeds)
        lines.append((*_cells(told, named(SETTING, setting)), _seeds(gaps), *map(_or_dash, gaps), share))
    return aligned(lines, 2)


def _no_index(there: bool, seeds: int) -> str:
    """Why there is no index: an arm was not run, one seed has no interval, or the difference is noise."""
    if not there:
        return "-"
    return "noise" if seeds > 1 else "one seed"


def _seeds(gaps: Sequence[Interval | None]) -> str:
    """How many seeds stand behind what is in a line."""
    return ", ".join(dict.fromkeys(str(gap.seeds) for gap in gaps if gap))


def _or_dash(gap: Interval | None) -> str:
    return str(gap) if gap else "-"


def _stops(best: Frame, trio: Sequence[str], told: Sequence[str]) -> str:
    moe, dense, total = trio
    by_dense, by_total = (differences(best, moe, other, at=ANY_STOP) for other in (dense, total))
    names = [name for name in told if name != "epochs"]
    lines: list[Row] = [(*_heads(names), "seeds", f"less {dense}", f"less {total}")]
    for setting, value in by_dense.items():
        gaps = (value, by_total.get(setting))
        lines.append((*_cells(names, named(ANY_STOP, setting)), _seeds(gaps), *map(_or_dash, gaps)))
    return aligned(lines, 2)


def _by_load(rows: Frame, at: Sequence[str], told: Sequence[str]) -> list[str]:
    """What it changes that experts decay in proportion to their load, paired by seed."""
    lines: list[Row] = []
    for arm in sorted({*rows.arm} & {other + BY_LOAD for other in rows.arm}):
        found = differences(rows, arm, arm.removesuffix(BY_LOAD), at=at)
        for setting, value in found.items():
            lines.append((*_cells(told, named(at, setting)), arm.removesuffix(BY_LOAD), str(value), str(value.seeds)))
    heads = (*_heads(told), "arm", "difference", "seeds")
    return ["decay by load less one decay for all experts, paired by seed", aligned([heads, *lines], 2)] * bool(lines)


def _equivalents(ends: Frame, repeated: Frame, told: Sequence[str]) -> list[str]:
    """The dense model with the loss, and the one with the penalty, of each Mixture, where there is a ladder."""
    by_loss, by_penalty = equivalents(ends), equivalents(repeated, "penalty")
    lines: list[Row] = [(*_heads(told), "arm", "by", "parameters", "share of the way", "why not")]
    for by, found in (("loss", by_loss), ("penalty", by_penalty)):
        for (*setting, arm), dense in found.items():
            if not dense.reason.startswith("no ladder"):
                size = "-" if dense.reason else count(dense.params.value)
                share = "-" if dense.reason else f"{dense.share:.2f}"
                lines.append((*_cells(told, named(SETTING, setting)), arm, by, size, share, dense.reason))
    said = "the dense model with the same loss, or penalty: its size, and ln(N_eq/N_a)/ln(N/N_a) (0: active, 1: total)"
    return [said, aligned(lines, 2)] * (len(lines) > 1)


def _tuned(rows: Frame, told: Sequence[str]) -> list[str]:
    """Each arm, and its fresh runs, with the recipe that was best on another seed."""
    names = [name for name in told if name not in ("learning_rate", "weight_decay", "epochs")]
    best = tuned(rows)
    paid = penalties(best, ANY_RECIPE)
    parts = [f"each with the rate and decay that are best on seed {TRIAL}, which is in no mean"]
    parts += [_chosen(rows, best, paid, names)]
    for trio in trios(best):
        parts += [_tuned_pairs(best, paid, trio, names)]
    return [*parts, *_by_load(best, ANY_RECIPE, names)]


def _tuned_pairs(best: Frame, paid: Frame, trio: Sequence[str], names: Sequence[str]) -> str:
    moe, *others = trio
    found = [differences(best, moe, other, at=ANY_RECIPE) for other in others]
    if {*trio} <= {*paid.arm}:
        found += [differences(paid, moe, other, "penalty", ANY_RECIPE) for other in others]
    heads = [f"{what}less {other}" for what in ("", "penalty ") for other in others][: len(found)]
    lines: list[Row] = [(*_heads(names), "arm", "seeds", *heads)]
    for setting in found[0].index:
        gaps = [each.get(setting) for each in found]
        lines.append((*_cells(names, named(ANY_RECIPE, setting)), moe, _seeds(gaps), *map(_or_dash, gaps)))
    return aligned(lines, 2)


def _chosen(rows: Frame, best: Frame, paid: Frame, names: Sequence[str]) -> str:
    """A line for each arm and pool: what was chosen, what it gives on the other seeds, and how sure the choice is."""
    cell = [*ANY_RECIPE, "arm"]
    losses = best.groupby(cell).loss.apply(mean)
    costs = paid.groupby(cell).penalty.apply(mean)
    lines: list[Row] = [(*_heads(names), "arm", "rate", "decay", "loss", "penalty", "note")]
    for row in chosen(rows).to_dict("records"):
        key = tuple(row[name] for name in cell)
        means = (_halved(found[key]) if key in found else "-" for found in (losses, costs))
        recipe = (plain(row["learning_rate"]), plain(row["weight_decay"]))
        lines.append((*_cells(names, row), row["arm"], *recipe, *means, row["note"]))
    return aligned(lines, 2)
