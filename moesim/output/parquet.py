"""Parquet files, where pandas and an engine are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moesim.errors import InputError


def read_parquet(path: Path, owner: str) -> Any:
    """The file as a pandas DataFrame, its index fresh. InputError, said of `owner`, without an engine or if damaged."""
    try:
        import pandas

        return pandas.read_parquet(path).reset_index(drop=True)
    except ImportError:
        need = "is Parquet, which needs pandas with an engine: pip install 'moesim[parquet]'; or save it as .csv"
        raise InputError(f"{owner} {path.name}: {need}") from None
    except Exception as error:  # every engine has its own
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{owner} {path.name}: not a readable Parquet file ({reason}); write it again") from None
