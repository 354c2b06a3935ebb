"""What one training run is: its sizes, its data, its optimiser and its seed; and its name, the hash of all of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from math import inf, isfinite
from platform import python_version
from typing import TYPE_CHECKING, Any

from moesim.errors import InputError
from moesim.lab import probe
from moesim.lab.corpus import CONTEXT, VOCABULARY, spelled
from moesim.settings import known, number, truth, whole
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, POSITIVE_OR_INF, SHARE

if TYPE_CHECKING:
    from moesim.models.transformer import Transformer

HEAD_DIM = 16
BALANCING = {"none": 0.0, "auxiliary": 0.01, "loss_free": 0.001}
"""Ways to balance experts, with the weight of the loss or the step of the bias that they take by default."""
USUAL = "loss_free"
"""The way to balance them that is taken by default."""

_VERSION = (
    1  # of the training itself: another number makes other jobs, so that no kept trajectory of older code is taken
)
_LATER = {"since": "a field that came later is in the name of a job where it is not the default"}
_MARKS = 7  # a trajectory is measured at its end and after each halving before
_WARM_UP = 32  # steps in which the learning rate rises
_EARLY_WINDOWS = 6  # loads are kept of the first 1, 2, 4 ... steps, then of even windows
_LATE_WINDOWS = 32


@dataclass(frozen=True)
class Shape:
    """Sizes. `experts` of 1 is a dense model, its feed-forward part `ffn_multiple` times as wide (4 d_model at 1).

    The experts of a Mixture of Experts share that width among the `active_experts` of a token, so that the active size
    changes with neither. Raises InputError for what is no whole number or does not divide.
    """

    d_model: int = 32
    layers: int = 2
    experts: int = 1
    active_experts: int = 1
    ffn_multiple: int = 1

    def __post_init__(self):
        for name, value in asdict(self).items():
            object.__setattr__(self, name, whole()("lab", name, value))
        if self.d_model % HEAD_DIM:
            raise InputError(
                f"lab: d_model={self.d_model}; it takes a multiple of {HEAD_DIM} (a size is [d_model, layers])"
            )
        if self.active_experts > self.experts or self.d_ff % self.active_experts:
            raise InputError(
                f"lab: active_experts={self.active_experts} of experts={self.experts}; it takes at most as many, and "
                f"a divisor of the width {self.d_ff}"
            )

    @property
    def d_ff(self) -> int:
        """Width of the feed-forward part that acts on a token."""
        return 4 * self.d_model * self.ffn_multiple

    @property
    def d_expert(self) -> int:
        """Width of one expert."""
        return self.d_ff // self.active_experts

    @cached_property
    def transformer(self) -> Transformer:
        """The same model in `moesim.models`, which counts it."""
        from moesim.models.transformer import Transformer

        moe: dict[str, Any] = {
            "experts": self.experts,
            "active_experts": self.active_experts,
            "d_expert": self.d_expert,
        }
        return Transformer(
            layers=self.layers,
            d_model=self.d_model,
            heads=self.d_model // HEAD_DIM,
            vocabulary=VOCABULARY,
            d_ff=self.d_ff,
            gated=False,
            tied=True,
            norm_gains=False,
            **(moe if self.experts > 1 else {}),
        )


_TAKES = {
    "batch": number(AT_LEAST_ONE),
    "tokens": number(AT_LEAST_ONE),
    "unique_tokens": number(POSITIVE_OR_INF),
    "learning_rate": number(NON_NEGATIVE),
    "weight_decay": number(NON_NEGATIVE),
    "balancing_rate": number(NON_NEGATIVE),
    "cooldown": number(SHARE),
    "attention_scale": number(POSITIVE),
    "decay_by_load": truth,
    "decay_embedding": truth,
    "seed": whole(0),
}
_OPTIONAL = ("balancing_rate",)


def _multiple(name: str, value: float, unit: int) -> float:
    """A whole number of units, which are named in the error with the nearest that will do; inf is one."""
    below = value // unit * unit
    if below != value and isfinite(value):
        near = " or ".join(f"{count:.0f}" for count in (below, below + unit) if count)
        raise InputError(f"lab: {name}={value:.15g}; it takes a multiple of {unit} bytes, like {near}")
    return int(value) if isfinite(value) else inf


@dataclass(frozen=True)
class Job:
    """One training run. `unique_tokens` of inf: every token is fresh.

    `balancing_rate`: weight of the auxiliary loss or step of the bias, None for that of `BALANCING`; `decay_by_load`:
    an expert's weight decay in proportion to its share of the tokens; `corpus`: a name, or a mapping of `policy` and
    options. `cooldown`: the last share of the run, over which the learning rate falls to zero; only its end is measured
    then, with the last weights in place of the averaged ones. `attention_scale`: of the products of normed queries and
    keys, which are at most HEAD_DIM; the default, one over the root of that, leaves attention blunt: 1 is better on
    text by .09 nat, and worse on synthetic facts by .10 (docs/log.md). `decay_embedding`: whether the tied embedding
    decays too, whose scale is that of the logits. `probes`: what is tried on the trained model (names or mappings, see
    `probe`).
    Raises InputError for what is out of range.
    """

    corpus: Any = "synthetic"
    shape: Shape = field(default_factory=Shape)
    unique_tokens: float = inf
    tokens: int = 2**20
    learning_rate: float = 0.01
    weight_decay: float = 0.1
    decay_by_load: bool = False
    balancing: str = USUAL
    balancing_rate: float | None = None
    batch: int = 2048
    seed: int = 0
    cooldown: float = field(default=0.0, metadata=_LATER)
    probes: Any = field(default=(), metadata=_LATER)
    attention_scale: float = field(default=HEAD_DIM**-0.5, metadata=_LATER)
    decay_embedding: bool = field(default=True, metadata=_LATER)

    def __post_init__(self):
        object.__setattr__(self, "corpus", spelled(self.corpus))
        object.__setattr__(self, "probes", probe.spelled(self.probes))
        if not isinstance(self.balancing, str) or self.balancing not in BALANCING:
            raise InputError(f"lab: balancing={self.balancing!r}; {known(BALANCING, self.balancing)}")
        for name, takes in _TAKES.items():
            if getattr(self, name) is not None or name not in _OPTIONAL:
                object.__setattr__(self, name, takes("lab", name, getattr(self, name)))
        for name in ("batch", "tokens", "unique_tokens"):
            unit = CONTEXT if name == "batch" else self.batch
            object.__setattr__(self, name, _multiple(name, getattr(self, name), unit))
        if self.learning_rate * self.weight_decay >= 1:
            raise InputError(
                f"lab: weight_decay={self.weight_decay:g} at learning_rate={self.learning_rate:g}; a step takes their "
                "product off the weights: it takes a product below 1"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.tokens // self.batch

    @property
    def marks(self) -> list[int]:
        """Tokens after which the run is measured: beyond the first pass, which the fresh run has in common with it."""
        halved = [self.tokens >> k for k in reversed(range(1 if self.cooldown else _MARKS))]
        repeats = [D for D in halved if self.unique_tokens < D or self.unique_tokens >= self.tokens]
        return [D for D in repeats if D % self.batch == 0 and D]

    @property
    def windows(self) -> list[int]:
        """Steps after which a window of loads ends."""
        early = [2**k for k in range(_EARLY_WINDOWS)]
        late = [round(self.steps * k / _LATE_WINDOWS) for k in range(1, _LATE_WINDOWS + 1)]
        return sorted({step for step in (*early, *late) if 0 < step <= self.steps})

    def rate(self, step: int) -> float:
        """Learning rate of a step: it rises at first, and falls to zero over the last `cooldown` of the run."""
        left = (self.steps - step + 1) / (self.cooldown * self.steps) if self.cooldown else inf
        return self.learning_rate * min(1.0, step / _WARM_UP, left)

    @property
    def auxiliary(self) -> float:
        """Weight of the auxiliary loss."""
        return self._rate if self.balancing == "auxiliary" else 0.0

    @property
    def bias_step(self) -> float:
        """Step of the bias that balances without a loss."""
        return self._rate if self.balancing == "loss_free" else 0.0

    @property
    def _rate(self) -> float:
        return BALANCING[self.balancing] if self.balancing_rate is None else self.balancing_rate

    @cached_property
    def name(self) -> str:
        """The hash of all that the run depends on (Python ships the text of a corpus), the first 12 hex digits."""
        same = {f.name for f in fields(self) if f.metadata == _LATER and getattr(self, f.name) == f.default}
        values = {name: value for name, value in asdict(self).items() if name not in same}
        told = json.dumps([_VERSION, python_version(), values], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def arm(self) -> str:
        """The model in a word: dense, dense x8, moe 8, moe 8 of which 2 act."""
        shape = self.shape
        if shape.experts == 1:
            return "dense" if shape.ffn_multiple == 1 else f"dense x{shape.ffn_multiple}"
        return f"moe {shape.experts}" + (f" top {shape.active_experts}" if shape.active_experts > 1 else "")

    def columns(self) -> dict[str, Any]:
        """What stands in each row of the run; parameters are counted without the embedding table."""
        shape, model = self.shape, self.shape.transformer
        return {
            "arm": self.arm,
            "active_params": model.active_params_as("no_embedding"),
            "total_params": model.total_params_as("no_embedding"),
            "embedding_params": model.total_params - model.total_params_as("no_embedding"),
            "sparsity": (shape.experts - shape.active_experts) / shape.experts,
            **asdict(shape),
            "weight_decay": self.weight_decay,
            "learning_rate": self.learning_rate,
            "decay_by_load": self.decay_by_load,
            "balancing": self.balancing if shape.experts > 1 else "none",
            "balancing_rate": self._rate if shape.experts > 1 else 0.0,
            "batch": self.batch,
            "cooldown": self.cooldown,
            "attention_scale": self.attention_scale,
            "decay_embedding": int(self.decay_embedding),
            "seed": self.seed,
            "trajectory": self.name,
        }
