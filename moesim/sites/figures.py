"""Figures of `moesim sites`: what sites do over time, and loss against hours and against money."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from moesim.output.plots import COLOURS, DASHES, colours_of, finish, grid_of_panels, heading, label, tick, titled
from moesim.sites.links import compute_utilisation
from moesim.sites.tables import ABOUT

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def _about(data: xr.Dataset) -> str:
    return ", ".join(f"{name} {data.attrs[name]}" for name in ABOUT if name in data.attrs)


def draw(data: xr.Dataset) -> dict[str, Figure]:
    """Every figure of a run or of a question, by file name."""
    if "round" not in data.dims:
        return answer(data)
    return {"timeline": timeline(data), "sites_loss": sites_loss(data), "utilisation": utilisation(data)}


def timeline(data: xr.Dataset) -> Figure:
    """Sites that work, wait and send, stacked, over the hours of the run; mean over seeds."""
    figure, ((axes,),) = grid_of_panels(1, 1, (5.2, 2.6))
    length = np.diff(data.hours, prepend=0.0)
    names = ("working", "sending", "waiting")
    rows = [(data[name].mean("seed") / length).values for name in names]
    axes.stackplot(data.hours.values, rows, labels=names, colors=COLOURS[:3], alpha=0.8, lw=0)
    axes.set_ylim(0, None)
    label(figure, "hours", "sites")
    return finish(figure, _about(data), "mean over seeds")


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
    return finish(figure, _about(data), "a line for each seed")


# Ways to train whose share of the time at work is drawn against bandwidth.
_WAYS: dict[str, dict[str, float]] = {
    "every step": {"steps_between": 1},
    "every 100 steps": {"steps_between": 100},
    "in 8 fragments": {"steps_between": 100, "fragments": 8},
    "behind a step": {"steps_between": 100, "fragments": 8, "overlap_steps": 1},
    "in 4 bits": {"steps_between": 100, "fragments": 8, "overlap_steps": 1, "bits": 4},
}


def utilisation(data: xr.Dataset) -> Figure:
    """Share of the time at work against bandwidth, for the model and the steps of the run, by what is sent and when.

    In closed form, for as many equal replicas as there are sites; marks on the axis: the links of the sites.
    """
    figure, ((axes,),) = grid_of_panels(1, 1, (5.2, 2.6))
    bandwidth = np.geomspace(1e5, 1e13, 161)
    step, count = float(data.site_step.median()), max(float(data.weight.sum()), 2.0)
    for (name, way), colour, dash in zip(_WAYS.items(), COLOURS, DASHES, strict=False):
        share = compute_utilisation(data.attrs["params"], step, bandwidth=bandwidth, replicas=count, **way)
        axes.plot(bandwidth, share, color=colour, ls=dash, label=name)
    links = np.unique(data.bandwidth.values)
    axes.plot(links, np.zeros(len(links)), "^", color="black", ms=5, clip_on=False, zorder=5, label="sites")
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    label(figure, "bandwidth of each link, bit/s", "share of the time at work")
    text = f"{count:g} replicas of {data.attrs['params']:.3g} parameters, steps of {step:.3g} s"
    return finish(figure, f"site {data.attrs['site']}" if "site" in data.attrs else "", text, of="average")


def answer(data: xr.Dataset) -> dict[str, Figure]:
    """The figures of a question, where it has any."""
    if "factor" in data.dims:
        return {"waterfall": waterfall(data)}
    if "best_loss" in data:
        return {"crossing": crossing(data), "best": best(data)}
    if "best_levels" in data:
        return {"levels": levels(data)}
    if "zones" in data.dims:
        return {"zones": zones(data)}
    return {str(data.attrs["question"]): bars(data)}


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
    """Loss after the hours of the run, and share of the time at work, by protocol and bandwidth, most levels cut."""
    figure, (panels,) = grid_of_panels(1, 2, (3.0, 2.4))
    data = data.isel(levels=-1)
    for name, colour in colours_of([str(p) for p in data.protocol.values]).items():
        one = data.sel(protocol=name)
        panels[0].plot(data.bandwidth.values, one.loss.values, "o-", ms=3, color=colour, label=name)
        panels[1].plot(data.bandwidth.values, one.at_work.values, "o-", ms=3, color=colour)
    for axes, what in zip(panels, ("loss, nat/token", "share of the time at work"), strict=True):
        axes.set_xscale("log")
        axes.set_ylabel(what)
    label(figure, "bandwidth of each link, bit/s")
    return finish(figure, heading(data, "question"), f"{2 ** int(data.levels)} parts", of="protocol")


_CRITERIA = {"best_loss": "lowest loss after the hours", "best_cost_to_target": "least $ to the target loss"}


def best(data: xr.Dataset) -> Figure:
    """Where the best protocol changes: which it is, by bandwidth and parts."""
    from matplotlib.patches import Patch

    found = [name for name in _CRITERIA if name in data]
    figure, (panels,) = grid_of_panels(1, len(found), (3.0, 2.2), sharey=True)
    shades = {
        **colours_of([str(p) for p in data.protocol.values]),
        "none": "#ffffff",
    }  # none: the target is out of reach
    parts, width = 2**data.levels.values, np.diff(np.log10(data.bandwidth.values)).mean() / 2
    for axes, name in zip(panels, found, strict=True):
        for i, link in enumerate(data.bandwidth.values):
            for j in range(len(parts)):
                shade = shades[str(data[name].values[i, j])]
                left, right = link / 10**width, link * 10**width
                axes.fill_between([left, right], j - 0.5, j + 0.5, color=shade, alpha=0.85, lw=0)
        axes.set_xscale("log")
        axes.set_yticks(range(len(parts)), [str(n) for n in parts])
        axes.grid(visible=False)
        titled(axes, _CRITERIA[name])
    label(figure, "bandwidth of each link, bit/s", "parts of the tree")
    seen = {str(value) for name in found for value in data[name].values.flat}
    legend = {name: Patch(facecolor=shade, edgecolor="#999999") for name, shade in shades.items() if name in seen}
    return finish(figure, heading(data, "question"), legend=legend, of="best protocol")


def levels(data: xr.Dataset) -> Figure:
    """Loss after the hours of the run against parts that are cut off, a line for each bandwidth; hollow: the lowest."""
    figure, ((axes,),) = grid_of_panels(1, 1, (5.2, 2.6))
    for link, colour in zip(data.bandwidth.values, COLOURS, strict=False):
        one = data.loss.sel(bandwidth=link)
        axes.plot(data.levels.values, one.values, "o-", ms=4, color=colour, label=f"{tick(link)} bit/s")
        lowest = int(one.values.argmin())
        axes.plot(data.levels.values[lowest], one.values[lowest], "o", ms=7, mfc="white", mec=colour, zorder=4)
    axes.set_xticks(data.levels.values, [str(2**n) for n in data.levels.values])
    label(figure, "parts that train apart", "loss, nat/token")
    return finish(figure, heading(data, "question"), "hollow: lowest loss", of="links")


def zones(data: xr.Dataset) -> Figure:
    """Cost against hours until the target loss, of each set of zones and of so many of the cheapest at each moment."""
    figure, ((axes,),) = grid_of_panels(1, 1, (5.2, 3.0))
    if "hours_to_target" not in data:
        return finish(figure, heading(data, "question"), "no target loss")
    moving = data.zones.str.startswith("cheapest").values
    hours, cost = data.hours_to_target.values, data.cost_to_target.values
    for which, marker, name in ((~moving, "o", "zones"), (moving, "s", "the cheapest at each moment")):
        axes.plot(hours[which], cost[which], marker, ms=4, color=COLOURS[int(marker == "s")], label=name)
    good = [i for i in np.argsort(hours) if np.isfinite(cost[i]) and not (cost[hours < hours[i]] <= cost[i]).any()]
    axes.step(hours[good], cost[good], where="post", color=COLOURS[6], lw=1, label="least cost by a date")
    for i in good[:: max(1, len(good) // 4)]:
        axes.annotate(
            str(data.zones.values[i]), (hours[i], cost[i]), fontsize=6, xytext=(3, 3), textcoords="offset points"
        )
    label(figure, "hours until the target loss", "$ until then")
    return finish(figure, heading(data, "question"))


# Question -> what its bars show: label -> values by the dim of the question.
_BARS: dict[str, dict[str, Callable[[xr.Dataset], xr.DataArray]]] = {
    "slack": {
        "slack, share of the cost": lambda data: data.slack_cost / data.cost,
        "slack, share of the energy": lambda data: data.slack_energy / data.energy,
    },
    "unequal_machines": {
        "hours until all is trained on": lambda data: data.hours,
        "loss then, nat/token": lambda data: data.loss,
    },
}


def bars(data: xr.Dataset) -> Figure:
    """What a question with one dim found, side by side."""
    shown = _BARS[data.attrs["question"]]
    figure, (panels,) = grid_of_panels(1, len(shown), (2.8, 2.0), sharey=True)
    for axes, (text, of), colour in zip(panels, shown.items(), COLOURS, strict=False):
        values = of(data)
        names = [str(name) for name in data[values.dims[0]].values]
        axes.barh(names, values.values, color=colour, alpha=0.85)
        axes.set_xlabel(text)
        if values.min() > 0.5 * values.max():  # small differences
            axes.set_xlim(float(values.min() - (values.max() - values.min())), None)
    panels[0].invert_yaxis()
    return finish(figure, heading(data, "question"))
