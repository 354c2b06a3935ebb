"""Results on disk: netCDF files written whole or not at all, and read back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim import __version__
from moesim.errors import InputError
from moesim.numerics.elementwise import slabs

if TYPE_CHECKING:
    import xarray as xr

    from moesim.output.result import Stream

ENGINE = "h5netcdf"
_SLAB = 2**24  # values of a stream in memory at once


def write_result(dataset: xr.Dataset, path: str | Path, streams: Mapping[str, Stream] | None = None) -> Path:
    """Write a Dataset, and slab by slab its streams, as netCDF4 under a temporary name, then rename it.

    OSError names the file if that fails.
    """
    streams = streams or {}
    held = json.loads(layout(dataset)) | {name: [list(stream.dims), "f"] for name, stream in streams.items()}
    with whole(path) as temporary:
        dataset.assign_attrs(moesim_version=__version__, layout=json.dumps(held)).to_netcdf(temporary, engine=ENGINE)
        if streams:
            _write_streams(temporary, streams)
    return Path(path)


def _write_streams(path: Path, streams: Mapping[str, Stream]) -> None:
    import h5netcdf

    with h5netcdf.File(path, "a") as file:
        for name, stream in streams.items():
            variable = file.create_variable(name, tuple(stream.dims), float)
            variable.attrs.update({"units": stream.variable.unit, "long_name": stream.variable.long_name})
            for slab in slabs(stream.shape, _SLAB):
                variable[slab] = stream.fill(slab)


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` if the block ends well and is removed if it does not."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"could not write the result: {error.strerror or error}", str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def layout(dataset: xr.Dataset) -> str:
    """Dims and kind (f, i, b, U) of every variable as JSON: lets many results be collected without decoding each."""
    return json.dumps({str(name): [list(v.dims), v.dtype.kind] for name, v in dataset.variables.items()})


def open_result(path: str | Path) -> xr.Dataset:
    """The Dataset of a result file, or of the one result in a run's directory, loaded into memory.

    Raises InputError if there is no such file, several, or one that moesim did not write whole.
    """
    import xarray as xr

    path = Path(path)
    found = sorted(path.glob("*.nc")) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].is_file():
        names = ", ".join(p.name for p in found if p.is_file()) or "none"
        raise InputError(f"{path}: {names} found; it takes a .nc file of moesim, or a directory with exactly one")
    try:
        dataset = xr.load_dataset(found[0], engine=ENGINE)
    except Exception as error:
        raise InputError(f"{found[0]}: not a readable netCDF4 file ({error}); run the job again") from None
    if "moesim_version" not in dataset.attrs:
        raise InputError(f"{found[0]}: not written by moesim (it carries no moesim_version)")
    return dataset


def repeated(result: xr.Dataset, run: Callable[[str, dict[str, Any]], xr.Dataset]) -> str:
    """Run a result's verb again on the config it carries; '' if every number is the same, else what differs."""
    from omegaconf import OmegaConf

    if missing := {"verb", "config"} - set(result.attrs):
        raise InputError(f"the result carries no {missing.pop()}, so it cannot be repeated")
    config: Any = OmegaConf.to_container(OmegaConf.create(result.attrs["config"]))
    again = run(result.attrs["verb"], config)
    names = {*map(str, result.variables), *map(str, again.variables)}
    differ = [name for name in sorted(names) if not _same(result, again, name)]
    version = result.attrs["moesim_version"]
    return f"differs in {', '.join(differ)} (made with moesim {version}, this is {__version__})" if differ else ""


def _same(a: xr.Dataset, b: xr.Dataset, name: str) -> bool:
    return name in a.variables and name in b.variables and a[name].variable.equals(b[name].variable)
