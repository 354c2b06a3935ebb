"""The fastest layout that fits: every sensible one is timed at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from math import ceil, gcd

import numpy as np

from moesim.errors import InputError
from moesim.hardware.layout import Grid, Layout
from moesim.hardware.memory import memory_parts
from moesim.hardware.outcome import Step, step_of
from moesim.hardware.training import Setup, step_parts
from moesim.hardware.work import Work
from moesim.output.text import count

_TENSOR = (1, 2, 4, 8)
_PIPELINE = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_INTERLEAVE = (1, 2, 4, 8)
_MICRO_BATCH = (1, 2, 4, 8)
_RECOMPUTE = ("none", "selective", "full")
_MOST_EXPERT = 512  # devices that share experts
_LONG = 8192  # tokens of a sequence per device from which it is shared
_TOLD = ("tensor", "pipeline", "expert", "micro_batch", "recompute", "interleave")
_MOST_TIMES = 1024  # as many devices as are tried when a model does not fit


class NoFit(InputError):
    """A model fits on no layout; `bytes`: what the smallest needs on the fullest device."""

    def __init__(self, said: str, needed: float):
        super().__init__(said)
        self.bytes = needed


def searched(setup: Setup, batch: int) -> Step:
    """The Step of the fastest layout that fits; NoFit with what would help if none does."""
    grid = every(setup.work, setup.devices, batch)
    parts, memory = _evaluated(setup, grid)
    seconds = np.asarray(sum(parts.values()))
    fits = ~(memory > setup.chip.memory)
    if not fits.any():
        raise NoFit(_too_large(setup, grid, memory, batch), float(memory.min()))
    best = int(np.lexsort((memory, grid.used, seconds, ~fits))[0])  # NaN, for want of a number, comes after all times
    return step_of(setup, grid, batch, why_not(setup, grid, parts, memory, best), best)


def _evaluated(setup: Setup, grid: Grid) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Seconds by part and bytes (layout,)."""
    return step_parts(setup, grid), np.asarray(sum(memory_parts(setup.work, grid, setup.size).values()))


def every(work: Work, devices: int, batch: int) -> Grid:
    """All layouts that are tried, each with the data parallel devices that are worth a try; some leave devices idle."""
    found = list(_layouts(work, devices))
    pairs = [(one, data) for one in found for data in _data(one, devices, batch)]
    used = np.array([one.tensor * one.pipeline * one.context * data for one, data in pairs])
    return Grid.of([one for one, _ in pairs], work, used, batch)


def _layouts(work: Work, devices: int) -> Iterator[Layout]:
    tensors = [t for t in _TENSOR if work.heads % t == 0]
    experts = _groups(work.experts) if work.moe_layers else [1]
    shared = [2**i for i in range(13) if 2**i <= max(work.sequence // _LONG, 1)]
    choices = (tensors, _PIPELINE, _INTERLEAVE, experts, _MICRO_BATCH, shared, _RECOMPUTE)
    for tensor, pipeline, interleave, expert, micro_batch, context, recompute in product(*choices):
        if tensor * pipeline * context > devices or expert > devices // pipeline:
            continue
        if pipeline * interleave > work.layers or (pipeline == 1 and interleave > 1):
            continue
        yield Layout(tensor, pipeline, interleave, expert, micro_batch, context, recompute)


def _groups(experts: int) -> list[int]:
    """Devices that may share the experts: powers of two, and large groups of any size that divides them."""
    return [n for n in range(1, min(experts, _MOST_EXPERT) + 1) if experts % n == 0 and (n & (n - 1) == 0 or n >= 20)]


def _data(one: Layout, devices: int, batch: int) -> set[int]:
    """Data parallel devices: the most that still shorten the step, a power of two, and those of one node."""
    group = one.tensor * one.pipeline * one.context
    step = one.expert // gcd(one.expert, one.tensor * one.context)  # experts fill whole groups
    most = min(devices // group, ceil(batch / one.micro_batch)) // step * step
    if not most:
        return {step} if step * group <= devices else set()
    needed = ceil(batch / (ceil(batch / (most * one.micro_batch)) * one.micro_batch))
    two = 2 ** int(np.log2(most)) // step * step
    return {n for n in (-(-needed // step) * step, two, 8 // group // step * step) if 0 < n <= most}


def why_not(setup: Setup, grid: Grid, parts: dict[str, np.ndarray], memory: np.ndarray, best: int) -> Sequence[str]:
    """One line for each choice of the best layout: what the best with another value costs more, and in which part."""
    over = memory - setup.chip.memory
    lines = []
    for name in _TOLD:
        values = np.array([getattr(one, name) for one in grid.layouts])
        for value in _beside(values, values[best]):
            mask = values == value
            lines.append(f"{name}={value}: {_loses(mask, over, parts, best)}")
    return lines


def _beside(values: np.ndarray, chosen: object) -> list[object]:
    """The values next to the chosen one."""
    known = list(dict.fromkeys(values.tolist()))
    place = known.index(chosen)
    return [known[i] for i in (place - 1, place + 1) if 0 <= i < len(known)]


def _loses(mask: np.ndarray, over: np.ndarray, parts: dict[str, np.ndarray], best: int) -> str:
    """What the best of the layouts in `mask` costs more than the best of all; `over`: bytes above the chip's memory."""
    seconds, open_ = np.asarray(sum(parts.values())), mask & ~(over > 0)
    if not open_.any():
        return f"fits nowhere, {count(float(over[mask].min()))} bytes too many"
    at = int(np.where(open_, seconds, np.inf).argmin())
    grown = {part: float(values[at] - values[best]) for part, values in parts.items()}
    worst = max(grown, key=lambda part: grown[part])
    return f"{seconds[at] / seconds[best] - 1:+.1%}, most of it {worst} ({grown[worst]:+.3g} s)"


def _too_large(setup: Setup, grid: Grid, memory: np.ndarray, batch: int) -> str:
    """By how much the smallest layout is too large, and what would help."""
    least = int(memory.argmin())
    one, over = grid.layouts[least], float(memory[least] - setup.chip.memory)
    told = f"tensor={one.tensor}, pipeline={one.pipeline}, expert={one.expert}, recompute={one.recompute}"
    return (
        f"step_time: the model fits on no layout of {setup.devices} devices: the smallest ({told}) needs "
        f"{memory[least]:.4g} bytes on the fullest device of {setup.chip.memory:.4g}, {over:.3g} bytes too many; "
        f"{_remedy(setup, batch)}a chip with {memory[least]:.3g} bytes of memory would do"
    )


def _remedy(setup: Setup, batch: int) -> str:
    """The fewest devices, doubling, on which it fits; more data parallel ones need a larger batch."""
    devices = setup.devices
    while devices < _MOST_TIMES * setup.devices:
        devices *= 2
        larger = replace(setup, devices=devices)
        _, memory = _evaluated(larger, every(setup.work, devices, max(batch, devices)))
        if (memory <= setup.chip.memory).any():
            return f"{devices} devices (with a batch to match) or "
    return ""
