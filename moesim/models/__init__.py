"""What a model holds and computes.

>>> moesim.models.fff(depth=4, node_width=1, leaf_width=8).inference_size
"""

from importlib import import_module
from typing import Any

_PUBLIC = {"fff": "moesim.models.tree"}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'moesim.models' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")
