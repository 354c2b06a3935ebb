"""What `moesim lab` prints: losses of the arms side by side, what repetition cost each, and paired differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.lab.compared import Frame, differences, excess_index, frame, penalties
from moesim.output.text import aligned, count, plain

if TYPE_CHECKING:
    import xarray as xr


def table(runs: xr.Dataset) -> str:
    """Losses at the last mark of each corpus, pool and decay by arm; then penalties and differences of pairs."""
    rows = frame(runs)
    last = rows[rows.tokens == rows.tokens.max()]
    parts = [_heading(rows), "loss, nat/token", _by_arm(last, "loss")]
    repeated = penalties(runs)
    repeated = repeated[repeated.tokens == repeated.tokens.max()]
    if len(repeated):
        parts += ["penalty: loss above that of fresh data, nat/token", _by_arm(repeated, "penalty")]
    for moe, dense, total in trios(rows):
        parts += [f"{moe} against {dense} (equal active size) and {total} (equal total size), paired by seed"]
        parts += [_pairs(last, repeated, moe, dense, total)]
    return "\n".join(parts)


def trios(rows: Frame) -> list[tuple[str, str, str]]:
    """(Mixture of Experts, dense model of its active size, dense model of its total size) among the arms."""
    found = []
    for moe, group in rows[rows.experts > 1].groupby("arm", sort=False):
        wide = f"dense x{group.experts.iloc[0] // group.active_experts.iloc[0]}"
        if {"dense", wide} <= {*rows.arm}:
            found.append((str(moe), "dense", wide))
    return found


def _heading(rows: Frame) -> str:
    tokens, corpora = count(rows.tokens.max()), ", ".join(sorted(set(rows.corpus)))
    return (
        f"{rows.trajectory.nunique()} runs of small models on {corpora}, {rows.seed.nunique()} seeds, to {tokens} bytes"
        "; 90 % t intervals over seeds\nsmall models, bytes: signs and sizes of differences, not for planning"
    )


def _by_arm(rows: Frame, column: str) -> str:
    """A line for each corpus, pool and decay, a column for each arm: the mean over seeds."""
    arms = list(dict.fromkeys(rows.arm))
    cells = rows.pivot_table(column, index=["corpus", "unique_tokens", "weight_decay"], columns="arm", aggfunc="mean")
    lines = [("corpus", "unique", "epochs", "decay", *arms)]
    for (corpus, unique, decay), row in cells.iterrows():
        passes = rows.tokens.max() / unique
        lines.append(
            (corpus, count(unique), f"{passes:.3g}", plain(decay), *(_cell(row.get(arm, np.nan)) for arm in arms))
        )
    return aligned(lines, 2)


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def _pairs(last: Frame, repeated: Frame, moe: str, dense: str, total: str) -> str:
    by_dense, by_total = (differences(last, moe, other) for other in (dense, total))
    index = excess_index(repeated, moe, dense, total) if len(repeated) else {}
    lines = [("corpus", "unique", "decay", f"less {dense}", f"less {total}", "excess index")]
    for setting, value in by_dense.items():
        corpus, _, _, _, _, unique, decay = setting
        found = index.get(setting)
        lines.append(
            (corpus, count(unique), plain(decay), str(value), str(by_total[setting]), str(found) if found else "noise")
        )
    return aligned(lines, 2)
