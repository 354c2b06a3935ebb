"""How the documentation is built: `sphinx-build -W docs build/docs`.

Pages are Markdown (MyST); those of `examples/` are scripts whose cells run while the pages are built, so that no number
or figure can be older than the code. The reference is made of the code by `reference.py`; `closed.py` ends the build
where a link leads nowhere or a page would ask the network for anything.
"""

import os
import shutil
import sys
from pathlib import Path

here = Path(__file__).parent
sys.path[:0] = [os.fspath(here), os.fspath(here.parent)]
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])  # `moesim` of cells

import moesim  # noqa: E402

shutil.copytree(here.parent / "examples", here / "worked", dirs_exist_ok=True)  # beside the pages, for their links

project, author = "moesim", "The moesim developers"
version = release = moesim.__version__
html_title = f"moesim {version}"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
extensions += ["reference", "streams", "closed"]  # of our own
exclude_patterns = ["*.py", "worked/__pycache__"]
default_role = "code"  # docstrings write `name` for names
html_theme = "furo"
html_show_copyright = html_show_sphinx = html_copy_source = False
html_static_path = ["static"]
html_css_files = ["pages.css"]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300

copybutton_selector = "div:not(.output) > div.highlight > pre"

autodoc_typehints = "none"  # they stand in the signature
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100


def write_live(app, exception):
    """Pages of results, to play with."""
    if exception is None and app.builder.format == "html":
        (Path(app.outdir) / "live").mkdir(exist_ok=True)
        for name, result in results():
            moesim.page(result, to=Path(app.outdir) / "live" / f"{name}.html")


def results():
    axes = {"compute": [1e20, 1e21], "sparsity": [0, 0.75, 0.9, 0.95, 0.98], "unique_tokens": [2e9, float("inf")]}
    yield "sweep", moesim.sweep("abnar2025", repetition="muennighoff2023", **axes)
    yield "fit", moesim.fit("hoffmann2022", "chinchilla", draws=100, profiles=True).to_dataset()
    policies = {
        "static": {},
        "eplb": {"placement": "eplb"},
        "split_feed": {"structure": "split", "sampling": "feed_idle"},
    }
    yield "balance", moesim.simulate(steps=200, seeds=2, policies=policies)
    yield "sites", moesim.sites.simulate(site="three_continents", protocol="diloco", hours=48)
    yield "lab", moesim.lab.kept("lab_text").assign_attrs(verb="lab")


def setup(app):
    app.connect("build-finished", write_live, priority=400)  # before the links are checked
