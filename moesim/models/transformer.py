"""Dense and mixture-of-experts transformers: what they hold, and FLOPs per token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from moesim.config import read
from moesim.errors import InputError
from moesim.models.conventions import ACTIVE_CONVENTIONS, CONVENTIONS, TOTAL_CONVENTIONS, Setting
from moesim.models.description import Description
from moesim.models.huggingface import description, in_keys
from moesim.models.operations import choose
from moesim.output.text import Page, count, shown


@shown
@dataclass(frozen=True)
class Transformer(Description):
    """A transformer by its fields (see Description), from a file, or from a Hugging Face `config.json`."""

    def _page(self) -> Page:
        told = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        told = {name: str(value) if name == "variants" else value for name, value in told.items() if name != "name"}
        sizes = f"{count(self.total_params)} parameters, {count(self.active_params)} active"
        return [f"Transformer {self.name}: {sizes}", told]

    @classmethod
    def from_config(cls, config: str | Path | Mapping[str, Any], name: str = "") -> Transformer:
        """From a Hugging Face `config.json`: its path, its directory or its content as a mapping.

        `name`: what to call it (else by the config or its directory). Raises InputError for an unknown family
        (`model_type`), a missing key, a value that a key does not take, or an impossible shape.
        """
        given, keys = description(config)
        try:
            return cls(**{**given, "name": name or given["name"]})
        except InputError as error:
            raise in_keys(error, keys) from None

    @classmethod
    def load(cls, name: str | Path) -> Transformer:
        """From `conf/model/NAME.yaml`, a YAML file of that kind, or a `config.json` (its path or directory)."""
        if str(name).endswith(".json") or Path(name).is_dir():
            return cls.from_config(name)
        return cls.from_spec(Path(name).stem, read("model", name))

    @classmethod
    def from_spec(cls, name: str, spec: Mapping[str, Any]) -> Transformer:
        """From the mapping `transformer` of a YAML file; InputError for an unknown or missing field."""
        given, accepted = spec.get("transformer"), [f.name for f in fields(cls)]
        if not isinstance(given, Mapping):
            raise InputError(f"{name}: transformer={given!r}; it takes a mapping of {', '.join(accepted)}")
        for key in given:
            if key not in accepted:
                raise InputError(f"{name}: unknown field {key!r}; it takes {', '.join(accepted)}")
        for key in accepted[:4]:
            if key not in given:
                raise InputError(f"{name}: no {key!r}; give {key} as a whole number")
        return cls(**{"name": name, **given})

    def total_params_as(self, convention: str) -> int:
        """Total parameters by a convention: a row of TOTAL_CONVENTIONS."""
        return choose("total_params_as", convention, TOTAL_CONVENTIONS)(self)

    def active_params_as(self, convention: str) -> int:
        """Active parameters by a publisher's convention: a row of ACTIVE_CONVENTIONS."""
        return choose("active_params_as", convention, ACTIVE_CONVENTIONS)(self)

    def forward_flops(self, sequence: int = 0, mask: str = "causal", mtp: bool = False, form: str = "trained") -> Any:
        """Forward FLOP per token: 2 per weight that multiplies, and the attention core over `sequence` tokens.

        `sequence` 0 leaves the core out. `mask`: full, causal (T/2) or causal_diagonal ((T + 1)/2); see `keys_seen`.
        `form`: trained or executed, a row of `description.FORMS`.
        """
        return self.network(sequence, mask, mtp, form).total(1).forward

    def training_flops(
        self,
        sequence: int = 0,
        convention: str = "exact",
        mask: str = "causal",
        recompute: str = "none",
        mtp: bool = False,
        form: str = "trained",
    ) -> Any:
        """Training FLOP per token, without the update, by a row of `moesim.models.conventions.CONVENTIONS`.

        `mask`, `recompute` (a row of `network.RECOMPUTE`), `mtp` and `form` are for `exact`; a framework's convention
        prescribes its own mask and takes `mtp` only where it counts the prediction modules.
        """
        setting = Setting(sequence, mask, recompute, mtp, form)
        return choose("convention", convention, CONVENTIONS)(self, setting)
