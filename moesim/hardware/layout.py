"""How a model is laid out over devices: tensor, pipeline, expert, context and data parallel, and what is recomputed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.hardware.work import Work
from moesim.settings import one_of, read, setting, whole


@dataclass(frozen=True)
class Pipeline:
    """A pipeline schedule: idle seconds of a device per step, micro-batches in flight on the first stage, copies.

    `bubble` and `in_flight` are functions of (stages, chunks, ...); F, B, W: seconds of a micro-batch's forward pass,
    whole backward pass and its weight gradients on one stage.
    """

    bubble: Callable[[Any, Any, Any, Any, Any], Any]
    in_flight: Callable[[Any, Any], Any]
    copies: float = 1.0


# DualPipe README; zero bubble: Qi et al. 2024, arXiv:2401.10241; interleaved: Narayanan et al. 2021, arXiv:2104.04473.
SCHEDULES: Mapping[str, Pipeline] = {
    "1f1b": Pipeline(lambda p, v, F, B, W: (p - 1) * (F + B) / v, lambda p, v: p + (p - 1) / v * (v > 1)),
    "zb1p": Pipeline(lambda p, v, F, B, W: (p - 1) * (F + B - 2 * W), lambda p, v: p),
    "zb2p": Pipeline(lambda p, v, F, B, W: 0 * F, lambda p, v: 2 * p),
    "zbv": Pipeline(lambda p, v, F, B, W: 0 * F, lambda p, v: p),
    "dualpipe": Pipeline(
        lambda p, v, F, B, W: np.maximum(p / 2 - 1, 0) * (F + 2 * B - 3 * W), lambda p, v: p + 1, copies=2.0
    ),
}


@dataclass(frozen=True)
class Recompute:
    """What the backward pass computes once more: shares of the forward pass by part; what is kept of the activations.

    `others`: the share of parts that `again` does not name; `kept`: all, costly (without what is cheap to compute),
    or inputs (of each layer alone).
    """

    again: Mapping[str, float]
    others: float = 0.0
    kept: str = "all"


RECOMPUTE: Mapping[str, Recompute] = {
    "none": Recompute({}),
    "core": Recompute({"attention": 1.0}),
    "selective": Recompute({"cheap": 1.0, "elementwise": 0.5}, kept="costly"),
    "full": Recompute({}, others=1.0, kept="inputs"),
}


@dataclass(frozen=True)
class Layout:
    """A layout; data parallel is what is left of the devices.

    `tensor`, `pipeline`, `context`: devices that share a layer's matrices, the layers, a sequence; `interleave`: chunks
    of layers of a device; `expert`: devices that share the experts (among those of tensor, context and data);
    `micro_batch`: sequences; `recompute`: a row of RECOMPUTE; `schedule`: of SCHEDULES (1f1b: interleaved where
    `interleave` is above 1); `zero`: which states data parallel devices share (1: optimizer, 2: gradients too, 3:
    weights too; 0: none).
    """

    tensor: int = setting(1, whole())
    pipeline: int = setting(1, whole())
    interleave: int = setting(1, whole())
    expert: int = setting(1, whole())
    micro_batch: int = setting(1, whole())
    context: int = setting(1, whole())
    recompute: str = setting("none", one_of(*RECOMPUTE))
    schedule: str = setting("1f1b", one_of(*SCHEDULES))
    zero: int = setting(1, whole(0))

    def __post_init__(self):
        if self.zero > 3:
            raise InputError(f"layout: zero={self.zero}; it takes 0, 1, 2 or 3")
        if self.schedule != "1f1b" and self.interleave > 1:
            raise InputError(f"layout: interleave={self.interleave} under schedule={self.schedule}; it is for 1f1b")

    @classmethod
    def of(cls, given: Any) -> Layout:
        """A Layout from one or from a mapping of its fields; InputError for an unknown field or a bad value."""
        return given if isinstance(given, cls) else read(cls, "layout", given)

    def as_dict(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    def check(self, work: Work, devices: int) -> None:
        """InputError if the model cannot be cut that way or the devices do not suffice."""
        needed = self.tensor * self.pipeline * self.context
        if needed > devices:
            raise InputError(f"layout: tensor x pipeline x context = {needed} of devices={devices}; give more devices")
        shared = devices // needed * self.tensor * self.context
        if shared % self.expert:
            raise InputError(
                f"layout: expert={self.expert} does not divide the {shared} devices of a pipeline stage; give a divisor"
            )
        limits = {"tensor": work.heads, "expert": work.experts, "context": work.sequence}
        for name, most in limits.items():
            if getattr(self, name) > most:
                raise InputError(f"layout: {name}={getattr(self, name)}; this model takes at most {most}")
        for name, of in (("expert", "experts"), ("tensor", "heads")):
            value, whole_of = getattr(self, name), getattr(work, of)
            if whole_of % value:
                raise InputError(f"layout: {name}={value} does not divide {of}={whole_of}; give a divisor")
        chunks = self.pipeline * self.interleave
        if chunks > work.layers + 2:  # embedding and head may be chunks of their own
            raise InputError(f"layout: pipeline x interleave = {chunks} of {work.layers} layers; give fewer")


@dataclass(frozen=True)
class Grid:
    """Many layouts of one model as arrays (layout,), to be computed with at once.

    The numbers of `Layout`; `data` parallel devices, `micro_batches` of each
    per step, `tokens` of a micro-batch on one device, `share` of all layers that the fullest stage holds.
    """

    layouts: tuple[Layout, ...]
    tensor: np.ndarray
    pipeline: np.ndarray
    interleave: np.ndarray
    expert: np.ndarray
    micro_batch: np.ndarray
    context: np.ndarray
    zero: np.ndarray
    data: np.ndarray
    micro_batches: np.ndarray
    tokens: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, layouts: Sequence[Layout], work: Work, devices: Any, batch: int) -> Grid:
        """The arrays of layouts on so many devices (of each layout, or one number) with `batch` sequences a step."""
        names = [f.name for f in fields(Layout) if f.type == "int"]
        own = {name: np.array([getattr(one, name) for one in layouts], dtype=float) for name in names}
        p, chunks = own["pipeline"], own["pipeline"] * own["interleave"]
        data = np.asarray(devices) // (own["tensor"] * p * own["context"])
        return cls(
            layouts=tuple(layouts),
            **own,
            data=data,
            micro_batches=np.ceil(batch / (data * own["micro_batch"])),
            tokens=own["micro_batch"] * work.sequence / (own["tensor"] * own["context"]),
            share=np.ceil(work.layers / chunks) * own["interleave"] / work.layers,
        )

    @property
    def used(self) -> np.ndarray:
        """Devices that are not left idle."""
        return self.stage_devices * self.pipeline

    @property
    def stage_devices(self) -> np.ndarray:
        """Devices of one pipeline stage, over which experts are shared and repeated."""
        return self.tensor * self.context * self.data

    def again(self, part: str) -> np.ndarray:
        """Share of a part of the forward pass that the backward pass computes once more."""
        rules = (RECOMPUTE[one.recompute] for one in self.layouts)
        return np.array([rule.again.get(part, rule.others) for rule in rules])

    def kept(self, **values: np.ndarray) -> np.ndarray:
        """For each layout the value of what it keeps: all, costly, inputs."""
        names = [RECOMPUTE[one.recompute].kept for one in self.layouts]
        return np.select([np.array(names) == name for name in values], list(values.values()))

    def by_schedule(self, value: Callable[[Pipeline, np.ndarray], Any]) -> np.ndarray:
        """`value(pipeline schedule, which layouts)` where a layout has that schedule."""
        names, out = np.array([one.schedule for one in self.layouts]), np.zeros(len(self.layouts))
        for name in np.unique(names):
            mask = names == name
            out[mask] = np.broadcast_to(value(SCHEDULES[str(name)], mask), mask.sum())
        return out
