"""Axes and spaces: what is accepted, what is refused, how dims come out."""

import numpy as np
import pytest
import xarray as xr

from moesim import InputError, Model, load_law, optimum
from moesim.numerics.axes import axis
from moesim.planning.space import Space

MODEL = Model("abnar2025", "muennighoff2023", "moe_transformer")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (np.float32(2), 2.0),
        ([1, 2.5], [1.0, 2.5]),
        ((5,), [5.0]),
        ([3, 1, 2], [3.0, 1.0, 2.0]),  # kept in their order
        ({"linspace": [0, 1, 3]}, [0.0, 0.5, 1.0]),
        ({"geomspace": [1, 100, 3]}, [1.0, 10.0, 100.0]),
        ([1, float("inf")], [1.0, np.inf]),
        (np.arange(3), [0.0, 1.0, 2.0]),
    ],
)
def test_axis(value, expected):
    found = axis("x", value)
    assert found == pytest.approx(expected)
    assert np.asarray(found).dtype == float


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "x: True is not an axis"),
        ("1", "x: '1' is not an axis"),
        ([], r"x: \[\] is not an axis"),
        ([[1, 2]], "is not an axis"),
        ([1, "2"], "x: '2' is not an axis"),
        (None, "x: None is not an axis"),
        ([1, 1], "x: the value 1 stands twice"),
        ({}, "x: {} is not an axis"),
        ({"linspace": [0, 1, 3], "geomspace": [1, 2, 3]}, "is not an axis"),
        ({"linspace": 3}, r"x: linspace: 3; it takes \[first, last, n\]"),
        ({"linspace": [0, 1, 1]}, "x: linspace: n=1; it takes a whole number of points"),
        ({"linspace": [0, 1, 2.5]}, "x: linspace: n=2.5"),
        ({"linspace": [0, 1, True]}, "x: linspace: n=True"),
        ({"linspace": [0, float("inf"), 3]}, "the ends must be finite"),
        ({"geomspace": [-1, 1, 3]}, "the ends must be finite, of geomspace above 0"),
    ],
)
def test_axis_refuses(value, message):
    with pytest.raises(InputError, match=message):
        axis("x", value)


def test_dims_come_in_the_order_of_the_table():
    axes = {"active_params": [1e8, 1e9], "granularity": [1, 2], "unique_tokens": [1e9, 2e9], "compute": [1e19, 1e20]}
    space = Space.of(MODEL, {"sparsity": 0.5, **axes})
    assert list(space.sizes) == ["compute", "unique_tokens", "granularity", "active_params"]
    assert space.context["compute"].shape == (2, 1, 1, 1)
    assert space.context["architecture.granularity"].shape == (1, 1, 2, 1)
    assert space.context["sparsity"] == 0.5


def test_defaults_are_dense_and_unlimited():
    context = Space.of(MODEL, {"compute": 1e20}).context
    assert context == {"compute": 1e20, "sparsity": 0.0, "unique_tokens": np.inf}


def test_scalars_are_coordinates_by_their_own_names():
    assert Space.of(MODEL, {"compute": 1e20, "granularity": 2}).coords.keys() == {"compute", "granularity"}


def test_arrays_of_the_model_span_dims():
    law = load_law("abnar2025").with_coefficients(e=xr.DataArray([0.9, 1.0, 1.1], dims="draw"))
    space = Space.of(Model(law), {"compute": [1e19, 1e20]})
    assert dict(space.sizes) == {"compute": 2, "draw": 3}
    assert space.context["law.e"].shape == (1, 3)


def test_variable_keeps_the_dims_along_which_it_varies():
    space = Space.of(MODEL, {"compute": [1e19, 1e20], "sparsity": [0, 0.5, 0.9]})
    assert space.variable(np.zeros((2, 1)))[0] == ["compute"]
    assert space.variable(np.zeros((2, 3)))[0] == ["compute", "sparsity"]
    assert space.variable(np.zeros((2, 1)), ("sparsity",))[0] == ["compute"]
    assert space.variable(3.0)[0] == []


def test_dims_of_different_lengths():
    law = load_law("abnar2025").with_coefficients(
        e=xr.DataArray([0.9, 1.0], dims="draw"), a=xr.DataArray([1e4, 2e4, 3e4], dims="draw")
    )
    with pytest.raises(InputError, match=r"axis law\.(e|a): dim 'draw' has length \d here and \d elsewhere"):
        Space.of(Model(law), {"compute": 1e20})


def test_an_axis_without_labels_is_labelled_by_its_values():
    budgets = xr.DataArray([1e20, 1e21], dims="compute")
    found = optimum(MODEL, compute=budgets, sparsity=0.5)
    assert list(found["compute"].values) == [1e20, 1e21]
    assert found.optimal_loss.sel(compute=1e21).item() < found.optimal_loss.sel(compute=1e20).item()
