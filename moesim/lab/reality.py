"""The simulator against reality: calibrated on some seeds of small models, it predicts the others.

What is predicted: how uneven loads are and how much they move, when an expert has half of a layer's tokens, what
balancing changes, and what the loss does after a split. Predicted ranges are those of simulated seeds; misses are
shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.lab.estimates import calibrate, counts_of, described
from moesim.lab.simulated import routing_of, world_of
from moesim.output.plots import colours_of, finish, panels_for, titled
from moesim.output.text import aligned, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

JUDGED = 2  # seeds that are predicted, the last ones; those before calibrate
_SEEDS = 10  # simulated
_TRIED = 2  # simulated for each worth that is tried
_WORTHS = 20.0 * 3.0 ** -np.arange(6)
_SHOWN = ("load_spread", "load_drift", "max_over_mean", "half_step")
_LEVEL = 0.9


class Row(NamedTuple):
    """A quantity of a layer ("both": of the whole model) under a way of balancing, predicted and measured by seed."""

    quantity: str
    balancing: str
    layer: str
    predicted: np.ndarray
    measured: np.ndarray


def reality(loads: xr.Dataset) -> xr.Dataset:
    """Predicted against measured along `row`: `predicted` with `low` and `high`, `measured` with `least` and `most`.

    The last two seeds of `loads` (see `recorded`) are predicted from those before them. Raises InputError where nothing
    ran without balancing, or with fewer than three seeds.
    """
    seeds = np.unique(loads.seed)
    if len(seeds) <= JUDGED or "none" not in loads.balancing.values:
        raise InputError(f"lab: loads of {len(seeds)} seeds; it takes three or more, and balancing=none among them")
    judged = np.isin(loads.seed, seeds[-JUDGED:])
    rows = _rows(loads.isel(trajectory=~judged), loads.isel(trajectory=judged))
    return _dataset(rows)


def _rows(before: xr.Dataset, after: xr.Dataset) -> list[Row]:
    free, rows, losses, splits = _of(before, "none"), [], {}, []
    for layer in range(before.sizes["layer"]):
        found, name = calibrate(free.isel(layer=[layer])), str(layer + 1)
        for kind in dict.fromkeys(after.balancing.values.tolist()):
            own, balanced = _of(after, kind), _balanced(before, found, kind, layer)
            made = simulated(before, routing_of(found, kind, **balanced), own)
            losses.setdefault(kind, []).append(made.micro_loss.isel(step=-1).values)
            told, seen = _told(made, own), described(*counts_of(own.isel(layer=[layer])))
            rows += [Row(what, kind, name, told[what].ravel(), seen[what].ravel()) for what in _SHOWN]
        splits += _split_rows(before, routing_of(found), _of(after, "none"), layer)
    return rows + _effects(losses, after) + splits


def _balanced(before: xr.Dataset, found: Any, kind: str, layer: int) -> dict[str, float]:
    """`rate` of a way of balancing, and the `worth` of its pushes at which loads are as uneven as they were.

    What is pushed is a gate; how far that moves a log share is no part of what loads without balancing say.
    """
    if kind == "none":
        return {}
    own = _of(before, kind)
    rate = float(own.balancing_rate[0])
    goal = float(described(*counts_of(own.isel(layer=[layer])))["load_spread"].mean())

    def spread(worth: float) -> float:
        made = simulated(before, routing_of(found, kind, rate=rate, worth=worth), own, seeds=_TRIED)
        return float(_told(made, own)["load_spread"].mean())

    spreads = [spread(worth) for worth in _WORTHS]
    return {"rate": rate, "worth": float(_WORTHS[int(np.argmin(np.abs(np.log(np.array(spreads) / goal))))])}


def _of(loads: xr.Dataset, kind: str) -> xr.Dataset:
    return loads.isel(trajectory=loads.balancing.values == kind)


def simulated(loads: xr.Dataset, routing: dict[str, Any], like: xr.Dataset, **more: Any) -> xr.Dataset:
    """`moesim balance` of these models: the world of `loads`, one layer, as many steps as `like` has.

    An expert holds all that acts on a token; the attention's part of it is shared.
    """
    from moesim.balance.run import simulate

    steps, params = int(like.window_step[-1]), float(like.active_params[0])
    attention = 4.0 * float(like.d_model[0]) ** 2 * float(like.layers[0])
    config = {
        "world": world_of(loads),
        "routing": routing,
        "cluster": {"devices": 1, "slots_per_device": like.sizes["expert"] + 1},
        "steps": steps,
        "tokens_per_step": float(like.batch[0]),
        "experts": like.sizes["expert"],
        "capacity": params,
        "shared_factor": attention / params,
        "seeds": _SEEDS,
        "record_every": 1,
    }
    return simulate(**config | more)


def _told(made: xr.Dataset, like: xr.Dataset) -> dict[str, np.ndarray]:
    """What simulated loads look like in the windows of real ones."""
    ends = like.window_step.values.astype(int)
    summed = np.add.reduceat(made.loads.values[:, : ends[-1]], np.r_[0, ends[:-1]], axis=1)
    return described(summed[:, :, None, None], ends.astype(float))


def _effects(losses: dict[str, list[np.ndarray]], after: xr.Dataset) -> list[Row]:
    """The loss without balancing at the end, and what each way of balancing changes in it."""
    told = {kind: np.mean(values, axis=0) for kind, values in losses.items()}
    last = after.loss.dropna("tokens", how="all").isel(tokens=-1)
    seen = {kind: last.values[after.balancing.values == kind] for kind in told}
    changed = [
        Row("loss less that of none", kind, "both", told[kind] - told["none"], seen[kind] - seen["none"])
        for kind in told
        if kind != "none" and len(seen[kind]) == len(seen["none"])
    ]
    return [Row("loss", "none", "both", told["none"], seen["none"]), *changed]


def _split_rows(before: xr.Dataset, routing: dict[str, Any], after: xr.Dataset, layer: int) -> list[Row]:
    """What a split of the hottest expert does to the loss at once and later, as the probe of the lab has it."""
    if "split_loss" not in after:
        return []
    more = int(after.since[-1]) // int(after.batch[0])
    steps, experts = int(after.window_step[-1]), after.sizes["expert"]
    structure = {"policy": "split", "way": "clone", "every": steps, "at_most": 1, "threshold": 1.0}
    runs = {"steps": steps + more, "max_experts": experts + 1}
    cut = simulated(before, routing, after, structure=structure, **runs).micro_loss
    whole = simulated(before, routing, after, steps=steps + more).micro_loss
    told = (cut - whole).isel(step=[steps + 1, -1]).values
    seen = (after.split_loss - after.unsplit_loss).isel(layer=layer, router_noise=0, weight_noise=0, since=[0, -1])
    names = ("loss at a split", f"loss {more} steps after a split")
    seen = seen.transpose("trajectory", "since").values
    return [Row(name, "none", str(layer + 1), told[:, i], seen[:, i]) for i, name in enumerate(names)]


def _dataset(rows: list[Row]) -> xr.Dataset:
    import xarray as xr

    tail = (1 - _LEVEL) / 2
    ends = np.array([np.quantile(row.predicted, [0.5, tail, 1 - tail], method="inverted_cdf") for row in rows]).T
    seen = np.array([(np.mean(row.measured), np.min(row.measured), np.max(row.measured)) for row in rows]).T
    names = ("predicted", "low", "high", "measured", "least", "most")
    values = dict(zip(names, (*ends, *seen), strict=True))
    held = (values["least"] <= values["high"]) & (values["most"] >= values["low"])
    words = {name: [getattr(row, name) for row in rows] for name in ("quantity", "balancing", "layer")}
    return xr.Dataset({name: ("row", v) for name, v in (values | {"held": held} | words).items()})


def table(data: xr.Dataset) -> str:
    """Predicted against measured, row by row; a miss is called one."""
    lines = [("quantity", "balancing", "layer", "predicted", "measured", "")]
    for i in range(data.sizes["row"]):
        row = {name: data[name].values[i] for name in data.data_vars}
        told = f"{_cell(row['predicted'])} [{_cell(row['low'])}, {_cell(row['high'])}]"
        seen = f"{_cell(row['measured'])} [{_cell(row['least'])}, {_cell(row['most'])}]"
        lines.append((row["quantity"], row["balancing"], row["layer"], told, seen, "" if row["held"] else "miss"))
    held = int(data.held.sum())
    return (
        f"the simulator, calibrated on the other seeds, against the last {JUDGED}: {held} of {len(lines) - 1} held\n"
        f"predicted: median and {_LEVEL:.0%} of {_SEEDS} simulated seeds; measured: mean, least, most\n"
        + aligned(lines, 2)
    )


def _cell(value: float) -> str:
    return "never" if np.isinf(value) else plain(round(float(value), 4 if abs(value) < 0.1 else 2))


def draw(data: xr.Dataset) -> Figure:
    """Predicted against measured, a panel for each quantity; on the line they agree, a miss is hollow."""
    quantities = list(dict.fromkeys(data.quantity.values.tolist()))
    colour = colours_of(list(dict.fromkeys(data.balancing.values.tolist())))
    figure, panels = panels_for(len(quantities), (2.7, 2.4))
    for axes, quantity in zip(panels, quantities, strict=True):
        own = data.isel(row=data.quantity.values == quantity)
        values = {
            name: np.minimum(own[name].values, _beyond(own))
            for name in ("predicted", "low", "high", "measured", "least", "most")
        }
        for i, kind in enumerate(own.balancing.values.tolist()):
            p, m = values["predicted"][i], values["measured"][i]
            across = [[m - values["least"][i]], [values["most"][i] - m]]
            up = [[p - values["low"][i]], [values["high"][i] - p]]
            face = colour[kind] if own.held.values[i] else "white"
            mark = "osD^v"[int(own.layer.values[i]) % 5] if own.layer.values[i] != "both" else "o"
            axes.errorbar(
                m, p, up, across, marker=mark, color=colour[kind], mfc=face, ls="none", ms=5, lw=0.8, label=kind
            )
        ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
        axes.plot(ends, ends, color="0.6", lw=0.8, zorder=0)
        titled(axes, quantity.replace("_", " "))
        axes.set_xlabel("measured")
        axes.locator_params(nbins=4)
    panels[0].set_ylabel("predicted")
    return finish(figure, "The simulator against small models it has not seen", "hollow: a miss; marks: layers")


def _beyond(own: xr.Dataset) -> float:
    """Where what never happens is drawn: half as far again as the last that does."""
    values = np.concatenate([own[name].values for name in ("high", "most")])
    finite = values[np.isfinite(values)]
    return 1.5 * float(finite.max()) if len(finite) else 1.0
