"""`moesim.step_time`: a training step of a model on a cluster, in a layout that is given or searched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moesim.hardware.chip import chip_of
from moesim.hardware.layout import Grid, Layout
from moesim.hardware.outcome import Step, step_of
from moesim.hardware.release import release_of
from moesim.hardware.search import searched
from moesim.hardware.training import Setup
from moesim.hardware.work import work_of
from moesim.models.transformer import Transformer
from moesim.settings import number, whole
from moesim.variables import AT_LEAST_ONE


def step_time(
    model: Any,
    *,
    chip: Any,
    devices: int,
    batch: int,
    precision: str = "bf16",
    sequence: int = 4096,
    layout: Any = None,
    imbalance: Any = 1.0,
    release: str | None = None,
) -> Step:
    """How long one training step takes, how much memory it needs and where the time goes.

    `model`: a file of `conf/model` or a Transformer (its prediction modules are trained too); `chip`: a file of
    `conf/chip`, a Chip or a mapping; `devices` of the cluster; `batch`: sequences of `sequence` tokens per step;
    `precision` of matrix products: bf16, fp8, mxfp8 or nvfp4 (head, router and attention core stay in bf16); `layout`:
    fields of `Layout`, or None for the best that fits; `imbalance`: busiest device over mean (a number, or a result of
    `moesim balance`); `release` of the training software (None: the newest). A given layout never raises for memory
    (`fits` says so). A number that the chip lacks makes NaN of what needs it (`reason`). Raises InputError for a layout
    that cannot be, a model that fits on no layout, and unknown names.
    """
    setup = _setup(model, chip, devices, precision, sequence, imbalance, release)
    batch = whole()("step_time", "batch", batch)
    if layout is None:
        return searched(setup, batch)
    one = Layout.of(layout)
    one.check(setup.work, setup.devices)
    return step_of(setup, Grid.of([one], setup.work, setup.devices, batch), batch)


def _setup(
    model: Any, chip: Any, devices: Any, precision: str, sequence: Any, imbalance: Any, release: str | None
) -> Setup:
    owner = "step_time"
    loaded = model if isinstance(model, Transformer) else Transformer.load(model)
    work = work_of(loaded, whole()(owner, "sequence", sequence))
    spread = _imbalance(imbalance)
    return Setup.of(work, chip_of(chip), whole()(owner, "devices", devices), precision, release_of(release), spread)


def _imbalance(given: Any) -> float:
    """A number, or the mean over a result of `moesim balance`."""
    if isinstance(given, Mapping):  # a Dataset is one
        given = float(given["max_over_mean"].mean())
    return number(AT_LEAST_ONE)("step_time", "imbalance", given)
