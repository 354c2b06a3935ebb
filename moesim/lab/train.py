"""One training run of a small model, which gives its whole axis of epochs: constant rate, averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy, deepcopy
from dataclasses import dataclass, field
from time import process_time
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]

from moesim.errors import InputError
from moesim.lab.corpus import CONTEXT, Corpus, Part
from moesim.lab.job import Job
from moesim.lab.model import Model
from moesim.lab.probe import Found, probed

_BETAS = (0.9, 0.95)
_ORDER = 7  # the average weighs the weights of a step by the step to this power
_SEEN_WINDOWS = 2**9  # of what was trained on, and of the last weights, an estimate is enough


Batch = tuple[Tensor, Tensor]
"""Windows and the domain of each."""


@dataclass(frozen=True)
class Trajectory:
    """`rows`: columns for each mark; `loads` (window, layer, domain, expert) and the step that ends each window.

    `probed`: what the job's probes found, (dims, values) by name, and `axes` the coordinates of their dims.
    """

    rows: list[dict[str, Any]]
    loads: np.ndarray
    steps: np.ndarray
    probed: Found = field(default_factory=Found)


def train(job: Job, corpus: Corpus) -> Trajectory:
    """Train one model from its seed to `job.tokens`; bit for bit the same again on one thread of the same machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(job.seed)
    run = Run(job, corpus)
    run.check()
    rows, loads, ends = [], [], []
    started = process_time()
    for step in range(1, job.steps + 1):
        run.step(step)
        if step in job.windows:
            loads.append(run.taken_loads())
            ends.append(step)
        if step * job.batch in job.marks:
            rows.append(run.measured(step) | {"seconds": process_time() - started})
    shape = (len(loads), len(run.loads), len(corpus.domains), job.shape.experts)
    return Trajectory(rows, np.reshape(loads, shape), np.array(ends), probed(job.probes, run))


class Run:
    """A model, the average of its weights, its optimiser and its pool of windows."""

    def __init__(self, job: Job, corpus: Corpus):
        self.job, self.corpus = job, corpus
        self.model = Model(job.shape, job.attention_scale)
        self.average = deepcopy(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=job.learning_rate, betas=_BETAS, fused=True)
        self.pool, self.unseen = _pools(job, corpus)
        self.batches = _batches(self.pool, job)
        self.loads = self.last_loads = self._no_loads()

    def step(self, step: int) -> None:
        """One update on the next batch, in turn."""
        self.update(self.job.rate(step), next(self.batches))
        self._keep_average(step)

    def update(self, rate: float, *batches: Batch) -> None:
        """One update of the weights, not of their average, on these batches together."""
        windows, domain = (torch.cat(parts) for parts in zip(*batches, strict=True))
        loss = _losses(self.model, windows).mean()
        for layer in self.model.moe:
            loss = loss + self.job.auxiliary * _imbalance(layer)
        self.optimizer.zero_grad()
        loss.backward()
        self._decay(rate)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self._balance(domain)

    @torch.no_grad()
    def _decay(self, rate: float) -> None:
        """Decoupled weight decay of all, or all but the embedding, or with an expert by its share of the tokens."""
        keep = 1 - rate * self.job.weight_decay
        own: dict[Tensor, Tensor | float] = {} if self.job.decay_embedding else {self.model.embedding: 1.0}
        if self.job.decay_by_load:
            for layer in self.model.moe:
                share = _counts(layer) * len(layer.bias) / layer.chosen.numel()
                own |= dict.fromkeys((layer.up, layer.down), (1 - (1 - keep) * share)[:, None, None])
        for weights in filter(lambda w: w.requires_grad, self.model.parameters()):
            weights.mul_(own.get(weights, keep))

    @torch.no_grad()
    def _balance(self, domain: Tensor) -> None:
        for index, layer in enumerate(self.model.moe):
            of = domain.repeat_interleave(CONTEXT * layer.active)
            cells = of * len(layer.bias) + layer.chosen.flatten()
            own = self.loads[index]
            own += cells.bincount(minlength=own.size).view(*own.shape).numpy()
            counts = _counts(layer)
            layer.bias += self.job.bias_step * (counts.mean() - counts).sign()

    @torch.no_grad()
    def _keep_average(self, step: int) -> None:
        share = (_ORDER + 1) / (_ORDER + step)
        for kept, weights in zip(self.average.parameters(), self.model.parameters(), strict=True):
            kept.lerp_(weights, share)
        for kept, layer in zip(self.average.moe, self.model.moe, strict=True):
            kept.bias.copy_(layer.bias)

    def taken_loads(self) -> list[np.ndarray]:
        """Assignments (domain, expert) of each layer since the last call."""
        self.last_loads, self.loads = self.loads, self._no_loads()
        return self.last_loads

    def _no_loads(self) -> list[np.ndarray]:
        return [np.zeros((len(self.corpus.domains), len(layer.bias)), dtype=np.int64) for layer in self.model.moe]

    def check(self) -> None:
        """InputError where the corpus is too small for what the job asks."""
        job, text = self.job, self.corpus.train
        if self.pool.tokens < min(job.unique_tokens, job.tokens) or (job.probes and self.unseen.tokens < job.batch):
            raise InputError(
                f"lab: corpus {self.corpus.name} has {text.tokens} bytes to train on, too few for "
                f"tokens={job.tokens}, unique_tokens={job.unique_tokens} and what probes read; give less, or more text"
            )

    def branch(self) -> Run:
        """A copy that learns on by itself, on the same windows that the run has not seen, in the same order."""
        other = copy(self)
        for layer in self.model.moe:
            layer.gates = layer.gates.detach()  # what still hangs on a gradient cannot be copied
        other.model, other.optimizer = deepcopy((self.model, self.optimizer))
        other.batches = _batches(self.unseen, self.job)
        other.loads = other._no_loads()
        return other

    def train_only(self, part: str) -> None:
        """Leave all weights as they are whose name does not begin with `part`."""
        for name, weights in self.model.named_parameters():
            weights.requires_grad_(name.startswith(part))

    def batches_of(self, domain: int) -> Iterator[Batch]:
        """Batches of one domain that the run has not seen; few windows are repeated to fill one."""
        rows = np.flatnonzero(self.unseen.domain == domain)
        if not len(rows):
            raise InputError(
                f"lab: nothing of {self.corpus.domains[domain]} is left to probe with; give more text of it"
            )
        rows = np.resize(rows, max(len(rows), self.job.batch // CONTEXT))
        return _batches(Part(self.unseen.windows[rows], self.unseen.domain[rows]), self.job)

    def losses(self, windows: np.ndarray) -> np.ndarray:
        """Mean loss of each window under the present weights, nat/token."""
        return evaluate(self.model, windows)

    @torch.no_grad()
    def split(self, layer: int, expert: int, router_noise: float, weight_noise: float, keep_optimizer: bool) -> None:
        """Add a twin of an expert as the last of its layer: the same weights and bias, up to noise of their spread.

        The output stays what it was up to the noise, since one expert acts on a token and its gate is its own. The twin
        has the optimiser's averages of the other, or none.
        """
        whole, random = self.model.moe[layer], torch.Generator().manual_seed(self.job.seed)
        for name, noise in {"router": router_noise, "up": weight_noise, "down": weight_noise}.items():
            old = getattr(whole, name)
            own = old[expert : expert + 1]
            new = nn.Parameter(torch.cat([old, own + noise * own.std() * torch.randn(own.shape, generator=random)]))
            setattr(whole, name, new)
            kept = self.optimizer.state.pop(old)
            for moment in ("exp_avg", "exp_avg_sq"):
                kept[moment] = torch.cat([kept[moment], kept[moment][expert : expert + 1] * keep_optimizer])
            self.optimizer.state[new] = kept
            weights = self.optimizer.param_groups[0]["params"]
            weights[:] = [new if each is old else each for each in weights]
        whole.bias = torch.cat([whole.bias, whole.bias[expert : expert + 1]])
        self.loads = self._no_loads()

    def measured(self, step: int) -> dict[str, Any]:
        """Loss of the averaged weights on the validation windows, whole and by domain, and what else tells of it."""
        valid, job = self.corpus.valid, self.job
        judged = self.model if job.cooldown else self.average
        losses = evaluate(judged, valid.windows)
        sums = np.bincount(valid.domain, losses, minlength=len(self.corpus.domains))
        with np.errstate(invalid="ignore"):
            by_domain = sums / np.bincount(valid.domain, minlength=len(self.corpus.domains))
        seen = self.pool.windows[:_SEEN_WINDOWS]
        return {
            "tokens": step * job.batch,
            "loss": losses.mean(),
            "loss_se": losses.std(ddof=1) / len(losses) ** 0.5,
            "loss_last": evaluate(self.model, valid.windows[:_SEEN_WINDOWS]).mean(),
            "loss_seen": evaluate(judged, seen).mean(),
            "domain_loss": by_domain,
        }


@torch.no_grad()
def evaluate(model: Model, windows: np.ndarray, batch: int = 16) -> np.ndarray:
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


def _pools(job: Job, corpus: Corpus) -> tuple[Part, Part]:
    """The windows of a trajectory in the order of its seed (pools of one seed share the shorter), and the rest."""
    order = np.random.default_rng([job.seed, 13]).permutation(len(corpus.train.windows))
    parts = np.split(order, [int(min(job.unique_tokens, job.tokens)) // CONTEXT])
    pool, rest = (Part(corpus.train.windows[rows], corpus.train.domain[rows]) for rows in parts)
    return pool, rest


def _batches(pool: Part, job: Job) -> Iterator[Batch]:
    """Batches without end: the pool in order, then in a new order in each epoch."""
    size, rng = job.batch // CONTEXT, np.random.default_rng([job.seed, 14])
    order = np.arange(len(pool.windows))
    while True:
        for start in range(0, len(order) - size + 1, size):
            rows = order[start : start + size]
            yield torch.from_numpy(pool.windows[rows]), torch.from_numpy(pool.domain[rows])
        order = rng.permutation(len(pool.windows))
