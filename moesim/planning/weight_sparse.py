"""Weight sparsity at equal time: how efficient a sparse unit would have to be for sparse training to beat dense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.hardware.sparse import SPARSE, crossbar_area, pays_below, speedup
from moesim.laws.law import Law
from moesim.laws.load import load_law
from moesim.output.text import aligned, plain

if TYPE_CHECKING:
    import xarray as xr

LAWS = ("frantar2023_t5", "frantar2023_vit", "wu2026")
DENSITIES = (0.5, 0.25, 0.125, 0.0625)  # the sparsest of Frantar et al.; wu2026 goes as far
_SIZES = np.geomspace(1e5, 1e13, 801)  # non-zero weights that are tried
_LEAST = 1e-4


def weight_sparse(config: Mapping[str, Any]) -> tuple[xr.Dataset, str]:
    """The question of `moesim plan question=weight_sparse`: a Dataset over law and density, and its table."""
    import xarray as xr

    compute = _compute(config)
    laws = [load_law(name) for name in LAWS]
    needed = [[needed_efficiency(law, q, compute) for q in DENSITIES] for law in laws]
    outside = [[extrapolated(law, q, compute) for q in DENSITIES] for law in laws]
    gains = [[speedup(kernel, q) for q in DENSITIES] for kernel in SPARSE]
    data = xr.Dataset(
        {
            "needed_efficiency": (("law", "density"), needed),
            "extrapolated": (("law", "density"), outside),
            "speedup": (("kernel", "density"), gains),
        },
        {"law": list(LAWS), "density": list(DENSITIES), "kernel": list(SPARSE)},
        {"compute": compute},
    )
    data["efficiency"] = ("kernel", [row.efficiency for row in SPARSE.values()])
    data["pays_below"] = ("kernel", [pays_below(kernel) for kernel in SPARSE])
    data["largest_area"] = 1.0 / data.needed_efficiency
    return data, _table(data)


def _compute(config: Mapping[str, Any]) -> float:
    given = config["budget"].get("compute")
    return 1e22 if given is None else float(given)


def needed_efficiency(law: Law, density: float, compute: float) -> float:
    """FLOP/s on non-zeros over those of dense products at which the best run of a density is as good as the best dense.

    At equal time, with `compute` FLOP on the dense chip: a unit of efficiency e does e x compute FLOP on non-zeros,
    each best shared between size and tokens (6 FLOP a token and non-zero; gradients and updates as sparse as the
    weights). NaN if not even 1 is enough.
    """
    target = _best(law, 1.0, np.array([compute]))["loss"][0]
    efficiencies = np.geomspace(_LEAST, 1.0, 1001)
    enough = _best(law, density, efficiencies * compute)["loss"] <= target
    return float(efficiencies[enough.argmax()]) if enough.any() else float("nan")


def extrapolated(law: Law, density: float, compute: float) -> bool:
    """Whether the best dense run, or the best one of a density, lies outside the data of the law at a compute."""
    return any(bool(law.outside(_best(law, q, np.array([compute])))[0]) for q in (1.0, density))


def _best(law: Law, density: float, compute: np.ndarray) -> dict[str, Any]:
    """The run of the lowest loss over sizes at each compute."""
    tokens = compute[:, None] / (6.0 * _SIZES)
    loss = np.asarray(law(active_params=_SIZES, tokens=tokens, density=density))
    at = loss.argmin(axis=1)
    size, found = _SIZES[at], {"tokens": compute / (6.0 * _SIZES[at]), "loss": loss.min(axis=1)}
    return {"active_params": size, "total_params": size / density, "density": density, **found}


def _table(data: xr.Dataset) -> str:
    head = ["", *(f"density {q:g}" for q in DENSITIES)]
    needs = [
        [name, *map(_marked, data.needed_efficiency.sel(law=name), data.extrapolated.sel(law=name))] for name in LAWS
    ]
    fast = [
        [name, *(f"{float(v):.2f}" for v in data.speedup.sel(kernel=name)), plain(data.pays_below.sel(kernel=name))]
        for name in SPARSE
    ]
    area = float(data.largest_area.min())
    lowest, highest = (float(v) for v in (data.needed_efficiency.min(), data.needed_efficiency.max()))
    best = max(row.efficiency for name, row in SPARSE.items() if name.startswith("unstructured"))
    return "\n".join(
        [
            f"efficiency on non-zeros, against dense products, that a sparse unit needs to be worth it at equal time "
            f"({data.attrs['compute']:.3g} FLOP)",
            aligned([head, *needs], 1),
            *["*: at sizes or tokens outside the data of the law"] * bool(data.extrapolated.any()),
            "speed-up of a product on today's kernels (skipping: taken as ideal)",
            aligned([[*head, "pays below"], *fast], 1),
            f"unstructured sparsity needs {lowest:.2f} to {highest:.2f}; today's kernels reach {best:.2f} at most.",
            f"On the same die a unit that skips every zero may be {area:.2f} (density {DENSITIES[0]:g}) to "
            f"{float(data.largest_area.max()):.2f} times as large as dense lanes; with a crossbar it is 1 + ports x "
            f"crosspoint (64 ports at 0.01 of a lane: {crossbar_area(64, 0.01):.2f})",
        ]
    )


def _marked(needed: xr.DataArray, outside: xr.DataArray) -> str:
    return f"{float(needed):.2f}" + "*" * bool(outside)
