"""A law, a repetition and an architecture put together: the loss of a run of given compute, size, sparsity and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.errors import InputError
from moesim.laws.law import Law
from moesim.laws.load import content_of, load_law, load_repetition
from moesim.laws.repetition import Repetition
from moesim.laws.wrapped import Wrapped
from moesim.models.architecture import Architecture, load_architecture
from moesim.numerics.derivative import Jet, slope_of, value_of
from moesim.output.text import Page, shown

_PARTS = {
    "law": (Law, load_law),
    "repetition": (Repetition, load_repetition),
    "architecture": (Architecture, load_architecture),
}


@shown
@dataclass(frozen=True)
class Model:
    """What planning sweeps: a loss law, what repeated data is worth, and how parameters and FLOPs are counted.

    Each part may be given by the name of its file in `conf/`. In the methods, `log_size` is the architecture's log
    size and `cell` maps compute, sparsity, unique_tokens and any coefficient that varies (`law.NAME`,
    `repetition.NAME`, `architecture.NAME`) to numbers or arrays that broadcast; nothing is validated there.
    """

    law: Law
    repetition: Repetition
    architecture: Architecture

    def __init__(self, law: Any, repetition: Repetition | str | None = None, architecture: Any = "proportional"):
        """`law` may be a fit too: its law and, unless another is given, its repetition, both with their draws."""
        fitted = getattr(law, "draws_law", None)
        repetition = repetition or ("none" if fitted is None else law.draws_repetition)
        law = law if fitted is None else fitted
        for name, given in {"law": law, "repetition": repetition, "architecture": architecture}.items():
            kind, load = _PARTS[name]
            part = load(given) if isinstance(given, str) else given
            if not isinstance(part, kind):
                what = type(given).__name__
                raise InputError(f"Model: {name} is of type {what}; it takes a name or a moesim {kind.__name__}")
            object.__setattr__(self, name, part)
        if self.law.form.predicts != "loss" or self.law.inputs == ("compute",):
            said = f"{self.law.form.predicts} from {', '.join(self.law.inputs)}"
            raise InputError(f"Model: law {self.law.name} gives {said}; plans take a law of loss in size or tokens")
        self._check_anchor()

    def _check_anchor(self) -> None:
        """InputError if the excess is to be measured against a dense optimum that the law does not have."""
        if not self.repetition.needs_taught_params or self.repetition.taught != "dense":
            return
        first = {name: np.ravel(value)[0] for name, value in self.varying().items()}
        log_size = self.with_taught_params({"sparsity": 0.0, "unique_tokens": 1e10, **first})["taught_log_size"]
        if not self.architecture.log_size[0] < log_size < np.inf:
            raise InputError(
                f"Model: taught='dense', but law {self.law.name} has no optimum at sparsity 0; take own or a number"
            )

    @classmethod
    def of(cls, given: Any, repetition: Any = None, architecture: Any = None) -> Model:
        """A Model from a Model, a fit or a law (object, name, file); parts that are given take the place of its own."""
        own = vars(given) if isinstance(given, cls) else {"law": given}
        new = {"repetition": repetition, "architecture": architecture}
        return cls(**{**own, **{name: part for name, part in new.items() if part is not None}})

    def counting(self, excess: str) -> Model:
        """The model whose repetition counts other parameters as excess; InputError where that leaves nothing of it."""
        other = object.__new__(Model)  # what excess is measured against was checked
        vars(other).update(vars(self) | {"repetition": replace(self.repetition, excess=excess)})
        return other

    @property
    def parts(self) -> dict[str, Any]:
        """Law, repetition, excess and what measures it, and architecture, as `signed` takes them."""
        repetition = self.repetition
        taught = "" if repetition.excess == "none" else str(repetition.taught)
        return {**vars(self), "excess": repetition.excess, "taught": taught}

    @property
    def config(self) -> dict[str, Any]:
        """The groups of `conf/sweep.yaml` that give this model."""
        counting = {"form": self.architecture.form.name, "fields": self.architecture.fields}
        return {
            "law": content_of(self.law),
            "repetition": content_of(self.repetition),
            "architecture": {**counting, "flops": self.architecture.flops},
            "choices": {name: getattr(self, name).name for name in _PARTS},
        }

    def _page(self) -> Page:
        return [line for part in _PARTS for line in getattr(self, part)._page()]

    def varying(self) -> dict[str, Any]:
        """The coefficients and fields that are arrays, by the name that cells give them."""
        return {f"{part}.{name}": value for part, name, value in self._named() if np.ndim(value)}

    def at(self, log_size: Any, cell: Mapping[str, Any], **wanted: Any) -> dict[str, Any]:
        """Every quantity of the run: parameters, experts, FLOPs per token, tokens and what the cell gives."""
        at = self.described(log_size, cell, **wanted)
        if "compute" in cell:
            tokens, compute = cell["compute"] / at["flops_per_token"], cell["compute"]
        else:
            tokens, compute = cell["tokens"], cell["tokens"] * at["flops_per_token"]
        unique = cell["unique_tokens"]
        return {**at, "compute": compute, "unique_tokens": unique, "tokens": tokens}

    @property
    def one_sided(self) -> str:
        """Why the law has no best size, or nothing if it weighs size against tokens."""
        if {"tokens"} < {*self.law.inputs}:
            return ""
        return (
            f"law {self.law.name} takes {', '.join(self.law.inputs)}: without size and tokens both, no size is best but"
            " the largest or smallest; sweep it at sizes you give (active_params), or take another law, like abnar2025"
        )

    @property
    def thinned(self) -> Model:
        """The model with every other size of the grid that searches scan, for a first look."""
        form = self.architecture.form
        thin = replace(form, log_size=form.log_size[::2])
        return Model(self.law, self.repetition, replace(self.architecture, form=thin))

    @property
    def wrapped(self) -> Wrapped:
        """The law inside the repetition."""
        return Wrapped(self.law.form, self.repetition)

    def loss(self, log_size: Any, cell: Mapping[str, Any]) -> Any:
        """Loss in nat/token; with a repetition that measures excess, the cell must come from `with_taught_params`."""
        asked = self._asked()
        at = self.at(log_size, cell, wanted=asked)
        return self.wrapped.loss(
            {name: at[name] for name in asked},
            cell.get("taught_params", np.inf),
            self.law_coefficients(cell),
            self._values("repetition", cell),
        )

    def slope(self, log_size: Any, cell: Mapping[str, Any]) -> np.ndarray:
        """dL / d log size at constant compute."""
        return slope_of(self.loss(Jet(log_size, {"x": 1.0}), cell), "x")

    def report(self, name: str, log_size: Any, cell: Mapping[str, Any]) -> Any:
        """A further quantity that the law reports."""
        quantities = self.at(log_size, cell)
        inputs = {key: quantities[key] for key in self.law.inputs}
        return self.law.form.reports[name](**inputs, **self.law_coefficients(cell))

    def with_taught_params(self, cell: Mapping[str, Any], near: Any = None) -> dict[str, Any]:
        """The cell, with the parameters that its unique tokens can teach if the repetition asks for them.

        `taught_log_size` is their log size, sought from `near` if given. Values of the cell may be Jets.
        """
        if not self.repetition.needs_taught_params or not np.isfinite(cell["unique_tokens"]).any():
            return dict(cell)
        matters = ("sparsity", "unique_tokens", "law.", "architecture.")
        context = {name: value for name, value in cell.items() if name.startswith(matters)}
        law, grid = self.law_coefficients(cell), self.architecture.log_size
        several = near is None and self.architecture.power > 1
        params, log_size = self.wrapped.taught_params(self.described, context, law, grid, near=near, several=several)
        return {**cell, "taught_log_size": value_of(log_size), "taught_params": params}

    def kinks(self, cell: Mapping[str, Any]) -> list[np.ndarray]:
        """Log sizes at which the loss may have a kink: where the tokens are the unique ones, where the counted
        parameters are what those can teach, and where further repeats of either are worth nothing (and sizes
        between these two, where both are worth something). Not finite where there is none; shapes broadcast
        to the cells.
        """
        if not self.repetition.form.coefficients or not np.isfinite(cell["unique_tokens"]).any():
            return []
        given = {n: v for n, v in cell.items() if n.startswith(("sparsity", "architecture."))}
        sizes, (repeats, excesses) = self.architecture, ((0.0, *ends) for ends in self._ends(cell))
        with np.errstate(divide="ignore"):
            once = cell["compute"] / cell["unique_tokens"]
        passes = ({**given, "flops_per_token": once / (1.0 + times)} for times in repeats)
        # not a repeat too many by rounding: a penalty may start with an infinite slope there
        by_tokens = [sizes.size_of("flops_per_token", its, self.fields) + 1e-13 for its in passes]
        if "taught_params" not in cell:
            return by_tokens
        counted = f"{self.repetition.excess}_params"
        params = ({**given, counted: cell["taught_params"] * (1.0 + times)} for times in excesses)
        by_size = [sizes.size_of(counted, its, self.fields) for its in params]
        if self.repetition.taught == "own":
            by_size[0] = np.asarray(cell["taught_log_size"])
        ends = zip(by_tokens[1:], by_size[1:], strict=True)
        return [*by_tokens, *by_size, *(a + share * (b - a) for a, b in ends for share in np.arange(1, 8) / 8)]

    def _ends(self, cell: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """The repeats of tokens, and of parameters, at which their worth ends, if it does."""
        ends, values = self.repetition.form.ends, self._values("repetition", cell)
        return [values[name] for name in ends[:1]], [values[name] for name in ends[1:]]

    def described(self, log_size: Any, cell: Mapping[str, Any], **wanted: Any) -> dict[str, Any]:
        """Every quantity of the architecture at a size, in the cell."""
        return self.architecture.describe(log_size, cell["sparsity"], self.fields(cell), **wanted)

    def law_coefficients(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """The law's coefficients in the cell."""
        return self._values("law", cell)

    def fields(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """The architecture's fields in the cell."""
        return self._values("architecture", cell)

    def _asked(self) -> set[str]:
        """What law and repetition need of a run (every further one costs time)."""
        counted = {"active": {"active_params", "active_nonembedding_params"}, "total": {"total_params"}, "none": set()}
        density = {"density"} & {*self.repetition.form.inputs}
        return {*self.law.inputs, "tokens", "unique_tokens", *density, *counted[self.repetition.excess]}

    def _values(self, part: str, cell: Mapping[str, Any]) -> dict[str, Any]:
        return {name: cell.get(f"{part}.{name}", value) for name, value in self._mapping(part).items()}

    def _mapping(self, part: str) -> Mapping[str, Any]:
        own = getattr(self, part)
        return own.fields if part == "architecture" else own.coefficients

    def _named(self):
        return ((part, name, value) for part in _PARTS for name, value in self._mapping(part).items())
