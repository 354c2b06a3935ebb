"""What probes and loads of small models look like: tables of splits, transfer and forced routing, and their figures."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from moesim.lab.compared import mean, ratio
from moesim.output.plots import DASHES, colours_of, finish, grid_of_panels, label, titled
from moesim.output.text import aligned, count, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

COSINE, BITS = 0.5, 0.1
"""Twins have parted where the cosine of their changes is below one, their domains where they differ by more bit."""
_MOST_DOMAINS = 8  # of a figure


def tables(tried: xr.Dataset) -> list[str]:
    """A table for each kind of probe that was made."""
    makers = {"split_loss": splits, "tuned_gain": transfers, "forced_excess": forced}
    return [make(tried) for name, make in makers.items() if name in tried]


def parting(tried: xr.Dataset) -> xr.Dataset:
    """Tokens after a split until the twins have parted: `weights_part` and `domains_part`, inf where they have not.

    By the cosine of the changes of their weights and by the divergence of their domains, at the first mark.
    """
    import xarray as xr

    apart = {"weights_part": tried.twin_cosine < COSINE, "domains_part": tried.twin_divergence > BITS}
    return xr.Dataset({name: tried.since.where(there).min("since").fillna(np.inf) for name, there in apart.items()})


def kinship(tried: xr.Dataset, gain: str = "tuned_gain", level: float = 0.9) -> xr.Dataset:
    """How near training on one domain brings another to what its own training gives: `kin` (source, target).

    1: as near as its own; 0: no nearer than the usual (median) other domain, which is what takes out that every domain
    suffers while another is trained on. `low` and `high`: Fieller's interval of the ratio, over trajectories, or over
    repeats where there is one, which misses that trainings
    differ. NaN with fewer than four domains, of which none is usual. It tells kin from others, by
    sign and order; its size is one of the steps and the rate of the probe.
    """
    import xarray as xr

    known = tried[gain].dropna("trajectory", how="all")
    other = "repeat" if known.sizes["trajectory"] > 1 else "trajectory"
    gains = known.mean(other)
    same = gains.source == gains.target
    usual = gains.where(~same).median("source").where(gains.sizes["source"] > 3)
    above, own = gains - usual, gains.where(same).max("source") - usual
    cells = [
        [_share(above.sel(source=s, target=t).values, own.sel(target=t).values, level) for t in gains.target]
        for s in gains.source
    ]
    values = dict(zip(("kin", "low", "high"), np.moveaxis(np.array(cells), -1, 0), strict=True))
    dims = ("source", "target")
    return xr.Dataset({name: (dims, v) for name, v in values.items()}, {dim: gains[dim].values for dim in dims})


def _share(above: np.ndarray, own: np.ndarray, level: float) -> tuple[float, float, float]:
    there = np.isfinite(above + own)
    return ratio(above[there], own[there], level)[:3]


def splits(tried: xr.Dataset) -> str:
    """Loss after splits, and when twins part, by layer and noise: means over trajectories of one balancing."""
    more = (tried.split_loss - tried.unsplit_loss).transpose("trajectory", ...)
    when, last = parting(tried), tried.isel(since=-1)
    heads = (
        "balancing",
        "layer",
        "noise",
        "jump",
        "later",
        "weights part",
        "domains part",
        "lesser",
        "before",
        "after",
    )
    lines: list[tuple[str, ...]] = [heads]
    for kind, layer, router, weight in _cells(tried, "layer", "router_noise", "weight_noise"):
        own = {"trajectory": tried.balancing == kind, "layer": layer, "router_noise": router, "weight_noise": weight}
        jump, later = (mean(more.isel(own).isel(since=i)) for i in (0, -1))
        parts = [count(float(when[name].isel(own).median())) for name in ("weights_part", "domains_part")]
        shares = [f"{float(values.isel(own).mean()):.2f}" for values in (last.twin_share, *_pair(tried))]
        noise = f"{plain(tried.router_noise[router])}, {plain(tried.weight_noise[weight])}"
        lines.append((kind, str(layer + 1), noise, f"{jump.value:+.4f}", str(later), *parts, *shares))
    return _SPLITS.format(count(float(tried.since[-1]))) + aligned(lines, 2)


_SPLITS = f"""the hottest expert of a layer split in two (noise of router, weights), then {{}} bytes more
loss against no split, nat/token; bytes (median) until the changes of the twins have a cosine below {COSINE}, and until
their domains differ by {BITS} bit; the lesser twin's share; the pair's share of its layer before and after
"""


def _pair(tried: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """The pair's share of its layer in the first batch after a split and at the end."""
    return tried.pair_share.isel(since=1), tried.pair_share.isel(since=-1)


def _cells(tried: xr.Dataset, *dims: str) -> list[tuple]:
    kinds = dict.fromkeys(tried.balancing.values.tolist())
    return list(product(kinds, *(range(tried.sizes[dim]) for dim in dims)))


def transfers(tried: xr.Dataset) -> str:
    """Which domains are kin, and what training on a domain does for itself and others, both ways: means."""
    said = {"tuned_gain": "trained on alone", "added_gain": "added to the mixture"}
    kin = kinship(tried)
    clear = (kin.low > 0) | (kin.high < 0)
    parts = [_KIN, _matrix(kin.kin, "{:+.2f}", np.where(clear, "*", ""))]
    for name, words in said.items():
        parts += [f"how much lower each domain's loss is when one (row) is {words}, nat/token"]
        parts += [_matrix(tried[name].mean(("trajectory", "repeat")), "{:+.4f}")]
    return "\n".join(parts)


_KIN = """how near training on a domain (row) alone brings another to what its own training gives, the usual at 0
(*: 90 % interval without 0, over seeds; of one seed over draws of batches, which misses that trainings differ: there
half of what is not kin has one too, up to .3 in size); which are kin and in what order, no sizes"""


def _matrix(values: xr.DataArray, form: str, marks: np.ndarray | str = "") -> str:
    cells = np.char.add(np.vectorize(form.format)(values), marks)
    rows = [(str(name), *row) for name, row in zip(values.source.values, cells.tolist(), strict=True)]
    return aligned([("domain", *map(str, values.target.values)), *rows], 2)


def forced(tried: xr.Dataset) -> str:
    """What it costs to send every token of a layer to one expert: the best for its domain, the mean, the worst."""
    lines: list[tuple[str, ...]] = [("balancing", "layer", "best", "mean", "worst")]
    for kind, layer in _cells(tried, "layer"):
        cost = tried.forced_excess.isel(trajectory=tried.balancing == kind, layer=layer)
        made = (cost.min("expert"), cost.mean("expert"), cost.max("expert"))
        lines.append((kind, str(layer + 1), *(f"{float(each.mean()):+.3f}" for each in made)))
    return "all tokens of a layer forced to one expert, mean over domains, nat/token\n" + aligned(lines, 2)


def draw(tried: xr.Dataset, loads: xr.Dataset) -> dict[str, Figure]:
    """Figures of what is there: `twins` after a split, `domains`: loads by domain over time."""
    drawn = {"twins": twins(tried)} if "split_loss" in tried else {}
    return drawn | ({"domains": loads_by_domain(loads)} if loads.sizes.get("domain", 1) > 1 else {})


def twins(tried: xr.Dataset) -> Figure:
    """Twins after a split: cosine of their changes, divergence of their domains, the lesser share, and the loss."""
    shown = {
        "cosine of the changes of weights": tried.twin_cosine,
        "divergence of domains (bit)": tried.twin_divergence,
        "share of the lesser twin": tried.twin_share,
        "loss less that without a split (nat)": tried.split_loss - tried.unsplit_loss,
    }
    colour = colours_of(list(dict.fromkeys(tried.balancing.values.tolist())))
    figure, panels = grid_of_panels(2, 2, (3.4, 2.2), sharex=True)
    for axes, (title, values) in zip([axes for row in panels for axes in row], shown.items(), strict=True):
        for kind, layer in _cells(tried, "layer"):
            own = values.isel(trajectory=tried.balancing == kind, layer=layer, since=slice(1, None))
            middle = own.mean([dim for dim in own.dims if dim != "since"])
            axes.plot(own.since, middle, color=colour[kind], ls=DASHES[layer % 6], label=f"{kind}, layer {layer + 1}")
        axes.set_xscale("log")
        titled(axes, title)
    label(figure, "bytes since the split")
    return finish(figure, "Twins after the hottest expert was split", "means over trajectories and noises")


def loads_by_domain(loads: xr.Dataset) -> Figure:
    """Share of each expert over steps, a row for each layer, a column for each domain; of the first trajectory."""
    first = loads.isel(trajectory=0)
    often = np.argsort(-first.loads.sum(("window", "layer", "expert")).values, kind="stable")[:_MOST_DOMAINS]
    share = first.loads / first.loads.sum("expert")
    figure, panels = grid_of_panels(share.sizes["layer"], len(often), (1.7, 1.7), sharex=True, sharey=True)
    for (layer, row), (column, domain) in product(enumerate(panels), enumerate(often)):
        for expert in range(share.sizes["expert"]):
            own = share.isel(layer=layer, domain=domain, expert=expert)
            row[column].plot(share.window_step, own, lw=1, ls=DASHES[expert // 8 % 6])
        row[column].set_xscale("log")
        titled(row[column], f"{share.domain.values[domain]}, layer {layer + 1}")
    label(figure, "step", "share of the domain's assignments")
    told = f"{first.arm.item()}, {first.balancing.item()}, seed {first.seed.item()}"
    return finish(figure, "Loads of the experts by domain while training", told, legend={})
