"""What one release of training software makes of a chip: five constants, shared by all chips and models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moesim.errors import InputError, nearest


@dataclass(frozen=True)
class Release:
    """The constants of a release of Megatron-Bridge, fitted to its published steps (`benchmarks/hardware.py`).

    `rows`: a grouped product of experts takes 1 + rows (1/m + 1/d_in + 1/d_out) times as long as the chip's
    `peak_share` has it; `core`: share of the 16-bit peak that the attention core reaches; `passes`: times that every
    end of a product is read or written again by norms, activations, casts and permutations; `exposed`: share of
    communication that compute does not hide; `launches`: kernels of each layer and micro-batch, forward and backward,
    whose start (`Chip.start`) nothing hides. Products that are no experts' reach the chip's `peak_share`, memory its
    `bandwidth_share` (DeepGEMM on H800).
    """

    rows: float
    core: float
    passes: float
    exposed: float
    launches: float
    library: str = "hybridep"


RELEASES: Mapping[str, Release] = {
    "26.04": Release(rows=1930.0, core=0.614, passes=2.66, exposed=0.294, launches=400.0),
    "26.06": Release(rows=1465.0, core=0.636, passes=1.62, exposed=0.257, launches=194.0),
}
_SAME = {"26.04.01": "26.04", "26.08": "26.06"}


def release_of(name: str | None) -> Release:
    """The constants of a release, of the newest if None; InputError for one that has none."""
    found = _SAME.get(str(name), name) if name is not None else list(RELEASES)[-1]
    if found not in RELEASES:
        known = [*RELEASES, *_SAME]
        raise InputError(f"release: no constants for {name!r}{nearest(str(name), known)}; there are {', '.join(known)}")
    return RELEASES[found]
