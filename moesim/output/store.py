"""Results on disk: files written whole or not at all, sealed with a checksum, and read back only if they are whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim import __version__
from moesim.config import path_of
from moesim.errors import InputError, NotWritten
from moesim.numerics.elementwise import slabs
from moesim.output.progress import progress

if TYPE_CHECKING:
    import xarray as xr

    from moesim.output.result import Stream

ENGINE = "h5netcdf"
_SLAB = 2**24  # values of a stream in memory at once
_CHECKSUM = "SHA-256 of all bytes before the last line, which holds it"
_SEAL = b"\nsha256 %s\n"
_SEALED = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")
_SEAL_LENGTH = len(_SEAL % (b"0" * 64))
_BLOCK = 2**20  # bytes hashed at once


def write_result(dataset: xr.Dataset, path: str | Path, streams: Mapping[str, Stream] | None = None) -> Path:
    """Write a Dataset, and slab by slab its streams, as netCDF4; whole, sealed and flushed, or not at all.

    NotWritten names the file if that fails.
    """
    streams = streams or {}
    held = json.loads(layout(dataset)) | {name: [list(stream.dims), "f"] for name, stream in streams.items()}
    with netcdf(path, dataset.assign_attrs(layout=json.dumps(held))) as (file, check):
        for name, stream in streams.items():
            _write_stream(file, name, stream, check)
    return Path(path)


def _write_stream(file: Any, name: str, stream: Stream, check: Callable[[], None]) -> None:
    variable = file.create_variable(name, tuple(stream.dims), float)
    variable.attrs.update({"units": stream.variable.unit, "long_name": stream.variable.long_name})
    cuts = list(slabs(stream.shape, _SLAB))
    with progress(len(cuts), "slab", name) as advance:
        for slab in cuts:
            variable[slab] = stream.fill(slab)
            check()
            advance(1)


@contextmanager
def netcdf(path: str | Path, dataset: xr.Dataset) -> Iterator[tuple[Any, Callable[[], None]]]:
    """A netCDF file that begins with a Dataset, and grows in the block: (h5netcdf.File, check).

    `check()` raises the first error of the disk, which is raised at the end of the block at the latest.
    """
    import h5netcdf
    from xarray.backends import H5NetCDFStore

    stamped = dataset.assign_attrs(moesim_version=__version__, checksum=_CHECKSUM)
    with whole(path) as temporary:
        with _Disk(temporary, "x+") as disk, h5netcdf.File(disk, "w") as file:
            stamped.dump_to_store(H5NetCDFStore(file))
            yield file, disk.check
        _seal(temporary)


class _Disk(io.FileIO):
    """A file that keeps an error of the disk to itself: HDF5 crashes the process when it closes a file on a full disk.

    What cannot be written is dropped, and the error raised by `check` or when the file is closed.
    """

    error: BaseException | None = None

    def write(self, data: Any) -> int:
        try:
            left = memoryview(data).cast("B")
            while left and not self.error:
                left = left[super().write(left) :]
        except BaseException as error:  # an interrupt too: HDF5 takes neither
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self.tell() if self.error else super().truncate(size)
        except BaseException as error:
            self.error = error
            return self.tell()

    def check(self) -> None:
        """Raise the first error there was."""
        if self.error:
            raise self.error

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self.check()


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` that is flushed and becomes `path` if the block ends well, else is removed.

    A link at `path` is replaced, what it points to is left alone. NotWritten names the file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.unlink(missing_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        raise NotWritten(error.errno, f"could not be written: {error.strerror or error}", str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def layout(dataset: xr.Dataset) -> str:
    """Dims and kind (f, i, b, U) of every variable as JSON: lets many results be collected without decoding each."""
    kinds = {name: "U" if v.dtype.kind == "O" else v.dtype.kind for name, v in dataset.variables.items()}  # text too
    return json.dumps({str(name): [list(v.dims), kinds[name]] for name, v in dataset.variables.items()})


# Reading back. A file ends with a line that holds the checksum of all before it: whatever bit is wrong, it shows before
# HDF5, which can loop or crash over a damaged file, has seen any of it.


def _seal(path: Path) -> None:
    with path.open("r+b") as file:
        digest = _digest(file, path.stat().st_size)
        file.write(_SEAL % digest.encode())


def _digest(file: Any, size: int) -> str:
    hashed, left = hashlib.sha256(), size
    while left and (block := file.read(min(_BLOCK, left))):
        hashed.update(block)
        left -= len(block)
    return hashed.hexdigest()


def _sealed(path: Path) -> bool:
    """Whether the file ends with a checksum; InputError if that is not the one of the rest."""
    size = path.stat().st_size - _SEAL_LENGTH
    with path.open("rb") as file:
        file.seek(max(size, 0))
        if not (seal := _SEALED.fullmatch(file.read())):
            return False
        file.seek(0)
        if _digest(file, size).encode() != seal[1]:
            raise InputError(f"{path}: damaged, or changed since it was written (its checksum is another)")
    return True


def attributes(path: Path) -> dict[str, str]:
    """The text attributes of a result file that is whole; InputError for any other file, whatever is wrong with it.

    A file without a checksum, of an earlier version, is whole if all of it can be read.
    """
    import h5py

    try:
        sealed = _sealed(path)
        with h5py.File(path, "r") as file:
            attrs = {name: value for name, value in file.attrs.items() if isinstance(value, str)}
            _read_all(file, values=not sealed)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a readable netCDF4 file ({' '.join(str(error).split())})") from None
    if not sealed and "checksum" in attrs:
        raise InputError(f"{path}: damaged, or written by another program (its checksum is gone)")
    if "moesim_version" not in attrs:
        raise InputError(f"{path}: not written by moesim (it carries no moesim_version)")
    return attrs


def _read_all(file: Any, values: bool) -> None:
    """Everything that the variables of a file claim to hold must be there; `values`: and be readable."""
    for name, variable in file.items():
        stored, needed = variable.id.get_storage_size(), variable.size * variable.dtype.itemsize
        if stored < needed and variable.attrs.get("CLASS") != b"DIMENSION_SCALE":
            raise InputError(f"{file.filename}: {name} should have {needed} bytes, the file holds {stored}")
        for slab in slabs(variable.shape, _SLAB) if values and stored >= needed else ():
            variable[slab]


def open_result(path: str | Path) -> xr.Dataset:
    """The Dataset of a result file, or of the one result in a run's directory, loaded into memory.

    Raises InputError if there is no such file, several, or one that moesim did not write or that is not whole.
    """
    import xarray as xr

    path = path_of("open_result", path)
    found = sorted(p for p in path.glob("*.nc") if not p.name.startswith(".")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        names = ", ".join(p.name for p in found if p.is_file()) or "none"
        raise InputError(f"{path}: {names} found; it takes a .nc file of moesim, or a directory with exactly one")
    attributes(found[0])
    try:
        dataset = xr.load_dataset(found[0], engine=ENGINE)
    except Exception as error:
        raise InputError(f"{found[0]}: not a readable netCDF4 file ({' '.join(str(error).split())})") from None
    dataset.attrs.pop("checksum", None)  # of the file, not of what becomes of the Dataset
    return dataset


def save(dataset: xr.Dataset, path: str | Path) -> Path:
    """Write a Dataset of moesim as its verbs do: whole or not at all, sealed with a checksum; `open_result` reads it.

    A file of `dataset.to_netcdf` opens too, but nothing tells whether it was damaged since.
    """
    return write_result(dataset, path)


def repeated(result: xr.Dataset, run: Callable[[str, dict[str, Any]], xr.Dataset]) -> str:
    """Run a result's verb again on the config it carries; '' if every number is the same, else what differs.

    Raises InputError if the result carries no plain config, or one of another version that does not run any more.
    """
    from moesim.output.provenance import plain

    if missing := {"verb", "config"} - set(result.attrs):
        raise InputError(f"the result carries no {missing.pop()}, so it cannot be repeated")
    try:
        config = plain(result.attrs["config"])
    except Exception as error:
        raise InputError(f"the config that the result carries: {' '.join(str(error).split())}") from None
    version = result.attrs["moesim_version"]
    try:
        again = run(result.attrs["verb"], config)
    except Exception as error:
        if version == __version__:
            raise
        said = " ".join(str(error).split())
        raise InputError(f"its config, of moesim {version}, does not run with {__version__}: {said}") from None
    new = () if version != __version__ else map(str, again.variables)  # another version may know more
    names = {*map(str, result.variables), *new}
    differ = [name for name in sorted(names) if not _same(result, again, name)]
    return f"differs in {', '.join(differ)} (made with moesim {version}, this is {__version__})" if differ else ""


def _same(a: xr.Dataset, b: xr.Dataset, name: str) -> bool:
    return name in a.variables and name in b.variables and a[name].variable.equals(b[name].variable)
