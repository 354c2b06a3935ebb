"""`moesim sites`, and `moesim.sites.simulate` for Python: a config to a Dataset, its table and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim import config as files
from moesim.domains.world import world as worlds
from moesim.errors import InputError
from moesim.laws.law import Law
from moesim.laws.load import law_from, load_law
from moesim.models.operations import choose
from moesim.models.transformer import Transformer
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.registry import Policy
from moesim.settings import defaults, known
from moesim.settings import read as read_settings
from moesim.sites import apart  # noqa: F401  its protocols
from moesim.sites.engine import Run, Setting, simulated
from moesim.sites.place import Site, everywhere, groups_of
from moesim.sites.protocols import protocol
from moesim.sites.quality import EVIDENCE, MEASURED_PARTS, MEASURED_REPLICAS, MEASURED_STEPS, Quality

if TYPE_CHECKING:
    import xarray as xr

# Mappings whose keys are the user's own.
OPEN = (
    "site.groups",
    "site.availability",
    "model.transformer",
    "world.curve",
    "world.repetition",
    "world.overfit",
)
# Keys that take an axis: a list or a range.
AXES: tuple[str, ...] = ()
_GROUPS = ("site", "protocol", "model", "law", "world")
_BESIDE = ("verb", "figures", "question", "plugins", "choices", "experiment", "quality")


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/sites.yaml` asks for."""
    from moesim.sites import figures, questions, tables

    if config.get("question") is not None:
        return _answered(config, choose("question", config["question"], questions.QUESTIONS))
    data = _made(config)
    drawn = figures.draw(data) if config.get("figures", True) else {}
    return Result(
        data,
        tables.table(data),
        file="sites.nc",
        figures=drawn,
        warnings=tuple(data.attrs.get("outside", "").splitlines()),
    )


def _answered(config: Mapping[str, Any], question: Any) -> Result:
    from moesim.sites import figures, questions

    data = signed(question(config, _made), "sites", config, question=str(config["question"]))
    drawn = figures.draw(data) if config.get("figures", True) else {}
    return Result(data, questions.table(data), file="sites.nc", figures=drawn)


def keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Every key that these choices take, with its default in the code."""
    chosen = str((config.get("protocol") or {}).get("policy"))
    takes = protocol[chosen].takes if chosen in protocol else {}
    site = dict.fromkeys(Site.__dataclass_fields__) | defaults(Site)
    found = {**defaults(Run), "site": {**site, "chip": None, "groups": None}, "quality": defaults(Quality)}
    return {**found, "protocol": {"policy": chosen, **takes}, "world": _world_keys(config.get("world"))}


def _world_keys(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    chosen = str((config or {}).get("policy"))
    takes = worlds[chosen].takes if chosen in worlds else {}
    return None if config is None else {"policy": chosen, **worlds.shared, **takes}


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    if config.get("question") == "folding_at_home":
        return dict.fromkeys((*_GROUPS, *defaults(Run)), "with question=folding_at_home")
    of_models = ("params", "active_params", "flops_per_token", "d_model", "layers", "shared_share")
    model = config.get("model")
    idle: dict[str, str] = {"sequence": "without model=NAME"}
    if isinstance(model, int | float):
        idle["params"] = "beside a number as model"
    elif model is not None:
        idle = dict.fromkeys(map(str, of_models), "with model=NAME")
    if config.get("rented") is None:
        idle["stay"] = "without rented=NUMBER"
    if config.get("world") is not None:
        idle["unique_tokens"] = "with world=NAME"
    groups = config["site"].get("groups") if isinstance(config.get("site"), Mapping) else None
    own = [set(c) if isinstance(c, Mapping) else set() for c in groups.values()] if isinstance(groups, Mapping) else []
    everywhere = set.intersection(*own) if own else set()
    return idle | dict.fromkeys(
        (f"site.{key}" for key in everywhere), "where every group has its own; give site.groups.NAME.KEY"
    )


def simulate(
    site: Any = "three_continents",
    protocol: Any = "diloco",
    model: Any = None,
    law: Any = "hoffmann2022",
    world: Any = None,
    **settings: Any,
) -> xr.Dataset:
    """Simulate training across sites; the Dataset of `moesim sites`, with the same defaults.

    `site`, `protocol`: the name of a file in conf/, a path, or a mapping of its keys (`protocol` also a function);
    `model`: a name, a path, a Transformer, or a number of parameters; `law`: a name or a Law; `world`: the domains that
    parts are cut from, a name, a path or a mapping (None: data that are alike). `settings`: the keys of `moesim sites`
    (`hours`, `seeds`, `batch`, ...; see `engine.Run`), and keys of groups by their dotted names (`**{"site.up": 1e8}`
    for all sites, `**{"quality.stale": 0.1}`).

    Variables by (seed, round): hours up, working, waiting and sending summed over sites, tokens, bytes, cost, energy,
    what of these is slack, the loss, and what replicas (`loss_factor`) and parts (`parts_gain`) did to it; `site_*` by
    (seed, site). Raises InputError for what is unknown or out of its domain.
    """
    given = {"site": site, "protocol": protocol, "model": model, "law": law, "world": world}
    config = {group: _content(group, choice) for group, choice in given.items()} | {"quality": {}}
    for name, value in settings.items():
        group, _, key = name.partition(".")
        if key and group not in config:
            raise InputError(f"sites: no key {name!r}; {known((*_GROUPS, 'quality'), group)}")
        config = {**config, group: _changed(group, config[group], key, value)} if key else {**config, name: value}
    for name, why in idle(config).items():
        if name in settings:
            raise InputError(f"sites: {name}={settings[name]!r} has no effect {why}; leave it out")
    names = {group: str(getattr(choice, "name", choice)) for group, choice in given.items() if choice is not None}
    return _made({**config, "choices": names})


def _changed(group: str, content: Any, key: str, value: Any) -> dict[str, Any]:
    return everywhere(content, **{key: value}) if group == "site" else {**(content or {}), key: value}


def _content(group: str, choice: Any) -> Any:
    if isinstance(choice, str) and group != "law":
        return files.read(group, choice)
    return {"policy": choice} if group == "protocol" and callable(choice) else choice


def _made(config: Mapping[str, Any]) -> xr.Dataset:
    names = config.get("choices") or {}
    law = _law(config["law"], names)
    settings = {key: value for key, value in config.items() if key not in (*_GROUPS, *_BESIDE)}
    run = _with_model(read_settings(Run, "sites", settings), config.get("model"), names)
    chosen = protocol.only(config["protocol"])
    quality = read_settings(Quality, "quality", config.get("quality") or {})
    data = simulated(Setting(run, groups_of(config["site"]), chosen, law, quality, config.get("world")))
    told = {name: str(names[name]) for name in ("site", "protocol", "model", "world") if names.get(name)}
    rests = [text for name, (neutral, text) in EVIDENCE.items() if (data[name].fillna(neutral) != neutral).any()]
    about = {"policy": chosen.name, "outside": "\n".join(_outside(chosen, data, quality)), "evidence": "\n".join(rests)}
    return signed(
        data.assign_attrs({key: text for key, text in about.items() if text}), "sites", config, law=law, **told
    )


def _law(content: Any, names: Mapping[str, Any]) -> Law:
    if isinstance(content, Law):
        return content
    return load_law(content) if isinstance(content, str) else law_from(str(names.get("law", "law")), content)


def _with_model(run: Run, model: Any, names: Mapping[str, Any]) -> Run:
    """The run with the sizes and the cost of a token of the model."""
    if model is None:
        return run
    if isinstance(model, int | float):
        return read_settings(Run, "sites", {**run.__dict__, "params": model})
    shape = model if isinstance(model, Transformer) else Transformer.from_spec(str(names.get("model", "model")), model)
    total, acting = shape.total_params, shape.active_params
    # what a token leaves out are routed experts: of E, all but K
    routed = (total - acting) / (1.0 - shape.active_experts / shape.experts) if total > acting else 0.0
    return replace(
        run,
        params=total,
        active_params=acting,
        flops_per_token=shape.training_flops(run.sequence),
        d_model=shape.d_model,
        layers=shape.layers,
        shared_share=1.0 - routed / total,
    )


def _outside(chosen: Policy, data: xr.Dataset, quality: Quality) -> list[str]:
    """What the numbers rest on that nobody has measured."""
    low, high = MEASURED_STEPS
    steps = {**chosen.takes, **chosen.options}.get("steps")
    told = []
    if steps is not None and not low <= steps <= high and not steps == chosen.takes["steps"] == 1:
        told.append(f"protocol.steps={steps:g} lies outside of {low:g} to {high:g}, where its effect on the loss holds")
    most = float((data.up / np.diff(data.hours, prepend=0.0)).max())
    if steps is not None and most > MEASURED_REPLICAS:
        told.append(
            f"up to {most:,.0f} sites train; nobody has averaged more than {MEASURED_REPLICAS:g} replicas in public"
        )
    gained = float(data.parts_gain.max())
    if gained > quality.per_doubling * np.log2(MEASURED_PARTS) * (1 + 1e-9):
        told.append(
            f"parts gain {gained:.3g} nat, more than those of {MEASURED_PARTS} parts, the most that are measured"
        )
    if not bool(data.fits.all()):
        out = float(data.weight.where(~data.fits).sum())
        told.append(f"{out:,.0f} sites cannot hold their part of the model and do nothing")
    return told
