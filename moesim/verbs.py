"""The verbs, and the driver behind each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# Verb -> (module whose run(config) does the work, what it does).
VERBS = {
    "sweep": ("moesim.planning.run", "isoFLOP curves, compute-optimal runs and the best sparsity under finite data"),
    "fit": ("moesim.fitting.run", "a law fitted to training runs, with intervals and what the runs cannot tell"),
    "balance": ("moesim.balance.run", "what the experts do during training, and what splitting and feeding them buys"),
    "flops": ("moesim.counting.run", "what a network or a model holds and costs, per layer, forward and backward"),
}


def driver(verb: str) -> Any:
    """The module of a verb: `run(config)` does the work, and four things say what may be typed.

    `OPEN` names the mappings whose keys are the user's own; `AXES` the keys that take lists and ranges;
    `keys(config)` gives keys with defaults in the code, beside those in the files; `idle(config)` says which keys have
    no effect under a config, and why.
    """
    return import_module(VERBS[verb][0])
