"""The best run of each sparsity that a machine can make in a given time: at equal time, not at equal FLOPs.

For every sparsity of a ladder the size with the lowest loss is sought among models that can be built: their rate is
that of the fastest layout that fits (`moesim.step_time`), their tokens are what the time allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moesim.hardware.chip import Chip
from moesim.hardware.release import release_of
from moesim.hardware.search import NoFit, searched
from moesim.hardware.timed import Step
from moesim.hardware.training import Setup
from moesim.hardware.work import work_of
from moesim.models.transformer import Transformer
from moesim.planning.budget import Budget, Cluster, Gating, Serving
from moesim.planning.model import Model
from moesim.planning.shape import WIDTHS, shape

SPREADS = (1, 2, 4, 8, 16, 32, 64)  # experts for each active one; 1: dense
_GUESS = 0.35  # MFU from which a search starts
_BESIDE = 0.8  # a narrower width that is timed too
_TURNS = 8  # most widths that are timed for a sparsity
_BATCH = (0.58, 0.571)  # best batch in tokens, B = 0.58 D^0.571: Step Law, arXiv:2503.04715 (steplaw repository)


@dataclass(frozen=True)
class Machine:
    """What trains: chip, cluster, precision, release, imbalance."""

    chip: Chip
    cluster: Cluster
    precision: str = "bf16"
    release: str | None = None
    imbalance: float = 1.0

    @property
    def peak(self) -> float:
        """FLOP/s of the cluster, 16-bit values."""
        return self.chip.flops * self.cluster.devices

    def step(self, model: Transformer, sequence: int, batch: int) -> Step:
        """The step in the fastest layout that fits; InputError if none does."""
        work, release = work_of(model, sequence), release_of(self.release)
        setup = Setup.of(work, self.chip, self.cluster.devices, self.precision, release, self.imbalance)
        return searched(setup, batch)


@dataclass(frozen=True)
class Run:
    """A run that can be made: its model and width, sequences of a step, the step, FLOP/s of all devices, and hours."""

    model: Transformer
    d_model: int
    sparsity: float
    batch: int
    step: Step
    tokens: float
    rate: float
    loss: float
    hours: float


@dataclass(frozen=True)
class Question:
    """What a plan is asked: which law, on what machine, with which budget, data and serving."""

    model: Model
    machine: Machine
    budget: Budget
    unique_tokens: float
    serving: Serving = field(default_factory=Serving)
    gating: Gating = field(default_factory=Gating)

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the architecture."""
        return dict(self.model.architecture.fields)

    @property
    def sequence(self) -> int:
        """Tokens of a sequence."""
        return round(self.fields["context"])

    def losses(self, d_model: Any, sparsity: Any, tokens: Any, model: Model | None = None) -> np.ndarray:
        """Loss (run, draw) of runs of such widths, sparsities and tokens, by the question's law or another."""
        one = model or self.model
        columns = (np.atleast_1d(np.asarray(x, dtype=float))[:, None] for x in (d_model, sparsity, tokens))
        d_model, sparsity, tokens = columns
        cell = {"sparsity": self.gating.sparsity(sparsity), "unique_tokens": np.array(self.unique_tokens)}
        cell |= {"tokens": tokens} | {name: np.asarray(value) for name, value in one.varying().items()}
        with np.errstate(all="ignore"):
            out = one.loss(np.log(d_model), one.with_taught_params(cell))
        return np.asarray(out) + self.gating.penalty * (sparsity > 0) + np.zeros((len(d_model), 1))

    def tokens(self, d_model: Any, sparsity: float, rate: Any) -> np.ndarray:
        """Tokens that the budget allows at a rate of so many FLOP a second of the whole cluster."""
        at = self.model.architecture.describe(np.log(np.asarray(d_model, dtype=float)), sparsity)
        flops = np.asarray(at["flops_per_token"], dtype=float)
        if self.budget.seconds is None:
            return self.budget.compute / flops
        left = self.budget.seconds - self.serving_seconds(flops)
        return np.maximum(left, 0.0) * self.machine.cluster.goodput * rate / flops

    def serving_seconds(self, training_flops: Any) -> Any:
        """Seconds of the cluster to decode the tokens to be served; a forward pass is a third of training."""
        return self.serving.tokens * training_flops / 3.0 / (self.serving.mfu * self.machine.peak)


def ladder(question: Question, spreads: Sequence[int] = SPREADS) -> dict[int, Run | None]:
    """The best run of every sparsity 1 - 1/spread."""
    return {spread: best_run(question, spread) for spread in spreads}


def best_run(question: Question, spread: int) -> Run | None:
    """The run with the lowest loss at one sparsity; None if no model of it fits or has time for a token.

    The rate is measured at the width that seems best, taken as constant beyond the measured widths and as a power law
    between them, until the best width is a measured one.
    """
    widths, sparsity, runs = np.array(WIDTHS, dtype=float), 1.0 - 1.0 / spread, {}
    rates = {1.0: _GUESS * question.machine.peak}
    for _ in range(_TURNS):
        believed = np.exp(np.interp(np.log(widths), *np.log(sorted(rates.items())).T))
        tokens = question.tokens(widths, sparsity, believed)
        losses = np.where(tokens > 0, question.losses(widths, sparsity, np.maximum(tokens, 1.0)).mean(axis=1), np.inf)
        best = _next(widths, losses, rates)
        if best is None:
            break
        try:
            run = _run(question, int(widths[best]), spread, float(tokens[best]))
        except NoFit as error:  # states grow as the cube of the width
            room = question.machine.chip.memory / error.bytes
            widths = widths[widths <= widths[best] * min(room ** (1.0 / 3.0), 0.95)]
            continue
        rates.pop(1.0, None)
        runs[run.d_model] = run
        rates[float(run.d_model)] = run.rate
    return min(runs.values(), key=lambda run: run.loss) if runs else None


def _next(widths: np.ndarray, losses: np.ndarray, measured: Mapping[float, float]) -> int | None:
    """The width to be timed next: the best, or one a little narrower, which may be faster as more of it fits."""
    if not np.isfinite(losses).any():
        return None
    best = int(losses.argmin())
    if widths[best] not in measured:
        return best
    beside = int(np.searchsorted(widths, _BESIDE * widths[best]))
    known = any(widths[beside] <= width < widths[best] for width in measured)
    return None if known or beside == best else beside


def _run(question: Question, d_model: int, spread: int, tokens: float) -> Run:
    """The run of a width: its step, with the best batch for about so many tokens, and what it leaves time for."""
    model, sparsity = shape(question.fields, d_model, spread), 1.0 - 1.0 / spread
    batch = best_batch(tokens, question.sequence)
    step = question.machine.step(model, question.sequence, batch)
    flops = float(question.model.architecture.describe(np.log(d_model), sparsity)["flops_per_token"])
    rate = step.tokens_per_second * question.machine.cluster.devices * flops
    trained = float(question.tokens(float(d_model), sparsity, rate))
    loss = float(question.losses(d_model, sparsity, trained).mean())
    hours = trained * flops / (rate * question.machine.cluster.goodput) / 3600.0
    return Run(model, d_model, sparsity, batch, step, trained, rate, loss, hours)


def best_batch(tokens: float, sequence: int) -> int:
    """Sequences of a step, a power of two: B = 0.58 D^0.571 tokens (Step Law)."""
    return 2 ** max(round(np.log2(_BATCH[0] * tokens ** _BATCH[1] / sequence)), 0)
