"""The driver of `moesim plan`: a resolved config to plan.nc, page.md, figures and the config.json of the best model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moesim.hardware.chip import Chip
from moesim.models.transformer import Transformer
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

# Mappings whose keys are the user's own.
OPEN = ("law.data_range", "law.definitions")
# Keys that take an axis: a list or a range.
AXES: tuple[str, ...] = ("budget", "cluster.devices", "space")


def run(config: Mapping[str, Any]) -> Result:
    """What `conf/plan.yaml` asks for: the best run within the budget, its rivals, and a page about them."""
    cluster, names = dict(config["cluster"]), config["choices"]
    dataset = plan(
        model_of(config, {}),
        chip=config["chip"],
        devices=cluster.pop("devices", None),
        cluster=cluster,
        unique_tokens=config["space"]["unique_tokens"],
        serving=config["serving"],
        **{name: config["budget"].get(name) for name in (*KINDS, "start")},
        **{name: config[name] for name in ("precision", "release", "imbalance", "laws")},
    ).assign_attrs(chip=names["chip"])
    page = paged.page(dataset)
    texts = {"page.md": page} | ({} if paged.several(dataset) else {"config.json": _config(config, dataset)})
    drawn = paged.draw(dataset) if config["figures"] else {}
    return Result(dataset, page, "plan.nc", figures=drawn, texts=texts, warnings=paged.warnings(dataset))


def _config(config: Mapping[str, Any], dataset: xr.Dataset) -> str:
    """The `config.json` of the best model."""
    model = best_model(dataset, config["architecture"]["fields"])
    return json.dumps(config_json(model, round(config["architecture"]["fields"]["context"])), indent=2) + "\n"


def best_model(dataset: xr.Dataset, fields: Mapping[str, Any]) -> Transformer:
    """The transformer of the best run of a plan without axes."""
    best = dataset.sel(choice="best")
    return shape(fields, int(best.d_model), round(1.0 / (1.0 - float(best.chosen_sparsity))))


def keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are taken where a file lacks them."""
    return {**keys_of_sweep(config), "chip": dict.fromkeys(Chip.__dataclass_fields__) | defaults(Chip)}


def idle(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys without an effect under a config, and why."""
    serving, budget = config["serving"], config["budget"]
    out = {} if serving["tokens"] else {"serving.mfu": "without serving.tokens"}
    return out | ({} if budget["date"] is not None else {"budget.start": "without budget.date"})


def compared(dataset: xr.Dataset) -> tuple[str, dict[str, Figure]]:
    """The answer of a multirun: one table, from its collected Dataset."""
    return paged.table(dataset), {}
