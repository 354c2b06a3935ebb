"""`moesim flops` and `moesim.flops`: networks and models to a Dataset of FLOPs by layer, pass, batch and optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.config import choices, read
from moesim.counting import clocked
from moesim.errors import InputError
from moesim.hardware.chip import Chip
from moesim.models import ratio
from moesim.models.conventions import ACTIVE_CONVENTIONS, CONVENTIONS, TOTAL_CONVENTIONS, Setting
from moesim.models.feedforward import Experts
from moesim.models.layers import Passes
from moesim.models.network import Network, parameters_of
from moesim.models.optimizers import Optimizer
from moesim.models.optimizers import optimizer as optimizer_of
from moesim.models.transformer import Transformer
from moesim.numerics.axes import axis
from moesim.output.budget import points, refuse_if_too_many
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.output.text import count as letters
from moesim.settings import defaults, truth
from moesim.settings import read as read_settings
from moesim.variables import POSITIVE, check, stamp

if TYPE_CHECKING:
    import xarray as xr

PASSES = Passes._fields
BATCHES = tuple(4**n for n in range(13))
_UNSET = Setting()
_ONE = "chip: takes one network or model, at one length of sequence and one depth"


@dataclass(frozen=True)
class Subject:
    """What is counted: a stack of layers, and the transformer and setting that it was built from, if it is one."""

    network: Network
    model: Transformer | None = None
    setting: Setting = _UNSET
    published: str = ""
    training_batch: float | None = None

    @classmethod
    def of(cls, model: Transformer, setting: Setting, about: Mapping[str, Any]) -> Subject:
        """A transformer; `about` is its reference file, or empty."""
        network = model.network(setting.sequence, setting.mask, setting.mtp, setting.form)
        described = replace(network, description=about.get("description", ""), source=about.get("source", ""))
        batch = (about.get("training") or {}).get("batch")
        return cls(described, model, setting, _published(about.get("published")), batch)


# Mappings whose keys are the user's own.
OPEN = ("updating", "model.transformer", "clock.layout")
# Keys that take an axis: a list or a range.
AXES: tuple[str, ...] = ("batch", "optimizer", "depth", "widths", "tokens", "sequence")


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/flops.yaml` asks for: counts of a network or a model, or of several side by side."""
    from moesim.counting import figures, log_width, tables

    dataset = _over_sequences(config, _subjects)
    drawn = figures.draw(dataset) if config["figures"] else {}
    told = (config.get("choices") or {}).get("chip")
    rivals = "" if config["compare"] or config.get("model") or config["depth"] else log_width.beside(config["network"])
    return Result(dataset, tables.table(dataset) + rivals + (clocked.measured(told) if told else ""), figures=drawn)


def keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are taken where a file lacks them."""
    chip = dict.fromkeys(Chip.__dataclass_fields__) | defaults(Chip)
    return {"chip": chip} if config.get("chip") is not None else {}


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    if config.get("widths") is not None:
        return dict.fromkeys(_NOT_OF_WIDTHS, "with widths")
    compared = [str(name) for name in config["compare"] or ()]
    out: dict[str, str] = {}
    if compared:
        out |= dict.fromkeys(("network", "model", "depth"), "beside compare")
    elif config.get("model") is not None:
        out |= dict.fromkeys(("network", "depth"), "on a model")
    elif not _has_depth(config.get("network")):
        out["depth"] = "on a network of fixed depth"
    networks = all(name in choices("network") for name in compared) if compared else config.get("model") is None
    of_models = ("tokens", "sequence", "mask", "mtp", "as") if networks else ()
    out |= dict.fromkeys(of_models, "on a network; give model=NAME")
    if config.get("chip") is None:
        return out | {"clock": "without chip=NAME"}
    if networks:
        return out | dict.fromkeys((f"clock.{name}" for name in clocked.OF_MODELS), "on a network")
    return out | dict.fromkeys((f"clock.{name}" for name in clocked.OF_NETWORKS), "on a model")


_NOT_OF_WIDTHS = (
    *("compare", "model", "depth", "network.depth", "network.hard", "optimizer", "tokens", "sequence", "mask", "mtp"),
    *("recompute", "as", "counting", "touched_only", "updating", "clock"),
)


def _has_depth(network: Any) -> bool:
    return "depth" in parameters_of("network", network or {})


def flops(
    model: Any = "onenet",
    *,
    batch: Any = BATCHES,
    optimizer: Any = ("sgd", "adamw"),
    tokens: Any = None,
    sequence: Any = 4096,
    mask: str = "causal",
    mtp: bool = False,
    recompute: str = "none",
    as_: str = "trained",
    counting: str = "matmul",
    touched_only: bool = False,
    updating: Mapping[str, Any] | None = None,
    depth: Any = None,
    chip: Any = None,
    clock: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """What a network or a model holds and costs: the Dataset of `moesim flops`, with the same defaults.

    `model`: the name or path of a network or model, the content of a `config.json`, a Network or a Transformer, or a
    list of these, which then stand along `network`. `batch`: samples or tokens per step, a number or 1-D; `optimizer`:
    a name, FLOP per weight, an Optimizer, or a list; `tokens`: of a whole run of a model; `sequence`: tokens per
    sequence, a number or an axis; `as_`: trained or executed; the others as in `conf/flops.yaml`. Variables: see
    `count`. Raises InputError for whatever is unknown, out of range or without effect.
    """
    several = isinstance(model, list | tuple)
    asked = {name.rstrip("_"): value for name, value in locals().items() if name not in ("model", "several")}
    for name in ("mtp", "touched_only"):
        truth("flops", name, asked[name])
    config = {"model": None if several else model, "compare": model if several else (), **asked}
    given = model if several else [model]
    return _over_sequences(config, lambda at: [found for one in given for found in _given(one, at)])


def _over_sequences(config: Mapping[str, Any], subjects: Callable[[Mapping[str, Any]], list[Subject]]) -> xr.Dataset:
    """The counts, along `sequence` if that is an axis; `subjects` builds what is counted at one sequence length."""
    import xarray as xr

    counts = {name: points(config[name]) for name in ("batch", "optimizer", "sequence", "depth")}
    what = " x ".join(f"{n:,.0f} {name}" for name, n in counts.items() if n > 1)
    refuse_if_too_many(what, 10.0 * math.prod(counts.values()), "give the axes fewer values")
    lengths = _whole_axis("sequence", config["sequence"])
    if np.ndim(lengths) and config.get("chip") is not None:
        raise InputError(_ONE)
    counted = [_counted({**config, "sequence": length}, subjects) for length in np.atleast_1d(lengths).tolist()]
    if not np.ndim(lengths):
        return counted[0]
    if "flops_per_token" not in counted[0]:
        raise InputError(f"sequence: {config['sequence']!r} of a network; an axis of lengths is for models")
    lengths = xr.Variable("sequence", np.asarray(lengths, dtype=float))
    along = xr.concat(counted, lengths, data_vars="different", coords="minimal", compat="equals", join="exact")
    told = {name: value for name, value in counted[0].attrs.items() if name != "sequence"}
    return signed(along.drop_attrs(deep=False).assign_attrs(told), "flops", config)


def _counted(config: Mapping[str, Any], subjects: Callable[[Mapping[str, Any]], list[Subject]]) -> xr.Dataset:
    """The counts at one sequence length."""
    found = [_updated(subject, config["updating"]) for subject in subjects(config)]
    _refuse_without_effect(config, found)
    settings = {name: config[name] for name in ("counting", "touched_only", "recompute")}
    batch, tokens = axis("batch", config["batch"]), _tokens(config["tokens"])
    counted = [count(subject, batch, config["optimizer"], tokens=tokens, **settings) for subject in found]
    dataset = counted[0] if len(found) == 1 and not config["compare"] else _together(counted, *_along(config, found))
    dataset = dataset.assign_attrs(_conditions(config, found))
    return signed(_timed(dataset, found, config), "flops", config)


def _timed(dataset: xr.Dataset, found: Sequence[Subject], config: Mapping[str, Any]) -> xr.Dataset:
    """The counts with times, where a chip is chosen."""
    if config.get("chip") is None:
        return dataset
    if config["compare"] or len(found) != 1:
        raise InputError(_ONE)
    subject, clock = found[0], read_settings(clocked.Clock, "clock", config.get("clock") or {})
    if subject.model is None:
        return dataset.assign(clocked.of_network(dataset, config["chip"], clock))
    tokens, sequence = _tokens(config["tokens"]), subject.setting.sequence
    times = clocked.of_model(subject.model, sequence, subject.training_batch, tokens, config["chip"], clock)
    return dataset.merge(times).assign_attrs(times.attrs)


# Keys that only models heed, and their defaults.
_OF_MODELS = {"tokens": None, "mtp": False, "as": "trained", "sequence": 4096, "mask": "causal"}


def _refuse_without_effect(config: Mapping[str, Any], subjects: Sequence[Subject]) -> None:
    models = [subject.model for subject in subjects]
    if config["depth"] is not None and any(models):
        raise InputError(f"depth: {config['depth']!r} of a model; only networks have a depth, so leave it out")
    for name, unset in _OF_MODELS.items():
        if config[name] != unset and not any(models):
            raise InputError(f"{name}: {config[name]!r} of a network; it is for models, so leave it out")
    if config["mtp"] and not any(model and model.mtp_layers for model in models):
        raise InputError("mtp: true of a model without prediction modules; leave it out")


def _tokens(value: Any) -> Any:
    return None if value is None else check("flops", "tokens", axis("tokens", value), POSITIVE)


def count(
    subject: Subject | Network | Transformer, batch: Any, optimizer: Any = "sgd", *, tokens: Any = None, **settings: Any
) -> xr.Dataset:
    """FLOPs of one training step: dims layer, pass, batch, optimizer.

    `batch`: number or 1-D array of samples per step (tokens for a Transformer). `optimizer`: a name, FLOP per weight,
    an Optimizer, or a list of them. `settings`: counting, touched_only, recompute as in `Network.flops`. Variables:
    `flops` and their sum `step_flops`; `weights` and `active_weights` per layer; `total_to_forward` and
    `backward_to_forward` per batch and optimiser; for a mixture of experts `tokens_per_expert`, and `expert_ratio` and
    `expert_backward` of their rows; for a transformer `params` and `flops_per_token` by convention, the latter without
    the update, and with `tokens` (number or 1-D) the `run_flops` of all of them.
    """
    import xarray as xr

    subject = _as_subject(subject)
    network, batches = subject.network, np.atleast_1d(check("flops", "batch", batch, POSITIVE)).astype(float)
    methods = [optimizer_of(o) for o in _listed(optimizer)]
    rows = network.rows()
    values = np.stack([_counts(network, batches, method, settings) for method in methods], axis=-1)
    coords = {"layer": list(rows), "pass": list(PASSES), "batch": batches, "optimizer": [m.name for m in methods]}
    sizes = {
        "weights": [entry.copies * layer.weights for entry, layer in rows.values()],
        "active_weights": [entry.copies * layer.active_weights for entry, layer in rows.values()],
    }
    dataset = xr.Dataset(
        {
            "flops": (("layer", "pass", "batch", "optimizer"), values),
            **{name: ("layer", np.array(column, dtype=float)) for name, column in sizes.items()},
        },
        coords,
    )
    return stamp(_with_ratios(dataset).assign(_of_model(subject, dataset, methods, tokens)))


def _counts(network: Network, batches: np.ndarray, method: Optimizer, settings: Mapping[str, Any]) -> np.ndarray:
    """FLOP as an array layer x pass x batch."""
    counted = network.flops(batches, optimizer=method, **settings).values()
    return np.array([[np.broadcast_to(value, batches.shape) for value in passes] for passes in counted], dtype=float)


def _with_ratios(dataset: xr.Dataset) -> xr.Dataset:
    passes = dataset.flops.sum("layer")
    forward = passes.sel({"pass": "forward"}, drop=True)
    total = passes.sum("pass") / forward
    again = passes.sel({"pass": "recompute"}, drop=True) / forward
    sums = {"step_flops": passes.sum("pass"), "total_to_forward": total, "backward_to_forward": total - again - 1}
    return dataset.assign(sums)


def _of_model(subject: Subject, dataset: xr.Dataset, methods: Sequence[Optimizer], tokens: Any) -> dict[str, Any]:
    """What only a transformer has."""
    model = subject.model
    if model is None:
        return {}
    import xarray as xr

    names = {f"total: {name}": rule for name, rule in TOTAL_CONVENTIONS.items()}
    names |= {f"active: {name}": rule for name, rule in ACTIVE_CONVENTIONS.items()}
    params = np.array([rule(model) for rule in names.values()], dtype=float)
    costs = np.array([rule(model, subject.setting) for rule in CONVENTIONS.values()], dtype=float)
    per_token = xr.DataArray(costs, {"convention": list(CONVENTIONS)}, ["convention"])
    told = {"params": xr.DataArray(params, {"params_convention": list(names)}, ["params_convention"])}
    told |= {"flops_per_token": per_token, **_of_experts(subject, dataset, methods)}
    if tokens is None:
        return told
    processed = xr.DataArray(tokens, {"tokens": tokens}, ["tokens"] * np.ndim(tokens))
    return told | {"run_flops": per_token * processed}


def _of_experts(subject: Subject, dataset: xr.Dataset, methods: Sequence[Optimizer]) -> dict[str, Any]:
    """Ratios of the rows of the experts, with all that holds for them: touched_only, updating, recompute, counting."""
    model = subject.model
    experts = {name: layer for name, (_, layer) in subject.network.rows().items() if isinstance(layer, Experts)}
    if model is None or not experts:
        return {}
    layer = next(iter(experts.values()))
    tokens = ratio.tokens_per_expert(dataset.batch, layer.experts + layer.zero_experts, layer.active_experts)
    passes = dataset.flops.sel(layer=list(experts)).sum("layer")
    forward, again = (passes.sel({"pass": name}, drop=True) for name in ("forward", "recompute"))
    total = passes.sum("pass") / forward
    per_weight = [sum(map(method.flops, layer.tensors)) / layer.weights for method in methods]
    backward = total - again / forward - 1
    update = dataset.optimizer.copy(data=per_weight)
    return {"tokens_per_expert": tokens, "expert_ratio": total, "expert_backward": backward, "expert_update": update}


def _conditions(config: Mapping[str, Any], subjects: Sequence[Subject]) -> dict[str, Any]:
    """What the counts hold for, as attributes of a result."""
    told = {"names": ", ".join(subject.network.name for subject in subjects)}
    if len(subjects) == 1:
        only = subjects[0]
        told |= {"description": only.network.description, "source": only.network.source}
        told["layers"] = "; ".join(f"{e.name}: {e.layer.about}" for e in only.network.entries if e.layer.about)
        told |= {"published": only.published, "training_batch": only.training_batch}
    kept = ("counting", "recompute", "sequence", "mask", "as")
    return {**{k: v for k, v in told.items() if v}, **{name: config[name] for name in kept}}


def _along(config: Mapping[str, Any], subjects: Sequence[Subject]) -> tuple[str, list[Any]]:
    """The dim along which several subjects stand, and its labels."""
    if config["compare"]:
        return "network", [subject.network.name for subject in subjects]
    return "depth", [float(n) for n in np.atleast_1d(axis("depth", config["depth"]))]


def _together(counted: Sequence[xr.Dataset], dim: str, labels: list[Any]) -> xr.Dataset:
    """Datasets side by side; a layer that one of them lacks is NaN there."""
    import xarray as xr

    layers = list(dict.fromkeys(name for dataset in counted for name in dataset.layer.values))
    aligned = [
        dataset.reindex(layer=layers).expand_dims({dim: [label]})
        for dataset, label in zip(counted, labels, strict=True)
    ]
    return xr.concat(aligned, dim, data_vars="all", coords="minimal", compat="override", join="outer")


def _updated(subject: Subject, rules: Mapping[str, Any] | None) -> Subject:
    """The subject with the config's selective updating."""
    return replace(subject, network=subject.network.with_updating(rules or {}))


def _subjects(config: Mapping[str, Any]) -> list[Subject]:
    """What the config of the verb asks for."""
    return [_named(name, config) for name in config["compare"]] or _chosen(config)


def _given(value: Any, config: Mapping[str, Any]) -> list[Subject]:
    """What a caller in Python gives: objects, names or the content of a `config.json`; a network at each depth."""
    if isinstance(value, Transformer):
        return [Subject.of(value, _setting(config), {})]
    if isinstance(value, Network):
        return [Subject(value)]
    if isinstance(value, Mapping):
        return [_model(None, value, config)]
    if str(value) in choices("network") and config["depth"] is not None:
        return [_network(None, value, depth) for depth in _depths(config["depth"])]
    return [_named(value, config)]


def _setting(config: Mapping[str, Any]) -> Setting:
    return Setting(*(config[name] for name in ("sequence", "mask", "recompute", "mtp", "as")))


def _chosen(config: Mapping[str, Any]) -> list[Subject]:
    names = config.get("choices") or {}
    if config.get("model") is not None:
        return [_model(names.get("model"), config["model"], config)]
    return [_network(names.get("network"), config["network"], n) for n in _depths(config["depth"])]


def _named(name: str, config: Mapping[str, Any]) -> Subject:
    """A network or a model by name or path."""
    path = str(name)
    if path.endswith(".json") or Path(path).is_dir() or path in choices("model"):
        return _model(None, path, config)
    if path in choices("network") or path.endswith((".yaml", ".yml")):
        content = read("network", path)
        name = Path(path).stem
        return _model(name, content, config) if "transformer" in content else _network(name, content, None)
    known = ", ".join([*choices("network"), *choices("model")])
    raise InputError(f"compare: no network or model {path!r}; there are {known}, or give the path of a file")


def _depths(value: Any) -> list[Any]:
    if value is None:
        return [None]
    return np.atleast_1d(_whole_axis("depth", value)).tolist()


def _whole_axis(name: str, value: Any) -> Any:
    """A whole number or an array of them, 0 or more; InputError otherwise."""
    values = axis(name, value)
    near = np.round(values)  # the last bits of a range are not a fraction
    if not np.allclose(values, near, rtol=1e-12, atol=0):
        raise InputError(f"{name}: {value!r}; it takes whole numbers, 0 or more")
    if np.min(near) < 0:
        raise InputError(f"{name}={np.min(near):g}; it takes whole numbers, 0 or more")
    return near.astype(int) if np.ndim(near) else int(near)


def _network(name: str | None, content: Any, depth: int | None) -> Subject:
    parameters = {} if depth is None else {"depth": depth}
    if isinstance(content, Mapping):
        return Subject(Network.from_spec(name or "network", content, **parameters))
    return Subject(Network.load(content, **parameters))


def _model(name: str | None, content: Any, config: Mapping[str, Any]) -> Subject:
    """A model from a reference file, a config.json, or the content of either."""
    spec = read("model", content) if isinstance(content, str) and not _is_huggingface(content) else content
    if isinstance(spec, Mapping) and "model_type" not in spec:
        model, about = Transformer.from_spec(name or str(content), spec), spec
    else:
        model, about = Transformer.from_config(spec, name or ""), {}
    return Subject.of(model, _setting(config), about)


def _is_huggingface(path: str) -> bool:
    return path.endswith(".json") or Path(path).is_dir()


def _published(figures: Mapping[str, Any] | None) -> str:
    """The publisher's counts in words, with the convention that fits the active ones."""
    if not figures:
        return ""
    return f"{letters(figures['total'])} total, {letters(figures['active'])} active ({figures['active_as']})"


def _as_subject(value: Subject | Network | Transformer) -> Subject:
    if isinstance(value, Transformer):
        return Subject.of(value, Setting(), {})
    return Subject(value) if isinstance(value, Network) else value


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
