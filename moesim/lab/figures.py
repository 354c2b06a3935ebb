"""The figures of `moesim lab`: loss against epochs, what repetition costs by parameters, and loads by domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.lab.compared import frame, penalties
from moesim.output.plots import DASHES, colours_of, finish, grid_of_panels, label, panels_for, titled
from moesim.output.text import count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def draw(runs: xr.Dataset, loads: xr.Dataset | None = None) -> dict[str, Figure]:
    """Every figure that the runs, and the loads of their experts, have the means for, by file name."""
    drawn = {"losses": losses(runs)}
    if len(penalties(frame(runs))):
        drawn["penalty"] = penalty(runs)
    if loads is not None and loads.sizes:
        drawn["loads"] = loads_by_time(loads)
    return drawn


def losses(runs: xr.Dataset) -> Figure:
    """Loss against tokens, a panel for each pool and weight decay; the line is the mean over seeds, dots the seeds."""
    rows = frame(runs)
    colour = colours_of(list(dict.fromkeys(rows.arm)))
    pools = list(rows.groupby(["corpus", "pool", "weight_decay"], sort=True))
    figure, panels = panels_for(len(pools), sharey=True)
    for axes, ((corpus, pool, decay), group) in zip(panels, pools, strict=True):
        for arm, own in group.groupby("arm", sort=False):
            middle = own.groupby("tokens").loss.mean()
            axes.plot(middle.index, middle, color=colour[str(arm)], label=str(arm))
            axes.plot(own.tokens, own.loss, ".", ms=3, color=colour[str(arm)], alpha=0.5)
        axes.set_xscale("log")
        of = "fresh data" if np.isinf(pool) else f"{count(pool)} unique bytes"
        titled(axes, f"{corpus}, {of}, decay {plain(decay)}")
    label(figure, "bytes trained on", "loss on new text (nat/byte)")
    return finish(figure, "Small models on finite data: loss while training", "line: mean over seeds; dots: each seed")


def penalty(runs: xr.Dataset) -> Figure:
    """What repetition costs, against active and against total parameters for each unique byte, by weight decay."""
    rows = penalties(frame(runs))
    decays = sorted(set(rows.weight_decay))
    colour = colours_of(list(dict.fromkeys(rows.arm)))
    figure, panels = grid_of_panels(1, 2, (3.4, 2.8), sharey=True)
    for axes, size, said in zip(panels[0], ("active_params", "total_params"), ("active", "total"), strict=True):
        for (arm, decay), own in rows.groupby(["arm", "weight_decay"], sort=False):
            style = {"color": colour[str(arm)], "ls": "none", "marker": "osD^v"[decays.index(decay) % 5], "ms": 4}
            axes.plot(
                own[size] / own.unique_tokens, own.penalty, label=f"{arm}, decay {plain(decay)}", alpha=0.7, **style
            )
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=0.01)
        axes.set_xlabel(f"{said} parameters for each unique byte")
    label(figure, "", "loss above that of fresh data (nat/byte)")
    return finish(figure, "What repetition costs, by the parameters that may be in excess")


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
