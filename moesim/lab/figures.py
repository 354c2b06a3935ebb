"""The figures of `moesim lab`: loss against epochs, what repetition costs by parameters, and loads by domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.lab.compared import (
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
from moesim.output.plots import DASHES, colours_of, finish, grid_of_panels, label, line_entry, panels_for, titled
from moesim.output.text import count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(runs: xr.Dataset, loads: xr.Dataset | None = None) -> dict[str, Figure]:
    """Every figure that the runs, and the loads of their experts, have the means for, by file name."""
    rows = _usual_rate(reported(frame(runs)))
    paid = last(penalties(rows))
    drawn = {"losses": losses(rows)}
    if len(paid):
        drawn["penalty"] = penalty(paid)
    if len(indices := _indices(rows, paid)):
        drawn["excess"] = excess(indices)
    if loads is not None and loads.sizes:
        drawn["loads"] = loads_by_time(loads)
    return drawn


def _usual_rate(rows: Frame) -> Frame:
    """The rows of the learning rate that most have: others are there to check it."""
    return rows[rows.learning_rate == rows.learning_rate.mode()[0]]


def losses(rows: Frame) -> Figure:
    """Loss against bytes trained on, a panel for each pool and weight decay, fresh data dashed in each."""
    colour = _colours(rows)
    pools = list(rows[np.isfinite(rows.pool)].groupby(["corpus", "pool", "weight_decay"]))
    pools = pools or list(rows.groupby(["corpus", "pool", "weight_decay"]))
    figure, panels = panels_for(len(pools), sharey=True)
    for axes, ((corpus, pool, decay), group) in zip(panels, pools, strict=True):
        fresh = rows[(rows.corpus == corpus) & (rows.weight_decay == decay) & np.isinf(rows.pool)]
        _curves(axes, fresh[fresh.tokens >= group.tokens.min()], colour, ls="--", lw=0.9)
        if np.isfinite(pool):
            _curves(axes, group, colour)
        axes.set_xscale("log")
        of = f"{count(pool)} unique bytes" if np.isfinite(pool) else "fresh data"
        titled(axes, f"{corpus}, {of}, decay {plain(decay)}")
    label(figure, "bytes trained on", "loss on new text (nat/byte)")
    named = {arm: line_entry(color=shade) for arm, shade in colour.items()}
    note = "line: mean over seeds; dots: each seed; dashed: fresh data of the same decay"
    return finish(figure, "Small models on finite data: loss while training", note, legend=named)


def _curves(axes: Axes, rows: Frame, colour: dict[str, str], **style: Any) -> None:
    for arm, own in rows.groupby("arm"):
        middle = own.groupby("tokens").loss.mean()
        axes.plot(middle.index, middle, color=colour[str(arm)], **style)
        axes.plot(own.tokens, own.loss, ".", ms=3, color=colour[str(arm)], alpha=0.5)


def penalty(paid: Frame) -> Figure:
    """What repetition costs at the end, against active and total parameters for each unique byte, by weight decay.

    Dense models are joined: on the left a Mixture of Experts lies on their line if active parameters are what is in
    excess, on the right if all are.
    """
    colour = _colours(paid)
    groups = list(paid.groupby(["corpus", "weight_decay"]))
    figure, panels = grid_of_panels(len(groups), 2, (3.2, 1.9), sharey="row", sharex=True)
    for row, ((corpus, decay), group) in zip(panels, groups, strict=True):
        for axes, size in zip(row, ("active_params", "total_params"), strict=True):
            _paid_by_size(axes, group.assign(size=group[size] / group.unique_tokens), colour)
            axes.set_xscale("log")
            titled(axes, f"{corpus}, decay {plain(decay)}")
        row[0].set_ylabel("penalty (nat/byte)")
    for axes, said in zip(panels[-1], ("active", "total"), strict=True):
        axes.set_xlabel(f"{said} parameters for each unique byte")
    note = "penalty: loss above that of as much fresh data; bars: 90 % over seeds; line: dense models"
    return finish(figure, "What repetition costs, by the parameters that may be in excess", note)


def _paid_by_size(axes: Axes, rows: Frame, colour: dict[str, str]) -> None:
    for _, own in rows[rows.experts == 1].groupby("epochs"):
        middle = own.groupby("size").penalty.mean()
        axes.plot(middle.index, middle, color="0.6", lw=0.9)
    for (arm, size), own in rows.groupby(["arm", "size"]):
        _bar(axes, size, mean(own.penalty), colour[str(arm)], label=str(arm))


def _bar(axes: Axes, x: Any, value: Interval, colour: str, **style: Any) -> None:
    ends = np.nan_to_num([[value.value - value.low], [value.high - value.value]])
    axes.errorbar([x], [value.value], ends, fmt="o", ms=4, lw=1, capsize=2, color=colour, **style)


def _indices(rows: Frame, paid: Frame) -> list[tuple[dict[str, Any], str, Interval]]:
    """(setting, arm, excess index) wherever it is identified."""
    found = []
    for moe, dense, total in trios(rows):
        for setting, value in excess_index(paid, moe, dense, total).items():
            found.append((dict(zip(SETTING, setting, strict=True)), moe, value))
    return found


def excess(indices: list[tuple[dict[str, Any], str, Interval]]) -> Figure:
    """The excess index by weight decay: 0 where active parameters are in excess, 1 where all are."""
    series = list(dict.fromkeys((at["corpus"], at["unique_tokens"], moe) for at, moe, _ in indices))
    colour = dict(zip(series, colours_of([str(one) for one in series]).values(), strict=True))
    figure, panels = grid_of_panels(1, 1, (4.0, 2.4))
    axes = panels[0][0]
    for at, moe, value in indices:
        one = (at["corpus"], at["unique_tokens"], moe)
        shift = 1.03 ** series.index(one)  # so that bars of one decay do not hide each other
        _bar(axes, at["weight_decay"] * shift, value, colour[one], label=f"{moe}, {one[0]}, {count(one[1])} unique")
    for level, said in ((0.0, "active"), (1.0, "all")):
        axes.axhline(level, color="0.6", lw=0.9, ls="--")
        axes.annotate(said, (1.0, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axes.set_xscale("log")
    label(figure, "weight decay", "excess index")
    note = "(penalty of the Mixture - dense) / (always-on - dense), 90 %; where it is not noise"
    return finish(figure, "Which parameters are in excess", note)


def _colours(rows: Frame) -> dict[str, str]:
    return colours_of(sorted(set(rows.arm)))


def loads_by_time(loads: xr.Dataset) -> Figure:
    """Share of each expert over steps, a panel for each layer and balancing, of the first seed of each."""
    kinds = list(dict.fromkeys(zip(loads.arm.values.tolist(), loads.balancing.values.tolist(), strict=True)))
    figure, panels = grid_of_panels(len(kinds), loads.sizes["layer"], sharex=True, sharey="row")
    for row, (arm, balancing) in zip(panels, kinds, strict=True):
        chosen = (loads.arm == arm) & (loads.balancing == balancing)
        first = loads.isel(trajectory=int(np.argmax(chosen.values)))
        share = first.loads.sum("domain") / first.loads.sum(("domain", "expert"))
        for layer, axes in enumerate(row):
            for expert in range(share.sizes["expert"]):
                axes.plot(share.window_step, share.isel(layer=layer, expert=expert), lw=1, ls=DASHES[expert // 8 % 6])
            axes.set_xscale("log")
            titled(axes, f"{arm}, {balancing}, layer {layer + 1}")
    label(figure, "step", "share of the assignments")
    return finish(figure, "Loads of the experts while training, one seed", legend={})
