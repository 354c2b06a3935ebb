"""Tables of training runs: read, filtered, put into the variables of the package and checked row by row."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim import config
from moesim.errors import InputError
from moesim.fitting.reading import DATA, TAKES, columns_of, read_table
from moesim.variables import SIZES, VARIABLES

if TYPE_CHECKING:
    import xarray as xr

_RESERVED = ("run", "row")  # dims and coordinates of the result
_UNITS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

# Derived columns, by the name that `derive` lists: what is made, from what, and how.
DERIVED: dict[str, tuple[str, tuple[str, ...], Callable[..., np.ndarray]]] = {
    "tokens_from_compute": ("tokens", ("compute", "active_params"), lambda C, N: C / (6.0 * N)),
    "total_params_from_compute": ("total_params", ("compute", "tokens"), lambda C, D: C / (6.0 * D)),
    "active_params_from_compute": ("active_params", ("compute", "tokens"), lambda C, D: C / (6.0 * D)),
    "compute_from_tokens": ("compute", ("tokens", "active_params"), lambda D, N: 6.0 * N * D),
    "unique_tokens_from_epochs": ("unique_tokens", ("tokens", "epochs"), lambda D, e: D / e),
    "epochs_from_unique_tokens": ("epochs", ("tokens", "unique_tokens"), lambda D, U: D / U),
    "sparsity_from_experts": ("sparsity", ("experts", "active_experts"), lambda E, K: (E - K) / E),
    "density_from_params": ("density", ("active_params", "total_params"), lambda a, n: a / n),
}


class RunsWarning(UserWarning):
    """Something about a table of runs that a person should look at; the rows are named."""


@dataclass(frozen=True)
class RunsSpec:
    """How a table becomes runs: `conf/runs/NAME.yaml`, or the arguments of `load_runs`, which say what each is."""

    name: str
    file: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    derive: tuple[str, ...] = ()
    best_of: tuple[str, ...] = ()
    group: str | None = None
    weight: str | None = None
    dataset: str | None = None
    source: str = ""
    licence: str = ""
    loss_unit: str = "nat/token"  # what is written on the loss; another unit is a name, nothing is converted
    caveats: tuple[str, ...] = ()


def load_runs(
    name_or_path: Any,
    columns: Mapping[str, Any] | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    derive: Sequence[str] | None = None,
    best_of: Sequence[str] | None = None,
    group: str | None = None,
    weight: str | None = None,
    dataset: str | None = None,
) -> xr.Dataset:
    """A table of runs as a Dataset with the dim `run`, its variables in the units of the package.

    `name_or_path`: a name in `conf/runs/`, a .yaml file like those, a table (.csv, .tsv, .txt, .jsonl, .parquet, .nc),
    or a Dataset, data frame or mapping of columns. `columns` maps variables of the table to columns: a name, or
    {column: NAME, unit: million} (thousand, million, billion, trillion, or a number that one unit of the column is
    worth). `where` keeps rows: {column: value}, {column: [values]}, {column: {min: 1, max: 2, not: 3}}, null for any.
    `derive` lists columns to work out, see `DERIVED`. `best_of` keeps the run of lowest loss for each combination of
    these columns: a minimum of many noisy runs, hence biased low. `group`: column that says which rows are one run
    (checkpoints, seeds), resampled together. `weight`: column of weights. `dataset`: column that tells data sets or
    tokenizers apart.

    Columns that are not variables keep their names. One that bears a variable's name is that variable, unless it has
    blanks and nobody asked for it in `columns` ({variable: null} unmaps any). A grid (a Dataset or DataArray of several
    dims) is taken cell by cell. Wherever a column is named, its names before and after mapping are alike. Raises
    InputError, which names the rows, for a missing column, a value that is not a number or outside the variable's
    domain; warns of duplicated runs and mixed data sets.
    """
    spec, table = _opened(name_or_path)
    changes = {"columns": columns, "where": where, "derive": derive, "best_of": best_of}
    changes |= {"group": group, "weight": weight, "dataset": dataset}
    given = {key: value for key, value in changes.items() if value is not None}
    if columns is not None:
        given["columns"] = {**spec.columns, **columns}
    return _read(replace(spec, **given), table)


def runs_from(name: str, content: Mapping[str, Any]) -> xr.Dataset:
    """The runs of the content of a `conf/runs/` file."""
    spec = _spec(name, content)
    return _read(spec, read_table(_located(spec)))


def _spec(name: str, content: Mapping[str, Any]) -> RunsSpec:
    keys = [key for key in RunsSpec.__dataclass_fields__ if key != "name"]
    for key in content:
        if key not in keys:
            raise InputError(f"runs {name}: unknown key {key!r}; it takes {', '.join(keys)}")
    if not content.get("file"):
        raise InputError(f"runs {name}: no key 'file'; give the path of {TAKES}")
    for key in ("file", "group", "weight", "dataset"):
        if not isinstance(content.get(key), str | None):
            raise InputError(f"runs {name}: {key}={content[key]!r}; it takes the name of a column, or of the file")
    given: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items() if v is not None}
    return RunsSpec(name, **given)


def _opened(source: Any) -> tuple[RunsSpec, dict[str, np.ndarray]]:
    """(spec, columns) of whatever names a table of runs."""
    if isinstance(source, str | Path):
        path = Path(source)
        if path.suffix not in ("", ".yaml", ".yml"):
            spec = RunsSpec(path.stem, str(path))
        else:
            spec = _spec(path.stem, config.read("runs", source))
            spec = replace(spec, file=str(_located(spec, path.parent)))
        return spec, read_table(Path(spec.file))
    return RunsSpec("given"), columns_of(source)


def _located(spec: RunsSpec, beside: Path | None = None) -> Path:
    """The file: as given, beside the file that names it, or among the shipped ones."""
    given = Path(spec.file)
    places = [given, *([beside / given] if beside else []), DATA / given]
    return next((place for place in places if place.is_file()), given)


def _read(spec: RunsSpec, table: dict[str, np.ndarray]) -> xr.Dataset:
    """Columns to checked variables."""
    rows = np.arange(1, len(next(iter(table.values()), [])) + 1)
    if not len(rows):
        raise InputError(f"runs {spec.name}: no rows under {', '.join(table) or 'no header'}; give a row for each run")
    columns = _columns(spec, table)
    table = {**table, **{variable: table[name] for variable, (name, _) in columns.items() if name in table}}
    keep = _where(spec, table, len(rows))
    if not keep.any():
        raise InputError(f"runs {spec.name}: no row is left by where={dict(spec.where)}; loosen it")
    table, rows = {name: column[keep] for name, column in table.items()}, rows[keep]
    blank = {v: rows[_blank(table[name])] for v, (name, _) in columns.items() if v not in {*spec.columns, "loss"}}
    blank = {variable: where for variable, where in blank.items() if len(where)}  # of columns that nobody asked for
    columns = {variable: column for variable, column in columns.items() if variable not in blank}
    values = {v: _numbers(spec, v, name, table[name], rows) * scale for v, (name, scale) in columns.items()}
    values = _derived(spec, values, rows)
    _check_domains(spec, values, rows)
    mapped = {name for name, _ in columns.values()}
    extra = {name: column for name, column in table.items() if name not in mapped and name not in VARIABLES}
    spec = _renamed(spec, columns, {*extra, *values})
    kept = _best(spec, {**extra, **values})
    values, extra, rows = _at(values, kept), _at(extra, kept), rows[kept]
    _warn(spec, values, extra, rows)
    said = {"blank": "; ".join(f"{variable} in {listed(where)}" for variable, where in blank.items())}
    return _dataset(spec, values, extra, rows).assign_attrs({key: text for key, text in said.items() if text})


def _blank(column: np.ndarray) -> np.ndarray:
    """Which cells hold nothing: NaN, or in text nothing but spaces; (rows,) bool."""
    return np.isnan(column) if column.dtype.kind == "f" else np.array([not str(cell).strip() for cell in column], bool)


def _renamed(spec: RunsSpec, columns: Mapping[str, tuple[str, float]], there: set[str]) -> RunsSpec:
    """The spec with the variable's name wherever it names a column that has become one."""
    variable = {column: name for name, (column, _) in columns.items()}

    def now(name: str | None) -> str | None:
        return variable.get(name, name) if name is not None and name not in there else name

    renamed = {role: now(getattr(spec, role)) for role in ("group", "weight", "dataset")}
    return replace(spec, best_of=tuple(now(name) or "" for name in spec.best_of), **renamed)


def _columns(spec: RunsSpec, table: Mapping[str, np.ndarray]) -> dict[str, tuple[str, float]]:
    """variable -> (column, worth of one unit); columns that are named like a variable map to it by themselves."""
    mapped: dict[str, Any] = {name: name for name in table if name in VARIABLES}
    out = {}
    for variable, given in {**mapped, **spec.columns}.items():
        if variable not in VARIABLES:
            raise InputError(f"runs {spec.name}: columns names {variable!r}; it takes {', '.join(VARIABLES)}")
        if given is None:
            continue
        entry = given if isinstance(given, Mapping) else {"column": given}
        if not isinstance(entry.get("column"), str) or entry["column"] not in table:
            wanted = f"no column {entry.get('column')!r} for {variable}"
            raise InputError(f"runs {spec.name}: {wanted}; there are {', '.join(table)}")
        out[variable] = (entry["column"], _worth(spec, variable, entry.get("unit", 1.0)))
    if "loss" not in out:
        raise InputError(f"runs {spec.name}: no column for loss; say which one: columns={{loss: NAME}}")
    return out


def _worth(spec: RunsSpec, variable: str, unit: Any) -> float:
    if unit in _UNITS:
        return _UNITS[unit]
    if isinstance(unit, int | float) and not isinstance(unit, bool) and unit > 0:
        return float(unit)
    takes = f"it takes {', '.join(_UNITS)} or a number above 0"
    raise InputError(f"runs {spec.name}: unit of {variable} is {unit!r}; {takes}")


def _where(spec: RunsSpec, table: Mapping[str, np.ndarray], n: int) -> np.ndarray:
    keep = np.ones(n, bool)
    for name, wanted in spec.where.items():
        if wanted is None:
            continue
        if name not in table:
            raise InputError(f"runs {spec.name}: where names {name!r}, no column; there are {', '.join(table)}")
        keep &= chosen(table[name], wanted)
    return keep


def chosen(column: np.ndarray, wanted: Any) -> np.ndarray:
    """Which values a `where` entry keeps: a value, a list of values, or {min:, max:, not:}; (runs,) bool."""
    if isinstance(wanted, Mapping):
        tests = {"min": lambda v: column >= v, "max": lambda v: column <= v, "not": lambda v: ~chosen(column, v)}
        for key in wanted:
            if key not in tests:
                raise InputError(f"runs.where: unknown key {key!r}; it takes {', '.join(tests)}")
        return np.all([tests[key](value) for key, value in wanted.items()], axis=0)
    options = wanted if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
    text = column.dtype.kind in "US"
    return np.isin(column, np.array([str(o) if text else o for o in options]))


def _numbers(spec: RunsSpec, variable: str, name: str, column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    if column.dtype.kind in "iuf":
        return column.astype(float)
    bad = [i for i, cell in enumerate(column) if np.isnan(_number(cell)) and str(cell).strip().lower() != "nan"]
    if bad:
        raise InputError(
            f"runs {spec.name}: {variable} (column {name!r}) is not a number in {listed(rows[bad])}"
            f" ({str(column[bad[0]])!r}); give numbers, or leave these rows out with where"
        )
    return np.array([_number(cell) for cell in column])


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _derived(spec: RunsSpec, values: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    for name in spec.derive:
        if name not in DERIVED:
            raise InputError(f"runs {spec.name}: derive names {name!r}; it takes {', '.join(DERIVED)}")
        made, needs, formula = DERIVED[name]
        missing = [need for need in needs if need not in values]
        if missing:
            raise InputError(f"runs {spec.name}: {name} needs {missing[0]}; map a column to it")
        with np.errstate(all="ignore"):
            values[made] = formula(*(values[need] for need in needs))
    return values


def _check_domains(spec: RunsSpec, values: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
    for name, column in values.items():
        domain = VARIABLES[name].domain
        bad = np.flatnonzero(~domain.contains(column))
        if len(bad):
            raise InputError(
                f"runs {spec.name}: {name} is {column[bad[0]]:g} in {listed(rows[bad])}; it takes {domain.text};"
                f" mend these rows or leave them out with where={{{name}: {{min: 0}}}}"
            )
    tokens, unique = values.get("tokens"), values.get("unique_tokens")
    if tokens is not None and unique is not None and np.any(more := unique > tokens * (1 + 1e-9)):
        warnings.warn(
            f"runs {spec.name}: more unique tokens than tokens in {listed(rows[more])}: these runs have not seen all",
            RunsWarning,
            stacklevel=5,
        )


def _best(spec: RunsSpec, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Indices of the rows to keep: all, or the lowest loss of each cell."""
    loss = columns["loss"]
    if not spec.best_of:
        return np.arange(len(loss))
    for name in spec.best_of:
        if name not in columns:
            raise InputError(f"runs {spec.name}: best_of names {name!r}; it takes {', '.join(columns)}")
    keys = [np.unique(columns[name], return_inverse=True)[1] for name in spec.best_of]
    _, cell = np.unique(np.stack(keys), axis=1, return_inverse=True)
    order = np.lexsort((loss, cell.reshape(-1)))
    first = np.r_[True, np.diff(cell.reshape(-1)[order]) > 0]
    return np.sort(order[first])


def _at(columns: Mapping[str, np.ndarray], index: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[index] for name, column in columns.items()}


def _warn(spec: RunsSpec, values: Mapping[str, np.ndarray], extra: Mapping[str, np.ndarray], rows: np.ndarray) -> None:
    """Warnings for runs that stand there twice and for losses that cannot be compared."""
    for message in (_tiny(values), _duplicates(values, rows), _mixture(spec, {**extra, **values}, rows)):
        if message:
            warnings.warn(f"runs {spec.name}: {message}", RunsWarning, stacklevel=4)


# No column of runs of language models lies wholly below these: one that does is counted in millions or billions.
_SMALLEST = {"compute": 1e10, "tokens": 1e6, "unique_tokens": 1e6}
_SMALLEST |= dict.fromkeys(SIZES, 1e5)


def _tiny(values: Mapping[str, np.ndarray]) -> str:
    """Columns that look like millions or billions taken for units, as a warning; empty if none does."""
    small = [name for name, least in _SMALLEST.items() if name in values and values[name].max() < least]
    if not small:
        return ""
    ranges = ", ".join(f"{name} is {values[name].min():g} to {values[name].max():g}" for name in small)
    return f"{ranges}; if that is in billions, say so: columns={{{small[0]}: {{column: NAME, unit: billion}}}}"


def _duplicates(values: Mapping[str, np.ndarray], rows: np.ndarray) -> str:
    table = np.stack(list(values.values()))
    _, cell, counts = np.unique(table, axis=1, return_inverse=True, return_counts=True)
    again = [rows[cell.reshape(-1) == c] for c in np.flatnonzero(counts > 1)]
    if not again:
        return ""
    return f"the same run, loss included, stands more than once: {'; '.join(listed(a) for a in again[:5])}; each counts"


def _mixture(spec: RunsSpec, columns: Mapping[str, np.ndarray], rows: np.ndarray) -> str:
    if spec.dataset is None:
        return ""
    if spec.dataset not in columns:
        raise InputError(f"runs {spec.name}: dataset names {spec.dataset!r}, which is no column")
    names = columns[spec.dataset]
    parts = [f"{name} ({listed(rows[names == name])})" for name in np.unique(names)]
    if len(parts) < 2:
        return ""
    return f"losses of {len(parts)} data sets or tokenizers do not compare: {'; '.join(parts)}; choose one with where"


def _dataset(
    spec: RunsSpec, values: Mapping[str, np.ndarray], extra: Mapping[str, np.ndarray], rows: np.ndarray
) -> xr.Dataset:
    import xarray as xr

    from moesim.variables import stamp

    both = {**extra, **values}
    special = {"group": spec.group, "weight": spec.weight}
    for role, name in special.items():
        if name is not None and name not in both:
            raise InputError(f"runs {spec.name}: {role} names {name!r}, no column; there are {', '.join(both)}")
    if spec.weight is not None and not np.all(np.asarray(both[spec.weight], dtype=float) > 0):
        raise InputError(f"runs {spec.name}: weight {spec.weight!r} takes numbers above 0")
    named = {role: ("run", both[name]) for role, name in special.items() if name is not None}
    columns = {_stored(name): ("run", column) for name, column in both.items()}
    data = xr.Dataset(columns | named, coords={"row": ("run", rows)})
    attrs = {"runs": spec.name, "source": spec.source, "licence": spec.licence, "caveats": "\n".join(spec.caveats)}
    data = stamp(data.assign_attrs({key: value for key, value in attrs.items() if value}))
    data["loss"].attrs["units"] = spec.loss_unit
    return data


def _stored(name: str) -> str:
    """The name of a column in the Dataset: one that netCDF takes and that is not a dim."""
    return f"{name}_column" if name in _RESERVED else name.replace("/", "_")


def listed(rows: Any) -> str:
    """Row numbers as a person lists them: row 3; rows 1-4, 7."""
    rows = [int(row) for row in np.atleast_1d(rows)]
    spans: list[list[int]] = []
    for row in rows:
        if spans and row == spans[-1][1] + 1:
            spans[-1][1] = row
        else:
            spans.append([row, row])
    text = [str(a) if a == b else f"{a}-{b}" for a, b in spans]
    shown = ", ".join(text[:8]) + (f" and {len(text) - 8} more" if len(text) > 8 else "")
    return f"row{'s' if len(rows) > 1 else ''} {shown}"
