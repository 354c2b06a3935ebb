"""Every figure: drawn from its Dataset, of Python and of a file; it says what it shows; no text lies on another."""

from functools import cache
from itertools import combinations
from math import inf
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg

import moesim
from moesim.errors import InputError
from moesim.output.plots import COLOURS, _ticks_between, colours, colours_of, curve, grid_of_panels, panels_for, spread

SPACE = {"compute": [3e19, 6e19, 1e20, 2e20, 3e20, 1e21], "sparsity": [0, 0.5, 0.9, 0.98], "unique_tokens": [2e9, inf]}
POLICIES = {"static": {}, "split_feed": {"structure": "split", "sampling": "feed_idle"}}
SHORT = {"steps": 40, "seeds": 2}
SWEEP = {"compute": [1e20], "sparsity": [0, 0.9], "unique_tokens": [2e9, inf]}


def _several():
    found = [
        moesim.optimum("abnar2025", repetition=name, **SPACE).expand_dims(repetition=[name])
        for name in ("none", "muennighoff2023")
    ]
    return xr.concat(found, "repetition", combine_attrs="override").assign_attrs(verb="sweep")


def _with_axis():
    repetition = moesim.load_repetition("muennighoff2023", R_D=np.linspace(3, 32, 4))
    return moesim.optimum("abnar2025", repetition=repetition, **SPACE)


DATASETS = {
    "sweep": lambda: moesim.sweep("abnar2025", repetition="muennighoff2023", **SPACE),
    "coefficient": _with_axis,
    "models": _several,
    "dense": lambda: moesim.optimum("besiroglu2024", compute=[1e20, 1e21], sparsity=[0, 0.5]),
    "run": lambda: moesim.simulate(structure="split", **SHORT),
    "policies": lambda: moesim.simulate(policies=POLICIES, **SHORT),
    "trace": lambda: moesim.simulate(world="trace", placement="eplb", **{"cluster.slots_per_device": 9}),
    "study": lambda: moesim.simulate(policies=POLICIES, sweep={"rho": [0.0, 0.3], "skew": [0.8, 1.2]}, **SHORT),
    "fit": lambda: moesim.fit("hoffmann2022", "chinchilla", draws=40, starts=4, profiles=True).to_dataset(),
    "model": lambda: moesim.flops("deepseek_v3"),
    "network": lambda: moesim.flops("onenet"),
    "networks": lambda: moesim.flops(["mixtral_8x7b", "llama3_8b"]),
    "depths": lambda: moesim.flops("deeperconvnet", depth=[0, 1, 4, 16], batch=[1, 64]),
    "lengths": lambda: moesim.flops("llama3_8b", sequence=[1024, 4096, 16384]),
}


@cache
def dataset(name):
    return DATASETS[name]()


def texts(figure):
    """(text, box) of everything written on the figure, drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    for axes in filter(lambda axes: axes.get_visible(), figure.axes):
        labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label, axes.title]
        low = np.array([axes.bbox.x0, axes.bbox.y0]) - 1
        high = np.array([axes.bbox.x1, axes.bbox.y1]) + 1
        for label in labels:
            if label.get_visible() and label.get_text():
                x, y = label.get_transform().transform(label.get_position())
                inside = low[0] <= x <= high[0] or low[1] <= y <= high[1]
                if inside:
                    yield label.get_text(), label.get_window_extent(renderer)
    for legend in figure.legends:
        yield "legend", legend.get_window_extent(renderer)
    if figure._suptitle is not None:
        yield figure._suptitle.get_text(), figure._suptitle.get_window_extent(renderer)


@pytest.mark.parametrize("name", DATASETS)
def test_no_text_lies_on_another(name):
    for title, figure in moesim.plot.draw(dataset(name)).items():
        for (one, a), (other, b) in combinations(texts(figure), 2):
            apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
            assert apart, f"{title}: {one!r} and {other!r} overlap"


@pytest.mark.parametrize("name", DATASETS)
def test_figures_say_what_they_show(name):
    drawn = moesim.plot.draw(dataset(name))
    assert drawn
    for title, figure in drawn.items():
        assert figure._suptitle is not None, title
        assert figure._suptitle.get_text()
        for axes in figure.axes:
            if axes.get_visible() and axes.get_label() != "<colorbar>":
                labels = (axes.get_xlabel(), axes.get_ylabel(), axes.get_title())
                assert any(labels) or not axes.get_subplotspec().is_last_row(), title


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sweep", ("abnar2025", "muennighoff2023", "total", "proportional", "5 of 6 budgets shown")),
        ("coefficient", ("abnar2025", "5 of 6 budgets shown")),
        ("models", ("abnar2025", "dashed and pale")),
        ("run", ("zipf", "topk", "split", "natural", "static")),
        ("trace", ("trace", "eplb")),
        ("model", ("deepseek_v3",)),
        ("fit", ("hoffmann2022", "chinchilla")),
    ],
)
def test_figures_name_what_they_rest_on(name, words):
    for figure in moesim.plot.draw(dataset(name)).values():
        said = " ".join(figure._suptitle.get_text().split())
        assert all(word in said for word in words), said


def test_a_function_for_each_figure():
    names = set(dir(moesim.plot)) - {"draw"}
    drawn = {figure for name in DATASETS for figure in moesim.plot.draw(dataset(name))}
    assert drawn - names <= {"micro_loss", "macro_loss"}  # `study` of each loss
    assert all(getattr(moesim.plot, name).__doc__ for name in names)


def test_a_file_gives_the_same_figure(tmp_path):
    mine = dataset("sweep")
    mine.to_netcdf(tmp_path / "mine.nc", engine="h5netcdf")
    read = moesim.open_result(tmp_path / "mine.nc")
    for one, other in zip(moesim.plot.isoflop(mine).axes, moesim.plot.isoflop(read).axes, strict=True):
        for a, b in zip(one.get_lines(), other.get_lines(), strict=True):
            np.testing.assert_array_equal(a.get_xydata(), b.get_xydata())


def test_the_star_lies_on_its_line():
    figure = moesim.plot.sparsity(dataset("sweep"))
    for axes in filter(lambda axes: axes.get_visible(), figure.axes):
        stars = [line for line in axes.get_lines() if line.get_marker() == "*"]
        lines = [line for line in axes.get_lines() if line.get_marker() == "None"]
        assert stars
        for star in stars:
            (point,) = star.get_xydata()
            assert any(np.isclose(line.get_xydata(), point).all(axis=1).any() for line in lines)


def test_what_is_outside_the_data_is_dashed_and_pale():
    _, panels = grid_of_panels(1, 1)
    curve(panels[0][0], [1, 2, 3, 4], [1.0, 2, 3, 4], [False, False, True, True], color="red")
    inside, outside = panels[0][0].get_lines()
    np.testing.assert_array_equal(inside.get_ydata(), [1, 2, np.nan, np.nan])
    np.testing.assert_array_equal(outside.get_ydata(), [np.nan, 2, 3, 4])
    assert outside.get_linestyle() == "--"
    assert outside.get_alpha() < 0.5


def test_a_swept_coefficient_is_the_axis_of_its_figure():
    figure = moesim.plot.coefficient(dataset("coefficient"))
    assert {axes.get_xlabel() for axes in figure.axes if axes.get_visible()} == {"R_D"}
    first = next(axes for axes in figure.axes if "best sparsity" in axes.get_ylabel())
    expected = dataset("coefficient").best_sparsity.sel(compute=3e19, unique_tokens=2e9)
    inside, outside = first.get_lines()[:2]
    np.testing.assert_array_equal(np.fmax(inside.get_ydata(), outside.get_ydata()), expected)


def test_colours_mean_the_same_everywhere():
    assert colours_of(["a", "split_feed", "static"])["split_feed"] == colours_of(["split_feed"])["split_feed"]
    assert colours_of(["a", "static"])["static"] == colours_of(["static", "b", "c"])["static"]
    assert len(set(colours_of([f"{i}" for i in range(len(COLOURS))]).values())) == len(COLOURS)
    assert colours("sparsity", [0, 0.5]) != colours("compute", [0, 0.5])
    for scale in ("sparsity", "compute"):
        for r, g, b, _ in colours(scale, np.arange(9.0)).values():
            assert 0.299 * r + 0.587 * g + 0.114 * b < 0.72  # stands out from white


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1e12), (2e7, 3e10), (0.9, 5), (2.1, 2.3), (1e-6, 1e3), (1e18, 1e25), (3, 4e4)]
)
def test_logarithmic_ticks_are_few_and_there(low, high):
    ticks = _ticks_between(low, high)
    assert 2 <= len(ticks) <= 8
    assert low <= min(ticks) <= max(ticks) <= high * (1 + 1e-9)


@pytest.mark.parametrize(("n", "blanks"), [(1, 0), (2, 0), (4, 0), (5, 0), (7, 1), (10, 0), (11, 1)])
def test_panels_leave_few_blanks(n, blanks):
    figure, shown = panels_for(n)
    assert len(shown) == n
    assert len(figure.axes) - n <= blanks


def test_spread_keeps_the_ends():
    assert spread([1, 2, 3, 4, 5], 3) == [1, 3, 5]
    assert spread(7.0, 3) == [7]


@pytest.mark.parametrize(
    ("figure", "name", "message"),
    [
        ("isoflop", "models", "isoflop: the Dataset has no loss, no dim active_params"),
        ("coefficient", "sweep", "have no swept coefficient"),
        ("comparison", "sweep", "comparison: no dim of names"),
    ],
)
def test_a_dataset_without_the_means_is_refused(figure, name, message):
    with pytest.raises(InputError, match=message):
        getattr(moesim.plot, figure)(dataset(name))


def test_draw_takes_only_what_moesim_made():
    with pytest.raises(InputError, match="a Dataset of verb ''"):
        moesim.plot.draw(xr.Dataset())


def test_figures_are_written_once_laid_out(tmp_path):
    from moesim.output.plots import write_figures

    written = write_figures({"isoflop": moesim.plot.isoflop(dataset("sweep"))}, tmp_path)
    assert [path.name for path in written] == ["isoflop.png", "isoflop.svg"]
    assert all(Path(path).stat().st_size > 1000 for path in written)
