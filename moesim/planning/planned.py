"""The driver of `moesim plan`: a resolved config to plan.nc, page.md, figures and the config.json of the best model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from moesim.errors import InputError
from moesim.hardware.chip import Chip
from moesim.models.transformer import Transformer
from moesim.output.provenance import signed
from moesim.output.result import Result
from moesim.planning import paged
from moesim.planning.budget import KINDS
from moesim.planning.plan import plan
from moesim.planning.run import keys as keys_of_sweep
from moesim.planning.run import model_of
from moesim.planning.shape import config_json, shape
from moesim.settings import defaults

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_FILES = {"weight_sparse": "weight_sparse", "llama3_405b_95": "variants", "known_runs": "known"}
# Mappings whose keys are the user's own.
OPEN = ("law.data_range", "law.definitions")
# Keys that take an axis: a list or a range.
AXES: tuple[str, ...] = ("budget", "cluster.devices", "cluster.domain", "space")
# Questions that a plan does not answer -> the module with a function of that name.
QUESTIONS = {name: f"moesim.planning.{file}" for name, file in _FILES.items()}


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/plan.yaml` asks for: the best run within the budget, its rivals and a page; or a named question."""
    if config["question"] is not None:
        return _answer(config)
    cluster, names = dict(config["cluster"]), config["choices"]
    dataset = plan(
        model_of(config, {}),
        chip=config["chip"],
        devices=cluster.pop("devices", None),
        domain=cluster.pop("domain", None),
        cluster=cluster,
        gating=config["gating"],
        unique_tokens=config["space"]["unique_tokens"],
        serving=config["serving"],
        **{name: config["budget"].get(name) for name in (*KINDS, "start")},
        **{name: config[name] for name in ("precision", "release", "imbalance", "laws")},
    ).assign_attrs(chip=names["chip"])
    page = paged.page(dataset)
    texts = {"page.md": page} | ({} if paged.several(dataset) else {"config.json": _config(config, dataset)})
    drawn = paged.draw(dataset) if config["figures"] else {}
    return Result(dataset, page, "plan.nc", figures=drawn, texts=texts, warnings=paged.warnings(dataset))


def _answer(config: Mapping[str, Any]) -> Result:
    """A question by name: its Dataset, its table and, where it has one, its figure."""
    name = config["question"]
    if name not in QUESTIONS:
        raise InputError(f"question: no {name!r}; there are {', '.join(QUESTIONS)}, or null for a plan")
    module = import_module(QUESTIONS[name])
    data, text = getattr(module, name)(config)
    draws = vars(module).get("draw")
    figures = draws(data) if draws and config["figures"] else {}
    return Result(signed(data, "plan", config), text, "plan.nc", figures=figures, texts={"page.md": text + "\n"})


def _config(config: Mapping[str, Any], dataset: xr.Dataset) -> str:
    """The `config.json` of the best model."""
    model = best_model(dataset, config["architecture"]["fields"])
    return json.dumps(config_json(model, round(config["architecture"]["fields"]["context"])), indent=2) + "\n"


def best_model(dataset: xr.Dataset, fields: Mapping[str, Any]) -> Transformer:
    """The transformer of the best run of a plan without axes."""
    best = dataset.sel(choice="best")
    return shape(fields, int(best.d_model), round(1.0 / (1.0 - float(best.chosen_sparsity))))


_OF_PLANS = ("chip", "cluster", "space", "serving", "gating", "precision", "release", "imbalance", "laws")


def keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are taken where a file lacks them."""
    return {**keys_of_sweep(config), "chip": dict.fromkeys(Chip.__dataclass_fields__) | defaults(Chip)}


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    if config["question"] is not None:
        return dict.fromkeys(_OF_PLANS, f"with question={config['question']}")
    serving, budget = config["serving"], config["budget"]
    out = {} if serving["tokens"] else {"serving.mfu": "without serving.tokens"}
    return out | ({} if budget["date"] is not None else {"budget.start": "without budget.date"})


def compared(dataset: xr.Dataset) -> tuple[str, dict[str, Figure]]:
    """The answer of a multirun: one table, from its collected Dataset."""
    return paged.table(dataset), {}
