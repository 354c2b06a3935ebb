"""Searches in every cell at once, against loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.numerics.elementwise import blocks, crossing, dips, minimum, part, parts, root, secant, select, shape_of
from moesim.numerics.product import Late

GRID = np.linspace(-3, 3, 61)
CELLS = {"centre": np.array([-1.234, 0.5, 2.0])[:, None], "width": np.array([0.5, 2.0]), "shift": 7.0}


def bowl(x, cell):
    return ((x - cell["centre"]) / cell["width"]) ** 2 + cell["shift"]


def slope(x, cell):
    return 2 * (x - cell["centre"]) / cell["width"] ** 2


@given(st.lists(st.integers(1, 9), max_size=4), st.integers(1, 100), st.integers(1, 5))
def test_blocks_cover_every_cell_once(shape, cells, row):
    seen = np.zeros(shape, int)
    for block in blocks(tuple(shape), cells, row):
        seen[block] += 1
        assert seen[block].size <= max(cells, row)
    assert (seen == 1).all()


def test_parts_broadcast_like_the_whole():
    whole = bowl(0.3, CELLS)
    for block in blocks(shape_of(CELLS), 2):
        assert (bowl(0.3, parts(CELLS, block)) == whole[block]).all()
    assert part(3.0, (slice(0, 1),)) == 3.0


def test_select_is_flat():
    where = np.array([[True, False], [False, False], [True, True]])
    assert (bowl(0.3, select(CELLS, where)) == bowl(0.3, CELLS)[where]).all()


def test_dips_are_the_nearest_grid_points():
    found = dips(bowl, CELLS, GRID, near=1.0)
    assert GRID[found.best] == pytest.approx(np.broadcast_to([[-1.2], [0.5], [2.0]], (3, 2)))
    assert (found.rivals == -1).all()
    for beside, by in ((found.low, -1), (found.middle, 0), (found.high, 1)):
        assert beside == pytest.approx(bowl(GRID[found.best + by], CELLS))


def test_dips_name_a_rival_that_may_be_deeper():
    """Dips at -1.05 and 1: between the grid points the first is deeper, on them the second is lower."""

    def two(x, cell):
        return np.minimum(abs(x + 1.05) * cell["steep"], abs(x - 1) + 0.02)

    found = dips(two, {"steep": np.array([1.0, 0.1])}, GRID, near=0.05)
    assert GRID[found.best] == pytest.approx([1.0, -1.0], abs=0.11)
    assert GRID[found.rivals[0, 0]] == pytest.approx(-1.05, abs=0.06)


def test_dips_name_a_rival_of_an_end():
    """The grid is lowest at its end; a dip between two of its points may be lower still, or is too high to matter."""

    def tail(x, cell):
        return np.minimum(3.0 - x, abs(x + 1.05) + cell["above"])

    found = dips(tail, {"above": np.array([-0.04, 2.0])}, GRID, near=0.05)
    assert (found.best == 60).all()
    assert GRID[found.rivals[0, 0]] == pytest.approx(-1.05, abs=0.06)
    assert (found.rivals[1] == -1).all()


def test_dips_take_nan_for_infinite():
    found = dips(lambda x, cell: np.where(x < 1, np.nan, x) + cell["a"], {"a": np.zeros(2)}, GRID, near=0.1)
    assert GRID[found.best] == pytest.approx([1.0, 1.0])


def test_secant_keeps_what_it_has_found():
    """Cells that end early stay; a cell without a root is not called found."""

    def cubic(x, cell):
        return (x - cell["at"]) * (1 + x * x)

    at = np.array([0.3, -1.7, 2.5])
    x, done = secant(cubic, {"at": at}, np.array([0.3, -1.0, 1.0]), 1.0, steps=40)
    assert done.all()
    assert x == pytest.approx(at, abs=1e-10)
    assert not secant(lambda x, _: x * x + 1, {"at": np.zeros(1)}, np.ones(1), 1.0)[1].any()


def test_secant_carries_few_cells_on_alone():
    """Nine cells start at their root and one far from it, which goes on alone with its own context."""
    at = np.linspace(-1, 1, 10)
    seen = []

    def cubic(x, cell):
        seen.append(np.size(x))
        return (x - cell["at"]) * (1 + (x - cell["at"]) ** 2)

    x, done = secant(cubic, {"at": at}, np.r_[at[:9], 2.5], 1.0, steps=40)
    assert done.all()
    assert x == pytest.approx(at, abs=1e-10)
    assert seen[0] == 10
    assert seen[-1] == 1


def test_crossing_is_the_root_and_says_where_there_is_none():
    def line(x, cell):
        return x - cell["at"]

    found = crossing(line, {"at": np.array([0.123456789, -9.0, 9.0, -3.0, 3.0])}, GRID)
    assert found[[0, 4]] == pytest.approx([0.123456789, 3.0], abs=1e-13)
    assert found[1] == -np.inf
    assert found[2] == np.inf


def test_crossing_of_scalars():
    assert crossing(lambda x, cell: x - cell["at"], {"at": 0.5}, GRID) == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(), (1,), (3, 2)])
def test_root_and_minimum_agree(shape):
    cells = {"centre": np.full(shape, 0.7), "width": 1.5, "shift": 0.0}
    low, high = np.full(shape, -2.0), np.full(shape, 3.0)
    x, found = root(slope, cells, low, high)
    y, fell = minimum(bowl, cells, low, np.full(shape, 0.1), high, np.ones(shape, bool))
    assert x.shape == y.shape == shape
    assert found.all()
    assert fell.all()
    assert x == pytest.approx(np.full(shape, 0.7), abs=1e-12)
    assert y == pytest.approx(np.full(shape, 0.7), abs=1e-7)


def test_root_without_a_change_of_sign_is_not_found():
    x, found = root(slope, {"centre": np.array([9.0]), "width": 1.0}, np.array([-1.0]), np.array([1.0]))
    assert not found.any()
    assert np.isnan(x).all()


def test_minimum_leaves_the_other_cells_alone():
    where = np.array([True, False])
    ends = np.full(2, -2.0), np.zeros(2), np.full(2, 2.0)
    x, found = minimum(bowl, {"centre": np.array([0.5, 0.5]), "width": 1.0, "shift": 0.0}, *ends, where)
    assert found.tolist() == [True, False]
    assert np.isnan(x[1])


def test_a_crossing_beyond_the_grid_says_on_which_side():
    """x - c turns at c: before the grid -inf, since it is positive all along, and behind it inf."""
    found = crossing(lambda x, cell: x - cell["c"], {"c": np.array([-5.0, 0.3, 5.0])}, np.linspace(0.0, 1.0, 11))
    assert found == pytest.approx([-np.inf, 0.3, np.inf])


FORMULAS = {
    "a term that lacks an axis": lambda x, y: 1.0 + np.exp(x) * 2.0 + y**-0.3,
    "used twice": lambda x, y: (z := np.minimum(x * y, 3.0)) + z**2 - np.where(z > 1.0, x, z),
    "powers": lambda x, y: x**2 + y**0.5 + 2.0**x + (x * y) ** -1.0,
    "not elementwise": lambda x, y: x - np.cumsum(x, axis=-1) + y,
    "of one only": lambda x, y: x + 1.0,
    "bool": lambda x, y: (x > 1.0) & (y < 2.0) | (x < 0.5),
}


@pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
@pytest.mark.parametrize("shape", [(3, 1, 5), (3, 4, 5), (1, 1, 1), (1, 4, 5)], ids=str)
@pytest.mark.parametrize("cells", [1, 7, 2**17])
def test_late_formulas_are_the_plain_ones_bit_for_bit(formula, shape, cells, monkeypatch):
    monkeypatch.setattr("moesim.numerics.product._CELLS", cells)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.1, 3.0, shape), rng.uniform(0.1, 3.0, (1, 4, 5))
    late, plain = formula(Late(np.asarray, x), y), formula(x, y)
    assert np.asarray(late).dtype == plain.dtype
    assert (np.asarray(late) == plain).all()
    assert np.shape(late) == plain.shape
    out = np.empty((3, 4, 5), plain.dtype)
    formula(Late(np.asarray, x), y).write(out)
    assert (out == plain).all()
