"""moesim: a Mixture-of-Experts scaling simulator. The names below are imported when first used."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "InputError": "moesim.errors",
    "Law": "moesim.laws.law",
    "Coefficient": "moesim.forms",
    "law": "moesim.laws.law",
    "load_law": "moesim.laws.load",
    "load_repetition": "moesim.laws.load",
    "load_architecture": "moesim.models.architecture",
    "Repetition": "moesim.laws.repetition",
    "repetition": "moesim.laws.repetition",
    "Model": "moesim.planning.model",
    "optimum": "moesim.planning.optimum",
    "sweep": "moesim.planning.sweep",
    "fit": "moesim.fitting.fit",
    "load_fit": "moesim.fitting.saved",
    "load_runs": "moesim.fitting.runs",
    "compare": "moesim.fitting.judge",
    "open_result": "moesim.output.store",
}
__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


_WINGS = ("balance", "counting", "domains", "fitting", "hardware", "laws", "models", "planning")


def __getattr__(name: str) -> Any:
    if name in _WINGS:
        return import_module(f"moesim.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'moesim' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
