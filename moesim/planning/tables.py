"""The console tables of `moesim sweep`: the best run of every cell, optima at each sparsity, models side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.output.plots import how_many, spread
from moesim.output.text import Page, Rows, aligned, coordinate, count, epochs, plain, text_of
from moesim.planning.figures import named, swept
from moesim.planning.readings import EVIDENCE, READINGS
from moesim.variables import OUTSIDE, VARIABLES

if TYPE_CHECKING:
    import xarray as xr

_AT_MOST = 40  # lines
_MARKS = {"inside": "", "two dips": "~", "flat": "#", "at lower bound": "<", "at upper bound": ">"}
_BOUNDS = {"inside": "", "at lower bound": " (lower bound)", "at upper bound": " (upper bound)"}
_OUTSIDE = "*"
_LEGEND = {
    "<": "<, >: the loss still falls at the smallest, the largest size searched",
    "~": "~: a size far from this one is nearly as good",
    "#": "#: a size 30 % off is as good to 1e-4 nat/token, as where data are used up: the size is hardly determined",
    _OUTSIDE: "*: outside the data behind the law, the repetition or what its excess is measured by",
    "?": "?: not found (see the status)",
}
_BEST: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("active", "active_params", count),
    ("total", "total_params", count),
    ("tokens", "tokens", count),
    ("epochs", "epochs", epochs),
    ("loss", "loss", lambda value: f"{value:.4f}"),
)
_R_D = "R_D moves both, published are 2.9 to 31.5: repetition.coefficients.R_D=[2.9,15.4,31.5] makes it an axis"
_RUN = "of the compute-optimal run"
# What stands in tables of the optima at each sparsity: title, variables, how they are shown.
_OPTIMAL: tuple[tuple[str, tuple[str, ...], Callable[..., str]], ...] = (
    (f"loss (nat/token) {_RUN}", ("optimal_loss",), _BEST[4][2]),
    (f"active parameters {_RUN}", ("optimal_active_params",), count),
    (f"epochs {_RUN}", ("optimal_epochs",), epochs),
    (
        "active parameters within {tolerance} nat/token of it",
        ("optimal_low_params", "optimal_high_params"),
        lambda low, high: f"{count(low)}-{count(high)}",
    ),
    (
        "active parameters that a parabola over 1/{window} to {window} times the best size reads",
        ("parabola_active_params",),
        count,
    ),
    ("epochs that it reads", ("parabola_epochs",), epochs),
)


def table(dataset: xr.Dataset) -> str:
    """The best run of every budget and data, then loss, active parameters and epochs of the optima at each sparsity.

    At most about 40 lines: of a long axis only some values are shown, and the table says how many there are.
    """
    if not {"best_loss", "optimal_loss"} & set(dataset):
        return "dims: " + ", ".join(f"{name} {size}" for name, size in dataset.sizes.items())
    if "draw" in dataset.dims:
        head = f"medians of {dataset.sizes['draw']} draws of the coefficients"
        return "\n".join([head, table(_middle(dataset)), _spans(dataset)])
    dataset = dataset[[v for v in dataset.data_vars if str(v).startswith(("optim", "best", "parabola"))]]
    extra = swept(dataset)
    prefix = "best_" if "best_loss" in dataset else "optimal_"
    dims = sorted(map(str, dataset[f"{prefix}loss"].dims), key=lambda dim: dim in extra)  # a coefficient runs fastest
    data, left_out = _thinned(dataset, dims, _AT_MOST - 4 if extra else _AT_MOST // 2)
    title = "best sparsity" if prefix == "best_" else "compute-optimal runs"
    parts: list[Any] = [f"{title}{_at(dataset, dims)}", _best(data, dims, prefix)]
    unsaid = []
    for names, part in _optima(data, dims) if prefix == "best_" else ():
        lines = sum(1 if isinstance(p, str) else len(p) for p in (*parts, *part))
        if lines <= _AT_MOST:
            parts += part
        else:
            unsaid += names
    left_out += [f"in the result only: {', '.join(unsaid)}"] if unsaid else []
    said = text_of([*parts, *left_out])
    return said + "".join(f"\n{text}" for mark, text in _LEGEND.items() if mark in said.replace("<1", ""))


def counted(dataset: xr.Dataset) -> str:
    """The line above the tables: by which repetition, excess and anchor they hold, and where that lies in the band."""
    repetition, excess, taught = (dataset.attrs.get(name) for name in ("repetition", "excess", "taught"))
    scarce = "unique_tokens" in dataset.coords and np.isfinite(dataset.unique_tokens).any()
    if excess is None or repetition in ("none", None) or not scarce:
        return ""
    how = {"excess": excess} | ({"taught": taught} if taught else {})
    ends = [f"the {name} end" for name, reading in READINGS.items() if how == reading]
    band = f"; {(ends or ['neither end'])[0]} of the band below" if "reading_best_loss" in dataset else ""
    return f"repetition {repetition}: {', '.join(f'{k} {v}' for k, v in how.items())}{band}\n"


def _middle(dataset: xr.Dataset) -> xr.Dataset:
    """One value for all draws: the median of numbers, the commonest of anything else."""
    names = [name for name in dataset.data_vars if str(name).startswith(("optim", "best"))]
    return dataset[names].map(
        lambda v: v.reduce(_commonest if v.dtype.kind != "f" else np.nanmedian, "draw"), keep_attrs=True
    )


def _commonest(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    kinds, place = np.unique(values, return_inverse=True)
    counts = np.stack([np.sum(place.reshape(values.shape) == i, axis=axis) for i in range(len(kinds))])
    return kinds[counts.argmax(axis=0)]


def _spans(dataset: xr.Dataset) -> str:
    """The central 90 % of the draws, a row for each cell of the table above."""
    prefix = "best_" if "best_loss" in dataset else "optimal_"
    dims = [str(dim) for dim in dataset[f"{prefix}loss"].dims if dim != "draw"]
    shown = [("best S", "sparsity", "{:.3f}".format), *_BEST] if prefix == "best_" else list(_BEST)
    names = [f"{prefix}{name}" for _, name, _ in shown]
    ends = dataset[names].quantile([0.05, 0.95], "draw")
    ends, _ = _thinned(ends, dims, _AT_MOST // 2)
    rows = [[*map(_words, dims), *(label for label, *_ in shown)]]
    for cell in _cells(ends, dims):
        pairs = [[show(float(end)) for end in cell[f"{prefix}{name}"].values] for _, name, show in shown]
        rows.append([*_labels(cell, dims), *(low if low == high else f"{low} to {high}" for low, high in pairs)])
    return "central 90 % of the draws\n" + aligned(rows, 2)


def _at(dataset: xr.Dataset, dims: Sequence[str]) -> str:
    """The single coordinates that hold for the whole table."""
    single = [n for n in ("compute", "unique_tokens", "total_params", "active_params") if n in dataset.coords]
    told = [f"{_words(n)} {coordinate(n, dataset[n].item())}" for n in single if n not in dims and not dataset[n].dims]
    return f" at {', '.join(told)}" if told else ""


def _thinned(dataset: xr.Dataset, own: Sequence[str], most: int) -> tuple[xr.Dataset, list[str]]:
    """As many cells as fit: values spread along the longest dims, and a line on each dim that was cut."""
    data, dims = dataset, {dim: dataset.sizes[dim] for dim in own}
    while np.prod(list(dims.values())) > most:
        longest = max(dims, key=lambda dim: dims[dim])
        dims[longest] -= 1
    cut = {dim: n for dim, n in dims.items() if n < data.sizes[dim]}
    for dim, n in cut.items():
        data = data.isel({dim: [int(i) for i in spread(np.arange(data.sizes[dim]), n)]})
    return data, [f"{n} of {dataset.sizes[dim]} values of {dim} shown; all are in the result" for dim, n in cut.items()]


def _cells(data: xr.Dataset, dims: Sequence[str]) -> list[xr.Dataset]:
    stacked = data.stack(cell=list(dims)) if dims else data.expand_dims("cell")
    return [stacked.isel(cell=i) for i in range(stacked.sizes["cell"])]


def _labels(cell: xr.Dataset, dims: Sequence[str]) -> list[str]:
    return [coordinate(dim, cell[dim].item()) for dim in dims]


def _words(dim: str) -> str:
    return VARIABLES[dim].long_name.replace(" available", "") if dim in VARIABLES else dim


def best(value: float, status: str) -> str:
    """A best sparsity with a mark where it lies at a bound or was not found."""
    return f"{value:.3f}{_BOUNDS[status]}" if status in _BOUNDS else status


def _best(data: xr.Dataset, dims: Sequence[str], prefix: str) -> Rows:
    sparsity = prefix == "best_"
    rows = [[*map(_words, dims), *(["best S"] * sparsity), *(label for label, *_ in _BEST), "outside the data of"]]
    for cell in _cells(data, dims):
        values = [show(cell[f"{prefix}{name}"].item()) for _, name, show in _BEST]
        by = _outside(cell[f"{prefix}extrapolated_by"].item())
        if sparsity:
            top = best(cell.best_sparsity.item(), cell.best_sparsity_status.item()) + _OUTSIDE * bool(by)
        else:
            top = _MARKS.get(cell.optimum_status.item(), "?")
            values[-1] = top + values[-1] + _OUTSIDE * bool(by)
        rows.append([*_labels(cell, dims), *([top] * sparsity), *values, by])
    return rows if any(row[-1] for row in rows[1:]) else [row[:-1] for row in rows]


def _outside(flags: float) -> str:
    """Whose data a run lies outside of, in words."""
    known = 0 if np.isnan(flags) else int(flags)  # NaN where a job is missing
    return ", ".join(name for name, flag in OUTSIDE.items() if known & flag)


def _optima(data: xr.Dataset, dims: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Page]]:
    """The variables, and a titled table of them, for each quantity of the optima: a column for each sparsity."""
    along = next((d for d in ("sparsity", "experts") if d in data.dims), None)
    if along is None or "optimal_loss" not in data:
        return
    cells = _cells(data, dims)
    told = {name: plain(data.attrs.get(name, name)) for name in ("tolerance", "window")}
    head = [*map(_words, dims), *(f"{along[0].upper()}={plain(v)}" for v in data[along].values)]
    for title, names, show in _OPTIMAL:
        if not set(names) <= set(data):
            continue
        shown = [cell for cell in cells if "epochs" not in names[0] or (cell[names[0]] > 0).any()]
        if shown:
            rows = [head, *([*_labels(cell, dims), *_marked(cell, names, show)] for cell in shown)]
            yield names, [title.format(**told), rows]


def _marked(cell: xr.Dataset, names: Sequence[str], show: Callable[..., str]) -> list[str]:
    columns = (cell.optimum_status, cell.optimal_extrapolated, *(cell[name] for name in names))
    rows = zip(*(np.broadcast_to(v, cell.optimal_loss.shape).tolist() for v in columns), strict=True)
    return [_MARKS.get(status, "?") + show(*values) + _OUTSIDE * (out == 1) for status, out, *values in rows]


def band(dataset: xr.Dataset, coefficients: Collection[str] = ()) -> str:
    """The optima at both ends of what is unknown, for each budget with scarce data, and the evidence for each.

    `coefficients`: of the repetition; if R_D is one of them and no axis yet, the table says how to make it one.
    """
    data = dataset[[v for v in dataset.data_vars if str(v).startswith("reading_best_")]]
    if "unique_tokens" in data.dims:
        data = data.isel(unique_tokens=np.flatnonzero(np.isfinite(data.unique_tokens)))
    dims = [str(dim) for dim in data.reading_best_loss.dims if dim != "reading"]
    data, left_out = _thinned(data, dims, _AT_MOST // 4)
    rows = [[*map(_words, dims), "reading", "best S", "active", "epochs", "loss", "outside the data of"]]
    rows += [_reading(at.sel(reading=name), dims) for at in _cells(data, dims) for name in READINGS]
    lines = ["the band of what is unknown, at usual weight decay", aligned(rows, len(dims) + 1), *left_out]
    lines += [f"{name}: {text}" for name, text in EVIDENCE.items()]
    lines += [_R_D] if "R_D" in coefficients and "R_D" not in dims else []
    return "\n".join(lines)


def _reading(at: xr.Dataset, dims: Sequence[str]) -> list[str]:
    by = _outside(at.reading_best_extrapolated_by.item())
    top = best(at.reading_best_sparsity.item(), at.reading_best_sparsity_status.item()) + _OUTSIDE * bool(by)
    values = [show(at[f"reading_best_{name}"].item()) for _, name, show in (_BEST[0], *_BEST[3:])]
    return [*_labels(at, dims), str(at.reading.item()), top, *values, by]


def comparison(dataset: xr.Dataset, compared: Sequence[str] | None = None) -> str:
    """Models side by side, a block for each budget and data, a row for each model.

    A row has the loss of the compute-optimal run at each sparsity, the best sparsity with its active parameters and
    epochs (where none was sought, how far the losses spread), and how many times more active parameters the optima take
    at the first and last sparsity than with the most plentiful data. Rows that agree in everything are one.
    """
    compared = named(dataset) if compared is None else compared
    others = {str(dim): n // 2 for dim, n in dataset.sizes.items() if dim not in (*compared, *_DIMS)}
    dataset = dataset.isel(others)
    plenty = float(dataset.unique_tokens.max()) if "unique_tokens" in dataset.dims else None
    base = dataset.optimal_active_params if plenty is None else dataset.optimal_active_params.sel(unique_tokens=plenty)
    cells = [dim for dim in _DIMS[:-1] if dim in dataset.dims]
    dataset, left_out = _with_few_budgets(dataset, compared)
    data = dataset.assign(ratio=dataset.optimal_active_params / base)
    said = "\n\n".join([*(_compared(cell, cells, compared) for cell in _cells(data, cells)), *left_out])
    return f"{said}\n{_LEGEND[_OUTSIDE]}" if _OUTSIDE in said else said


def _with_few_budgets(dataset: xr.Dataset, compared: Sequence[str]) -> tuple[xr.Dataset, list[str]]:
    """As many budgets as fit into the lines, and a line that says so."""
    if "compute" not in dataset.dims:
        return dataset, []
    lines = (np.prod([dataset.sizes[dim] for dim in compared]) + 3) * dataset.sizes.get("unique_tokens", 1)
    budgets = spread(dataset["compute"], max(int(_AT_MOST // lines), 1))
    shown = how_many("budgets", budgets, dataset["compute"])
    return dataset.sel(compute=budgets), [f"{shown}; all are in the result"] if shown else []


_DIMS = ("compute", "tokens", "unique_tokens", "sparsity")


def _compared(cell: xr.Dataset, dims: Sequence[str], compared: Sequence[str]) -> str:
    sparsities = [plain(s) for s in np.atleast_1d(cell.sparsity.values)]
    rows: dict[tuple, list[str]] = {}  # (first label, cells) -> the labels of the rest
    for model in _cells(cell, compared):
        first, *rest = _labels(model, compared)
        rows.setdefault((first, *_values(model)), []).append(" ".join(rest))
    if len({key[1:] for key in rows}) == 1:
        rows = {("all alike", *next(iter(rows))[1:]): [""]}
    ratio = [f"N_a x at S={sparsities[0]}", f"S={sparsities[-1]}"]
    head = [compared[0], ", ".join(compared[1:]), *(f"S={s}" for s in sparsities), "best S", "N_a", "epochs", *ratio]
    head.append("spread")
    where = ", ".join(f"{_words(dim)} {coordinate(dim, cell[dim].item())}" for dim in dims)
    lines = [head, *([first, ", ".join(rest), *values] for (first, *values), rest in rows.items())]
    keep = [i for i in range(len(head)) if any(line[i] for line in lines[1:])]
    return f"loss (nat/token): {where}\n" + aligned([[line[i] for i in keep] for line in lines], 2)


def _values(row: xr.Dataset) -> tuple[str, ...]:
    """Losses at each sparsity, the best sparsity and its run, N_a beside plentiful data; else the losses' spread."""
    losses = _marked(row, ["optimal_loss"], _BEST[4][2])
    ratio = [f"{value:.2f}" for value in np.atleast_1d(row.ratio.values)[[0, -1]]]
    ratio = ratio if np.isfinite(row.unique_tokens).all() else ["", ""]  # beside themselves
    if "best_loss" not in row:
        return (*losses, "", "", "", *ratio, f"{np.ptp(row.optimal_loss.values):.4f}")
    top = best(row.best_sparsity.item(), row.best_sparsity_status.item()) + _OUTSIDE * bool(row.best_extrapolated == 1)
    return (*losses, top, count(row.best_active_params.item()), epochs(row.best_epochs.item()), *ratio, "")
