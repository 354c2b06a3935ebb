"""Training across places with slow links between them: what the links, failures and waiting leave of the compute.

>>> moesim.sites.bandwidth_for(utilisation=0.9, params=1e11, step_seconds=4.9, steps_between=100, fragments=36)
>>> moesim.sites.goodput(250e9, devices=31250, failures_per_hour=2e-5, checkpoint_bandwidth=24e9, recovery_seconds=600)
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "compute_utilisation": "moesim.sites.links",
    "bandwidth_for": "moesim.sites.links",
    "goodput": "moesim.sites.failures",
    "simulate": "moesim.sites.run",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'moesim.sites' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")
