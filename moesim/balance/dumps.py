"""Recorded loads as people have them: tables, per-token routing, dumps of ranks and servers, read into arrays.

CSV (also ; or tab) or Parquet with a row for each count (`window, layer, expert, count`; with `rank` the ranks add up)
or for each token (`seq, e1..eK`), .npy, .json of SGLang and vLLM, .pt without its code: only plain tensors are taken,
and the loads.nc of `moesim lab`. In a folder the files of the ranks of a window add up.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.output.parquet import read_parquet

# What the columns of a table are called elsewhere.
_NAMES = {
    "window": ("window", "step", "iteration", "forward_pass_id"),
    "layer": ("layer", "layer_id", "layer_idx"),
    "expert": ("expert", "expert_id"),
    "count": ("count", "tokens", "load", "hits"),
}
# Keys of dumps that hold loads by layer and expert: SGLang's recorder, vLLM's, those of load histories.
_HOLDERS = ("logical_count", "logical_expert_load", "expert_load", "load_history", "records")
_CHOICE = re.compile(r"(?:e|expert_?)(\d+)")
_RANK = re.compile(r"[._-]*rank[._-]*\d+", re.IGNORECASE)
_STAMP = re.compile(r"[._-]*timestamp[\d.]*", re.IGNORECASE)
_WINDOWS = 8  # of a file of tokens that says nothing of sequences


@dataclass(frozen=True)
class Dump:
    """Loads (window, layer, expert), NaN where a layer has no such expert, and what a file says beside them.

    `active` experts of a token, where rows are tokens; `source` (window,): most tokens of a rank over the mean.
    """

    loads: np.ndarray
    windows: tuple[str, ...]
    layers: tuple[str, ...]
    active: int | None = None
    source: np.ndarray | None = None


def read_dump(path: str, tokens_per_window: int | None = None, trajectory: Any = None) -> Dump:
    """The Dump of a file, or of a folder whose files are windows, or the ranks of windows (`rank3_step100.npy`).

    `tokens_per_window`: of a table of tokens; `trajectory`: of several in a loads.nc, by name or number. Raises
    InputError for what is not there, not of a known kind, negative, not a number, missing or there twice.
    """
    place = Path(path)
    place = place / "loads.nc" if (place / "loads.nc").is_file() else place
    if not place.exists():
        raise InputError(
            f"world trace: no file {path!r}; give a table, a dump (.npy, .json, .pt, .nc) or a folder of dumps"
        )
    if place.suffix == ".nc":
        return _of_lab(place, trajectory)
    if trajectory is not None:
        raise InputError(f"world trace {place.name}: trajectory={trajectory} is of a loads.nc; leave it out")
    dump = _folder(place) if place.is_dir() else _single(place, tokens_per_window)
    if tokens_per_window is not None and dump.active is None:
        raise InputError(f"world trace {place.name}: tokens_per_window={tokens_per_window} is of tables of tokens")
    return dump


def _single(place: Path, tokens_per_window: int | None) -> Dump:
    if place.suffix in _READERS:
        return _of_array(place.name, _READERS[place.suffix](place))
    return _table(place, tokens_per_window)


def _of_lab(path: Path, trajectory: Any) -> Dump:
    """A trajectory of the loads of `moesim lab`: all domains together, windows named by the step that ends them."""
    from moesim.output.store import open_result

    data, owner = open_result(path), f"world trace {path.name}"
    dims = {"trajectory", "window", "layer", "domain", "expert"}
    if "loads" not in data or set(data["loads"].dims) != dims:
        raise InputError(f"{owner}: no loads with dims {', '.join(sorted(dims))}; give the loads.nc of moesim lab")
    own = data.isel(trajectory=_chosen(owner, data, trajectory))
    loads = own["loads"].sum("domain", min_count=1).transpose("window", "layer", "expert").values
    there = np.isfinite(loads)
    windows, experts = there.any(axis=(1, 2)), there.any(axis=(0, 1))
    steps = own["window_step"].values[windows].astype(int).tolist()
    dump = _of_array(path.name, loads[windows][..., experts])
    return replace(dump, windows=tuple(map(str, steps)), active=int(own["active_experts"]))


def _chosen(owner: str, data: Any, trajectory: Any) -> int:
    names = [str(name) for name in data.trajectory.values]
    numbers = {str(i): i for i in range(len(names))} | {name: i for i, name in enumerate(names)}
    if trajectory is None and len(names) == 1:
        return 0
    if str(trajectory) not in numbers:
        told = [f"{i} {name} ({data.arm.values[i]}, seed {data.seed.values[i]})" for i, name in enumerate(names)]
        wrong = f"{len(names)} trajectories" if trajectory is None else f"no trajectory {trajectory!r}"
        raise InputError(f"{owner}: {wrong}; give world.trajectory=NUMBER or NAME of {', '.join(told[:16])}")
    return numbers[str(trajectory)]


def _folder(place: Path) -> Dump:
    kinds = (*_READERS, *_TABLES)
    files = sorted((f for f in place.iterdir() if f.suffix in kinds), key=lambda f: _natural(f.name))
    if not files:
        raise InputError(f"world trace: {place} holds no dump; it takes files of {', '.join(kinds)}")
    if all(file.suffix in _TABLES for file in files):
        return _tables(files, place)
    files = [file for file in files if file.suffix in _READERS]
    grouped: dict[str, list[np.ndarray]] = {}
    for file in files:
        name = _RANK.sub("", file.stem).strip("._-") or "0"
        grouped.setdefault(name, []).append(_of_array(file.name, _READERS[file.suffix](file)).loads)
    shapes = {part.shape for parts in grouped.values() for part in parts}
    if len(shapes) > 1:
        raise InputError(f"world trace: dumps in {place} have shapes {sorted(shapes)}; they must be alike")
    loads = np.concatenate([np.sum(parts, axis=0) for parts in grouped.values()])
    each = next(iter(shapes))[0]
    names = [f"{name}.{i}" if each > 1 else name for name in grouped for i in range(each)]
    source = np.concatenate([_source(np.stack(parts)) for parts in grouped.values()])
    return Dump(loads, tuple(names), _numbered(loads.shape[1]), source=source)


def _source(parts: np.ndarray) -> np.ndarray:
    """Most tokens that start at a rank over the mean (window,), from counts (rank, window, layer, expert).

    Where no expert is counted by two ranks they are the experts' homes and say nothing of where tokens start: 1.
    """
    counts = np.nan_to_num(parts)
    if ((counts > 0).sum(axis=0) <= 1).all():
        return np.ones(counts.shape[1])
    totals = counts.sum(axis=(2, 3))
    return np.maximum(totals.max(axis=0) / np.maximum(totals.mean(axis=0), 1e-300), 1.0)


def _tables(files: list[Path], place: Path) -> Dump:
    """Tables of counts, one for each rank of a window; what a rank did not serve it may leave out."""
    rows, ranks = [], []
    for file in files:
        name = _STAMP.sub("", _RANK.sub("", file.stem)).strip("._-") or "0"
        own = _plain(f"world trace {file.name}", _rows(file))
        rows += [{**row, "window": name if row["window"] == "" else row["window"]} for row in own]
        ranks += [file.name] * len(own)
    return _ranks(f"world trace {place}", rows, ranks)


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


def _of_array(name: str, loads: np.ndarray) -> Dump:
    """A Dump of an array (layer, expert) or (window, layer, expert)."""
    loads = loads[None] if loads.ndim == 2 else loads
    if loads.ndim != 3 or loads.size == 0:
        raise InputError(
            f"world trace {name}: shape {loads.shape}; it takes (layer, expert) or (window, layer, expert)"
        )
    if (loads < 0).any() or np.isinf(loads).any():
        raise InputError(
            f"world trace {name}: a count of {loads[(loads < 0) | np.isinf(loads)][0]:g}; it takes 0 or more"
        )
    return Dump(loads, _numbered(len(loads)), _numbered(loads.shape[1]))


def _npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False).astype(float)
    except (ValueError, EOFError) as error:
        raise InputError(f"world trace {path.name}: no plain NumPy array ({error})") from None


def _json(path: Path) -> np.ndarray:
    try:
        return _held(path.name, json.loads(path.read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise InputError(f"world trace {path.name}: no JSON ({error})") from None


def _held(name: str, content: Any) -> np.ndarray:
    """The array that a dump holds: numbers nested in lists, or under one of the known keys; windows in a list."""
    if isinstance(content, np.ndarray):
        return content.astype(float)
    if isinstance(content, Mapping):
        for key in _HOLDERS:
            if key in content:
                return _held(name, content[key])
        raise InputError(
            f"world trace {name}: none of {', '.join(_HOLDERS)} in it; it has {', '.join(map(str, content))}"
        )
    if isinstance(content, Sequence) and content and isinstance(content[0], Mapping | np.ndarray):
        return np.stack([_held(name, one) for one in content])
    return _rectangle(name, content)


def _rectangle(name: str, nested: Any) -> np.ndarray:
    """Nested lists as an array; where layers have different numbers of experts the shorter end in NaN."""
    if not isinstance(nested, Sequence) or isinstance(nested, str) or not nested:
        raise InputError(f"world trace {name}: {str(nested)[:40]!r} is no list of counts")
    if not isinstance(nested[0], Sequence):
        try:
            return np.array(nested, dtype=float)
        except (TypeError, ValueError):
            raise InputError(f"world trace {name}: {str(nested)[:40]!r} are no counts") from None
    parts = [_rectangle(name, part) for part in nested]
    shape = np.max([part.shape for part in parts], axis=0)
    return np.stack(
        [np.pad(p, [(0, n - m) for n, m in zip(shape, p.shape, strict=True)], constant_values=np.nan) for p in parts]
    )


# Storage classes of plain numbers, by the name that a .pt file gives them.
_PLAIN = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *rest: Any) -> np.ndarray:
    if len(size) != len(stride) or any(n < 0 for n in (offset, *size, *stride)):
        raise pickle.UnpicklingError("a tensor of an impossible shape")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage):
        raise pickle.UnpicklingError("a tensor that is longer than what is stored")
    bytes_ = storage.dtype.itemsize
    return np.lib.stride_tricks.as_strided(storage[offset:], size, [s * bytes_ for s in stride]).astype(float)


class _Plain(pickle.Unpickler):
    """Reads the structure of a .pt file and nothing that runs: dicts, lists, numbers and plain tensors."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str):
        super().__init__(io.BytesIO(archive.read(f"{prefix}data.pkl")))
        self.archive, self.prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _PLAIN:
            return name
        raise pickle.UnpicklingError(f"{module}.{name}, which is no plain tensor")

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _place, count = pid
        if kind != "storage" or storage not in _PLAIN or not str(key).isdigit():
            raise pickle.UnpicklingError(f"{kind} {storage}, which is no plain tensor")
        return np.frombuffer(self.archive.read(f"{self.prefix}data/{key}"), dtype=_PLAIN[storage])[: int(count)]


def _pt(path: Path) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
            return _held(path.name, _Plain(archive, pickled.removesuffix("data.pkl")).load())
    except InputError:
        raise
    except Exception as error:  # whatever a foreign file holds
        raise InputError(
            f"world trace {path.name}: not taken: {error}; a .pt file may hold plain tensors in dicts and lists, saved "
            "by torch.save; save the counts as .npy"
        ) from None


_READERS = {".npy": _npy, ".json": _json, ".pt": _pt}
_TABLES = (".csv", ".parquet")


def _table(path: Path, tokens_per_window: int | None) -> Dump:
    rows = _rows(path)
    owner = f"world trace {path.name}"
    if choices := sorted((c for c in rows[0] if _CHOICE.fullmatch(c)), key=_natural):
        return _tokens(owner, rows, choices, tokens_per_window)
    plain = _plain(owner, rows)
    if "rank" in rows[0]:
        return _ranks(owner, plain, [row["rank"] for row in rows])
    dump = counted(owner, plain)
    return replace(dump, active=int(float(rows[0]["k"]))) if rows[0].get("k") else dump


def _plain(owner: str, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows with the columns window (empty if there is none), layer, expert and count, whatever they are called."""
    names = {name: next((c for c in known if c in rows[0]), None) for name, known in _NAMES.items()}
    for name in ("layer", "expert", "count"):
        if names[name] is None:
            raise InputError(
                f"{owner}: no column {name!r}; it takes window, layer, expert, count, or a row for each token with "
                f"seq, e1, e2, ...; it has {', '.join(rows[0])}"
            )
    return [{name: row[column] if column else "" for name, column in names.items()} for row in rows]


def _rows(path: Path) -> list[dict[str, str]]:
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"world trace {path.name}: no UTF-8 text; save it as UTF-8") from None
    head = text.partition("\n")[0]
    rows = list(csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=head.count)))
    if not rows:
        raise InputError(f"world trace {path.name}: no rows below its head")
    return [{str(key).strip(): str(value).strip() for key, value in row.items()} for row in rows]


def _parquet(path: Path) -> list[dict[str, str]]:
    """Rows of a Parquet file; a column of lists holds the experts of a token."""
    frame = read_parquet(path, "world trace")
    if frame.empty:
        raise InputError(f"world trace {path.name}: no rows")
    for name in [name for name in frame if isinstance(frame[name].iloc[0], list | np.ndarray)][:1]:
        experts = type(frame)(frame.pop(name).map(list).tolist())
        frame[[f"e{i + 1}" for i in range(experts.shape[1])]] = experts
    return frame.convert_dtypes().astype(str).to_dict("records")


def _ranks(owner: str, rows: list[dict[str, str]], rank: list[str]) -> Dump:
    """Counts of several ranks: each must be there once, and they add up."""
    own = [
        counted(f"{owner}, rank {r}", [row for row, s in zip(rows, rank, strict=True) if s == r], rows)
        for r in dict.fromkeys(rank)
    ]
    parts = np.stack([np.nan_to_num(dump.loads) for dump in own])
    there = np.any([np.isfinite(dump.loads) for dump in own], axis=0)
    loads = np.where(there, parts.sum(axis=0), np.nan)
    return Dump(loads, own[0].windows, own[0].layers, source=_source(parts))


def counted(owner: str, rows: Sequence[Mapping[str, str]], all_rows: Sequence[Mapping[str, str]] | None = None) -> Dump:
    """The Dump of rows of counts; each combination must be there once, unless a layer has no such expert in any window.

    With `all_rows` these are those of one rank, which may lack what it did not serve.
    """
    named = rows if all_rows is None else all_rows
    windows = list(dict.fromkeys(row["window"] or "0" for row in named))
    layers, experts = (sorted({row[key] for row in named}, key=_natural) for key in ("layer", "expert"))
    places = [{name: i for i, name in enumerate(names)} for names in (windows, layers, experts)]
    loads = np.full((len(windows), len(layers), len(experts)), np.nan)
    for row in rows:
        keys = (row["window"] or "0", row["layer"], row["expert"])
        place = tuple(where[key] for where, key in zip(places, keys, strict=True))
        if not np.isnan(loads[place]):
            raise InputError(
                f"{owner}: window {row['window']}, layer {row['layer']}, expert {row['expert']} stands twice; "
                "add the two counts, or leave one out"
            )
        loads[place] = _count(owner, row)
    if all_rows is None:
        _check_whole(owner, loads, windows, layers, experts)
    return Dump(loads, tuple(windows), tuple(layers))


def _check_whole(owner: str, loads: np.ndarray, windows: list, layers: list, experts: list) -> None:
    last = np.where(np.isfinite(loads).any(axis=0), np.arange(len(experts)), -1).max(axis=1)
    expected = np.arange(len(experts)) <= last[:, None]
    lacking = np.argwhere(np.isnan(loads) & expected)
    if len(lacking):
        w, y, e = (int(i) for i in lacking[0])
        raise InputError(
            f"{owner}: no count for window {windows[w]}, layer {layers[y]}, expert {experts[e]}; give 0 if idle"
        )


def _count(owner: str, row: Mapping[str, str]) -> float:
    try:
        value = float(row["count"])
    except (TypeError, ValueError):
        raise InputError(f"{owner}: count={row['count']!r} is not a number; it takes 0 or more") from None
    if not value >= 0 or np.isinf(value):
        raise InputError(
            f"{owner}: count={value:g} of layer {row['layer']}, expert {row['expert']}; it takes 0 or more"
        )
    return value


def _tokens(owner: str, rows: list[dict[str, str]], choices: list[str], tokens_per_window: int | None) -> Dump:
    """Counts of rows that are tokens: `window` or `seq` tells the window, else so many rows of a layer make one."""
    try:
        chosen = np.array([[int(row[c]) for c in choices] for row in rows])
    except ValueError:
        raise InputError(f"{owner}: an expert that is no whole number in {', '.join(choices)}") from None
    if (chosen < 0).any():
        raise InputError(f"{owner}: expert {chosen.min()}; it takes 0 or more")
    ordered = np.sort(chosen, axis=1)
    if (twice := (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)).any():
        raise InputError(
            f"{owner}: row {int(np.argmax(twice)) + 1} names an expert twice; a token's experts are distinct"
        )
    layers = sorted({row.get("layer", "0") for row in rows}, key=_natural)
    layer = np.array([layers.index(row.get("layer", "0")) for row in rows])
    windows, window = _windows_of(rows, layer, tokens_per_window)
    loads = np.zeros((len(windows), len(layers), int(chosen.max()) + 1))
    np.add.at(loads, (window[:, None], layer[:, None], chosen), 1.0)
    return Dump(loads, tuple(windows), tuple(layers), active=len(choices))


def _windows_of(rows: list[dict[str, str]], layer: np.ndarray, size: int | None) -> tuple[list[str], np.ndarray]:
    column = next((c for c in ("window", "seq") if c in rows[0]), None)
    names = list(dict.fromkeys(row[column] for row in rows)) if column else []
    if size is None and column and 2 * len(names) <= len(rows) // (int(layer.max()) + 1):
        place = {name: i for i, name in enumerate(names)}
        return names, np.array([place[row[column]] for row in rows])
    order = np.empty(len(rows), dtype=int)  # of a token among those of its layer
    for one in np.unique(layer):
        order[layer == one] = np.arange((layer == one).sum())
    size = size or max(-(-(int(order.max()) + 1) // _WINDOWS), 1)
    return [str(i) for i in range(int(order.max()) // size + 1)], order // size
