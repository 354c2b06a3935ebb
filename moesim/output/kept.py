"""Parts of long work that outlive it: what was done before a kill is read back by the next run of the same config."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim import __version__
from moesim.errors import InputError
from moesim.output.provenance import as_yaml
from moesim.output.store import open_result, write_result

if TYPE_CHECKING:
    import xarray as xr

Keep = Callable[[str, Callable[[], "xr.Dataset"]], "xr.Dataset"]


def nothing(name: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """Make a part and keep nothing."""
    return make()


@dataclass(frozen=True)
class _Kept:
    """Makes each part once: what lies in `folder` is read, anything else made and put there."""

    folder: Path

    def __call__(self, name: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
        path = self.folder / f"{name}.nc"
        try:
            return open_result(path)
        except (InputError, OSError):  # not there, or damaged when it was killed
            self.folder.mkdir(parents=True, exist_ok=True)
            write_result(make(), path)
            return open_result(path)


@contextmanager
def kept(verb: str, config: Mapping[str, Any]) -> Iterator[Keep]:
    """A function `keep(name, make)` that makes each part of this work once, even if the process is killed between.

    It may be sent to other processes. Parts lie in `outputs/VERB/unfinished`, under a name that stands for version and
    config, and go when all is done.
    """
    digest = hashlib.sha256(f"{__version__}\n{as_yaml(config)}".encode()).hexdigest()[:16]
    folder = Path("outputs") / verb / "unfinished" / digest
    yield _Kept(folder)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # other work is unfinished still
        folder.parent.rmdir()
