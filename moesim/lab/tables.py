"""What `moesim lab` prints: losses of the arms side by side, what repetition cost each, and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moesim.lab.compared import (
    ANY_DECAY,
    ANY_STOP,
    BY_LOAD,
    SETTING,
    TRIAL,
    Frame,
    differences,
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
_CELL = ["corpus", "unique_tokens", "epochs", "learning_rate", "weight_decay"]
_HEAD = ("corpus", "unique", "epochs", "rate", "decay")


def table(runs: xr.Dataset) -> str:
    """Losses at the last mark by corpus, pool and decay; penalties at every mark; differences of pairs, and tuned."""
    whole = frame(runs).assign(epochs=lambda rows: rows.tokens / rows.unique_tokens)
    rows = reported(whole)
    parts = [_heading(rows), "loss, nat/byte", _by_arm(last(rows), "loss")]
    repeated = penalties(rows)
    if len(repeated):
        parts += ["penalty: loss above that of fresh data, nat/byte", _by_arm(repeated, "penalty")]
    for moe, dense, total in trios(rows):
        parts += [f"{moe} against {dense} (equal active size) and {total} (equal total size), paired by seed"]
        parts += [_pairs(last(rows), last(repeated), moe, dense, total)]
        if {moe, dense, total} <= {*(best := stopped(rows)).arm}:
            parts += ["repeated data, each stopped where its loss is lowest", _stops(best, moe, dense, total)]
    parts += _by_load(last(rows), SETTING)
    if len(rows) < len(whole) and len(best := last(tuned(whole))):
        parts += _tuned(best)
    return "\n".join(parts)


def _heading(rows: Frame) -> str:
    tokens, corpora = count(rows.tokens.max()), ", ".join(sorted(set(rows.corpus)))
    return (
        f"{rows.trajectory.nunique()} runs of small models on {corpora}, {rows.seed.nunique()} seeds, to {tokens} bytes"
        "; 90 % t intervals over seeds\nsmall models, bytes: signs and sizes of differences, not for planning"
    )


def _by_arm(rows: Frame, column: str) -> str:
    """A line for each corpus, pool, mark and decay, a column for each arm: the mean over seeds and its interval."""
    arms = list(dict.fromkeys(rows.arm))
    lines: list[Row] = [(*_HEAD, *arms)]
    for (corpus, unique, passes, rate, decay), group in rows.groupby(_CELL):
        by_arm = group.groupby("arm")[column].apply(mean)
        cells = (f"{by_arm[arm]:.3f}" if arm in by_arm else "-" for arm in arms)
        lines.append((str(corpus), count(unique), f"{passes:.3g}", plain(rate), plain(decay), *cells))
    return aligned(lines, 2)


def _pairs(last: Frame, repeated: Frame, moe: str, dense: str, total: str) -> str:
    by_dense, by_total = (differences(last, moe, other) for other in (dense, total))
    index = excess_index(repeated, moe, dense, total) if len(repeated) else {}
    lines: list[Row] = [(*_PAIRED, f"less {dense}", f"less {total}", "excess index")]
    for setting, value in by_dense.items():
        told = (*_told(SETTING, setting), str(value), str(by_total.get(setting, "-")))
        lines.append((*told, str(index.get(setting, "noise"))))
    return aligned(lines, 2)


def _stops(best: Frame, moe: str, dense: str, total: str) -> str:
    by_dense, by_total = (differences(best, moe, other, at=ANY_STOP) for other in (dense, total))
    lines: list[Row] = [(*_PAIRED, f"less {dense}", f"less {total}")]
    lines += [(*_told(ANY_STOP, at), str(v), str(by_total.get(at, "-"))) for at, v in by_dense.items()]
    return aligned(lines, 2)


_PAIRED = ("corpus", "unique", "rate", "decay")


def _told(names: Sequence[str], setting: Sequence[Any]) -> Row:
    at = dict(zip(names, setting, strict=True))
    return at["corpus"], count(at["unique_tokens"]), plain(at["learning_rate"]), plain(at["weight_decay"])


def _tuned(rows: Frame) -> list[str]:
    """Each arm, and its fresh runs, with the decay that was best on another seed."""
    parts = [f"each with the decay that is best on seed {TRIAL}, which is in no mean (*: the highest tried)"]
    parts += [_chosen(rows)]
    paid = penalties(rows, ANY_DECAY)
    for moe, *others in trios(rows):
        heads = [f"{what}less {other}" for what in ("", "penalty ") for other in others]
        lines: list[Row] = [("corpus", "unique", moe, *heads)]
        gaps = [differences(rows, moe, other, at=ANY_DECAY) for other in others]
        gaps += (
            [differences(paid, moe, other, "penalty", ANY_DECAY) for other in others]
            if {moe, *others} <= {*paid.arm}
            else []
        )
        for setting, value in gaps[0].items():
            at = dict(zip(ANY_DECAY, setting, strict=True))
            cells = [str(gaps[i].get(setting, "-")) if i < len(gaps) else "-" for i in range(len(heads))]
            lines.append((at["corpus"], count(at["unique_tokens"]), f"{value.seeds} seeds", *cells))
        parts += [aligned(lines, 2)]
    return [*parts, *_by_load(rows, ANY_DECAY)]


def _by_load(rows: Frame, at: Sequence[str]) -> list[str]:
    """What it changes that experts decay in proportion to their load, paired by seed."""
    lines = []
    for arm in sorted({*rows.arm} & {other + BY_LOAD for other in rows.arm}):
        found = differences(rows, arm, arm.removesuffix(BY_LOAD), at=at)
        for setting, value in found.items():
            told = dict(zip(at, setting, strict=True))
            of = f"{count(told['unique_tokens'])} unique, decay {plain(told.get('weight_decay', 'tuned'))}"
            lines.append(f"  {arm} less one decay for all, {of}: {value} ({value.seeds} seeds)")
    return lines


def _chosen(rows: Frame) -> str:
    lines: list[Row] = [("corpus", "unique", "arm", "decay", "loss", "penalty")]
    paid = penalties(rows, ANY_DECAY)
    for (corpus, unique, arm), group in rows.groupby(["corpus", "unique_tokens", "arm"]):
        decay = f"{plain(group.weight_decay.iloc[0])}{'*' if group.highest.any() else ''}"
        own = paid[(paid.corpus == corpus) & (paid.unique_tokens == unique) & (paid.arm == arm)]
        cost = f"{mean(own.penalty):.3f}" if len(own) else "-"
        lines.append((str(corpus), count(unique), str(arm), decay, f"{mean(group.loss):.3f}", cost))
    return aligned(lines, 2)
