"""What README and pages say is run: commands and Python as they stand, examples as scripts; the tree is whole."""

import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml
from mutant_table import GROUPS

import moesim
from moesim.verbs import VERBS

HOUSE = Path(__file__).parent.parent
PAGES = [HOUSE / "README.md", *sorted((HOUSE / "docs").rglob("*.md"))]
EXAMPLES = sorted((HOUSE / "examples").glob("*.py"))
# Not run here: what installs or builds, what names a run by its date, what other tests run, and what needs PyTorch, a
# cluster or minutes.
ELSEWHERE = (
    "pip ",
    "pytest",
    "mutants",
    "lab_prose",
    "sphinx-build",
    "<date>",
    "...",
    "experiment=",
    "path/to",
    "moesim sweep\n",
    "moesim lab\n",
    "moesim lab probes",
    "moesim lab balancing",
    "--help",
    "moesim laws",
)


def text_of(path: Path) -> str:
    """A page as it is read: of an example its Markdown cells."""
    text = path.read_text("utf-8")
    return "\n".join(re.findall(r"^# ?(.*)$", text, re.MULTILINE)) if path.suffix == ".py" else text


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(path), re.DOTALL)


def commands() -> list[str]:
    """Every command of a page that is no cell, each once."""
    written = "".join(block for path in (*PAGES, *EXAMPLES) for block in blocks(path, "sh"))
    lines = (line.strip() for line in written.replace("\\\n", " ").splitlines())
    bare = (line.partition("  #")[0].strip() for line in lines if not line.startswith("#"))
    return [line for line in dict.fromkeys(bare) if line and not any(word in f"{line}\n" for word in ELSEWHERE)]


def write_runs(path: Path | str) -> None:
    rng = np.random.default_rng(0)
    n, d, s = 10 ** rng.uniform(8, 10, 60), 10 ** rng.uniform(9.5, 11.5, 60), rng.choice([0, 0.5, 0.9, 0.95], 60)
    loss = moesim.load_law("abnar2025")(total_params=n, tokens=d, sparsity=s) * np.exp(0.002 * rng.normal(size=60))
    np.savetxt(path, np.c_[n, d, s, loss], delimiter=",", header="n,d,s,loss", comments="")


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_pages_runs(command, line):
    write_runs("my_runs.csv")
    _, verb, *rest = shlex.split(line, comments=True)
    shorter = {"balance": ["steps=20", "seeds=2"], "fit": ["fit.draws=20"]}.get(verb, [])
    shorter = [] if {"world=trace", "world=workload"} & {*rest} else shorter
    shorter = [
        word for word in [*shorter, "figures=false"] if not any(w.startswith(word.partition("=")[0]) for w in rest)
    ]
    code, _, err = command(verb, *rest, *shorter)
    assert code == 0, err


@pytest.mark.parametrize("path", [path for path in PAGES if blocks(path, "python")], ids=lambda path: path.stem)
def test_the_python_of_a_page_runs(path, tmp_path):
    """In a process of its own, since pages register laws."""
    write_runs(tmp_path / "my_runs.csv")
    (tmp_path / "page.py").write_text("\n".join(blocks(path, "python")))
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_a_script(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")


CLOSED = runpy.run_path(str(HOUSE / "docs" / "closed.py"))
GOOD = '<p id="here"></p><a href="#here">1</a><a href="other.html#there">2</a><a href="https://example.org">3</a>'
LEAKS = {
    '<a href="#nowhere">': "the link #nowhere leads nowhere",
    '<a href="missing.html">': "the link missing.html leads nowhere",
    '<a href="other.html#here">': "the link other.html#here leads nowhere",
    '<script src="https://example.org/a.js"></script>': "loads https://example.org/a.js from the network",
    '<link rel="stylesheet" href="//example.org/a.css">': "loads //example.org/a.css from the network",
    '<img src="http://example.org/a.png">': "loads http://example.org/a.png from the network",
}


@pytest.mark.parametrize("html", ["", *LEAKS])
def test_pages_that_lead_nowhere_or_ask_the_network_are_found(tmp_path, html):
    (tmp_path / "index.html").write_text(GOOD + html)
    (tmp_path / "other.html").write_text('<p id="there"></p>')
    (tmp_path / "style.css").write_text("p { background: url(local.png) }")
    assert CLOSED["faults"](tmp_path) == [f"index.html: {LEAKS[html]}" for html in [html] if html]


def test_a_style_that_asks_the_network_is_found(tmp_path):
    (tmp_path / "style.css").write_text('@import "https://example.org/font.css";')
    assert CLOSED["faults"](tmp_path) == ["style.css: fetches from the network"]


def test_every_verb_has_an_example():
    assert {*VERBS} <= {path.stem for path in EXAMPLES}


def test_the_readme_is_short():
    assert len((HOUSE / "README.md").read_text().splitlines()) < 120


def test_the_tree_names_every_module():
    told = set(re.findall(r"\w+\.py", (HOUSE / "docs" / "contributing.md").read_text()))
    there = {path.name for path in (HOUSE / "moesim").rglob("*.py")} - {"__init__.py", "__main__.py"}
    assert sorted(there - told) == []


def test_what_describes_the_package_agrees():
    cited = yaml.safe_load((HOUSE / "CITATION.cff").read_text())
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    told = (cited["version"], cited["license"], [author["name"] for author in cited["authors"]])
    assert told == (moesim.__version__, project["license"], [author["name"] for author in project["authors"]])
    assert f"\n## {moesim.__version__}" in (HOUSE / "CHANGELOG.md").read_text()
    assert {*cited["keywords"]} >= {*project["keywords"]}


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_the_links_of_the_house_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#:]+)\)", (HOUSE / name).read_text())
    assert [link for link in links if not (HOUSE / link).exists()] == []
    assert links


def test_every_wrong_change_stands_once_in_its_file():
    """Rows of tests/mutants.py whose line has moved on would test nothing."""
    stale = [
        (file, row[0])
        for (file, _), rows in GROUPS.items()
        for row in rows
        if (HOUSE / "moesim" / file).read_text("utf-8").count(row[0]) != 1
    ]
    assert stale == []
