"""What runs say when they are compared in pairs: differences at equal seed and data, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moesim.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

Frame = Any
"""A table of pandas, whose types say too little to be checked."""

SETTING = ["corpus", "hash", "d_model", "layers", "tokens", "unique_tokens", "learning_rate", "weight_decay"]
ANY_DECAY = [name for name in SETTING if name != "weight_decay"]
"""A setting in which each arm, and fresh data, may have a weight decay of its own."""
ANY_STOP = [name for name in SETTING if name != "tokens"]
"""A setting in which each arm may stop where its loss is lowest."""
TRIAL = 100
"""The seed on which decays are chosen: it stands in no mean, so that no seed is judged by a decay chosen on it."""
_NOISE = 3.0  # standard errors that a difference of penalties must have, else an index of them is noise


BY_LOAD = ", decay by load"


class Interval(NamedTuple):
    """A mean over seeds with the ends of its interval; open (NaN) for fewer than two seeds."""

    value: float
    low: float
    high: float
    seeds: int = 1

    def __str__(self) -> str:
        return f"{self}"

    def __format__(self, digits: str) -> str:
        digits = digits or "+.3f"
        ends = "" if np.isnan(self.low) else f" [{self.low:{digits}}, {self.high:{digits}}]"
        return f"{self.value:{digits}}{ends}"


def mean(values: Any, level: float = 0.9) -> Interval:
    """The mean of values of independent seeds with Student's t interval."""
    from scipy.stats import t

    v = np.asarray(values, dtype=float)
    v = v[np.isfinite(v)]
    half = t.ppf(0.5 + level / 2, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else np.nan
    middle = v.mean() if len(v) else np.nan
    return Interval(float(middle), float(middle - half), float(middle + half), len(v))


def ratio(above: Any, below: Any, level: float = 0.9) -> Interval:
    """The ratio of two paired means with Fieller's interval; unbounded ends where the lower mean may be zero.

    Fieller (1954), J. R. Stat. Soc. B 16, 175: the ratios r for which mean(above - r below) is not told from zero.
    """
    from scipy.stats import t

    a, b = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    if len(a) < 2:
        return Interval(float(a.mean() / b.mean()) if len(a) else np.nan, np.nan, np.nan, len(a))
    (saa, sab), (_, sbb) = np.cov(a, b) / len(a)
    critical = t.ppf(0.5 + level / 2, len(a) - 1) ** 2
    square, linear, constant = (
        b.mean() ** 2 - critical * sbb,
        a.mean() * b.mean() - critical * sab,
        a.mean() ** 2 - critical * saa,
    )
    if square <= 0:
        return Interval(float(a.mean() / b.mean()), -np.inf, np.inf, len(a))
    half = np.sqrt(max(linear**2 - square * constant, 0.0)) / square
    return Interval(float(a.mean() / b.mean()), float(linear / square - half), float(linear / square + half), len(a))


def frame(runs: xr.Dataset) -> Frame:
    """The rows of runs with their columns, and `pool`: unique tokens, inf for fresh data.

    An arm whose experts decay by their load is an arm of its own. What has further dims is left out. InputError where a
    column is missing.
    """
    missing = {*SETTING, "arm", "seed", "loss"} - {*map(str, runs.variables)}
    if missing:
        raise InputError(f"lab: the runs have no {sorted(missing)[0]!r}; give runs of moesim lab")
    columns = [name for name, v in runs.variables.items() if v.dims == ("run",)]
    rows = runs[columns].to_dataframe().reset_index(drop=True)
    if "decay_by_load" in rows:
        rows = rows.assign(decay_by_load=rows.decay_by_load.astype(int), arm=rows.arm.str.removesuffix(BY_LOAD))
        rows = rows.assign(arm=rows.arm.where(rows.decay_by_load == 0, rows.arm + BY_LOAD))
    return rows.assign(pool=rows.unique_tokens.where(rows.unique_tokens < rows.tokens, np.inf))


def reported(rows: Frame) -> Frame:
    """The rows of `frame` without those of the seed on which decays are chosen, unless there is no other."""
    return rows[rows.seed != TRIAL] if set(rows.seed) != {TRIAL} else rows


def last(rows: Frame) -> Frame:
    """The rows at the end of their runs: of each corpus, those of the most tokens."""
    return rows[rows.tokens == rows.groupby("corpus").tokens.transform("max")]


def stopped(rows: Frame) -> Frame:
    """The row of lowest loss of each trajectory on repeated data: stopped early, if it is best."""
    repeated = rows[np.isfinite(rows.pool)]
    return repeated.loc[repeated.groupby("trajectory").loss.idxmin()]


def trios(rows: Frame) -> list[tuple[str, str, str]]:
    """(Mixture of Experts, dense model of its active size, dense model of its total size) among the arms."""
    found = []
    for moe, group in rows[rows.experts > 1].groupby("arm", sort=False):
        wide = f"dense x{group.experts.iloc[0] // group.active_experts.iloc[0]:.0f}"
        if {"dense", wide} <= {*rows.arm}:
            found.append((str(moe), "dense", wide))
    return found


def penalties(rows: Frame, at: Sequence[str] = SETTING) -> Frame:
    """Each repeated row's loss above that of fresh data at the same tokens, arm and seed, as `penalty`.

    `rows` are those of `frame`; what else must be the same is said by `at`. `fresh_loss` stands beside. Rows whose
    fresh run is not there are left out.
    """
    same = [name for name in (*at, "arm", "seed") if name != "unique_tokens"]
    fresh = rows[rows.unique_tokens >= rows.tokens].set_index(same)["loss"].rename("fresh_loss")
    repeated = rows[rows.unique_tokens < rows.tokens].join(fresh, on=same, how="inner")
    return repeated.assign(penalty=repeated.loss - repeated.fresh_loss, epochs=repeated.tokens / repeated.unique_tokens)


def tuned(rows: Frame, seed: int = TRIAL) -> Frame:
    """The rows whose weight decay is the best of their arm, pool and tokens on `seed`, which is left out itself.

    Among the decays that other seeds have as well; `highest` says whether it is the highest of these.
    """
    cell = [*ANY_DECAY, "arm"]
    trial, others = rows[rows.seed == seed], rows[rows.seed != seed]
    if trial.empty:
        raise InputError(
            f"lab: no rows of the seed {seed} to tune on; it takes {', '.join(map(str, sorted(set(rows.seed))))}"
        )
    trial = trial.merge(others[[*cell, "weight_decay"]].drop_duplicates())
    best = trial.loc[trial.groupby(cell).loss.idxmin()].set_index(cell).weight_decay.rename("best_decay")
    kept = others.join(best, on=cell).join(trial.groupby(cell).weight_decay.max().rename("most"), on=cell)
    kept = kept[kept.weight_decay == kept.best_decay]
    return kept.assign(highest=kept.weight_decay == kept.most).drop(columns=["best_decay", "most"])


def differences(rows: Frame, first: str, second: str, column: str = "loss", at: Sequence[str] = SETTING) -> Frame:
    """`column` of the arm `first` less that of `second`, paired by seed: an Interval for each setting `at`."""
    by_arm = rows.pivot_table(column, index=[*at, "seed"], columns="arm", aggfunc="mean")
    for arm in (first, second):
        if arm not in by_arm:
            raise InputError(f"lab: no arm {arm!r} in the runs; it takes {', '.join(map(str, by_arm.columns))}")
    pairs = (by_arm[first] - by_arm[second]).dropna()
    return pairs.groupby(level=list(at)).apply(lambda values: mean(values))


def excess_index(rows: Frame, moe: str, dense: str, total: str, at: Sequence[str] = SETTING) -> Frame:
    """(penalty of moe - dense)/(penalty of total - dense), an Interval for each setting.

    0 says that active parameters are in excess, 1 that all are.

    `rows` are those of `penalties`. Only where the penalties of `total` and `dense` differ by more than three standard
    errors; elsewhere the index is noise and left out.
    """
    by_arm = rows.pivot_table("penalty", index=[*at, "seed"], columns="arm", aggfunc="mean")
    by_arm = by_arm.reindex(columns=[moe, dense, total])  # no index where an arm was not run
    above, below = (by_arm[arm] - by_arm[dense] for arm in (moe, total))
    both = above.notna() & below.notna()
    found = {}
    for setting, places in below[both].groupby(level=list(at)).groups.items():
        b = below.loc[places]
        if len(b) > 1 and b.mean() > _NOISE * b.std(ddof=1) / len(b) ** 0.5:
            value = ratio(above.loc[places], b)
            found |= {setting: value} if np.isfinite(value.low) else {}
    import pandas as pd

    return pd.Series(found, dtype=object)


def equivalent_params(loss: float, ladder: Frame) -> float:
    """Parameters of the dense model of that loss, between the steps of a ladder (columns total_params, loss).

    Linear in the logarithm of the parameters; NaN outside the ladder or where it does not fall or rise throughout.
    """
    steps = ladder.sort_values("total_params")
    losses, sizes = steps.loss.to_numpy(), np.log(steps.total_params.to_numpy(dtype=float))
    change = np.sign(np.diff(losses))
    if len(change) == 0 or not (change == change[0]).all() or not losses.min() <= loss <= losses.max():
        return np.nan
    order = np.argsort(losses)
    return float(np.exp(np.interp(loss, losses[order], sizes[order])))
