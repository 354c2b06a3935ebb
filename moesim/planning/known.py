"""Published runs against what a law would have advised for their compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.config import choices, read
from moesim.models.transformer import Transformer
from moesim.output.text import aligned, count
from moesim.planning.optimum import optimum
from moesim.planning.run import model_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_SAME = ("llama3_405b",)  # a second name of a file


def known_runs(config: Mapping[str, Any]) -> tuple[xr.Dataset, str]:
    """The question of `moesim plan question=known_runs`: a Dataset over the models whose training tokens are known.

    For each: compute (exact FLOP x tokens), what was done, and what the law of the plan advises for that compute: the
    best sparsity with its size and tokens, and the best size at the sparsity that was taken.
    """
    import xarray as xr

    runs = dict(_runs())
    taken = {name: _taken(Transformer.load(name), tokens) for name, tokens in runs.items()}
    dims = {name: ("run", np.array([one[name] for one in taken.values()])) for name in next(iter(taken.values()))}
    compute, sparsity = (xr.DataArray(dims[name][1], dims="run") for name in ("compute", "sparsity"))
    model = model_of(config, {})
    advised = optimum(model, compute=compute, sparsity=sparsity, best=True)
    kept = {"optimal_active_params": "same_sparsity_active_params", "optimal_tokens": "same_sparsity_tokens"}
    kept |= {f"best_{name}": f"best_{name}" for name in ("sparsity", "active_params", "tokens", "loss")}
    best = {new: ("run", np.asarray(advised[old].values, dtype=float)) for old, new in kept.items()}
    data = xr.Dataset({**dims, **best}, {"run": list(runs)})
    return data, _table(data)


def _runs() -> list[tuple[str, float]]:
    """Models and the tokens that they were trained on."""
    known = {name: (read("model", name).get("training") or {}).get("tokens") for name in choices("model")}
    return [(name, float(tokens)) for name, tokens in known.items() if tokens and name not in _SAME]


def _taken(model: Transformer, tokens: float) -> dict[str, float]:
    flops = float(model.training_flops(4096))
    sparsity = 1.0 - model.active_experts / model.experts if model.experts else 0.0
    sizes = {"active_params": float(model.active_params), "total_params": float(model.total_params)}
    return {"compute": flops * tokens, "sparsity": sparsity, "tokens": tokens, **sizes}


def _table(data: xr.Dataset) -> str:
    rows = [["run", "FLOP", "S", "active", "tokens", "tokens/advised", "advised S", "active", "tokens"]]
    for i in np.argsort(data["compute"].values):
        at = {name: float(data[name][i]) for name in data.data_vars}
        done = [f"{at['compute']:.1e}", f"{at['sparsity']:.3f}", count(at["active_params"]), count(at["tokens"])]
        ratio = f"{at['tokens'] / at['same_sparsity_tokens']:.1f}x"
        best = [f"{at['best_sparsity']:.3f}", count(at["best_active_params"]), count(at["best_tokens"])]
        rows.append([str(data.run.values[i]), *done, ratio, *best])
    said = "what was trained, and what the law advises for the same FLOPs (tokens/advised: at the sparsity taken)"
    return f"{said}\n{aligned(rows, 1)}"


def draw(data: xr.Dataset) -> dict[str, Figure]:
    """Tokens over what the law advises at the same sparsity and compute, against compute."""
    from moesim.output.plots import grid_of_panels, titled

    figure, ((axes,),) = grid_of_panels(1, 1, (4.2, 3.0))
    for sparse, marker in ((False, "o"), (True, "s")):
        at = data.isel(run=np.flatnonzero((data.sparsity.values > 0) == sparse))
        axes.plot(
            at["compute"], at.tokens / at.same_sparsity_tokens, marker, ms=5, label="sparse" if sparse else "dense"
        )
    for i, name in enumerate(data.run.values):
        axes.annotate(str(name), (data["compute"][i], data.tokens[i] / data.same_sparsity_tokens[i]), fontsize=6)
    axes.axhline(1.0, color="k", lw=0.8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("compute (FLOP)")
    titled(axes, "tokens trained / tokens advised")
    axes.legend()
    return {"known_runs": figure}
