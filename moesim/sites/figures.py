"""Figures of `moesim sites`: what sites do over time, and loss against hours and against money."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.output.plots import COLOURS, colours_of, finish, grid_of_panels, heading, label, titled

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_ABOUT = ("site", "protocol", "model", "law")


def draw(data: xr.Dataset) -> dict[str, Figure]:
    """Every figure of a run or of a question, by file name."""
    if "round" not in data.dims:
        return answer(data)
    return {"timeline": timeline(data), "sites_loss": sites_loss(data)}


def timeline(data: xr.Dataset) -> Figure:
    """Sites that work, wait and send, stacked, over the hours of the run; mean over seeds."""
    figure, ((axes,),) = grid_of_panels(1, 1, (5.2, 2.6))
    length = np.diff(data.hours, prepend=0.0)
    names = ("working", "sending", "waiting")
    rows = [(data[name].mean("seed") / length).values for name in names]
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


def answer(data: xr.Dataset) -> dict[str, Figure]:
    """The figure of a question, if it has one."""
    if "factor" in data.dims:
        return {"waterfall": waterfall(data)}
    return {"crossing": crossing(data)} if "bandwidth" in data.dims else {}


def waterfall(data: xr.Dataset) -> Figure:
    """Days of each model as the factors come in, one above the other."""
    figure, (panels,) = grid_of_panels(1, data.sizes["model"], (2.4, 2.6), sharey=True)
    place = np.arange(data.sizes["factor"])
    for axes, model in zip(panels, data.model.values, strict=True):
        for i, reading in enumerate(data.reading.values):
            days = data.days.sel(model=model, reading=reading).values
            before = np.concatenate([[1.0], days[:-1]])
            axes.bar(place + 0.4 * i - 0.2, days - before, 0.4, before, color=COLOURS[i], label=str(reading))
        axes.set_yscale("log")
        axes.set_xticks(place, [str(name) for name in data.factor.values], rotation=60)
        titled(axes, str(model))
    panels[0].set_ylim(1.0, None)
    panels[0].set_ylabel("days")
    return finish(figure, "Folding@home of 2020, factor by factor", of="availability")


def crossing(data: xr.Dataset) -> Figure:
    """Loss after the hours of the run, and share of the time at work, by protocol against bandwidth."""
    figure, (panels,) = grid_of_panels(1, 2, (3.0, 2.4))
    for name, colour in colours_of([str(p) for p in data.protocol.values]).items():
        one = data.sel(protocol=name)
        panels[0].plot(data.bandwidth.values, one.loss.values, "o-", ms=3, color=colour, label=name)
        panels[1].plot(data.bandwidth.values, one.at_work.values, "o-", ms=3, color=colour)
    for axes, what in zip(panels, ("loss, nat/token", "share of the time at work"), strict=True):
        axes.set_xscale("log")
        axes.set_ylabel(what)
    label(figure, "bit/s")
    return finish(figure, heading(data, "question"), of="protocol")
