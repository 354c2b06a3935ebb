"""Formulas as graphs: the same numbers and slopes as the functions they were run from, and nothing but numbers."""

import json
from itertools import product

import numpy as np
import pytest

import moesim
from moesim.config import choices
from moesim.errors import InputError
from moesim.numerics import trace
from moesim.numerics.trace import OPERATIONS, Graph, Untraceable, derivative, evaluated, read
from moesim.planning.formula import carried, formula
from moesim.planning.formula import read as read_formula

AT = {"compute": 1e21, "sparsity": 0.9, "unique_tokens": 3e9}
NOT_PLANNED = ("bhagia2024_hellaswag", "marin2026")  # of another kind than loss in size or tokens
GIVEN = {"lovelace2026": {"P": 0.01, "delta": 1.1, "kappa": 0.8}}


def model(law, repetition, architecture="proportional"):
    return moesim.Model(law, moesim.load_repetition(repetition, **GIVEN.get(repetition, {})), architecture)


def pairs():
    laws = [name for name in choices("law") if name not in NOT_PLANNED]
    return [*product(laws, ["muennighoff2023"]), *product(["abnar2025", "tian2025"], choices("repetition"))]


@pytest.mark.parametrize("architecture", ["proportional", "moe_transformer"])
def test_every_law_and_repetition_as_a_graph_gives_its_loss_and_slope(architecture):
    for law, repetition in pairs():
        it = model(law, repetition, architecture)
        held = formula(it)
        graph = read(json.loads(json.dumps(held["graph"])))
        for excess in (name.removeprefix("loss.") for name in held["graph"]["outputs"] if name.startswith("loss.")):
            one = it.counting(excess)
            cell = one.with_taught_params(AT)
            log_size = 18.0 if architecture == "proportional" else 7.0
            graph.outputs["slope"] = derivative(graph.outputs[f"loss.{excess}"], "log_size")
            taught = float(cell.get("taught_params", np.inf))
            given = {**held["values"], **AT, "log_size": log_size, "taught_params": taught, "tokens": np.nan}
            found = evaluated(graph, given)
            assert found[f"loss.{excess}"] == pytest.approx(float(one.loss(log_size, cell)), rel=1e-13), (
                law,
                repetition,
            )
            assert found["slope"] == pytest.approx(float(one.slope(log_size, cell)), rel=1e-10, abs=1e-13)
            assert found["active_params"] == pytest.approx(float(one.at(log_size, cell)["active_params"]), rel=1e-14)


# A formula that each operation stands in -> its values at x = 0.7, y = 2.5, against NumPy itself.
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_and_its_slope(name):
    graph, function = Graph(), OPERATIONS[name]
    x, y = graph.input("x"), graph.input("y")
    arguments = (x < y, x * y, y) if name == "where" else (x, y)[: function.nin]
    graph.outputs["value"] = function(*arguments)
    graph.outputs["slope"] = derivative(graph.outputs["value"], "x")

    def plain(x, y):
        return function(*((x < y, x * y, y) if name == "where" else (x, y)[: function.nin]))

    again = read(json.loads(json.dumps(graph.data())))
    for at in ((0.7, 2.5), (2.5, 0.7), (0.3, 0.3)):
        found = evaluated(again, dict(zip("xy", at, strict=True)))
        assert found["value"] == plain(*at)
        if at[0] != at[1]:  # else there may be a kink
            step = 1e-6
            slope = (float(plain(at[0] + step, at[1])) - float(plain(at[0] - step, at[1]))) / (2 * step)
            assert found["slope"] == pytest.approx(slope, rel=1e-8, abs=1e-9)


def test_clip_plain_conditions_and_logic_are_known_too():
    graph = Graph()
    x = graph.input("x")
    graph.outputs["clipped"] = np.clip(x, 0.0, 1.0)
    graph.outputs["chosen"] = np.where(True, x, 3.0)
    graph.outputs["within"] = np.where((x > 0) & ~(x > 1), 1.0, 0.0)
    found = {at: {k: float(v) for k, v in evaluated(graph, {"x": at}).items()} for at in (-2.0, 0.5, 7.0)}
    assert found[-2.0] == {"clipped": 0.0, "chosen": -2.0, "within": 0.0}
    assert found[0.5] == {"clipped": 0.5, "chosen": 0.5, "within": 1.0}
    assert found[7.0] == {"clipped": 1.0, "chosen": 7.0, "within": 0.0}


def test_powers_of_zero_have_the_slopes_of_the_fit():
    graph = Graph()
    x, y = graph.input("x"), graph.input("y")
    graph.outputs["by_base"] = derivative(x**y, "x")
    graph.outputs["by_exponent"] = derivative(x**y, "y")
    assert {k: float(v) for k, v in evaluated(graph, {"x": 0.0, "y": 0.5}).items()} == {"by_base": 0, "by_exponent": 0}
    assert float(evaluated(graph, {"x": 0.0, "y": 1.0})["by_base"]) == 1.0


UNTRACEABLE = {
    "branches on a value": lambda x: x if x > 1 else 1.0,
    "as a plain number": lambda x: __import__("math").exp(x),
    "needs a value as a plain number": lambda x: np.asarray(x) * 2.0,
    "uses numpy.interp": lambda x: np.interp(x, [0.0, 1.0], [0.0, 1.0]),
    "uses erf": lambda x: __import__("scipy.special").special.erf(x),
    "uses numpy.add.reduce": lambda x: np.add.reduce(x),
    "takes ndarray of shape (2,)": lambda x: x * np.array([1.0, 2.0]),
}


@pytest.mark.parametrize("said", UNTRACEABLE)
def test_what_a_graph_cannot_hold_is_refused_by_name(said):
    law = moesim.load_law("hoffmann2022")

    def mine2026(total_params, tokens, *, E, A, alpha, B, beta):
        return E + UNTRACEABLE[said](A * total_params**-alpha) + B * tokens**-beta

    form = moesim.laws.law.Form.of(mine2026, "own", law.form.coefficients)
    it = moesim.Model(moesim.Law("mine", form, law.coefficients), "none")
    with pytest.raises(Untraceable) as refused:
        formula(it)
    assert str(refused.value).startswith("law mine: ")
    assert said in str(refused.value)
    with pytest.raises(Untraceable, match="live=false"):
        read_formula(carried(it)["formula"])


HOSTILE = {
    "an operation": {"nodes": [["eval", 0]], "outputs": {}},
    "an argument after it": {"nodes": [["negative", 0]], "outputs": {}},
    "too few arguments": {"nodes": [["input", "x"], ["add", 0]], "outputs": {}},
    "a text as a number": {"nodes": [["number", "alert(1)"]], "outputs": {}},
    "a name with more than letters": {"nodes": [["input", "x];alert(1)//"]], "outputs": {}},
    "an output of code": {"nodes": [["number", 1.0]], "outputs": {"</script>": 0}},
    "an output nowhere": {"nodes": [["number", 1.0]], "outputs": {"loss": 1}},
    "a place that is a truth": {"nodes": [["number", 1.0]], "outputs": {"loss": False}},
    "a place that is a text": {"nodes": [["input", "x"], ["negative", "0"]], "outputs": {}},
    "no nodes": {"outputs": {}},
    "too many nodes": {"nodes": [["number", 1.0]] * 30_000, "outputs": {}},
    "no mapping": [],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_graph_from_a_file_holds_numbers_and_known_operations_alone(what):
    with pytest.raises(InputError, match="formula: "):
        read(HOSTILE[what])


@pytest.mark.parametrize("text", ["{", "[]", '{"graph": 3}', '{"graph": {"nodes": [], "outputs": {}}}', "[" * 100_000])
def test_a_formula_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="formula: "):
        read_formula(text)


def test_what_no_output_needs_is_not_kept():
    graph = Graph()
    x = graph.input("x")
    x * 3.0
    graph.outputs["y"] = x + 1.0
    assert graph.data() == {"nodes": [["input", "x"], ["number", 1.0], ["add", 0, 1]], "outputs": {"y": 2}}


def test_a_value_is_kept_once():
    graph = Graph()
    x = graph.input("x")
    graph.outputs["y"] = np.exp(x) * np.exp(x)
    assert len(graph.nodes) == 3


def test_the_law_alone_takes_the_tokens_that_it_is_given():
    """Kang et al.'s form at N_a = e^20 and 5e9 tokens, whatever the compute says of them."""
    held = formula(moesim.Model("kang2025_flame_huber", "muennighoff2023"))
    graph, law = read(held["graph"]), moesim.load_law("kang2025_flame_huber")
    given = {**held["values"], **AT, "log_size": 20.0, "taught_params": np.inf, "tokens": 5e9}
    assert evaluated(graph, given)["once"] == pytest.approx(law(active_params=np.exp(20.0), tokens=5e9), rel=1e-14)


def test_draws_and_their_median_come_along():
    import xarray as xr

    alpha = xr.DataArray([0.3, 0.34, 0.35], dims="draw")
    held = formula(moesim.Model(moesim.load_law("hoffmann2022", alpha=alpha), "none"))
    assert held["values"]["law.alpha"] == 0.34
    assert held["vary"] == {"law.alpha": {"dim": "draw", "values": [0.3, 0.34, 0.35]}}


def test_trace_names_every_operation_of_the_page():
    from moesim.pages.script import _WRITTEN

    assert set(_WRITTEN) == set(OPERATIONS) == set(trace._ARITY)
