"""Shared by all tests."""

import os

import pytest
from hypothesis import settings

from moesim.cli import main

settings.register_profile("moesim", deadline=None)  # no test asserts a time
settings.load_profile("moesim")


@pytest.fixture(autouse=True)
def same_environment():
    """What a command line sets for its own processes does not reach the next test."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run a command line in an empty directory: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run
