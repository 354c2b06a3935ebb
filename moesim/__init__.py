"""moesim: how sparse, how large and how long to train a Mixture of Experts when unique data is finite.

>>> import moesim
>>> moesim.load_law("abnar2025")(total_params=18.8e9, tokens=110.2e9, sparsity=0.98)   # nat/token
>>> runs = moesim.optimum("abnar2025", repetition="muennighoff2023", compute=[1e20, 1e21], unique_tokens=2e9)
>>> runs.best_sparsity, runs.best_active_params          # an xarray Dataset with units, sources and config
>>> grid = moesim.sweep("abnar2025", compute=1e20, sparsity=[0, 0.9, 0.98])
>>> moesim.plot.isoflop(grid).savefig("isoflop.png")     # a matplotlib Figure; dir(moesim.plot) lists them
>>> moesim.page(grid, to="page.html")                    # one file with sliders, works offline
>>> fitted = moesim.fit("hoffmann2022", "chinchilla")     # coefficients, intervals, what the runs cannot tell
>>> plan = moesim.optimum(fitted, compute=1e22)          # with a `draw` dim: every answer has its spread
>>> moesim.flops("deepseek_v3").flops_per_token
>>> moesim.step_time("deepseek_v3", chip="h100", devices=1024, batch=16384).mfu    # seconds, memory, layout
>>> moesim.plan(chip="h100", devices=1024, days=30, unique_tokens=5e12).loss       # best at equal time, and rivals

sweep, optimum, fit, simulate, plan and flops are the verbs of the command line, with the same defaults; they take names
of files in conf/, paths, or objects. open_result reads what either has written. The names are imported when first used.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.2.0"

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
    "isoflop": "moesim.fitting.isoflop",
    "load_fit": "moesim.fitting.saved",
    "load_runs": "moesim.fitting.runs",
    "compare": "moesim.fitting.repeated",
    "rolling": "moesim.fitting.repeated",
    "versus": "moesim.fitting.versus",
    "flops": "moesim.counting.run",
    "plan": "moesim.planning.plan",
    "step_time": "moesim.hardware.timed",
    "gemm_tflops": "moesim.hardware.gemm",
    "all_to_all_bandwidth": "moesim.hardware.exchange",
    "simulate": "moesim.balance.run",
    "open_result": "moesim.output.store",
    "save": "moesim.output.store",
    "page": "moesim.pages.page",
}
__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def _rooms() -> list[str]:
    """The packages of moesim, and the modules that are public as such."""
    return ["plot", *(path.parent.name for path in Path(__file__).parent.glob("*/*.py"))]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    if name in _rooms():
        return import_module(f"moesim.{name}")
    raise AttributeError(f"module 'moesim' has no attribute {name!r}; it has {', '.join(_PUBLIC)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_rooms()})
