"""One fit made again on parts of its runs: below each cut of compute, without each fold, with checkpoints weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.fitting.bootstrap import RESAMPLERS
from moesim.fitting.fit import fit as fitted
from moesim.fitting.judge import compute_of, out_of_sample
from moesim.fitting.predict import covered

if TYPE_CHECKING:
    import xarray as xr

    from moesim.fitting.result import Fit

_FROM, _TO = 0.4, 0.9  # shares of the runs below the first and the last cut, where only their number is given


def rolling(fit: Fit, cuts: int | Sequence[float] = 5) -> xr.Dataset:
    """A fit made again on the runs up to each cut of compute, and judged on those above: what it was worth ahead.

    `cuts`: how many (between 40 and 90 % of the runs), or FLOPs. Along `cut`: `below`, `above` (runs), errors of the
    runs above (`mape`, `rmse`, `bias`), `coverage` (the share of them in their prediction intervals, of the level of
    the fit) and `estimate(cut, coefficient)`. Raises InputError for cuts outside the runs.
    """
    import xarray as xr

    compute = compute_of(fit.runs, "rolling")
    places = _cuts(compute, cuts)
    parts = [again(fit, compute > cut) for cut in places]
    rows = [out_of_sample(part) for part in parts]
    found: dict[str, Any] = {name: ("cut", [row[name] for row in rows]) for name in ("mape", "rmse", "bias")}
    hits = [covered(part, part.outside, part.level) for part in parts]
    found["coverage"] = ("cut", [hit / n for hit, n in hits])
    found |= {"below": ("cut", [int((compute <= cut).sum()) for cut in places]), "above": ("cut", [n for _, n in hits])}
    names = list(fit.task.parameters.names)
    found["estimate"] = (("cut", "coefficient"), [[part.estimate[name] for name in names] for part in parts])
    coords = {"cut": ("cut", places, {"units": "FLOP", "long_name": "compute up to which runs are fitted"})}
    return xr.Dataset(found, coords={**coords, "coefficient": names}, attrs={"level": fit.level})


def again(fit: Fit, outside: np.ndarray, **changes: Any) -> Fit:
    """The same fit with other runs held out: (run,) bool."""
    runs = fit.runs.assign(beyond=("run", outside.astype(float)))
    kept = {**fit.settings, "profiles": False, "holdout": {"column": "beyond", "value": 1.0}, **changes}
    kept["resample"] = kept["resample"] if kept["resample"] in RESAMPLERS else "auto"
    return fitted(fit.task.target, runs, **kept)


def _cuts(compute: np.ndarray, cuts: int | Sequence[float]) -> np.ndarray:
    if isinstance(cuts, int) and not isinstance(cuts, bool) and cuts > 0:
        return np.unique(np.quantile(compute, np.linspace(_FROM, _TO, cuts), method="lower"))
    try:
        places = np.sort(np.asarray(cuts, dtype=float).ravel())
    except (TypeError, ValueError):
        places = np.array([np.nan])
    if not len(places) or not np.all((places >= compute.min()) & (places < compute.max())):
        span = f"within {compute.min():.4g} to {compute.max():.4g} FLOP"
        raise InputError(f"rolling: cuts={cuts!r}; it takes how many, or budgets {span}, those of the runs")
    return places


def compare(fits: Mapping[str, Any], folds: int = 0, seed: int = 0) -> xr.Dataset:
    """Several fits of the same runs side by side, along the dim `fit`: estimates, objective, scores, AIC, BIC.

    `fits` maps names to Fits or to the Datasets they wrote. Objectives compare between fits of one objective only.
    `folds`: cross-validate the Fits, every run left out once in as many folds: `cv_error`, the root mean square of the
    log of predicted over observed, `cv_behind`, by how much its square is above that of the best, as a share, and
    `cv_behind_error`, the standard error of that. Raises InputError for fits of different runs.
    """
    import xarray as xr

    tables = {name: fit if isinstance(fit, xr.Dataset) else fit.to_dataset() for name, fit in fits.items()}
    picked = {}
    for name, table in tables.items():
        keep = [v for v in table.data_vars if not table[v].dims or table[v].dims == ("part",)]
        picked[name] = table[[*keep, "estimate", "interval"]].reset_coords(drop=True)
    together: Any = xr.concat(
        list(picked.values()), xr.Variable("fit", list(picked)), combine_attrs="drop", join="outer", data_vars="all"
    )
    return together.assign(cross_validated(fits, folds, seed)) if folds else together


def cross_validated(fits: Mapping[str, Fit], folds: int, seed: int) -> dict[str, Any]:
    """Errors of runs that were not fitted, by fit: `cv_error`, and how far it is behind the best with its uncertainty.

    Every run (whole groups) is left out once, in the same folds for all fits. `cv_error` is the root mean square of the
    log of predicted over observed; `cv_behind` its mean square less that of the best fit, over the latter;
    `cv_behind_error` the standard error of that, by groups of runs.
    """
    first = next(iter(fits.values()))
    for name, fit in fits.items():
        if fit.observed.shape != first.observed.shape or np.any(fit.observed != first.observed):
            raise InputError(
                f"compare: folds need fits of the same runs; {name!r} has others than {next(iter(fits))!r}"
            )
    n = first.runs.sizes["run"]
    group = np.unique(first.runs["group"], return_inverse=True)[1] if "group" in first.runs else np.arange(n)
    groups = int(group.max()) + 1
    if isinstance(folds, bool) or not isinstance(folds, int) or not 2 <= folds <= groups:
        raise InputError(f"compare: folds={folds!r}; it takes a whole number from 2 to {groups}, the groups of runs")
    fold = (np.random.default_rng(seed).permutation(groups) % folds)[group]
    squares = np.stack([_left_out(fit, fold, folds) for fit in fits.values()]) ** 2
    best = squares[np.argmin(squares.mean(axis=1))]
    gap = np.stack([np.bincount(group, row) for row in squares - best]) * groups / n
    error = gap.std(axis=1, ddof=1) / np.sqrt(groups) / best.mean()
    found = {"cv_error": np.sqrt(squares.mean(axis=1)), "cv_behind": gap.mean(axis=1) / best.mean()}
    return {name: ("fit", values) for name, values in {**found, "cv_behind_error": error}.items()}


def _left_out(fit: Fit, fold: np.ndarray, folds: int) -> np.ndarray:
    """Log of predicted over observed of each run, from the fit without its fold: (run,)."""
    off = np.empty(len(fold))
    for i in range(folds):
        out = fold == i
        part = again(fit, out, draws=0, start=None)
        ahead = part.predict(fit.runs.isel(run=np.flatnonzero(out)))[fit.task.target.predicts].values
        off[out] = np.log(ahead / fit.observed[out])
    return off
