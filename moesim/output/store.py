"""Results on disk: netCDF files written whole or not at all, and read back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from moesim import __version__
from moesim.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

ENGINE = "h5netcdf"


def write_result(dataset: xr.Dataset, path: str | Path) -> Path:
    """Write a Dataset as netCDF4 under a temporary name, then rename it; OSError names the file if that fails."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        dataset.assign_attrs(moesim_version=__version__).to_netcdf(temporary, engine=ENGINE)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"could not write the result: {error.strerror or error}", str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


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
