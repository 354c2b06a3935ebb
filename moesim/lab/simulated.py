"""From recorded loads to what `moesim balance` takes: a world of the domains that were read, a router like theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.lab.compared import Interval
from moesim.lab.estimates import ROUTER, calibrate
from moesim.output.provenance import as_yaml

if TYPE_CHECKING:
    import xarray as xr

_ALPHA = 0.34  # of parameters, as of Hoffmann et al. 2022: two sizes tell a term, not its exponent
_SIZE = 8.0
"""What A is at that exponent: dense models of 24.6e3 and 139e3 parameters end .12 nat apart on 2e6 bytes of text."""
_NO_FLOOR = 1e-6  # nat: a coefficient of a law that takes numbers above 0
_CONTROLS: Mapping[str, Any] = {
    "none": lambda **keys: "none",
    "auxiliary": lambda rate, **keys: {"policy": "auxiliary", "weight": rate, **keys},
    "loss_free": lambda rate, **keys: {"policy": "sign", "step": rate, **keys},
}


def world_of(loads: xr.Dataset) -> dict[str, Any]:
    """The world of the domains that these runs read: how frequent each is, and the law of their loss by tokens.

    The law goes through the last two of the mean losses; without them the default stays.
    """
    counts = loads.loads.sum([dim for dim in loads.loads.dims if dim != "domain"]).values
    names = [str(name) for name in loads.domain.values]
    world = {"policy": "given", "frequency": (counts / counts.sum()).round(6).tolist(), "names": names}
    world["frequency"][0] += 1.0 - sum(world["frequency"])
    return world | {"unique_tokens": np.inf, "vocabulary": 256} | curve_of(loads)


def curve_of(loads: xr.Dataset) -> dict[str, Any]:
    """`curve` of a world: A/N^alpha + B/D^beta through the mean losses at the last two marks; nothing without them.

    It has no floor: these runs are far from one, and their losses fall by as much at each doubling.
    """
    if "loss" not in loads or loads.sizes["tokens"] < 2:
        return {}
    fresh = loads.loss.dropna("tokens", how="all").dropna("trajectory")  # what repeats has no loss in its first pass
    mean = fresh.mean("trajectory")[-2:]
    tokens, size = mean.tokens.values.astype(float), _SIZE * float(loads.active_params.mean()) ** -_ALPHA
    earlier, later = mean.values - size
    beta = np.log(earlier / later) / np.log(tokens[1] / tokens[0])
    values = {"E": _NO_FLOOR, "A": _SIZE, "alpha": _ALPHA, "B": later * tokens[1] ** beta, "beta": beta}
    law = {"policy": "law", "name": "hoffmann2022", "coefficients": {k: float(v) for k, v in values.items()}}
    return {"curve": law | {"first_tokens": float(tokens[0] / 8)}, "repetition": "none"}


def routing_of(found: Mapping[str, Interval | str], balancing: str = "none", **balanced: float) -> dict[str, Any]:
    """The router of these estimates, balanced in that way (`rate`, `worth`); defaults stay where one is not identified.

    What is used is used more (`popularity`) and nothing decays, which is how the estimates were read.
    """
    known = {name: v.value for name in ROUTER if isinstance(v := found[name], Interval)}
    grown = {"reinforcement": known.pop("popularity")} if "popularity" in known else {}
    same = {"policy": "topk", "affinity": 0.0, "reward": "popularity", "decay": 0.0, "fidelity": "tokens"}
    return same | known | grown | {"control": _CONTROLS[balancing](**balanced)}


def files_of(loads: xr.Dataset, found: Mapping[str, Interval | str]) -> dict[str, str]:
    """world.yaml and routing.yaml of these loads, and a router for each layer, since layers differ."""
    files = {"world.yaml": _HEAD + as_yaml(world_of(loads))} if "domain" in loads.coords else {}
    files |= {"routing.yaml": _HEAD + as_yaml(routing_of(found))}
    for layer in range(loads.sizes["layer"] if loads.sizes["layer"] > 1 else 0):
        own = calibrate(loads.isel(layer=[layer]))
        files[f"routing_layer_{layer + 1}.yaml"] = _HEAD + as_yaml(routing_of(own))
    return files


_HEAD = "# By moesim lab calibrate, from loads of small models: not for planning.\n"
