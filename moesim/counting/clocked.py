"""Time beside FLOPs: how long a step of a network or a model takes on a chip, and what it holds there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.data import shipped
from moesim.hardware.chip import chip_of
from moesim.hardware.serving import decode_rate, kv_bytes
from moesim.hardware.timed import step_time
from moesim.models.operations import choose
from moesim.models.transformer import Transformer
from moesim.output.text import aligned, count
from moesim.settings import number, setting, whole
from moesim.variables import FRACTION, POSITIVE

if TYPE_CHECKING:
    import xarray as xr

# How gradients are made -> seconds of the backward pass over those of the forward pass; None: as its FLOPs.
GRADIENTS: Mapping[str, float | None] = {"counted": None, "hand_written": 2.5, "automatic_old": 10.0}
"""`hand_written`: 2 to 3 times the forward run time; `automatic_old`: about 10 times, old libraries."""

STREAMS = (1, 8, 64, 512)
OF_MODELS, OF_NETWORKS = ("precision", "layout", "batch", "tokens_per_second"), ("utilisation", "gradients")
_BATCH = 4194304  # tokens of a step where a model's file says none


@dataclass(frozen=True)
class Clock:
    """On what a count is timed; keys `clock` of `conf/flops.yaml`.

    `devices`, `precision`, `layout` (its fields; null: searched) and `batch` (tokens per step; null: that of the
    model's file) as in `step_time`; `tokens_per_second` of a device, measured: its utilisation. For networks:
    `utilisation` of the 16-bit peak in the forward pass, and how `gradients` are made (a row of GRADIENTS).
    """

    devices: int = setting(8, whole())
    precision: str = setting("bf16")
    layout: Mapping[str, Any] | None = setting(None)
    batch: float | None = setting(None, number(POSITIVE))
    tokens_per_second: float | None = setting(None, number(POSITIVE))
    utilisation: float = setting(0.3, number(FRACTION))
    gradients: str = setting("counted")


def of_model(
    model: Transformer, sequence: int, batch: float | None, tokens: Any, chip: Any, clock: Clock
) -> xr.Dataset:
    """Times, memory and ceilings of a model: scalars, `step_part` along part, `decode_rate` along streams.

    `tokens` of a whole run (None, a number or 1-D): its `hours` and `device_hours`, without failures.
    """
    import xarray as xr

    chip = chip_of(chip)
    sequences = max(round((clock.batch or batch or _BATCH) / sequence), 1)
    step = step_time(
        model, chip=chip, devices=clock.devices, batch=sequences, precision=clock.precision, sequence=sequence,
        layout=clock.layout,
    )  # fmt: skip
    data = {
        "step_seconds": step.seconds,
        "tflops_per_device": step.tflops_per_device,
        "mfu": step.mfu,
        "memory": step.memory,
        "kv_bytes": kv_bytes(model),
        "step_part": ("part", np.array(list(step.parts.values()))),
        "decode_rate": ("streams", decode_rate(model, chip, clock.devices, np.array(STREAMS, float), clock.precision)),
    }
    if tokens is not None:
        per_token = step.seconds / (sequences * sequence)
        dims = ("tokens",) * np.ndim(tokens)
        data["hours"] = (dims, np.asarray(tokens) * per_token / 3600.0)
        data["device_hours"] = (dims, np.asarray(tokens) * per_token / 3600.0 * clock.devices)
    if clock.tokens_per_second is not None:
        data["measured_mfu"] = clock.tokens_per_second * step.mfu / step.tokens_per_second
    coords = {"part": list(step.parts), "streams": list(map(float, STREAMS))}
    told = {"layout": str(dict(step.layout)), "fits": str(step.fits), "reason": step.reason}
    return xr.Dataset(data, coords, {name: text for name, text in told.items() if text})


def of_network(counted: xr.Dataset, chip: Any, clock: Clock) -> dict[str, Any]:
    """Seconds of a step of a network: its forward pass at the utilisation, its backward pass as gradients are made."""
    ratio, rate = choose("clock.gradients", clock.gradients, GRADIENTS), clock.utilisation * chip_of(chip).flops
    forward = counted.flops.sel({"pass": "forward"}, drop=True).sum("layer") / (rate * clock.devices)
    backward = counted.backward_to_forward if ratio is None else ratio
    return {"forward_seconds": forward, "step_seconds": forward * (1.0 + backward)}


def table(dataset: xr.Dataset) -> str:
    """What a person reads of the times."""
    if "tflops_per_device" not in dataset:
        at = dataset.isel(batch=-1, optimizer=0)
        forward, batch = float(at.forward_seconds), count(float(at.batch))
        return f"{float(at.step_seconds):.3g} s a step at batch {batch}, {forward:.3g} s of it forward"
    at = {name: float(dataset[name]) for name in ("step_seconds", "tflops_per_device", "mfu", "memory", "kv_bytes")}
    parts = {str(name): float(dataset.step_part.sel(part=name)) for name in dataset.part.values}
    shares = ", ".join(f"{name} {value / at['step_seconds']:.0%}" for name, value in parts.items() if value > 0)
    rates = ", ".join(
        f"{count(float(v))} at {n:.0f}" for n, v in zip(dataset.streams, dataset.decode_rate, strict=True)
    )
    lines = [
        f"{at['step_seconds']:.4g} s a step, {at['tflops_per_device']:.4g} TFLOP/s a device (MFU {at['mfu']:.1%}), "
        f"{count(at['memory'])} bytes on the fullest device (fits: {dataset.attrs['fits']})",
        f"of it {shares}",
        f"layout {dataset.attrs['layout']}",
        f"decoding: {at['kv_bytes']:.0f} bytes of keys and values a token; at most so many tokens/s of all devices "
        f"together, by streams: {rates}",
    ]
    if "device_hours" in dataset:
        hours = np.atleast_1d(dataset.device_hours.values)[-1]
        lines.append(f"the run: {count(float(hours))} device-hours without failures")
    if "measured_mfu" in dataset:
        lines.append(f"measured: MFU {float(dataset.measured_mfu):.1%}")
    return "\n".join(lines)


def measured(chip: str) -> str:
    """The utilisation that has been published for a chip, as a table; empty where there is none."""
    rows = [row for row in shipped("utilisation.csv") if row["chip"] == chip]
    cells = [["published MFU", "", "software", "source"]]
    cells += [[row["model"], f"{float(row['mfu']):.0%}", row["software"], row["source"]] for row in rows]
    return aligned(cells) if rows else ""
