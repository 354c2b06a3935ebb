"""Where the YAML files are and how to read one: `conf/` of the checkout, else the copy inside the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moesim.errors import InputError

_PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The directory of the primary configs and groups."""
    checkout = _PACKAGE.parent / "conf"
    return checkout if (checkout / "sweep.yaml").is_file() else _PACKAGE / "conf"


def choices(group: str) -> list[str]:
    """Names of the files in a config group, sorted."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def read(group: str, name: str | Path) -> dict[str, Any]:
    """The content of `conf/GROUP/NAME.yaml`, or of a YAML or JSON file given by its path; numbers as 1e20 are numbers.

    Raises InputError if there is no such file or it is not a mapping.
    """
    path = Path(name) if str(name).endswith((".yaml", ".yml", ".json")) else conf_dir() / group / f"{name}.yaml"
    if not path.is_file():
        raise InputError(
            f"{group}: no {str(name)!r}; there are {', '.join(choices(group))}, or give the path of a .yaml file"
        )
    from omegaconf import OmegaConf

    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:
        raise InputError(f"{path}: not a readable YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds {type(content).__name__}, not a mapping of keys")
    return {str(key): value for key, value in content.items()}
