"""Questions about training apart that are answered by a table: each a function of the config of `moesim sites`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moesim import config as files
from moesim.errors import InputError
from moesim.laws.load import load_law
from moesim.sites.cut import CUTS
from moesim.sites.place import everywhere, groups_of
from moesim.sites.quality import Quality, effective_share
from moesim.variables import NON_NEGATIVE, POSITIVE, check

if TYPE_CHECKING:
    import xarray as xr

Simulated = Callable[[Mapping[str, Any]], Any]
_DAY = 86400.0
_PEAK, _HOSTS, _MEMORY, _UP, _DOWN = 1.5e18, 7e5, 8e9, 1e7, 1e8  # of Folding@home in March 2020; memory, links assumed


class Published(NamedTuple):
    """A model whose training is known."""

    total: float  # parameters
    active: float
    d_model: float
    compute: float  # FLOP


MODELS = {
    "gpt3_175b": Published(174.6e9, 174.6e9, 12288, 3.15e23),
    "deepseek_v3": Published(671e9, 37e9, 7168, 3.3e24),
    "llama31_405b": Published(405.9e9, 405.9e9, 16384, 3.79e25),
}
AVAILABLE = {"BOINC hosts 2006": 0.81 * 0.84 * 0.90, "Weibull and lognormal": 0.246}
"""Published readings of the share of the time that a volunteer's device computes."""
_UTILISED, _RETURNED, _BITS, _UNIT, _STEPS = 0.3, 0.98 / 2, 16 / 146, 3600.0, 10.0


def folding_at_home(config: Mapping[str, Any], made: Simulated) -> xr.Dataset:
    """Days that a published model would take on Folding@home of 2020, factor by factor (dims model, reading, factor).

    Peak; 30 % of it used; there; two copies of each piece, 98 % of which come back; piped, since a host holds a shard
    of 8 GB and hands on activations and their gradients in 16 bits at 10 Mbit/s; sent, the shard's parameters 146 times
    compressed after each hour of work; and learned, the loss of so many replicas as lost compute. Nobody has tried more
    than 64 replicas: the last factor is extrapolated.
    """
    import xarray as xr

    names = ["peak", "used", "there", "checked", "piped", "sent", "learned"]
    holders = {name: np.ceil(model.total * 16 / _MEMORY) for name, model in MODELS.items()}
    shares = np.array([[_factors(name, there, holders) for there in AVAILABLE.values()] for name in MODELS])
    compute = np.array([model.compute for model in MODELS.values()])
    days = compute[:, None, None] / (_PEAK * np.cumprod(shares, axis=-1)) / _DAY
    coords = {"model": list(MODELS), "reading": list(AVAILABLE), "factor": names}
    told = {"share": (("model", "reading", "factor"), shares), "days": (("model", "reading", "factor"), days)}
    return xr.Dataset({**told, "hosts_of_a_replica": ("model", list(holders.values()))}, coords)


def _factors(name: str, there: float, holders: Mapping[str, float]) -> list[float]:
    """What each factor leaves of the one before."""
    model, hosts = MODELS[name], holders[name]
    rate = _PEAK / _HOSTS * _UTILISED * hosts / (6 * model.active)  # tokens/s of a replica
    piped = min(1.0, _UP / (rate * model.d_model * 16 * 2)) if hosts > 1 else 1.0
    sending = model.total / hosts * _BITS * (1 / _UP + 1 / _DOWN)
    law = load_law("besiroglu2024")
    loss = float(law(total_params=model.active, tokens=model.compute / 6 / model.active))
    alpha, beta, floor = (float(law.coefficients[c]) for c in ("alpha", "beta", "E"))
    quality = Quality()
    factor = quality.multiplier(_HOSTS * there / 2 / hosts, model.active, _STEPS)
    lost = effective_share(loss, factor, floor, alpha * beta / (alpha + beta))
    return [1.0, _UTILISED, there, _RETURNED, piped, _UNIT / (_UNIT + sending), float(lost * quality.kept(_BITS))]


def stem_path_or_diloco(config: Mapping[str, Any], made: Simulated) -> xr.Dataset:
    """Loss, share of the time at work and cost after the hours of the config, by protocol, links and levels cut off.

    And which protocol is best where: in loss after these hours (the rent is then the same), and in $ to the target.
    """
    sites = sum(group.simulated for group in groups_of(config["site"]).values())
    links, levels = np.geomspace(1e6, 1e11, 6), np.arange(1, int(np.log2(sites)) + 1)
    names = ("diloco", "streaming", "frozen_stem", "path_sync")

    def runs(name: str, link: float) -> list[dict[str, float]]:
        chosen = _with(config, name, up=link, down=link)
        if "levels" not in chosen["protocol"]:
            return [_outcome(made(chosen))] * len(levels)
        return [_outcome(made({**chosen, "protocol": {**chosen["protocol"], "levels": int(n)}})) for n in levels]

    found = [[runs(name, link) for link in links] for name in names]
    data = _grid(found, {"protocol": list(names), "bandwidth": links, "levels": levels})
    data = data[["loss", "at_work", "cost", *(name for name in data if str(name).endswith("_to_target"))]]
    criteria = {name: data[name] for name in ("loss", "cost_to_target") if name in data}
    best = {f"best_{name}": (values.dims[1:], _best(values.values, names)) for name, values in criteria.items()}
    return data.assign(best)


def _best(values: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Name of the lowest along the first axis; none where all are NaN."""
    lowest = np.argmin(np.where(np.isnan(values), np.inf, values), axis=0)
    return np.where(np.isnan(values).all(axis=0), "none", np.array(names)[lowest])


def slack(config: Mapping[str, Any], made: Simulated) -> xr.Dataset:
    """What is paid for time up and not at work, by protocol, and from which idle length a low-power mode pays.

    The mode takes as little as a quarter of the idle watts, and costs as many joules to enter and leave as the device
    takes idle in 1 ms to 100 s (parameters: nothing public says).
    """
    names = ("data_parallel", "diloco", "streaming", "asynchronous")
    found = _grid([[_outcome(made(_with(config, name)))] for name in names], {"protocol": list(names), "run": [0]})
    place = next(iter(groups_of(config["site"]).values()))
    seconds = np.geomspace(1e-3, 1e2, 6)
    pays = break_even_idle(seconds * place.idle_watts, place.idle_watts, place.idle_watts / 4)
    return found.isel(run=0, drop=True).assign_coords(entry=seconds).assign(idle_that_pays=("entry", pays))


def break_even_idle(joules: Any, idle_watts: Any, low_watts: Any) -> Any:
    """Seconds of idling above which a mode of `low_watts`, whose entry and exit take `joules`, saves energy."""
    saved = check("sites", "idle_watts", idle_watts, POSITIVE) - check("sites", "low_watts", low_watts, NON_NEGATIVE)
    return check("sites", "joules", joules, NON_NEGATIVE) / check("sites", "watts saved", saved, POSITIVE)


def levels_given_away(config: Mapping[str, Any], made: Simulated) -> xr.Dataset:
    """Loss, time at work and cost after the hours of the config, by links and by levels of the tree that are cut off.

    All sites train: without a cut they average as one, with all levels cut each has a part of its own, sends nothing
    and sees least. `best_levels` is where what parts do not see begins to cost more than they gain and need not send.
    """
    if config["protocol"].get("policy") != "frozen_stem" or not config["protocol"].get("all_sites"):
        raise InputError("levels_given_away: a protocol that gives no levels away; choose protocol=crews")
    sites = sum(group.simulated for group in groups_of(config["site"]).values())
    levels, links = np.arange(int(np.log2(sites)) + 1), np.geomspace(1e7, 1e10, 4)
    asked = [[(link, {**config["protocol"], "levels": int(n)}) for n in levels] for link in links]
    found = [
        [_outcome(made(_with({**config, "protocol": stem}, None, up=link, down=link))) for link, stem in row]
        for row in asked
    ]
    data = _grid(found, {"bandwidth": links, "levels": levels})[["loss", "at_work", "cost"]]
    return data.assign(best_levels=data.loss.idxmin("levels"))


def unequal_machines(config: Mapping[str, Any], made: Simulated) -> xr.Dataset:
    """Hours until all tokens are trained on, and the loss then, by the way the tree is cut.

    For sites of unequal speed and domains of unequal size; mean over seeds. `finished`: share of the seeds that were
    done within the hours of the config.
    """
    found = [[_finished(made({**config, "protocol": {**config["protocol"], "cut": how}})) for how in CUTS]]
    return _grid(found, {"run": [0], "cut": list(CUTS)}).isel(run=0, drop=True)


def _finished(data: xr.Dataset) -> dict[str, float]:
    last = data.hours.where(data.tokens > 0).max("round")
    loss = data.loss.isel(round=-1)
    done = last < float(data.hours[-1])
    return {
        name: float(values.mean("seed")) for name, values in {"hours": last, "loss": loss, "finished": done}.items()
    }


def cheapest_provider(config: Mapping[str, Any], made: Simulated) -> xr.Dataset:
    """Hours and cost until the target loss, and the loss and cost after the hours of the config, by set of zones.

    Last rows: so many sites at a time, wherever they are up and cheapest for their FLOP at the moment.
    """
    groups = config["site"].get("groups")
    if not groups:
        raise InputError("cheapest_provider: a site without groups; choose one with several, as site=spot")
    chosen = [zones for size in range(1, len(groups) + 1) for zones in combinations(groups, size)]
    found = [_outcome(made(_with(config, None, groups={zone: groups[zone] for zone in zones}))) for zones in chosen]
    most = sum(group.sites for group in groups_of(config["site"]).values())
    counts = list(range(1, most))
    found += [_outcome(made({**config, "rented": count})) for count in counts]
    names = [" + ".join(zones) for zones in chosen] + [f"cheapest {count} of {most}" for count in counts]
    return _grid([found], {"run": [0], "zones": names}).isel(run=0, drop=True)


def _with(config: Mapping[str, Any], protocol: str | None, **site: Any) -> dict[str, Any]:
    chosen = {} if protocol is None else {"protocol": files.read("protocol", protocol)}
    return {**config, **chosen, "site": everywhere(config["site"], **site)}


def _outcome(data: xr.Dataset) -> dict[str, float]:
    """What a run came to, mean over seeds."""
    total = data.sum("round").mean("seed")
    ends = {name: float(data[name].mean("seed")) for name in ("hours_to_target", "cost_to_target") if name in data}
    up, loss = float(total.up), float(data.loss.isel(round=-1).mean("seed"))
    sums = {name: float(total[name]) for name in ("tokens", "bytes", "cost", "energy", "slack_cost", "slack_energy")}
    return {"loss": loss, "at_work": float(total.working) / up if up else 0.0, **sums, **ends}


def _grid(found: Any, coords: Mapping[str, Any]) -> xr.Dataset:
    """Outcomes in nested lists, one level to each of the dims, as a Dataset."""
    import xarray as xr

    cells = np.array(found, dtype=object)
    names = cells.flat[0]
    values = {name: (tuple(coords), np.vectorize(lambda one, name=name: one[name], [float])(cells)) for name in names}
    return xr.Dataset(values, coords)


QUESTIONS = {
    each.__name__: each
    for each in (folding_at_home, stem_path_or_diloco, levels_given_away, unequal_machines, cheapest_provider, slack)
}
"""The questions by name."""


def table(data: xr.Dataset) -> str:
    """Variables of one dim side by side; of the others a block each, with a column for each place of the last dim."""
    from moesim.output.text import aligned

    alone: dict[str, list[list[str]]] = {}
    blocks = []
    for name, values in data.data_vars.items():
        *outer, last = map(str, values.dims)
        if not outer:
            labels = alone.setdefault(last, [["", *map(_label, data[last].values)]])
            labels.append([str(name), *map(_label, values.values)])
            continue
        places = [", ".join(map(_label, at)) for at in product(*(data[dim].values for dim in outer))]
        rows = zip(places, values.values.reshape(len(places), -1), strict=True)
        cells = [["", *map(_label, data[last].values)], *([place, *map(_label, row)] for place, row in rows)]
        blocks.append(f"{name}\n" + aligned(cells))
    blocks += [aligned(list(map(list, zip(*columns, strict=True)))) for columns in alone.values()]
    return "\n\n".join(blocks) + "\n"


def _label(value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{value:.4g}"
