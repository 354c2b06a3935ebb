"""The page of training across places: what sites do over time, loss over hours and money, and site by site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.pages.views import Section

if TYPE_CHECKING:
    import xarray as xr

_DOING = ("working", "sending", "waiting")
_BY_SITE = {"site_tokens": "Tokens", "site_cost": "Cost ($)", "site_energy": "Energy (kWh)", "site_bytes": "Bytes sent"}


def view(dataset: xr.Dataset) -> list[Section]:
    """The sections of a run; none for a question."""
    if not {"seed", "round"} <= set(dataset.sizes) or "hours" not in dataset.coords:
        return []
    shares = [name for name in _DOING if f"site_{name}" in dataset]
    found = [_timeline(dataset), _loss(dataset)]
    found += [_bars(dataset, "Hours of each site", [f"site_{name}" for name in shares])] if shares else []
    return found + [_bars(dataset, said, [name]) for name, said in _BY_SITE.items() if name in dataset]


def _timeline(dataset: xr.Dataset) -> Section:
    """Sites that work, wait and send, over the hours of the run; mean over seeds with their range."""
    hours, lines = dataset["hours"].values, []
    length = np.diff(hours, prepend=0.0)
    for colour, name in enumerate(name for name in _DOING if name in dataset):
        sites = dataset[name].transpose("seed", "round").values / length
        ends = {"low": sites.min(axis=0), "high": sites.max(axis=0)}
        lines.append({"name": name, "x": hours, "y": sites.mean(axis=0), "colour": colour, **ends})
    y = {"label": "sites", "how": "plain"}
    note = "lines: mean over seeds; bands: their range"
    spec = {
        "title": "What sites do",
        "file": "timeline",
        "x": {"label": "hours", "how": "plain"},
        "y": y,
        "lines": lines,
        "note": note,
    }
    return Section("plot", "Timeline", {"spec": spec})


def _loss(dataset: xr.Dataset) -> Section:
    """Loss of each seed over hours and over money."""
    spent = dataset["cost"].cumsum("round")

    def panel(said: str, along: Any) -> dict[str, Any]:
        lines = [
            {"name": f"seed {seed}", "x": along(seed), "y": dataset["loss"].sel(seed=seed).values, "colour": k}
            for k, seed in enumerate(dataset["seed"].values)
        ]
        y = {"label": "loss", "unit": "nat/token", "how": "plain"}
        return {
            "title": f"Loss over {said}",
            "file": f"loss_{said}",
            "x": {"label": said, "how": "plain"},
            "y": y,
            "lines": lines,
        }

    hours = panel("hours", lambda seed: dataset["hours"].values)
    return Section("plot", "Loss", {"panels": [hours, panel("$", lambda seed: spent.sel(seed=seed).values)]})


def _bars(dataset: xr.Dataset, said: str, names: list[str]) -> Section:
    """Bars for each site, mean over seeds."""
    places = [str(site) for site in dataset["site"].values]
    bars = [
        {"name": name.removeprefix("site_"), "y": dataset[name].mean("seed").values, "colour": k}
        for k, name in enumerate(names)
    ]
    y = {"label": said if len(names) == 1 else "hours", "how": "plain"}
    spec = {"title": said, "file": names[0], "x": {"label": "site", "categories": places}, "y": y, "bars": bars}
    return Section("plot", said, {"spec": spec})
