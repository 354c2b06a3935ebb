"""The verbs, and the driver behind each."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moesim.output.result import Result

# Verb -> (module whose run(config) does the work, what it does).
VERBS = {
    "sweep": ("moesim.planning.run", "isoFLOP curves, compute-optimal runs and the best sparsity under finite data"),
    "fit": ("moesim.fitting.run", "a law fitted to training runs, with intervals and what the runs cannot tell"),
    "balance": ("moesim.balance.run", "what the experts do during training, and what splitting and feeding them buys"),
    "plan": ("moesim.planning.planned", "the best run that a machine can make in a given time, and what it costs"),
    "flops": ("moesim.counting.run", "what a network or a model holds and costs, per layer, forward and backward"),
    "sites": ("moesim.sites.run", "training across places: slow links, failures, prices, and what waits in between"),
    "lab": (
        "moesim.lab.driver",
        "small Mixtures of Experts, trained here: what repetition does to them, and their loads",
    ),
}
# Key of a verb -> the module whose run(config) answers in the driver's place where the key is true.
_INSTEAD = {"evidence": "moesim.fitting.evidence", "widths": "moesim.counting.log_width"}


def run(verb: str, config: Mapping[str, Any]) -> Result:
    """What a verb gives for a resolved config."""
    instead = next((module for key, module in _INSTEAD.items() if config.get(key)), None)
    asked = {key: value for key, value in config.items() if key != "page"}  # which is of the files, not of the run
    return (import_module(instead) if instead else driver(verb)).run(asked)


def driver(verb: str) -> Any:
    """The module of a verb: `run(config)` does the work, and four things say what may be typed.

    `OPEN` names the mappings whose keys are the user's own; `AXES` the keys that take lists and ranges;
    `keys(config)` gives keys with defaults in the code, beside those in the files; `idle(config)` says which keys have
    no effect under a config, and why.
    """
    return import_module(VERBS[verb][0])
