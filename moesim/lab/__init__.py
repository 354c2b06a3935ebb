"""Real small Mixtures of Experts, trained here, so that the simulator is measured and not only believed.

>>> runs = moesim.lab.run(corpus="synthetic", experts=[1, 8], unique_tokens=[2**15, float("inf")], tokens=2**20)
>>> moesim.fit("abnar2025", runs)

Training needs PyTorch (`pip install 'moesim[lab]'`); nothing else in moesim imports it.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "run": ("driver", "lab"),
    "loads": ("driver", "loads"),
    "probes": ("driver", "probes"),
    "kept": ("driver", "kept"),
    "calibrate": ("estimates", "calibrate"),
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        module, function = _PUBLIC[name]
        return getattr(import_module(f"moesim.lab.{module}"), function)
    raise AttributeError(f"module 'moesim.lab' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")
