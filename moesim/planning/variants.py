"""A published dense model against sparse variants of the same compute, counted exactly: Llama-3-405B at 95 %."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.hardware.timed import Step, step_time
from moesim.laws.load import load_law
from moesim.laws.wrapped import Wrapped
from moesim.models.transformer import Transformer
from moesim.output.text import aligned, count
from moesim.planning.model import Model
from moesim.planning.optimum import optimum
from moesim.planning.readings import READINGS
from moesim.planning.run import model_of
from moesim.planning.shape import WIDTHS, shape

if TYPE_CHECKING:
    import xarray as xr

COMPUTE, UNIQUE = 3.8e25, 15.6e12  # FLOP and tokens of Llama-3-405B (Llama 3, arXiv:2407.21783)
DEVICES, SEQUENCE, BATCH = 16384, 8192, 2048
EXPERTS, ACTIVE = 160, 8  # sparsity 0.95
LAWS = ("abnar2025", "ludziejewski2025")
_TILE = 16  # widths of experts are multiples


def dense() -> Transformer:
    """Llama-3-405B."""
    return Transformer.load("llama3_405b")


def variants(model: Model) -> dict[str, Transformer]:
    """The dense model, and the three ways to make it 95 % sparse.

    `same active`: its feed-forward width cut into 8 active experts; `same total`: cut into 160; `optimum`: size and
    shape as the law and the plan's architecture have it at the same compute.
    """
    base = dense()
    cut = {"d_ff": 0, "experts": EXPERTS, "active_experts": ACTIVE}
    return {
        "dense": base,
        "same active": replace(base, **cut, d_expert=base.d_ff // ACTIVE, name="same_active"),
        "same total": replace(base, **cut, d_expert=round(base.d_ff / EXPERTS / _TILE) * _TILE, name="same_total"),
        "optimum": _optimum(model),
    }


def _optimum(model: Model) -> Transformer:
    """The law's own optimum at the compute and sparsity, in the shape of the plan's architecture."""
    best = optimum(model, compute=COMPUTE, sparsity=1.0 - ACTIVE / EXPERTS, unique_tokens=UNIQUE, best=False)
    sized = {"active_params": float(best.optimal_active_params), "sparsity": 1.0 - ACTIVE / EXPERTS}
    sized = {name: np.array([value]) for name, value in sized.items()}
    log_size = model.architecture.size_of("active_params", sized, model.fields)
    width = min(WIDTHS, key=lambda d: abs(np.log(d) - float(log_size[0])))
    return shape({**model.architecture.fields, "active_experts": ACTIVE}, width, EXPERTS // ACTIVE)


def llama3_405b_95(config: Mapping[str, Any]) -> tuple[xr.Dataset, str]:
    """The question of `moesim plan question=llama3_405b_95`: a Dataset over the variants, and its table."""
    import xarray as xr

    model = model_of(config, {})
    made = variants(model)
    flops = {name: float(one.training_flops(SEQUENCE)) for name, one in made.items()}
    steps = {name: _step(one) for name, one in made.items()}
    tokens = {name: COMPUTE / flops[name] for name in made}
    readings = {model.repetition.name: {}, **READINGS}
    losses = [
        [[_loss(law, one, tokens[name], how, model) for how in readings.values()] for law in LAWS]
        for name, one in made.items()
    ]
    hours = {n: np.nan if s is None else s.device_hours(tokens[n], BATCH * SEQUENCE) for n, s in steps.items()}
    columns = {
        "active_params": [one.active_params for one in made.values()],
        "total_params": [one.total_params for one in made.values()],
        "flops_per_token": list(flops.values()),
        "tokens": list(tokens.values()),
        "epochs": [value / UNIQUE for value in tokens.values()],
        "mfu": [np.nan if step is None else step.mfu for step in steps.values()],
        "memory": [np.nan if step is None else step.memory for step in steps.values()],
        "device_hours": list(hours.values()),
        "state_bytes": [16.0 * one.total_params for one in made.values()],
    }
    data = xr.Dataset(
        {name: ("variant", np.array(values, dtype=float)) for name, values in columns.items()}
        | {"loss": (("variant", "law", "repetition"), losses)},
        {"variant": list(made), "law": list(LAWS), "repetition": list(readings)},
        {"compute": COMPUTE, "unique_tokens": UNIQUE, "devices": DEVICES, "chip": "h100", "published_hours": 30.84e6},
    )
    return data, _table(data)


def _step(model: Transformer) -> Step | None:
    """The step on 16,384 H100 in the fastest layout that fits; None if none does."""
    try:
        return step_time(model, chip="h100", devices=DEVICES, sequence=SEQUENCE, batch=BATCH)
    except InputError:
        return None


def _loss(law: str, one: Transformer, tokens: float, how: Mapping[str, Any], model: Model) -> float:
    """Loss of a model of any shape by a law and a reading of repetition."""
    reading = Model(law, replace(model.repetition, **how), model.architecture)
    sparsity = 1.0 - one.active_experts / one.experts if one.experts else 0.0
    at = {
        "total_params": float(one.total_params),
        "active_params": float(one.active_params),
        "sparsity": sparsity,
        "experts": float(max(one.experts, 1)) / max(one.active_experts, 1),
        "tokens": tokens,
        "unique_tokens": UNIQUE,
        "density": one.active_params / one.total_params,
    }
    cell = {name: np.array([value]) for name, value in at.items()}
    known = {name: cell[name] for name in ("sparsity", "unique_tokens")}
    taught = reading.with_taught_params(known).get("taught_params", np.inf)
    wrapped = Wrapped(load_law(law).form, reading.repetition)
    return float(np.squeeze(wrapped.loss(cell, taught, reading.law.coefficients, None)))


def _table(data: xr.Dataset) -> str:
    head = ["variant", "active", "total", "tokens", "epochs", "MFU", "states", "device-h", *map(str, data.law.values)]
    rows = [head]
    for name in data.variant.values:
        at = data.sel(variant=name)
        losses = ["{:.4f} to {:.4f}".format(*np.quantile(at.loss.sel(law=law), [0, 1])) for law in data.law.values]
        sizes = [count(float(at[n])) for n in ("active_params", "total_params", "tokens")]
        rest = [f"{float(at.epochs):.2f}", f"{float(at.mfu):.1%}", count(float(at.state_bytes)) + "B"]
        rows.append([str(name), *sizes, *rest, count(float(at.device_hours)), *losses])
    return (
        f"Llama-3-405B at 95 % sparsity and the same {COMPUTE:.2g} FLOP, {UNIQUE:.3g} unique tokens, on {DEVICES} H100 "
        f"(published for the dense run: 30.84M device-hours); loss over readings of repetition\n{aligned(rows, 1)}"
    )
