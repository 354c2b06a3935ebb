"""Figures of `moesim sites`: what sites do over time, and loss against hours and against money."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.output.plots import COLOURS, finish, grid_of_panels, heading, label

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_ABOUT = ("site", "protocol", "model", "law")


def draw(data: xr.Dataset) -> dict[str, Figure]:
    """Every figure, by file name."""
    return {"timeline": timeline(data), "sites_loss": sites_loss(data)}


def timeline(data: xr.Dataset) -> Figure:
    """Sites that work, wait and send, stacked, over the hours of the run; mean over seeds."""
    figure, ((axes,),) = grid_of_panels(1, 1, (5.2, 2.6))
    length = data.hours.diff("round", label="lower").reindex(round=data["round"], method="ffill")
    names = ("working", "sending", "waiting")
    rows = [(data[name].mean("seed") / length.fillna(data.hours[0])).values for name in names]
    axes.stackplot(data.hours.values, rows, labels=names, colors=COLOURS[:3], alpha=0.8, lw=0)
    axes.set_ylim(0, None)
    label(figure, "hours", "sites")
    return finish(figure, heading(data, *_ABOUT), "mean over seeds")


def sites_loss(data: xr.Dataset) -> Figure:
    """Loss of each seed against hours and against money."""
    figure, (panels,) = grid_of_panels(1, 2, (3.0, 2.4), sharey=True)
    spent = data.cost.cumsum("round")
    for seed in data.seed.values:
        one = data.loss.sel(seed=seed).values
        panels[0].plot(data.hours.values, one, color=COLOURS[0], alpha=0.6)
        panels[1].plot(spent.sel(seed=seed).values, one, color=COLOURS[0], alpha=0.6)
    for axes, name in zip(panels, ("hours", "$"), strict=True):
        axes.set_xlabel(name)
    panels[0].set_ylabel("loss, nat/token")
    return finish(figure, heading(data, *_ABOUT), "a line for each seed")
