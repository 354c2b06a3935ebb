"""The checklist that a fit of a scaling law should come with, filled in.

After the survey of practice of Li et al. 2025 (Misfitting): form, data, how size and compute are counted, what was left
out, objective, optimiser and starts, uncertainty, and what was checked on other runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from moesim import __version__
from moesim.fitting.design import advice
from moesim.fitting.solve import STATUSES
from moesim.output.text import number

if TYPE_CHECKING:
    from moesim.fitting.result import Fit


def report(fit: Fit) -> str:
    """The checklist as text, a heading and its lines for each part."""
    parts = {"Form": _form, "Data": _data, "Counting": _counting, "Fit": _fit, "Uncertainty": _uncertainty}
    parts["Checks"] = _checks
    blocks = [f"{name}\n" + "\n".join(f"  {line}" for line in lines(fit)) for name, lines in parts.items()]
    return "\n\n".join(blocks)


def _form(fit: Fit) -> Iterator[str]:
    target, parameters = fit.task.target, fit.task.parameters
    yield f"law: {target.form.name} ({target.form.source}) of {', '.join(target.inputs)}"
    yield f"repetition: {target.repetition.name}"
    yield f"free: {', '.join(parameters.free) or 'none'}"
    for role, values in (("fixed", parameters.fixed), ("tied", parameters.tied), ("prior", fit.task.prior)):
        if values:
            yield f"{role}: {', '.join(f'{name} = {value}' for name, value in values.items())}"


def _data(fit: Fit) -> Iterator[str]:
    runs = fit.runs
    yield f"runs: {runs.attrs.get('runs', 'given')}; {runs.attrs.get('source') or 'source not given'}"
    yield f"fitted: {int((~fit.outside).sum())}; held out: {int(fit.outside.sum())} ({fit.settings.get('holdout')})"
    last, kept = int(np.max(runs["row"])), runs.sizes["run"]
    yield f"left out of the table: {max(last - kept, 0)} of at least {last} rows"
    yield f"groups of runs: {int(fit.task.group.max()) + 1}; weights: {'given' if 'weight' in runs else 'equal'}"
    if "autocorrelation" in runs.attrs:
        r, worth = runs.attrs["autocorrelation"], runs.attrs["effective_runs"]
        yield f"checkpoints: autocorrelation {r:.3f}; {runs.sizes['run']} rows weigh as {worth:.1f} independent ones"
    for name, (low, high) in fit.law.data_range.items():
        yield f"{name}: {number(low)} to {number(high)}"


def _counting(fit: Fit) -> Iterator[str]:
    definitions = dict(fit.law.definitions)
    yield from (f"{symbol}: {meaning}" for symbol, meaning in definitions.items())
    if not definitions:
        yield "size and compute: as the columns of the table count them; say whether embeddings are in"
    yield f"compute: {'a column of the table' if 'compute' in fit.runs else 'not given'}"


def _fit(fit: Fit) -> Iterator[str]:
    settings, ends = fit.settings, fit.optimum.ends
    scale = "log loss" if fit.task.objective.log else "loss"
    yield f"objective: {fit.task.objective.name} of {scale}, delta {settings.get('delta')}; value {fit.objective:.10g}"
    yield f"solver: damped Gauss-Newton, all starts in one batch; status: {fit.status}"
    yield f"starts: {len(ends.objective)}, from {settings.get('starts', 0) * 64} random points in the typical ranges"
    counts = {word: int(np.sum(ends.status == i)) for i, word in enumerate(STATUSES)}
    yield f"ends of the starts: {', '.join(f'{n} {word}' for word, n in counts.items() if n)}"
    yield f"reached this optimum: {fit.share:.0%}"
    for name, spec in fit.task.parameters.specs.items():
        yield f"start range of {name}: {number(spec.typical[0])} to {number(spec.typical[1])}"


def _uncertainty(fit: Fit) -> Iterator[str]:
    drawn = "none" if fit.draws is None else f"{len(fit.draws.x)} ({fit.settings.get('resample')})"
    yield f"draws: {drawn}; level {fit.level:.0%}; seed {fit.settings.get('seed')}"
    for name, (low, high) in fit.interval().items():
        yield f"{name} = {number(fit.estimate[name])} ({number(low)} to {number(high)}), {fit.verdict[name]}"
    yield from advice(fit)


def _checks(fit: Fit) -> Iterator[str]:
    from moesim.fitting.judge import in_sample, out_of_sample

    for part, found in (("in sample", in_sample(fit)), ("held out", out_of_sample(fit))):
        if found:
            yield f"{part}: R2 {found['r2']:.4f}, mean error {found['mape']:.2%}, bias {found['bias']:+.4f} nat/token"
    yield from fit.warnings or ("nothing to warn of",)
    yield f"code: moesim {__version__}"
