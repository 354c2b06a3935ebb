"""What runs say when they are compared in pairs: differences at equal seed and data, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moesim.errors import InputError
from moesim.lab.job import BALANCING, USUAL

if TYPE_CHECKING:
    import xarray as xr

Frame = Any
"""A table of pandas, whose types say too little to be checked."""

RECIPE = ["learning_rate", "weight_decay"]
LATER = {"batch": 2048, "cooldown": 0.0, "attention_scale": 0.25, "decay_embedding": 1}
"""Columns of a setting that older tables lack, with what was meant there."""
SETTING = ["corpus", "hash", "d_model", "layers", "tokens", "unique_tokens", *RECIPE, *LATER]
"""What must be the same in runs that are compared, beside the arm and the seed: nothing is averaged over it."""
ANY_RECIPE = [name for name in SETTING if name not in RECIPE]
"""A setting in which each arm, and fresh data, may have a learning rate and a weight decay of its own."""
ANY_STOP = [name for name in SETTING if name != "tokens"]
"""A setting in which each arm may stop where its loss is lowest."""
TRIAL = 100
"""The seed on which recipes are chosen: it stands in no mean, so that no seed is judged by a recipe chosen on it."""
BY_LOAD = ", decay by load"
_NEEDED = ("arm", "seed", "loss", "experts", "active_params", "total_params")
_NOISE = 3.0  # standard errors that a difference of penalties must have, else an index of them is noise
_PAID = 0.1  # nat/token: of lower penalties it is not asked which parameters are in excess
_STEPS = 3  # dense models of a ladder: of two, a place between them is the excess index once more


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

    An arm whose experts decay by their load, or are balanced in another way than usual, is an arm of its own. What has
    further dims is left out. InputError where a column is missing.
    """
    missing = {*SETTING, *_NEEDED} - {*LATER, *map(str, runs.variables)}
    if missing:
        raise InputError(f"lab: the runs have no {sorted(missing)[0]!r}; give runs of moesim lab")
    columns = [name for name, v in runs.variables.items() if v.dims == ("run",)]
    rows = runs[columns].to_dataframe().reset_index(drop=True)
    later = {name: rows[name].fillna(usual) if name in rows else usual for name, usual in LATER.items()}
    if "decay_by_load" in rows:
        later["decay_by_load"] = rows.decay_by_load.fillna(0).astype(int)
    rows = rows.assign(**later, pool=rows.unique_tokens.where(rows.unique_tokens < rows.tokens, np.inf))
    arms = [arm.split(", ")[0] + _variant(row) for arm, row in zip(rows.arm, rows.to_dict("records"), strict=True)]
    return rows.assign(arm=arms)


def _variant(row: Mapping[str, Any]) -> str:
    """What is told of an arm beside its sizes: how it is balanced, if not as usual, and experts that decay by load."""
    told = BY_LOAD if row.get("decay_by_load", 0) else ""
    if row["experts"] == 1 or "balancing" not in row:
        return told
    usual = BALANCING[row["balancing"]]
    rate = row.get("balancing_rate", usual)
    own = "" if rate == usual or not usual or np.isnan(rate) else f" {rate:g}"
    return told if (row["balancing"], own) == (USUAL, "") else f", {row['balancing']}{own}{told}"


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
    repeated = rows[rows.unique_tokens < rows.tokens].join(fresh, on=same, how="inner").reset_index(drop=True)
    return repeated.assign(penalty=repeated.loss - repeated.fresh_loss, epochs=repeated.tokens / repeated.unique_tokens)


def chosen(rows: Frame, seed: int = TRIAL) -> Frame:
    """The learning rate and weight decay of lowest loss on `seed`, a row for each arm, pool and tokens, with a `note`.

    Of the pairs that other seeds have as well, where there are any. The note says where a pair of `seed` alone was
    better, and where the choice is at the end of what was tried, so that the best may lie beyond.
    """
    import pandas as pd

    cell = [*ANY_RECIPE, "arm"]
    trial, others = rows[rows.seed == seed], rows[rows.seed != seed]
    if trial.empty:
        raise InputError(
            f"lab: no rows of the seed {seed} to tune on; it takes {', '.join(map(str, sorted(set(rows.seed))))}"
        )
    shared = others[[*cell, *RECIPE]].drop_duplicates()
    found = []
    for _, tried in trial.groupby(cell):
        both, best = tried.merge(shared), tried.loc[tried.loss.idxmin()]
        taken = both.loc[both.loss.idxmin()] if len(both) else best
        alone = f"on seed {seed} alone {told_recipe(best)} is better by {taken.loss - best.loss:.3f}"
        notes = [alone] if best.loss < taken.loss else [] if len(both) else [f"on seed {seed} alone"]
        found.append({**taken[[*cell, *RECIPE]], "note": ", ".join([*notes, *_ends(tried, taken)])})
    return pd.DataFrame(found)


def told_recipe(row: Any) -> str:
    """A learning rate and a weight decay in words."""
    return f"rate {row.learning_rate:g} decay {row.weight_decay:g}"


def _ends(tried: Frame, taken: Any) -> list[str]:
    """Where a choice is the highest or lowest value, or the only one, of those tried with the other value it has."""
    said = []
    for name, other in (RECIPE, RECIPE[::-1]):
        values, word = set(tried[tried[other] == taken[other]][name]), name.split("_")[1]
        ends = {min(values): f"lowest {word} tried", max(values): f"highest {word} tried"}
        said.append(f"one {word} tried" if len(values) == 1 else ends.get(taken[name], ""))
    return [*filter(None, said)]


def tuned(rows: Frame, seed: int = TRIAL) -> Frame:
    """The rows at the recipe that `chosen` takes for their arm, pool and tokens; those of `seed` are left out."""
    return rows[rows.seed != seed].merge(chosen(rows, seed))


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


class Equivalent(NamedTuple):
    """The dense model that does as a Mixture does: its parameters, and their share of the way from active to total.

    NaN with a `reason` where that is not identified.
    """

    params: Interval
    share: Interval
    reason: str = ""


def equivalents(rows: Frame, column: str = "loss", level: float = 0.9) -> dict[tuple[Any, ...], Equivalent]:
    """The dense model with the same `column` as each Mixture, by (setting, arm), on the ladder of its setting and seed.

    Of the fresh loss the share says how much the Mixture can hold, of the penalty how much of it is in excess: 0 as the
    dense model of its active size, 1 as one of its total size, ln(N_eq/N_a)/ln(N/N_a). N_a is that of the dense model,
    which has no router. Not identified without three sizes, beyond the ends of the ladder, where it turns, where its
    ends differ by no more than three standard errors, and where the penalty is below 0.1.
    """
    found = {}
    for setting, group in rows.groupby(SETTING):
        ladder = group[group.experts == 1].pivot_table(column, index="seed", columns="total_params").dropna()
        for arm, own in group[group.experts > 1].groupby("arm"):
            found[(*setting, str(arm))] = _equivalent(own.set_index("seed"), ladder, column, level)
    return found


def _equivalent(own: Frame, ladder: Frame, column: str, level: float) -> Equivalent:
    seeds = ladder.index.intersection(own.index)
    ladder, own = ladder.loc[seeds], own.loc[seeds]
    reason = _no_ladder(own, ladder, column)
    if reason:
        return Equivalent(_UNKNOWN, _UNKNOWN, reason)
    placed = [equivalent_params(own[column][seed], ladder.loc[seed]) for seed in seeds]
    beyond = [said for _, said in placed if said]
    if beyond:  # a mean over the other seeds would be one over those that suit
        return Equivalent(_UNKNOWN, _UNKNOWN, f"{beyond[0]} ({len(beyond)} of {len(seeds)} seeds)")
    size, active = np.log([params for params, _ in placed]), np.log(_active_step(own, ladder))
    value, low, high = np.exp(mean(size, level)[:3])
    of = Interval(value, low, high, len(seeds))
    return Equivalent(of, mean((size - active) / (np.log(own.total_params.iloc[0]) - active), level))


_UNKNOWN = Interval(np.nan, np.nan, np.nan, 0)


def _no_ladder(own: Frame, ladder: Frame, column: str) -> str:
    """Why this ladder says nothing; an empty text if it may."""
    if len(ladder.columns) < _STEPS or ladder.empty:
        return f"no ladder: it takes dense models of {_STEPS} sizes on the same seeds"
    if not np.isfinite(_active_step(own, ladder)):
        return "no dense model of the active size"
    if column == "penalty" and own.penalty.mean() < _PAID:
        return f"penalty below {_PAID}"
    across = (ladder.iloc[:, -1] - ladder.iloc[:, 0]).to_numpy()
    if len(across) > 1 and abs(across.mean()) <= _NOISE * across.std(ddof=1) / len(across) ** 0.5:
        return "noise: the ends of the ladder are not told apart"
    return ""


def _active_step(own: Frame, ladder: Frame) -> float:
    """Parameters of the dense model of the active size: the largest without a router's more."""
    return max((size for size in ladder.columns if size <= own.active_params.iloc[0]), default=np.nan)


def equivalent_params(loss: float, ladder: Any) -> tuple[float, str]:
    """Parameters of the dense model of that loss, between the steps of a ladder (losses by total_params, a Series).

    Linear in the logarithm of the parameters. NaN with the reason beyond the ends of the ladder, and where it does not
    fall or rise throughout.
    """
    steps = ladder.sort_index()
    losses, sizes = steps.to_numpy(), np.log(steps.index.to_numpy(dtype=float))
    change = np.sign(np.diff(losses))
    if len(change) == 0 or not (change == change[0]).all() or change[0] == 0:
        return np.nan, "the ladder turns"
    along = change[0] * losses
    if not along[0] <= change[0] * loss <= along[-1]:
        return np.nan, f"beyond the {'small' if change[0] * loss < along[0] else 'large'} end of the ladder"
    return float(np.exp(np.interp(change[0] * loss, along, sizes))), ""
