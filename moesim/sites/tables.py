"""The console table of `moesim sites`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.output.text import aligned

if TYPE_CHECKING:
    import xarray as xr
ABOUT = ("site", "protocol", "model", "world", "law")
"""What a run is called by."""


def table(data: xr.Dataset) -> str:
    """What the run came to, mean over seeds: time by state, tokens, traffic, loss, and the bill with its slack."""
    total = data.sum("round").mean("seed")
    up, energy, cost = float(total.up), float(total.energy), float(total.cost)
    share = {name: float(total[name]) / up if up else 0.0 for name in ("working", "waiting", "sending")}
    last = data.loss.isel(round=-1).mean("seed")
    rows = [
        ["sites", f"{float(data.weight.sum()):,.0f}"],
        ["hours", f"{float(data.hours[-1]):,.4g}"],
        ["site-hours up", f"{up:,.4g}"],
        *([f"  of them {name}", f"{value:.1%}"] for name, value in share.items()),
        ["tokens", f"{float(total.tokens):.4g}"],
        ["bytes sent", f"{float(total.bytes):.4g}"],
        ["loss, nat/token", f"{float(last):.4f}"],
        *_apart(data),
        ["cost, $", f"{cost:,.4g}"],
        ["  of it slack", f"{float(total.slack_cost) / cost:.1%}" if cost else "-"],
        ["energy, kWh", f"{energy:,.4g}"],
        ["  of it slack", f"{float(total.slack_energy) / energy:.1%}" if energy else "-"],
    ]
    if "hours_to_target" in data:
        ends = {name: float(data[f"{name}_to_target"].mean("seed")) for name in ("hours", "cost")}
        rows += [[f"{name} to the target loss", f"{value:,.4g}"] for name, value in ends.items()]
    told = [f"{name} {data.attrs[name]}" for name in ABOUT if name in data.attrs]
    rests = "".join(f"loss of {line}\n" for line in data.attrs.get("evidence", "").splitlines())
    return f"{', '.join(told)}; mean of {data.sizes['seed']} seeds\n" + aligned(rows) + "\n" + rests


def _apart(data: xr.Dataset) -> list[list[str]]:
    """What training apart did to the loss, where it did anything."""
    last = data.isel(round=-1).mean("seed")
    factor, gain = float(last.loss_factor), float(last.parts_gain)
    rows = [["  of it for replicas, factor", f"{factor:.4f}"]] if factor > 1 else []
    return rows + ([["  less what parts gain", f"{gain:.4f}"]] if gain else [])
