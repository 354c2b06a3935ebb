"""The figures of `moesim lab`: loss against epochs, what repetition costs by parameters, and loads by domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.lab.compared import (
    LATER,
    SETTING,
    Frame,
    Interval,
    excess_index,
    frame,
    last,
    mean,
    penalties,
    reported,
    trios,
)
from moesim.lab.tables import in_words, named, told_by
from moesim.output.plots import (
    COLOURS,
    DASHES,
    colours_of,
    finish,
    fixed_ticks,
    grid_of_panels,
    label,
    line_entry,
    panels_for,
    titled,
)
from moesim.output.text import count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_CHECKED = ("learning_rate", *LATER)  # figures show the most usual of each, the table all
_FAMILY = ["corpus", "hash", "d_model", "layers"]
_KIND = ["d_model", "layers", "unique_tokens"]
_MARKERS = "os^Dv<>ph*"
_MOST = (-0.5, 2.0)  # of the excess index that is shown: bars may be long


def draw(runs: xr.Dataset, loads: xr.Dataset | None = None) -> dict[str, Figure]:
    """Every figure that the runs, and the loads of their experts, have the means for, by file name."""
    rows, said = _usual(reported(frame(runs)))
    paid = last(penalties(rows))
    drawn = {"losses": losses(rows, said)}
    if len(paid):
        drawn["penalty"] = penalty(paid, said)
    if len(indices := _indices(rows, paid)):
        drawn["excess"] = excess(indices, paid, said)
    if loads is not None and loads.sizes:
        drawn["loads"] = loads_by_time(loads)
    return drawn


def _usual(rows: Frame) -> tuple[Frame, str]:
    """The rows of what most have, where others are there to check it, and a note on it and on what all have."""
    kept = rows
    for name in _CHECKED:
        kept = kept[kept[name] == kept[name].mode()[0]]
    alike = [name for name in (*_FAMILY[:1], *_FAMILY[2:], "learning_rate") if kept[name].nunique() == 1]
    left = rows.trajectory.nunique() - kept.trajectory.nunique()
    others = f"; {left} runs of another {', '.join(_varied(rows, _CHECKED))} are in the table" if left else ""
    return kept, in_words(alike, kept.iloc[0]) + others


def _varied(rows: Frame, names: Sequence[str]) -> list[str]:
    return [name.replace("_", " ") for name in names if rows[name].nunique() > 1]


_TITLED = {
    "corpus": str,
    "hash": lambda value: f"text {value[:6]}",
    "d_model": lambda value: f"d {value:g}",
    "layers": lambda value: f"{value:g} layers",
    "unique_tokens": lambda value: f"{count(value)} unique" if np.isfinite(value) else "fresh",
    "weight_decay": lambda value: f"decay {plain(value)}",
}


def _title(at: Any, whole: Frame, *names: str) -> str:
    """A setting in a few words: `names`, and before them what is not the same in all rows of their family."""
    shown = (*[name for name in told_by(whole) if name in _FAMILY], *names)
    return ", ".join(_TITLED[name](at[name]) for name in _TITLED if name in shown)


def losses(rows: Frame, said: str = "") -> Figure:
    """Loss against bytes trained on, a panel for each pool and weight decay, fresh data dashed in each."""
    colour, own = _colours(rows), [*_FAMILY, "weight_decay", "arm"]
    pools = list(rows[np.isfinite(rows.pool)].groupby([*_FAMILY, "pool", "weight_decay"]))
    pools = pools or list(rows.groupby([*_FAMILY, "pool", "weight_decay"]))
    figure, panels = panels_for(len(pools), (2.9, 2.2), sharey=rows.corpus.nunique() == 1)
    for axes, (_, group) in zip(panels, pools, strict=True):
        fresh = rows[np.isinf(rows.pool)].merge(group[own].drop_duplicates())
        _curves(axes, fresh[fresh.tokens >= group.tokens.min()], colour, ls="--", lw=0.9)
        if np.isfinite(group.pool.iloc[0]):
            _curves(axes, group, colour)
        axes.set_xscale("log")
        at = group.iloc[0].to_dict() | {"unique_tokens": group.pool.iloc[0]}
        titled(axes, _title(at, rows, "unique_tokens", "weight_decay"))
    label(figure, "bytes trained on", "loss on new text (nat/byte)")
    named = {arm: line_entry(color=shade) for arm, shade in colour.items()}
    note = f"{said}. Line: mean over seeds; dots: each seed; dashed: fresh data of the same decay"
    return finish(figure, "Small models on finite data: loss while training", note, legend=named)


def _curves(axes: Axes, rows: Frame, colour: dict[str, str], **style: Any) -> None:
    for arm, own in rows.groupby("arm"):
        middle = own.groupby("tokens").loss.mean()
        axes.plot(middle.index, middle, color=colour[str(arm)], **style)
        axes.plot(own.tokens, own.loss, ".", ms=3, color=colour[str(arm)], alpha=0.5)


def penalty(paid: Frame, said: str = "") -> Figure:
    """What repetition costs at the end, by weight decay: against parameters for each unique byte, and what was fitted.

    Dense models of one pool are joined: on the left a Mixture of Experts lies on their line if active parameters are
    what is in excess, in the middle if all are, on the right if damage goes with how well the seen data are fitted.
    """
    colour = _colours(paid)
    kinds = list(paid.groupby(_KIND).groups)
    marker = dict(zip(kinds, _MARKERS * len(kinds), strict=False))
    groups = list(paid.groupby(["corpus", "hash", "weight_decay"]))
    per_byte = {f"{said} parameters for each unique byte": f"{said}_params" for said in ("active", "total")}
    figure, panels = grid_of_panels(len(groups), 3, (3.2, 1.9), sharey="row", sharex="col")
    for row, (_, group) in zip(panels, groups, strict=True):
        for axes, size in zip(row, per_byte.values(), strict=False):
            _paid_by(axes, group.assign(x=group[size] / group.unique_tokens), colour, marker, aside=4.0)
            axes.set_xscale("log")
        _paid_by(row[-1], group.assign(x=group.loss_seen), colour, marker)
        for axes in row:
            titled(axes, _title(group.iloc[0], paid.assign(d_model=0, layers=0), "weight_decay"))
        row[0].set_ylabel("penalty (nat/byte)")
    for axes, text in zip(panels[-1], (*per_byte, "loss on seen data (nat/byte)"), strict=True):
        axes.set_xlabel(text)
    note = f"{said}. Penalty: loss above that of as much fresh data; bars: 90 % over seeds; lines: dense models; "
    note += "Mixtures a little to the right of their sizes"
    return finish(figure, "What repetition costs, by what may be in excess", note, legend=_legend(paid, colour, marker))


def _legend(paid: Frame, colour: dict[str, str], marker: dict[Any, str]) -> dict[str, Any]:
    """An entry for each arm and, where there are several, for each pool and size."""
    arms = {arm: line_entry(color=shade, marker="o", ls="") for arm, shade in colour.items()}
    alike = paid.assign(corpus="", hash="")
    kinds = {
        _title(dict(zip(_KIND, kind, strict=True)), alike, "unique_tokens"): line_entry(color="0.4", marker=sign, ls="")
        for kind, sign in marker.items()
    }
    return arms | (kinds if len(kinds) > 1 else {})


def _paid_by(axes: Axes, rows: Frame, colour: dict[str, str], marker: dict[Any, str], aside: float = 0.0) -> None:
    """Means over the seeds of each arm; only seeds of one pool and size are averaged.

    Mixtures stand `aside` by so many points, so that they do not hide the dense model of the same size.
    """
    from matplotlib.transforms import offset_copy

    shifted = offset_copy(axes.transData, axes.figure, x=aside, units="points")  # pyright: ignore[reportArgumentType]
    for kind, group in rows.groupby(_KIND):
        dense = group[group.experts == 1].groupby("total_params")[["x", "penalty"]].mean()
        axes.plot(dense.x, dense.penalty, color="0.6", lw=0.9)
        for arm, own in group.groupby("arm"):
            place = {"transform": shifted} if own.experts.iloc[0] > 1 else {}
            x, value = own.x.mean(), mean(own.penalty)
            _bar(axes, x, value, colour[str(arm)], fmt=marker[kind], **place)
            axes.update_datalim([(x, end) for end in value[:3] if np.isfinite(end)])  # what is shifted has no say in it
    axes.autoscale_view()


def _bar(axes: Axes, x: Any, value: Interval, colour: str, **style: Any) -> None:
    ends = np.nan_to_num([[value.value - value.low], [value.high - value.value]])
    axes.errorbar([x], [value.value], ends, **{"fmt": "o", "ms": 4, "lw": 1, "capsize": 2, "color": colour} | style)


def _indices(rows: Frame, paid: Frame) -> list[tuple[dict[str, Any], str, Interval]]:
    """(setting, arm, excess index) wherever it is identified."""
    found = []
    for moe, dense, total in trios(rows):
        for setting, value in excess_index(paid, moe, dense, total).items():
            found.append((named(SETTING, setting), moe, value))
    return found


def excess(indices: list[tuple[dict[str, Any], str, Interval]], rows: Frame, said: str = "") -> Figure:
    """The excess index by weight decay: 0 where active parameters are in excess, 1 where all are."""
    labels = [f"{moe}, {_title(at, rows, 'unique_tokens')}" for at, moe, _ in indices]
    series = list(dict.fromkeys(labels))
    colour = colours_of(series)
    figure, panels = grid_of_panels(1, 1, (5.0, 2.6))
    axes = panels[0][0]
    for text, (at, _, value) in zip(labels, indices, strict=True):
        aside = 1.06 ** (series.index(text) - (len(series) - 1) / 2)  # so that bars of one decay do not hide each other
        _bar(axes, at["weight_decay"] * aside, value, colour[text], label=text)
    for level, which in ((0.0, "active"), (1.0, "all")):
        axes.axhline(level, color="0.6", lw=0.9, ls="--")
        axes.annotate(which, (1.0, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axes.set_xscale("log")
    fixed_ticks(axes.xaxis, sorted({at["weight_decay"] for at, _, _ in indices}))
    axes.set_xlim(axes.get_xlim()[0] / 1.2, axes.get_xlim()[1] * 1.2)
    axes.set_ylim(*np.clip(axes.get_ylim(), *_MOST))
    label(figure, "weight decay", "excess index")
    note = f"{said}. (penalty of the Mixture - dense) / (always-on - dense), 90 %, where it is not noise"
    return finish(figure, "Which parameters are in excess", note)


def _colours(rows: Frame) -> dict[str, str]:
    return colours_of(sorted(set(rows.arm)))


def loads_by_time(loads: xr.Dataset) -> Figure:
    """Share of each expert over steps, a row for each way of balancing, of the first trajectory of each."""
    kinds = list(zip(loads.arm.values.tolist(), loads.balancing.values.tolist(), strict=True))
    firsts = [loads.isel(trajectory=kinds.index(kind)) for kind in dict.fromkeys(kinds)]
    figure, panels = grid_of_panels(len(firsts), loads.sizes["layer"], sharex=True, sharey=True)
    for row, first in zip(panels, firsts, strict=True):
        share = first.loads.sum("domain") / first.loads.sum(("domain", "expert"))
        for layer, axes in enumerate(row):
            for expert in range(share.sizes["expert"]):
                style: Any = {"color": COLOURS[expert % 8], "ls": DASHES[expert // 8 % 6], "lw": 1}
                axes.plot(share.window_step, share.isel(layer=layer, expert=expert), **style)
            axes.axhline(1 / np.isfinite(first.loads[0, 0, 0]).sum().item(), color="0.6", lw=0.9, ls=":")
            axes.set_xscale("log")
            titled(axes, f"{first.arm.item()}, {first.balancing.item()}, layer {layer + 1}")
    label(figure, "step", "share of the assignments")
    told = dict.fromkeys(f"seed {one.seed.item():g}, decay {plain(one.weight_decay.item())}" for one in firsts)
    note = f"the first run of each kind ({'; '.join(told)}); a line an expert; dotted: even loads"
    return finish(figure, "Loads of the experts while training", note, legend={})
