"""`moesim balance`, and `moesim.simulate` for Python: a config to a Dataset, its figures and its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.balance import figures, placement, policies, routing, sampling, structure, study, tables, trace, worlds
from moesim.balance.setting import GROUPS, Run
from moesim.domains import world
from moesim.domains.curves import curves
from moesim.errors import InputError
from moesim.hardware import step
from moesim.output.kept import Keep, kept, nothing
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.settings import defaults

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

# The files that are taken where a group is not chosen.
CHOICES = {
    "world": "zipf",
    "routing": "topk",
    "structure": "fixed",
    "sampling": "natural",
    "placement": "static",
    "chip": "h100",
    "cluster": "node",
    "expert": "fine_grained",
    "schedule": "bf16",
}
# Mappings whose keys are the user's own.
OPEN = ("policies", "sweep", "world.curve", "world.repetition", "world.overfit", "routing.control", "structure.way")
# Keys that take an axis: a list or a range.
AXES: tuple[str, ...] = ()
_LEARNING = (
    "steps",
    "seeds",
    "seed",
    "experts",
    "max_experts",
    "forgetting",
    "selective",
    "load_memory",
    "learn_every",
    "record_every",
    "target_loss",
)
_KINDS = {
    "world": world.world,
    "routing": routing.routing,
    "structure": structure.structure,
    "sampling": sampling.sampling,
    "placement": placement.placement,
}


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/balance.yaml` asks for.

    One run; with `policies` (name -> replaced groups) several on the same draws, along a dim; with `sweep` those over
    worlds (see `study`); with a trace as world the recorded loads are replayed. Raises InputError for bad input.
    """
    with kept("balance", _asked(config)) as keep:
        data = _made(config, keep)
    table = tables.table
    if config.get("sweep"):
        table = tables.worlds_table if worlds.many(config) else tables.study_table
    elif trace.is_trace(config):
        table = tables.trace_table
    drawn = figures.draw(data) if config.get("figures", True) else {}
    return Result(data, table(data), file="balance.nc", figures=drawn)


def compared(data: xr.Dataset) -> tuple[str, dict[str, Figure]]:
    """The answer of a multirun: one table and one figure of what was varied, from its collected Dataset."""
    if {"policy", "axes"} & {*data.dims, *data.attrs} or "step" not in data.dims:
        return "dims: " + ", ".join(f"{name} {size}" for name, size in data.sizes.items()), {}
    return tables.compared(data), {"comparison": figures.compared(data)}


def _made(config: Mapping[str, Any], keep: Keep = nothing) -> xr.Dataset:
    asked = worlds.study if worlds.many(config) else study.study
    data = asked(config, keep) if config.get("sweep") else policies.compared(config)
    return signed(data, "balance", _asked(config), **_names(config))


def _asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what changes no number."""
    return {name: value for name, value in config.items() if name != "workers"}


def _names(config: Mapping[str, Any]) -> dict[str, str]:
    """What a result tells of itself: the names of its choices, and the law and the repetition of its domains."""
    varied = {group for changes in (config.get("policies") or {}).values() for group in changes or {}}
    given = {group: config.get(group, {}).get("policy", CHOICES[group]) for group in _KINDS}
    told = {group: getattr(policy, "__name__", str(policy)) for group, policy in given.items()}
    told |= {group: str(name) for group, name in (config.get("choices") or {}).items()}
    told = {group: name for group, name in told.items() if group not in varied}
    if trace.is_trace(config):
        return told
    keys = {**world.world.shared, **config["world"]}
    repetition, curve = keys["repetition"], {"policy": "law"} | (dict(keys["curve"]) if keys["curve"] != "law" else {})
    if curve["policy"] == "law":
        told["law"] = str(curve.get("name", curves["law"].takes["name"]))
    return told | {"repetition": str(repetition["name"] if isinstance(repetition, Mapping) else repetition)}


def keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key that these choices take, with its default in the code."""
    known: dict[str, Any] = defaults(Run)
    for group, cls in step.GROUPS.items():
        known[group] = dict.fromkeys(cls.__dataclass_fields__) | defaults(cls)
    for group, kind in _KINDS.items():
        chosen = str((config.get(group) or {}).get("policy"))
        kind = trace.traces if group == "world" and chosen in trace.traces else kind
        takes = kind[chosen].takes if chosen in kind else {}
        known[group] = {"policy": chosen, **kind.shared, **takes}
    return known


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    if trace.is_trace(config):
        return _idle_in_a_trace(bool(config["world"].get("path")))
    idle = {} if config.get("sweep") else {"workers": "without sweep"}
    if not config.get("policies"):
        router, shape = config["routing"], config["structure"].get("policy")
        if not config.get("selective"):
            idle["gradient_noise"] = "with selective=0"
        if router.get("fidelity", "mean_field") != "tokens":
            idle["routing.batch"] = "without routing.fidelity=tokens"
        if np.isinf(router.get("capacity_factor", np.inf)):
            idle["schedule.padding"] = "without routing.capacity_factor"
        if config["schedule"].get("microbatches") is not None:
            idle["schedule.microbatch_tokens"] = "with schedule.microbatches"
        if config["schedule"].get("dense_flops_per_token") is None:
            idle["schedule.dense_share"] = "without schedule.dense_flops_per_token"
        if shape in structure.structure and not structure.structure[shape].traits["grows"]:
            idle |= dict.fromkeys(("structure.threshold", "structure.patience", "max_experts"), f"in structure={shape}")
    return idle


def _idle_in_a_trace(of_a_file: bool) -> dict[str, str]:
    idle: dict[str, str] = dict.fromkeys((*_LEARNING, "routing", "structure", "sampling"), "with recorded loads")
    if of_a_file:
        return idle | dict.fromkeys(("world.model", "world.count_kind"), "with world.path")
    return idle | dict.fromkeys(("world.tokens_per_window", "world.trajectory"), "without world.path")


def simulate(**config: Any) -> xr.Dataset:
    """Simulate the experts of a run; the Dataset of `moesim balance`, with the same defaults.

    Groups (world, routing, structure, sampling, placement, chip, cluster, expert, schedule) take the name of a file in
    conf/GROUP or the path of one, a mapping of keys laid over the default file, or, for the first five, a function of
    your own. Other keys are those of `moesim balance` (`experts`, `steps`, `seeds`, ...; see `setting.Run`), and
    single keys of groups by their dotted names::

        moesim.simulate(structure="split", sampling=mine, chip="h200", steps=400, **{"world.rho": 0.1})

    Dims seed, step, expert, device, domain; `policies` adds policy, `sweep` its axes. Raises InputError for what is
    unknown or outside its domain, before the first step.
    """
    own = _nested(config)
    whole = {group: _laid_over(group, own.get(group)) for group in CHOICES}
    names = {group: _name(config.get(group), default) for group, default in CHOICES.items()}
    return _made({**own, **whole, "choices": names})


def _name(choice: Any, default: str) -> str:
    if isinstance(choice, Mapping):
        choice = choice.get("policy", default)
    return default if choice is None else getattr(choice, "__name__", str(choice))


def _nested(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as mappings within mappings, laid over what is chosen for their group."""
    out = {name: value for name, value in config.items() if "." not in name}
    for name, value in config.items():
        group, *path = name.split(".")
        if path:
            out[group] = _put(_laid_over(group, out.get(group)), path, value)
    return out


def _put(config: Any, path: list[str], value: Any) -> dict[str, Any]:
    head, *rest = path
    own = dict(config) if isinstance(config, Mapping) else {}
    return {**own, head: _put(own.get(head), rest, value) if rest else value}


def _laid_over(group: str, choice: Any) -> Any:
    """A choice as the keys of its group: a name's file, a mapping over the default file, a function as policy."""
    if choice is None or isinstance(choice, str) or group not in GROUPS:
        return policies.named({group: choice or CHOICES.get(group)})[group]
    if callable(choice):
        return {"policy": choice}
    if not isinstance(choice, Mapping):
        raise InputError(f"balance: {group}={choice!r}; it takes a name, a path, a mapping or a function")
    return choice if "policy" in choice else {**policies.named({group: CHOICES[group]})[group], **choice}
