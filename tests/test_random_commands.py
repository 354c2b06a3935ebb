"""Some of the random command lines of benchmarks/random_commands.py."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "random_commands.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # as a user runs them
def test_random_command_lines_end_well_or_in_one_line():
    spec = importlib.util.spec_from_file_location("random_commands", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    counts, wrong = script.study(300, seed=2026, seconds=50)
    assert not wrong, "\n".join(wrong)
    assert {0, 2} <= set(counts)
