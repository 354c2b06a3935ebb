"""The page of a balance run or comparison: policies over steps, tokens or hours; loads in time; who serves what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moesim.output.plots import spread
from moesim.pages.views import Section, named

if TYPE_CHECKING:
    import xarray as xr

_OVER = {"steps": ("step", 1.0), "tokens": ("tokens", 1.0), "hours": ("wall_clock", 3600.0)}
_SHOWN = ("micro_loss", "macro_loss", "max_over_mean", "idle_share", "utilisation", "step_time")
_FRAMES, _CELLS = 60, 96  # steps of a slider; experts and domains of a map, at most


def view(dataset: xr.Dataset) -> list[Section]:
    """The sections of a run of one policy or of several; none for a study."""
    if not {"seed", "step"} <= set(dataset.sizes) or "tokens" not in dataset:
        return []
    there = [name for name in _SHOWN if name in dataset and dataset[name].notnull().any()]
    found = [_over(dataset, name) for name in there]
    for name, said in (("device_busy", "Busy time of each device"), ("loads", "Tokens of each expert")):
        found += [_loads(dataset, name, said)] if name in dataset else []
    found += [_serves(dataset)] if "expert_tokens" in dataset else []
    return found + _family(dataset)


def policies(dataset: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Each policy with its name, or the run alone."""
    if "policy" not in dataset.dims:
        return [("this run", dataset)]
    return [(str(name), dataset.sel(policy=name)) for name in dataset["policy"].values]


def _over(dataset: xr.Dataset, name: str) -> Section:
    """A line for each policy, mean over seeds with their range, over steps, tokens or hours."""
    frames = []
    for said, (along, unit) in _OVER.items():
        lines = []
        for colour, (policy, own) in enumerate(policies(dataset)):
            x = own[along] / unit
            x = x.mean("seed") if "seed" in x.dims else x
            ends = {"low": own[name].min("seed").values, "high": own[name].max("seed").values}
            mean = own[name].mean("seed").values
            lines.append({"name": policy, "x": x.values, "y": mean, "colour": colour, **ends})
        x_axis = {"label": said, "how": "count" if said == "tokens" else "plain"}
        title = str(dataset[name].attrs.get("long_name", name))
        spec = {"title": title, "file": name, "x": x_axis, "y": named(dataset[name], name), "lines": lines}
        frames.append({"text": said, "spec": {**spec, "note": "lines: mean over seeds; bands: their range"}})
    return Section("plot", frames[0]["spec"]["title"].capitalize(), {"frames": frames, "choose": "over"})


def _loads(dataset: xr.Dataset, name: str, said: str) -> Section:
    """Bars for each policy at a step, with a slider in time; of the first seed."""
    own = [(policy, one[name].isel(seed=0)) for policy, one in policies(dataset)]
    dim = next(str(dim) for dim in own[0][1].dims if dim not in ("step", "policy"))
    steps = [int(i) for i in spread(np.arange(dataset.sizes["step"]), _FRAMES)]
    places = [str(value) for value in dataset[dim].values]
    most = max(float(values.max()) for _, values in own)
    frames = []
    for i in steps:
        bars = [{"name": p, "y": v.isel(step=i).values, "colour": k} for k, (p, v) in enumerate(own)]
        y = {**named(dataset[name], name), "range": [0.0, 1.05 * most or 1.0]}
        spec = {"title": said, "file": name, "x": {"label": dim, "categories": places}, "y": y, "bars": bars}
        frames.append({"text": f"step {dataset['step'].values[i]}", "spec": spec})
    note = f"of the first seed; {len(steps)} of {dataset.sizes['step']} recorded steps"
    return Section("plot", said, {"frames": frames, "slider": "time", "note": note})


def _serves(dataset: xr.Dataset) -> Section:
    """A map of domains by experts: the share of each domain's tokens that an expert has served."""
    domains, experts = (_thinned(dataset.sizes[dim]) for dim in ("domain", "expert"))
    frames = []
    for policy, one in policies(dataset):
        tokens = one["expert_tokens"].isel(seed=0).transpose("domain", "expert").values
        share = tokens / np.maximum(tokens.sum(axis=1, keepdims=True), 1e-300)
        spec = {
            "title": f"Who serves what: {policy}",
            "file": "serves",
            "height": 420,
            "x": {"label": "expert", "categories": [str(dataset["expert"].values[i]) for i in experts]},
            "y": {"label": "domain", "categories": [str(dataset["domain"].values[i]) for i in domains]},
            "cells": {
                "x": experts,
                "y": domains,
                "z": share[np.ix_(domains, experts)],
                "label": "share",
                "how": "share",
            },
        }
        frames.append({"text": policy, "spec": spec})
    left = f"{len(domains)} of {dataset.sizes['domain']} domains, {len(experts)} of {dataset.sizes['expert']} experts"
    note = f"share of a domain's tokens that an expert has served, by the end, of the first seed; {left}"
    return Section("plot", "Who serves what", {"frames": frames, "choose": "policy", "note": note})


def _thinned(n: int) -> list[int]:
    return [int(i) for i in spread(np.arange(n), _CELLS)]


def _family(dataset: xr.Dataset) -> list[Section]:
    """The family tree of each policy that made experts, children below their parent."""
    found = []
    for policy, one in policies(dataset):
        if "parent" in one and (parent := one["parent"].isel(seed=0).values.astype(int)).max() >= 0:
            born, alive = one["born"].isel(seed=0).values, one["alive"].isel(seed=0, step=-1).values
            lines = "\n".join(descent(parent, born, alive))
            found.append(Section("text", f"Family tree: {policy}", {"paragraphs": [], "lines": lines}))
    return found


def descent(parent: np.ndarray, born: np.ndarray, alive: np.ndarray) -> list[str]:
    """A line for each expert that has ancestors or children, or is alive, indented below its parent."""

    def below(expert: int, deep: int) -> list[str]:
        gone = "" if alive[expert] else ", gone"
        children = [line for child in np.flatnonzero(parent == expert) for line in below(int(child), deep + 1)]
        return [f"{'  ' * deep}expert {expert}, born at step {born[expert]:.0f}{gone}", *children]

    roots = [root for root in np.flatnonzero(parent < 0) if alive[root] or root in parent]
    return [line for root in roots for line in below(int(root), 0)]
