"""Files of runs as columns: text of any usual separator, and netCDF. What cannot be read says so with its name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.output.parquet import read_parquet

DATA = Path(__file__).resolve().parents[1] / "data"
TAKES = "a .csv, .jsonl, .parquet or .nc file"

# What a file begins with, if it is no text: (first bytes, what that is).
_KINDS = (
    (b"PK\x03\x04", "a spreadsheet or another zip archive"),
    (b"\x89HDF", "netCDF or HDF5; name it .nc, or"),
    (b"CDF", "netCDF; name it .nc, or"),
    (b"ARROW1", "Arrow"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet"),
)
_WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # by the mark in front, which spreadsheets write
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


def read_table(path: Path) -> dict[str, np.ndarray]:
    """Columns of a file: name -> floats (a blank is NaN) where every cell is a number, else text; (rows,).

    Text is UTF-8 or UTF-16, plain or gzipped; its cells are separated by commas, semicolons or tabs, and with the
    last two a number may have a decimal comma; or it is JSON, an object for each run. Parquet is read by pandas.
    Raises InputError, which names the file, for anything else.
    """
    if not path.is_file():
        shipped = ", ".join(sorted(p.name for p in DATA.glob("*.csv")))
        raise InputError(f"runs: no file {str(path)!r}; give the path of {TAKES}, or one of {shipped}")
    if path.suffix == ".nc":
        return _netcdf(path)
    with path.open("rb") as file:
        start = file.read(4)
    return _parquet(path) if start == b"PAR1" else _text_table(path)


def _parquet(path: Path) -> dict[str, np.ndarray]:
    return columns_of(read_parquet(path, "runs"))


def _text_table(path: Path) -> dict[str, np.ndarray]:
    text = _text(path)
    return _objects(path, text) if text.lstrip()[:1] in ("{", "[") else _separated(path, text)


def _objects(path: Path, text: str) -> dict[str, np.ndarray]:
    """The columns of JSON: an object for each run, in a list or on lines of their own; absent values are blank."""
    try:
        lines = [line for line in text.splitlines() if line.strip()]
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"runs {path.name}: is JSON, but not an object for each run on its line ({error})") from None
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"runs {path.name}: is JSON, but not a list of objects; give one object for each run")
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = {name: ["" if row.get(name) is None else str(row[name]) for row in rows] for name in names}
    return {name: parsed(column) for name, column in cells.items()}


def _netcdf(path: Path) -> dict[str, np.ndarray]:
    import xarray as xr

    try:
        data = xr.load_dataset(path)
    except Exception as error:  # every engine has its own, and a damaged file meets any of them
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"runs {path.name}: not a readable netCDF file ({reason}); write it again") from None
    return columns_of(data)


def _separated(path: Path, text: str) -> dict[str, np.ndarray]:
    tables = {separator: _cut(text, separator) for separator in _SEPARATORS}
    separator = _separator(path, tables)
    header, *rows = _without_blank_columns(tables[separator])
    check_names(path.name, header)
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            cut = f"row {number} has {len(row)} cells, the header {len(header)}"
            raise InputError(f"runs {path.name}: {cut} (separated by {_SEPARATORS[separator]}); mend it")
    if separator != "," and _decimal_commas(rows):
        rows = [[cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in row] for row in rows]
    return {name: parsed([row[i] for row in rows]) for i, name in enumerate(header)}


def _text(path: Path) -> str:
    """The text of a file, without a mark in front."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):
            raise InputError(f"runs {path.name}: a damaged gzip file; write it again") from None
    if not content.strip():
        raise InputError(f"runs {path.name}: is empty; give a header and a row for each run")
    for start, kind in _KINDS:
        if content.lstrip().startswith(start):
            raise InputError(f"runs {path.name}: is {kind}; write it as .csv, or give a data frame in Python")
    encoding = _WIDE.get(content[:2], "utf-8-sig")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        name, byte = encoding.removesuffix("-sig").upper(), content[error.start]
        raise InputError(f"runs {path.name}: is not {name} (byte {byte:#x} in line {line}); save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"runs {path.name}: is binary, or text that is neither UTF-8 nor UTF-16; save it as UTF-8")
    return text


def _cut(text: str, separator: str) -> list[list[str]]:
    """Rows of cells, blank rows left out."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return [cells for row in rows if any(cells := [cell.strip() for cell in row])] or [[]]
    except csv.Error:  # e.g. a quotation mark that is never closed
        return [[]]


def _separator(path: Path, tables: dict[str, list[list[str]]]) -> str:
    """The separator that cuts every row into as many cells as the header; else that of most cells in the header."""
    cells = {separator: len(rows[0]) for separator, rows in tables.items()}
    if max(cells.values()) < 2:
        how = f"{', '.join(_SEPARATORS.values())}; is it separated otherwise, or is a quotation mark never closed?"
        raise InputError(f"runs {path.name}: cannot be cut into columns by {how}")
    even = [s for s, rows in tables.items() if cells[s] > 1 and all(len(row) == cells[s] for row in rows)]
    best = sorted(even or cells, key=lambda s: -cells[s])
    if len(even) > 1 and cells[best[0]] == cells[best[1]]:
        both = " and ".join(_SEPARATORS[s] for s in best[:2])
        raise InputError(f"runs {path.name}: {both} both cut its rows evenly; use one of them alone")
    return best[0]


def _without_blank_columns(table: list[list[str]]) -> list[list[str]]:
    """The table without columns that hold nothing at all; one that has values and no name is named by its place."""
    header, *rows = table
    if any(len(row) != len(header) for row in rows):
        return table
    kept = [i for i, name in enumerate(header) if name or any(row[i] for row in rows)]
    names = [header[i] or f"column {i + 1}" for i in kept]
    return [names, *([row[i] for i in kept] for row in rows)]


def _decimal_commas(rows: list[list[str]]) -> bool:
    """Whether numbers are written 3,5: some are, and none is written 3.5."""
    cells = [cell for row in rows for cell in row]
    return any(map(_DECIMAL_COMMA.fullmatch, cells)) and not any("." in cell and is_number(cell) for cell in cells)


def columns_of(source: Any) -> dict[str, np.ndarray]:
    """Columns of a Dataset, data frame or mapping, one value for each run; a grid's cells are its runs."""
    source = _stacked(source)
    try:
        names = list(source)
        columns = {str(name): np.atleast_1d(np.asarray(source[name])) for name in names}
        coords = getattr(source, "coords", {}).items()
        columns |= {str(name): np.asarray(c) for name, c in coords if np.ndim(c) == 1 and name != "run"}
    except (TypeError, KeyError, IndexError):
        kind = type(source).__name__
        raise InputError(f"runs: {kind} is no table; give a file, a Dataset, a data frame or a mapping") from None
    check_names("given", map(str, names))
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1 or any(column.ndim > 1 for column in columns.values()):
        raise InputError(f"runs: columns of lengths {sorted(lengths)}; each takes one value for each run")
    return {name: c if c.dtype.kind in "iuf" else parsed([str(v) for v in c]) for name, c in columns.items()}


def _stacked(source: Any) -> Any:
    """A Dataset (or DataArray, of loss unless it has a name) of several dims as one of runs; anything else as it is.

    One that has `run` is one of runs already: what has further dims is no column of it.
    """
    if hasattr(source, "to_dataset") and not hasattr(source, "data_vars"):
        source = source.to_dataset(name=source.name or "loss")
    if not hasattr(source, "data_vars") or len(source.dims) < 2:
        return source
    if "run" in source.dims:
        return source.drop_dims({*source.dims} - {"run"})
    return source.stack(run=list(source.dims)).reset_index("run").reset_coords()


def check_names(table: str, names: Iterable[str]) -> None:
    """InputError if two columns have one name: which of them is meant cannot be known."""
    seen = set()
    for name in names:
        if name in seen:
            raise InputError(f"runs {table}: the column {name!r} stands twice; give each column a name of its own")
        seen.add(name)


def parsed(cells: list[str]) -> np.ndarray:
    """Floats if every cell that is not blank is a number (a blank is NaN), else text."""
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        return np.array(cells, dtype=str)


def is_number(cell: str) -> bool:
    """Whether a cell is a number as Python writes it."""
    try:
        float(cell)
    except ValueError:
        return False
    return True
