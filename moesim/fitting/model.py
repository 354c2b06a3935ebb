"""What is fitted: a law, alone or wrapped by a repetition, as one function of runs and of all its coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from moesim import config
from moesim.errors import InputError
from moesim.forms import Coefficient, Form
from moesim.laws import FORMS, REPETITIONS, Law, Repetition, law_from, load_law, repetition_from
from moesim.laws.wrapped import Wrapped
from moesim.numerics.derivative import Jet
from moesim.variables import SIZES

_NO_REPETITION = Repetition("none", REPETITIONS["none"], {}, excess="none")
_SCALED = (*SIZES, "flops_per_token")
_LOG_SIZES = np.linspace(np.log(1e2), np.log(1e16), 128)


@dataclass(frozen=True)
class Target:
    """A loss form, and a repetition form around it, whose coefficients are to be fitted.

    `known` are values at hand (published, or given): starting points, and what `hold` keeps. A repetition coefficient
    whose name the law uses too is called `repetition_NAME`.
    """

    form: Form
    repetition: Repetition
    known: Mapping[str, float]
    title: str
    law: Law | None = None

    @property
    def renamed(self) -> dict[str, str]:
        """The name here of each coefficient of the repetition."""
        own = self.form.coefficients
        return {c: f"repetition_{c}" if c in own else c for c in self.repetition.form.coefficients}

    @property
    def coefficients(self) -> dict[str, Coefficient]:
        """Every coefficient, the law's first, with its declaration."""
        wrapped = self.repetition.form.coefficients
        return {**self.form.coefficients, **{new: wrapped[old] for old, new in self.renamed.items()}}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The variables that runs must have."""
        wrapped = [name for name in self.repetition.form.inputs if name in ("unique_tokens", "density")]
        return tuple(dict.fromkeys([*self.form.inputs, *(["tokens", *wrapped] if self._repeats else [])]))

    @property
    def predicts(self) -> str:
        """The variable that is fitted: loss, unless the form says otherwise."""
        return self.form.predicts

    @property
    def _repeats(self) -> bool:
        return self.repetition.form.name != "none"

    def law_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The law's part of the values."""
        return {name: values[name] for name in self.form.coefficients}

    def repetition_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The repetition's part of the values, by the names that the repetition uses."""
        return {old: values[new] for old, new in self.renamed.items()}

    def at(self, runs: Mapping[str, np.ndarray]) -> Prediction:
        """The target at given runs: inputs by name, one value for each run."""
        return Prediction(self, runs, _Contexts.of(self, runs) if self.repetition.needs_taught_params else None)


@dataclass(frozen=True)
class Prediction:
    """The loss of given runs as a function of the coefficients (`Target.at`)."""

    target: Target
    runs: Mapping[str, np.ndarray]
    contexts: _Contexts | None
    known: np.ndarray | None = None

    def holding(self, constants: Mapping[str, float]) -> Prediction:
        """The same; if the constants fix the whole law, what the unique tokens can teach is worked out only once."""
        if self.contexts is None or not set(self.target.form.coefficients) <= set(constants):
            return self
        return replace(self, known=self.contexts.taught(self.target.law_values(constants)))

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Loss in nat/token; values are numbers, arrays (rows, 1) or Jets of them; shape (rows, runs)."""
        target, law = self.target, self.target.law_values(values)
        if not target._repeats:
            return target.form.function(**{name: self.runs[name] for name in target.form.inputs}, **law)
        wrapped = Wrapped(target.form, target.repetition)
        return wrapped.loss(self.runs, self._taught(law), law, target.repetition_values(values) or None)

    def _taught(self, law: Mapping[str, Any]) -> Any:
        if self.known is not None or self.contexts is None:
            return np.inf if self.known is None else self.known
        return self.contexts.taught(law)


@dataclass(frozen=True)
class _Contexts:
    """The distinct situations in which runs ask what their unique tokens can teach, and which run is in which.

    A size along the path scales all parameter-like inputs of the run together, FLOPs per token with them.
    """

    wrapped: Wrapped
    cells: Mapping[str, np.ndarray]
    of_run: np.ndarray

    @classmethod
    def of(cls, target: Target, runs: Mapping[str, np.ndarray]) -> _Contexts:
        counted = target.repetition.counted(runs)
        cells = {"unique_tokens": runs["unique_tokens"], "flops_per_token": np.full_like(counted, 6.0)}
        cells |= {name: runs[name] / counted for name in SIZES if name in runs}
        for name in target.form.inputs:
            if name == "compute":
                cells["flops_per_token"] = runs[name] / runs["tokens"] / counted
            elif name not in (*SIZES, "tokens"):
                cells[name] = runs[name]
        table = np.stack(np.broadcast_arrays(*cells.values()))
        _, first, of_run = np.unique(_rounded(table), axis=1, return_index=True, return_inverse=True)
        wrapped = Wrapped(target.form, target.repetition)
        return cls(wrapped, dict(zip(cells, table[:, first], strict=True)), of_run.reshape(-1))

    def taught(self, law: Mapping[str, Any]) -> Any:
        """Parameters, of the counted kind, that are compute-optimal for one pass over the unique tokens of each run.

        Coefficients may be arrays (rows, 1) or Jets, whose derivatives go through the optimum; shape (rows, runs).
        """
        params, _ = self.wrapped.taught_params(_path, self.cells, law, _LOG_SIZES)
        if not isinstance(params, Jet):
            return params[..., self.of_run]
        first = {key: np.broadcast_to(part, params.value.shape)[..., self.of_run] for key, part in params.first.items()}
        return Jet(params.value[..., self.of_run], first)


def _path(log_size: Any, cell: Mapping[str, Any]) -> dict[str, Any]:
    size = np.exp(log_size)
    return {name: value * size if name in _SCALED else value for name, value in cell.items()}


def _rounded(table: np.ndarray) -> np.ndarray:
    """To 12 digits, so that ratios which differ by rounding count as one situation."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 10.0 ** (np.floor(np.log10(np.abs(table))) - 12)
        rounded = np.round(table / scale) * scale
    return np.where((table == 0.0) | ~np.isfinite(table), table, rounded)


def target_of(law: Any, repetition: Any = "none") -> Target:
    """The Target of a law (a Law, a Form, a registered function, or the name or file of one) and a repetition.

    An object with both, such as a planning model, may be given as `law`. Raises InputError for anything else.
    """
    if isinstance(law, Target):
        return law
    if getattr(law, "law", None) is not None and getattr(law, "repetition", None) is not None:
        law, repetition = law.law, law.repetition
    form, known, title, source = _law_part(law)
    wrapped, at_hand = _repetition_part(repetition)
    target = Target(form, wrapped, known, title, source)
    return replace(target, known={**known, **{target.renamed[old]: value for old, value in at_hand.items()}})


def _repetition_part(repetition: Any) -> tuple[Repetition, dict[str, float]]:
    """(the repetition, its values at hand); coefficients that nobody published stand at a typical value meanwhile."""
    if isinstance(repetition, str | Path):
        return _repetition_from(repetition, config.read("repetition", repetition))
    if repetition is None:
        return _NO_REPETITION, {}
    if not isinstance(repetition, Repetition):
        raise InputError(f"fit: repetition={repetition!r}; it takes a name, a path or a moesim Repetition")
    return repetition, {name: float(value) for name, value in repetition.coefficients.items() if _single(value)}


def _repetition_from(name: str | Path, content: Mapping[str, Any]) -> tuple[Repetition, dict[str, float]]:
    given = {c: value for c, value in (content.get("coefficients") or {}).items() if value is not None}
    filled = {**_typical(REPETITIONS.get(str(content.get("form")))), **given}
    made = repetition_from(name, {**content, "coefficients": filled})
    return made, {c: float(made.coefficients[c]) for c in given}


def _typical(form: Form | None) -> dict[str, float]:
    """A typical value of each coefficient, for a file that leaves some open; nothing is known by it."""
    return {name: float(np.mean(spec.typical)) for name, spec in form.coefficients.items()} if form else {}


def target_from(
    law: str, law_content: Mapping[str, Any], repetition: str, repetition_content: Mapping[str, Any]
) -> Target:
    """The Target of the contents of a law's and a repetition's file; coefficients left open (null) are only fitted."""
    given = {c: v for c, v in (law_content.get("coefficients") or {}).items() if v is not None}
    filled = {**_typical(FORMS.get(str(law_content.get("form")))), **given}
    made = law_from(law, {**law_content, "coefficients": filled, "draws": ""})
    wrapped, at_hand = _repetition_from(repetition, {**repetition_content, "draws": ""})
    target = Target(made.form, wrapped, {c: float(made.coefficients[c]) for c in given}, made.name, made)
    return replace(target, known={**target.known, **{target.renamed[old]: value for old, value in at_hand.items()}})


def contents_of(target: Target) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of a law's and a repetition's file that `target_from` makes this Target of again."""
    law, own = target.law, target.repetition
    known = {name: target.known.get(name) for name in target.form.coefficients}
    about = {} if law is None else {"definitions": dict(law.definitions), "data_range": dict(law.data_range)}
    kept = {f.name: getattr(own, f.name) for f in fields(own) if f.name not in ("name", "form", "coefficients")}
    wrapped = {old: target.known.get(new) for old, new in target.renamed.items()}
    said = {key: value for key, value in kept.items() if value not in ("", (), {})}
    return {"form": target.form.name, "coefficients": known, **about}, {
        "form": own.form.name,
        "coefficients": wrapped,
        **said,
    }


def _law_part(law: Any) -> tuple[Form, dict[str, float], str, Law | None]:
    """(form, values at hand, title, the Law itself) of whatever names a law."""
    if isinstance(law, str | Path):
        law = _named(law)
    if isinstance(law, Law):
        known = {name: float(value) for name, value in law.coefficients.items() if _single(value)}
        return law.form, known, law.name, law
    if isinstance(law, Callable) and FORMS.get(getattr(law, "__name__", "")) is not None:
        law = FORMS[law.__name__]  # type: ignore[union-attr]
    if isinstance(law, Form):
        return law, {}, law.name, None
    raise InputError(f"fit: law={law!r}; it takes a Law, the name or file of one, or a function registered with @law")


def _named(name: str | Path) -> Any:
    """A coefficient file if there is one, else the form of that name without coefficients."""
    try:
        return load_law(name)
    except InputError:
        if str(name) in FORMS:
            return FORMS[str(name)]
        raise


def _single(value: Any) -> bool:
    return np.ndim(value) == 0
