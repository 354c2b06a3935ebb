"""What is tried on a trained Mixture of Experts: an expert split in two, domains trained on alone, experts forced.

A probe is a decorated function of a `Run` (see `train`) that gives (dims, values) by name and the coordinates of its
dims. It works on copies, which read what the run has not seen, so that the probes of a job do not know of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.registry import Policies
from moesim.variables import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, check

if TYPE_CHECKING:
    from moesim.lab.train import Run

probes = Policies("probe")


@dataclass(frozen=True)
class Found:
    """What probes found: (dims, values) by name, and the coordinates of the dims."""

    values: Mapping[str, tuple[tuple[str, ...], np.ndarray]] = field(default_factory=dict)
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def spelled(choices: Any) -> tuple[dict[str, Any], ...]:
    """Probes (one or a list; a name, or a mapping of `policy` and options) with all their options."""
    listed = [choices] if isinstance(choices, str | Mapping) else list(choices or ())
    policies = [probes.only(choice) for choice in listed]
    return tuple({"policy": policy.name, **policy.takes, **policy.options} for policy in policies)


def probed(choices: Sequence[Mapping[str, Any]], run: Run) -> Found:
    """What all these probes find on a run that has ended."""
    found = [probes.only(choice)(run) for choice in choices]
    return Found(
        {name: value for each in found for name, value in each.values.items()},
        {name: value for each in found for name, value in each.axes.items()},
    )


@probes
def split(
    run: Run,
    *,
    tokens: int = 2**17,
    router_noise: Sequence[float] = (0.01,),
    weight_noise: Sequence[float] = (0.0,),
    keep_optimizer: bool = True,
    windows: int = 2**9,
) -> Found:
    """Split the hottest expert of each layer in turn, train on, and watch the twins and the loss.

    Noise is in standard deviations of the twin's own weights. By layer, noises and tokens since the split:
    `split_loss` on validation `windows` (`unsplit_loss`: of the same run without a split, on the same data),
    `twin_cosine` between the changes of the twins' weights since then, `twin_divergence` (bit, Jensen-Shannon) of the
    domains that they were given since the mark before, `twin_share` of the pair's tokens that went to the lesser, and
    `pair_share` of the layer's.
    """
    for name, noises in {"router_noise": router_noise, "weight_noise": weight_noise}.items():
        check("probe split", name, np.asarray(noises, dtype=float), NON_NEGATIVE)
    marks = _marks(tokens, run.job.batch)
    hottest = [int(counts.sum(axis=0).argmax()) for counts in run.last_loads]
    cells = list(product(enumerate(hottest), router_noise, weight_noise))
    rows = [_after_split(run, *where, noise, other, keep_optimizer, marks, windows) for where, noise, other in cells]
    shape = (len(hottest), len(router_noise), len(weight_noise), len(marks))
    dims = ("layer", "router_noise", "weight_noise", "since")
    values: dict[str, Any] = {name: (dims, np.reshape([row[name] for row in rows], shape)) for name in rows[0]}
    values["unsplit_loss"] = (("since",), np.array([_loss(each, windows) for each in _watched(run.branch(), marks)]))
    axes = {"router_noise": router_noise, "weight_noise": weight_noise, "since": [m * run.job.batch for m in marks]}
    return Found(values, axes)


def _marks(tokens: int, batch: int) -> list[int]:
    """Steps after a split at which it is looked at: none, and doublings of one."""
    steps = int(check("probe split", "tokens", tokens, AT_LEAST_ONE)) // batch
    return [0, *(2**k for k in range(max(steps, 1).bit_length()))]


def _after_split(
    run: Run, layer: int, expert: int, router_noise, weight_noise, keep, marks, windows
) -> dict[str, list]:
    own = run.branch()
    own.split(layer, expert, router_noise, weight_noise, keep)
    before, rows = _twins(own, layer, expert), []
    for each in _watched(own, marks):
        change = _twins(each, layer, expert) - before
        counts = each.taken_loads()[layer]
        pair, total = counts[:, [expert, -1]], max(counts.sum(), 1)
        rows.append((_loss(each, windows), _cosine(*change), divergence(*pair.T), _lesser(pair), pair.sum() / total))
    names = ("split_loss", "twin_cosine", "twin_divergence", "twin_share", "pair_share")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _watched(run: Run, marks: Sequence[int]) -> Iterator[Run]:
    """The run at each mark, in steps from now."""
    for start, stop in zip((0, *marks), marks, strict=False):
        _learn(run, islice(run.batches, stop - start))
        yield run


def _learn(run: Run, batches: Any) -> None:
    for batch in batches:
        run.update(run.job.learning_rate, batch)


def _loss(run: Run, windows: int) -> float:
    return float(run.losses(run.corpus.valid.windows[:windows]).mean())


def _twins(run: Run, layer: int, expert: int) -> np.ndarray:
    """Weights of an expert and of the last one, its twin (2, weights)."""
    whole = run.model.moe[layer]
    flat = [weights.detach()[[expert, -1]].flatten(1).numpy() for weights in (whole.up, whole.down)]
    return np.concatenate(flat, axis=1)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else np.nan


def _lesser(pair: np.ndarray) -> float:
    counts = pair.sum(axis=0)
    return counts.min() / counts.sum() if counts.sum() else np.nan


def divergence(a: np.ndarray, b: np.ndarray) -> float:
    """Jensen-Shannon divergence in bit of two distributions known by counts, less the bias of counting.

    Of like distributions over D values that is (D - 1)(1/n + 1/m)/8 nat, the leading term. NaN where one is empty.
    """
    if not a.sum() or not b.sum():
        return np.nan
    p, q = a / a.sum(), b / b.sum()
    found = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    bias = (((a + b) > 0).sum() - 1) * (1 / a.sum() + 1 / b.sum()) / 8
    return float(found - bias / np.log(2))


def entropy(p: np.ndarray) -> float:
    """Entropy in bit."""
    return float(-(p[p > 0] * np.log2(p[p > 0])).sum())


@probes
def transfer(
    run: Run,
    *,
    steps: int = 8,
    rate: float = 1.0,
    repeats: int = 3,
    domains: int = 8,
    windows: int = 32,
    weights: str = "feedforward",
) -> Found:
    """What training on one domain does for the loss of each: `tuned_gain`, `added_gain`, nat/token.

    By (repeat, source, target): each repeat reads other batches; the `domains` most frequent are sources and targets.
    `tuned_gain`: how much lower after `steps` on the source alone. `added_gain`: how much lower after `steps` on the
    mixture with as many windows of the source beside it than after those on the mixture alone. The first exaggerates
    harm, as what is not seen is overwritten, which is what tells kin from others (`probed.kinship`). So it starts from
    the last weights, at `rate` times the learning rate: from averaged ones kin looks like harm, since what kin share is
    learned and what tells them apart is left to gain. Only weights whose name begins with `weights` learn ("": all).
    Loss on up to `windows` validation windows of each.
    """
    for name, value in {"steps": steps, "repeats": repeats, "domains": domains, "windows": windows}.items():
        check("probe transfer", name, value, AT_LEAST_ONE)
    size = check("probe transfer", "rate", rate, POSITIVE) * run.job.learning_rate
    sources = np.argsort(-np.bincount(run.pool.domain, minlength=len(run.corpus.domains)), kind="stable")[:domains]
    chosen = _of_each_domain(run, windows, sources)

    def after(repeat: int, source: int | None, mixture: bool = True) -> np.ndarray:
        own = run.branch()
        own.train_only(weights)
        read = ([own.batches] if mixture else []) + ([] if source is None else [own.batches_of(source)])
        for batches in islice(zip(*read, strict=True), repeat * steps, (repeat + 1) * steps):
            own.update(size, *batches)
        return _by_domain(own, chosen)[sources]

    before, alone, added = _by_domain(run, chosen)[sources], [], []
    for repeat in range(repeats):
        mixed = after(repeat, None)
        alone.append([before - after(repeat, source, mixture=False) for source in sources])
        added.append([mixed - after(repeat, source) for source in sources])
    names, gains = [run.corpus.domains[source] for source in sources], {"tuned_gain": alone, "added_gain": added}
    values = {name: (("repeat", "source", "target"), np.array(gain)) for name, gain in gains.items()}
    return Found(values, {"source": names, "target": names})


def _of_each_domain(run: Run, windows: int, domains: Iterable[int]) -> np.ndarray:
    """Rows of the validation part: the first `windows` of each of these domains."""
    domain = run.corpus.valid.domain
    return np.concatenate([np.flatnonzero(domain == k)[:windows] for k in domains])


def _by_domain(run: Run, chosen: np.ndarray) -> np.ndarray:
    """Mean loss of each domain, NaN where none was chosen."""
    domain, count = run.corpus.valid.domain[chosen], len(run.corpus.domains)
    sums, seen = (
        np.bincount(domain, weights, minlength=count)
        for weights in (run.losses(run.corpus.valid.windows[chosen]), None)
    )
    return np.divide(sums, seen, out=np.full(count, np.nan), where=seen > 0)


@probes
def forced(run: Run, *, windows: int = 32) -> Found:
    """What every expert is worth to every domain: `forced_excess` (layer, domain, expert), nat/token.

    The loss when all tokens of one layer have that expert among theirs, whatever the router says, less the loss with
    the router's choice; over up to `windows` validation windows of each domain.
    """
    chosen = _of_each_domain(run, windows, range(len(run.corpus.domains)))
    free = _by_domain(run, chosen)
    layers = [
        [_by_domain(_forced(run, layer, e), chosen) - free for e in range(run.job.shape.experts)]
        for layer in range(run.job.shape.layers)
    ]
    return Found({"forced_excess": (("layer", "domain", "expert"), np.swapaxes(layers, 1, 2))})


def _forced(run: Run, layer: int, expert: int) -> Run:
    own = run.branch()
    own.model.moe[layer].bias[expert] += 1e3  # the bias moves the choice and nothing else
    return own
