"""The driver of `moesim flops`: networks and models to a Dataset of FLOPs by layer, pass, batch and optimiser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.config import choices, read
from moesim.errors import InputError
from moesim.models import ratio
from moesim.models.conventions import CONVENTIONS, Setting
from moesim.models.network import Network
from moesim.models.optimizers import Optimizer
from moesim.models.optimizers import optimizer as optimizer_of
from moesim.models.transformer import ACTIVE_CONVENTIONS, TOTAL_CONVENTIONS, Transformer
from moesim.numerics.axes import axis
from moesim.output.result import Result
from moesim.output.text import count as letters
from moesim.variables import POSITIVE, check, stamp

if TYPE_CHECKING:
    import xarray as xr

PASSES = ("forward", "input_gradient", "weight_gradient", "update", "recompute")


_UNSET = Setting()


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
        network = model.network(setting.sequence, setting.mask, setting.mtp)
        described = replace(network, description=about.get("description", ""), source=about.get("source", ""))
        batch = (about.get("training") or {}).get("batch")
        return cls(described, model, setting, _published(about.get("published")), batch)


# Mappings whose keys are the user's own.
OPEN = ("updating", "model.transformer")


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/flops.yaml` asks for: counts of a network or a model, or of several side by side."""
    from moesim.counting import figures, tables

    subjects = _subjects(config)
    batch = axis("batch", config["batch"])
    settings = {name: config[name] for name in ("counting", "touched_only", "recompute")}
    counted = [count(subject, batch, config["optimizer"], **settings) for subject in subjects]
    dataset = _together(counted, *_along(config, subjects)) if len(subjects) > 1 else counted[0]
    dataset = stamp(dataset.assign_attrs(_conditions(config, subjects)))
    drawn = figures.draw(dataset) if config["figures"] else {}
    return Result(dataset, tables.table(dataset), figures=drawn)


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    compared = config["compare"] or []
    if any(_is_model(str(name)) for name in compared):
        return dict.fromkeys(("network", "model", "depth"), "beside compare")
    if compared:
        return dict.fromkeys(("network", "model", "depth"), "beside compare") | _without_model("networks")
    if config.get("model") is not None:
        return dict.fromkeys(("network", "depth"), "on a model")
    takes_depth = "depth" in ((config.get("network") or {}).get("parameters") or {})
    return _without_model("a network") | ({} if takes_depth else {"depth": "on a network of fixed depth"})


def _without_model(on: str) -> dict[str, str]:
    return dict.fromkeys(("sequence", "mask", "mtp"), f"on {on}; give model=NAME")


def _is_model(name: str) -> bool:
    return _is_huggingface(name) or name in choices("model")


def count(subject: Subject | Network | Transformer, batch: Any, optimizer: Any = "sgd", **settings: Any) -> xr.Dataset:
    """FLOPs of one training step: dims layer, pass, batch, optimizer.

    `batch`: number or 1-D array of samples per step (tokens for a Transformer). `optimizer`: a name, FLOP per weight,
    an Optimizer, or a list of them. `settings`: counting, touched_only, recompute as in `Network.flops`. Variables:
    `flops`; `weights` and `active_weights` per layer; `total_to_forward` and `backward_to_forward` per batch and
    optimiser; for a mixture of experts `tokens_per_expert` and `expert_ratio`; for a transformer `flops_per_token` by
    convention and `params` by convention.
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
    return stamp(_with_ratios(dataset).assign(_of_model(subject, dataset, methods)))


def _counts(network: Network, batches: np.ndarray, method: Optimizer, settings: Mapping[str, Any]) -> np.ndarray:
    """FLOP as an array layer x pass x batch."""
    counted = network.flops(batches, optimizer=method, **settings).values()
    return np.array([[np.broadcast_to(value, batches.shape) for value in passes] for passes in counted], dtype=float)


def _with_ratios(dataset: xr.Dataset) -> xr.Dataset:
    passes = dataset.flops.sum("layer")
    forward = passes.sel({"pass": "forward"}, drop=True)
    total = passes.sum("pass") / forward
    again = passes.sel({"pass": "recompute"}, drop=True) / forward
    return dataset.assign(total_to_forward=total, backward_to_forward=total - again - 1)


def _of_model(subject: Subject, dataset: xr.Dataset, methods: Sequence[Optimizer]) -> dict[str, Any]:
    """What only a transformer has."""
    model = subject.model
    if model is None:
        return {}
    import xarray as xr

    names = {f"total: {name}": rule for name, rule in TOTAL_CONVENTIONS.items()}
    names |= {f"active: {name}": rule for name, rule in ACTIVE_CONVENTIONS.items()}
    params = np.array([rule(model) for rule in names.values()], dtype=float)
    costs = np.array([rule(model, subject.setting) for rule in CONVENTIONS.values()], dtype=float)
    return {
        "params": xr.DataArray(params, {"params_convention": list(names)}, ["params_convention"]),
        "flops_per_token": xr.DataArray(costs, {"convention": list(CONVENTIONS)}, ["convention"]),
    } | _of_experts(model, dataset, methods)


def _of_experts(model: Transformer, dataset: xr.Dataset, methods: Sequence[Optimizer]) -> dict[str, Any]:
    if not model.moe_layers:
        return {}
    tokens = ratio.tokens_per_expert(dataset.batch, model.experts, model.active_experts)
    expert = next(layer for name, (_, layer) in model.network().rows().items() if name == "moe.experts")
    per_weight = [sum(map(method.flops, expert.tensors)) / expert.weights for method in methods]
    update = dataset.optimizer.copy(data=per_weight)
    return {"tokens_per_expert": tokens, "expert_ratio": ratio.expert(tokens, update=update)}


def _conditions(config: Mapping[str, Any], subjects: Sequence[Subject]) -> dict[str, Any]:
    """What the counts hold for, as attributes of a result."""
    told = {"names": ", ".join(subject.network.name for subject in subjects)}
    if len(subjects) == 1:
        only = subjects[0]
        told |= {"description": only.network.description, "source": only.network.source}
        told |= {"published": only.published, "training_batch": only.training_batch}
    kept = ("counting", "recompute", "sequence", "mask")
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


def _subjects(config: Mapping[str, Any]) -> list[Subject]:
    """The things to count, with the config's selective updating."""
    found = [_named(name, config) for name in config["compare"]] or _chosen(config)
    rules = config["updating"] or {}
    return [replace(subject, network=subject.network.with_updating(rules)) for subject in found]


def _chosen(config: Mapping[str, Any]) -> list[Subject]:
    names = config.get("choices") or {}
    if config.get("model") is not None:
        return [_model(names.get("model"), config["model"], config)]
    return [_network(names.get("network"), config["network"], n) for n in _depths(config["depth"])]


def _named(name: str, config: Mapping[str, Any]) -> Subject:
    """A network or a model by name or path."""
    path = str(name)
    if _is_model(path):
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
    depths = np.atleast_1d(axis("depth", value))
    if (depths != np.floor(depths)).any() or (depths < 0).any():
        raise InputError(f"depth: {value!r}; it takes whole numbers, 0 or more")
    return [int(n) for n in depths]


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
        model, about = Transformer.from_config(spec), {}
        model = replace(model, name=name or model.name)
    setting = Setting(config["sequence"], config["mask"], config["recompute"], config["mtp"])
    return Subject.of(model, setting, about)


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
