"""The one registry: names, functions, traits, and who may take a name."""

import numpy as np
import pytest

import moesim
from moesim.balance import placement, routing, sampling, structure, trace
from moesim.domains import curves, world
from moesim.errors import InputError
from moesim.laws.law import FORMS
from moesim.laws.repetition import REPETITIONS
from moesim.models.architecture import ARCHITECTURES
from moesim.registry import Policies, Registry

KINDS = (
    FORMS,
    REPETITIONS,
    ARCHITECTURES,
    world.world,
    trace.traces,
    curves.curves,
    routing.routing,
    routing.controls,
    routing.rewards,
    structure.structure,
    structure.ways,
    structure.criteria,
    sampling.sampling,
    placement.placement,
)


@pytest.mark.parametrize("registry", KINDS, ids=lambda registry: registry.kind)
def test_every_member_is_found_by_name_and_by_function(registry: Registry):
    for name, member in registry.items():
        assert registry.find(name) is registry.find(member.function) is member
    with pytest.raises(InputError, match=f"^{registry.kind}: no .* 'nothing'; it takes .*{next(iter(registry))}"):
        registry.find("nothing")


@pytest.fixture
def colours():
    """A kind of its own: one member, one trait, one shared key."""
    made = Policies("colour", {"every": 10}, warm=False)

    @made(warm=True)
    def red_(x, *, times: float = 1.0):
        return times * x

    return made


def test_options_are_bound_and_shared_keys_stand_apart(colours):
    policy, shared = colours.build({"policy": "red", "times": 3, "every": 5})
    assert (policy(2.0), shared, policy.traits) == (6.0, {"every": 5}, {"warm": True})
    assert colours.only("red")(2.0) == 2.0


def test_a_function_stands_for_its_name_registered_or_not(colours):
    assert colours.only(colours["red"].function).traits == {"warm": True}

    def blue(x, *, shift):
        return x + shift

    policy, shared = colours.build({"policy": blue, "shift": 1})
    assert (policy.name, policy(1), policy.traits, shared) == ("blue", 2, {"warm": False}, {"every": 10})
    assert list(colours) == ["red"]


WRONG = {
    "policy": ("rad", "colour: no policy 'rad'; it takes red; did you mean red?"),
    "none": (None, "colour: no policy None; it takes red"),
    "option": ({"policy": "red", "tims": 1}, "colour red: unknown option 'tims'; it takes every, times; did you mean"),
    "missing": ({"policy": lambda x, *, shift: x}, "no value for option 'shift'; give shift=VALUE"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_choices_are_named(name, colours):
    choice, message = WRONG[name]
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        colours.build(choice)


def test_a_name_is_taken_by_one_module(colours):
    def red(x):
        return x

    red.__module__ = "mine"
    with pytest.raises(InputError, match=f"colour red: {__name__} has that name already"):
        colours(red)
    with pytest.raises(InputError, match="no trait 'cold'"):
        colours(cold=True)(red)


def test_a_shipped_law_keeps_its_name():
    def hoffmann2022(total_params, tokens):
        return total_params * tokens

    with pytest.raises(InputError, match=r"law hoffmann2022: moesim\.laws\.dense has that name"):
        moesim.law("mine")(hoffmann2022)
    assert FORMS["hoffmann2022"].function.__module__ == "moesim.laws.dense"


def test_only_what_can_be_drawn_is_drawn():
    def everyone(z, tokens, alive, active):
        return np.ones(z.shape)

    with pytest.raises(InputError, match="routing everyone: fidelity=tokens draws tokens one by one"):
        routing.build({"policy": everyone, "fidelity": "tokens"})
    with pytest.raises(InputError, match="routing expert_choice: fidelity=tokens"):
        routing.build({"policy": "expert_choice", "fidelity": "tokens"})
    assert routing.build({"policy": everyone}).assign.traits == {"drawn": False, "sees_tokens": True, "tree": False}
    assert routing.build({"policy": "topk", "fidelity": "tokens"}).assign.traits["drawn"]


def test_structures_say_whether_they_grow():
    grows = {name: structure.build({"policy": name}).grows for name in structure.structure}
    assert [name for name, value in grows.items() if not value] == ["fixed"]
    assert structure.build({"policy": lambda view: []}).grows
