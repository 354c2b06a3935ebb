"""The page of runs of small models: loss and penalty over epochs by arm, differences of pairs, the excess index.

Every number is one of `moesim.lab.compared`: the page only draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.lab.compared import ANY_STOP, Frame, differences, excess_index, frame, mean, penalties, reported, trios
from moesim.lab.tables import table
from moesim.output.text import count, plain
from moesim.pages.values import rounded
from moesim.pages.views import Section

if TYPE_CHECKING:
    import xarray as xr

Spec = dict[str, Any]
_NEEDED = {"run", "trajectory", "experts", "active_experts"}
_SETTING = ["pool" if name == "unique_tokens" else name for name in ANY_STOP]
_CHOICES = [name for name in _SETTING if name != "hash"]  # which is said beside its corpus
_SAID = {"d_model": "width", "pool": "unique bytes", "learning_rate": "learning rate", "weight_decay": "weight decay"}
_NOTE = (
    "Thick: mean over seeds with its 90 % t interval; thin: each seed; dashed: fresh data. Penalty: loss above that of "
    "as much fresh data. Differences: paired by seed. Small models: signs and sizes of differences, not for planning."
)
_INDEX = "(penalty of the Mixture - dense) / (always-on - dense), not where that is noise; upright: the decay chosen"
_NOTHING = "nothing to compare with in this setting"


def view(dataset: xr.Dataset) -> list[Section]:
    """The sections of a table of runs; none for loads, probes and estimates."""
    if not {*dataset.dims, *dataset.variables} >= _NEEDED:
        return []
    rows = _named(reported(frame(dataset)))
    repeated = rows[np.isfinite(rows.pool)]
    settings = (repeated if len(repeated) else rows).groupby(_SETTING).groups
    cells = [_Cell(rows, penalties(rows), dict(zip(_SETTING, at, strict=True))) for at in settings]
    content = {
        "frames": [{"at": cell.told, "panels": list(_panels(cell))} for cell in cells],
        "choose": [_SAID.get(name, name) for name in _CHOICES],
        "start": int(np.argmax([len(cell.where(cell.paid)) for cell in cells])),
        "note": _NOTE,
    }
    told = {"paragraphs": [], "lines": table(dataset)}
    return [Section("plot", "Small models on finite data", content), Section("text", "In numbers", told)]


def _named(rows: Frame) -> Frame:
    """With the hash in the name of a corpus that has several."""
    several = rows.groupby("corpus").hash.transform("nunique") > 1
    return rows.assign(corpus=rows.corpus.where(~several, rows.corpus + " " + rows.hash.str[:6]))


@dataclass(frozen=True)
class _Cell:
    """One setting `at` among the rows of all, and the penalties of all."""

    rows: Frame
    paid: Frame
    at: Mapping[str, Any]

    @property
    def told(self) -> list[str]:
        """The setting in words, for each choice."""
        return [count(self.at[name]) if name == "pool" else plain(self.at[name]) for name in _CHOICES]

    @property
    def colour(self) -> dict[str, int]:
        """The place of each arm in the cycle of colours, the same in every setting."""
        return {arm: i for i, arm in enumerate(sorted({*self.rows.arm}))}

    @property
    def repeats(self) -> bool:
        """Whether data is repeated in it."""
        return bool(np.isfinite(self.at["pool"]))

    def where(self, rows: Frame, *free: str, **other: Any) -> Frame:
        """The rows of this setting, whatever they have of `free` and with `other` values; `passes` over its bytes."""
        wanted = {name: value for name, value in {**self.at, **other}.items() if name not in free}
        own = rows[np.logical_and.reduce([rows[name] == value for name, value in wanted.items()])]
        return own.assign(passes=own.tokens / (self.at["pool"] if self.repeats else 1.0))

    @property
    def parts(self) -> dict[str, Frame]:
        """The rows on repeated data, and those on as much fresh data, by what is said after the arm."""
        own, fresh = self.where(self.rows), self.where(self.rows, pool=np.inf)
        fresh = fresh[fresh.tokens >= own.tokens.min()]
        return {"": own, ", fresh": fresh} if self.repeats else {"": fresh}


def _panels(cell: _Cell) -> Iterator[Spec]:
    """The plots of a setting: as many, and in the same order, as of every other."""
    epochs = {"label": "epochs", "how": "plain", "log": True}
    over = epochs if cell.repeats else {"label": "bytes trained on", "how": "count", "log": True}
    zero = {"rules": [{"y": 0.0}]}
    pairs = trios(cell.rows)
    yield _panel("Loss", over, "loss (nat/byte)", _losses(cell))
    if len(cell.paid):
        yield _panel("Penalty", over, "penalty (nat/byte)", _penalties(cell), **zero)
    for moe, *others in pairs:
        yield _panel(
            f"Loss of {moe} less that of others", over, "difference (nat/byte)", _gaps(cell, moe, others), **zero
        )
    if pairs and len(cell.paid):
        yield _excess(cell, pairs)
    if cell.paid.pool.nunique() > 1:
        pools = {"label": "unique bytes", "how": "count", "log": True}
        rules = [{"y": 0.0}, *([{"x": cell.at["pool"]}] if cell.repeats else [])]
        yield _panel("Penalty at the end", pools, "penalty (nat/byte)", _ends(cell), rules=rules)


def _panel(title: str, x: Spec, y: str, lines: Iterable[Spec], **more: Any) -> Spec:
    shown = [line for line in lines if len(line["x"])]
    told = {"title": title, "file": title.lower().replace(" ", "_"), "x": x, "y": {"label": y}}
    return {**told, "lines": shown, **more, **({} if shown else {"note": _NOTHING})}


def _losses(cell: _Cell) -> Iterator[Spec]:
    yield from _seeds(cell, next(iter(cell.parts.values())), "loss")
    for said, rows in cell.parts.items():
        yield from _arms(cell, rows, "loss", "passes", said)


def _penalties(cell: _Cell) -> Iterator[Spec]:
    own = cell.where(cell.paid)
    yield from _seeds(cell, own, "penalty")
    yield from _arms(cell, own, "penalty", "passes")


def _seeds(cell: _Cell, rows: Frame, column: str) -> Iterator[Spec]:
    """A thin line for each run, which comes and goes with its arm."""
    for (arm, seed, _), own in rows.sort_values("tokens").groupby(["arm", "seed", "trajectory"]):
        line = {
            "name": arm,
            "label": f"{arm}, seed {plain(seed)}",
            "colour": cell.colour[arm],
            "thin": True,
            "quiet": True,
        }
        yield {**line, "x": own.passes.to_numpy(float), "y": rounded(own[column])}


def _arms(cell: _Cell, rows: Frame, column: str, over: str, said: str = "") -> Iterator[Spec]:
    """The mean of each arm with its interval."""
    for arm, own in rows.groupby("arm"):
        found = own.groupby(over)[column].apply(mean)
        yield _line(f"{arm}{said}", cell.colour[arm], found, dash=bool(said))


def _gaps(cell: _Cell, moe: str, others: list[str]) -> Iterator[Spec]:
    """The loss of a Mixture less that of each dense model, in the colour of that one."""
    for said, rows in cell.parts.items():
        for other in others:
            if {moe, other} <= {*rows.arm}:
                found = differences(rows, moe, other, at=["passes"])
                yield _line(f"less {other}{said}", cell.colour[other], found, dash=bool(said))


def _excess(cell: _Cell, pairs: list[tuple[str, str, str]]) -> Spec:
    """The excess index at the end by weight decay: 0 where active parameters are in excess, 1 where all are."""
    own = _last(cell.where(cell.paid, "weight_decay"))
    found = {trio: excess_index(own, *trio, at=["weight_decay"]) for trio in pairs}
    lines = (_line(moe, cell.colour[moe], index, whiskers=True) for (moe, *_), index in found.items())
    decay = {"label": "weight decay", "how": "plain", "log": bool((own.weight_decay > 0).all())}
    rules = [{"y": 0.0, "text": "active parameters in excess"}, {"y": 1.0, "text": "all parameters in excess"}]
    rules += [{"x": cell.at["weight_decay"]}]
    return _panel("Excess index at the end", decay, "excess index", lines, rules=rules, note=_INDEX)


def _ends(cell: _Cell) -> Iterator[Spec]:
    """The penalty at the end by the bytes that were repeated."""
    return _arms(cell, _last(cell.where(cell.paid, "pool")), "penalty", "pool")


def _last(rows: Frame) -> Frame:
    return rows[rows.tokens == rows.tokens.max()]


def _line(name: str, colour: int, found: Any, **style: Any) -> Spec:
    """Intervals along their places."""
    value, low, high = np.array([one[:3] for one in found], dtype=float).reshape(-1, 3).T
    ends = {"y": rounded(value), "low": rounded(low), "high": rounded(high)}
    return {"name": name, "x": found.index.to_numpy(float), **ends, "colour": colour, "marks": True, **style}
