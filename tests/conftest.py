"""Shared by all tests."""

import pytest

from moesim.cli import main


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
