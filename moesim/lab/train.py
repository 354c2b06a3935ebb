"""One training run of a small model, which gives its whole axis of epochs: constant rate, averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor  # pyright: ignore[reportMissingImports]

from moesim.lab.corpus import CONTEXT, Corpus, Part
from moesim.lab.job import Job
from moesim.lab.model import Model

_WARM_UP = 32  # steps in which the learning rate rises
_BETAS = (0.9, 0.95)
_ORDER = 7  # the average weighs the weights of a step by the step to this power
_SEEN_WINDOWS = 2**9  # of what was trained on, and of the last weights, an estimate is enough


@dataclass(frozen=True)
class Trajectory:
    """`rows`: columns for each mark; `loads` (window, layer, domain, expert) and the step that ends each window."""

    rows: list[dict[str, Any]]
    loads: np.ndarray
    steps: np.ndarray


def train(job: Job, corpus: Corpus) -> Trajectory:
    """Train one model from its seed to `job.tokens`; bit for bit the same again on one thread of the same machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(job.seed)
    run = Run(job, corpus)
    rows, loads, ends = [], [], []
    started = process_time()
    for step in range(1, job.steps + 1):
        run.step(step)
        if step in job.windows:
            loads.append(run.taken_loads())
            ends.append(step)
        if step * job.batch in job.marks:
            rows.append(run.measured(step) | {"seconds": process_time() - started})
    return Trajectory(rows, np.array(loads), np.array(ends))


class Run:
    """A model, the average of its weights, its optimiser and its pool of windows."""

    def __init__(self, job: Job, corpus: Corpus):
        self.job, self.corpus = job, corpus
        self.model = Model(job.shape)
        self.average = deepcopy(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=job.learning_rate, betas=_BETAS, fused=True)
        self.batches = _batches(job, corpus)
        self.loads = np.zeros((len(self.model.moe), len(corpus.domains), job.shape.experts), dtype=np.int64)

    def step(self, step: int) -> None:
        """One update on the next batch."""
        windows, domain = next(self.batches)
        loss = _losses(self.model, windows).mean()
        for layer in self.model.moe:
            loss = loss + self.job.auxiliary * _imbalance(layer)
        self.optimizer.zero_grad()
        loss.backward()
        rate = self.job.learning_rate * min(1.0, step / _WARM_UP)
        self._decay(rate)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self._balance(domain)
        self._keep_average(step)

    @torch.no_grad()
    def _decay(self, rate: float) -> None:
        """Decoupled weight decay; with `decay_by_load` an expert decays as it learns, by its share of the tokens."""
        keep = 1 - rate * self.job.weight_decay
        by_load = {}
        if self.job.decay_by_load:
            for layer in self.model.moe:
                share = _counts(layer) * len(layer.bias) / layer.chosen.numel()
                by_load |= dict.fromkeys((layer.up, layer.down), (1 - (1 - keep) * share)[:, None, None])
        for weights in self.model.parameters():
            weights.mul_(by_load.get(weights, keep))

    @torch.no_grad()
    def _balance(self, domain: Tensor) -> None:
        for index, layer in enumerate(self.model.moe):
            of = domain.repeat_interleave(CONTEXT * layer.active)
            cells = of * len(layer.bias) + layer.chosen.flatten()
            self.loads[index] += cells.bincount(minlength=self.loads[index].size).view(*self.loads.shape[1:]).numpy()
            counts = _counts(layer)
            layer.bias += self.job.bias_step * (counts.mean() - counts).sign()

    @torch.no_grad()
    def _keep_average(self, step: int) -> None:
        share = (_ORDER + 1) / (_ORDER + step)
        for kept, weights in zip(self.average.parameters(), self.model.parameters(), strict=True):
            kept.lerp_(weights, share)
        for kept, layer in zip(self.average.moe, self.model.moe, strict=True):
            kept.bias.copy_(layer.bias)

    def taken_loads(self) -> np.ndarray:
        """Assignments (layer, domain, expert) since the last call."""
        out, self.loads = self.loads, np.zeros_like(self.loads)
        return out

    def measured(self, step: int) -> dict[str, Any]:
        """Loss of the averaged weights on the validation windows, whole and by domain, and what else tells of it."""
        valid, job = self.corpus.valid, self.job
        losses = evaluate(self.average, valid.windows)
        sums = np.bincount(valid.domain, losses, minlength=len(self.corpus.domains))
        with np.errstate(invalid="ignore"):
            by_domain = sums / np.bincount(valid.domain, minlength=len(self.corpus.domains))
        seen = _pool(job, self.corpus).windows[:_SEEN_WINDOWS]
        return {
            "tokens": step * job.batch,
            "loss": losses.mean(),
            "loss_se": losses.std(ddof=1) / len(losses) ** 0.5,
            "loss_last": evaluate(self.model, valid.windows[:_SEEN_WINDOWS]).mean(),
            "loss_seen": evaluate(self.average, seen).mean(),
            "domain_loss": by_domain,
        }


@torch.no_grad()
def evaluate(model: Model, windows: np.ndarray, batch: int = 64) -> np.ndarray:
    """Mean loss of each window in nat/token."""
    parts = [_losses(model, torch.from_numpy(windows[i : i + batch])) for i in range(0, len(windows), batch)]
    return torch.cat(parts).double().mean(1).numpy()


def _losses(model: Model, windows: Tensor) -> Tensor:
    """Loss of each token (window, CONTEXT)."""
    tokens = windows.long()
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").view(-1, CONTEXT)


def _counts(layer: Any) -> Tensor:
    return layer.chosen.flatten().bincount(minlength=len(layer.bias)).float()


def _imbalance(layer: Any) -> Tensor:
    """E sum_i f_i p_i (Fedus et al. 2022, eq. 4), p the gates as shares: 1 where all experts are chosen alike."""
    share = _counts(layer) / layer.chosen.numel()
    gates = layer.gates / layer.gates.sum(-1, keepdim=True)
    return len(layer.bias) * (share * gates.mean(0)).sum()


def _pool(job: Job, corpus: Corpus) -> Part:
    """The windows of a trajectory in an order of its seed: two pools of one seed share the shorter one."""
    order = np.random.default_rng([job.seed, 13]).permutation(len(corpus.train.windows))
    order = order[: min(job.unique_tokens, job.tokens) // CONTEXT]
    return Part(corpus.train.windows[order], corpus.train.domain[order])


def _batches(job: Job, corpus: Corpus) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: the pool in order, then in a new order in each epoch."""
    pool, size = _pool(job, corpus), job.batch // CONTEXT
    rng = np.random.default_rng([job.seed, 14])
    order = np.arange(len(pool.windows))
    while True:
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield torch.from_numpy(pool.windows[rows]), torch.from_numpy(pool.domain[rows])
        order = rng.permutation(len(pool.windows))
