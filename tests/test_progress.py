"""Long work says how far it is; short work says nothing."""

import logging

import pytest

from moesim.output import progress as module
from moesim.output.progress import duration, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: `clock[0] = seconds`."""
    now = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_at_growing_gaps(clock, caplog):
    caplog.set_level(logging.INFO, logger="moesim")
    with progress(100, "step", "balance") as advance:
        for second in range(1, 101):
            clock[0] = float(second)
            advance(1)
    assert [record.getMessage() for record in caplog.records] == [
        "balance: 10 of 100 steps after 10 s, about 1.5 min left",
        "balance: 20 of 100 steps after 20 s, about 1.3 min left",
        "balance: 40 of 100 steps after 40 s, about 1 min left",
        "balance: 80 of 100 steps after 1.3 min, about 20 s left",
    ]


def test_waiting_for_the_first_unit_says_so_without_an_estimate(clock, caplog):
    caplog.set_level(logging.INFO, logger="moesim")
    with progress(4, "job") as advance:
        clock[0] = 30.0
        advance(0)
    assert [record.getMessage() for record in caplog.records] == ["0 of 4 jobs after 30 s"]


def test_short_work_says_nothing(clock, caplog):
    caplog.set_level(logging.INFO, logger="moesim")
    with progress(3, "fit") as advance:
        clock[0] = 9.0
        advance(1)
    assert not caplog.records


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(module, "_BAR_AFTER", 0.0)
    with progress(4, "job", "jobs") as advance:
        advance(3)
    assert "jobs:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0.2 s"), (59, "59 s"), (90, "1.5 min"), (7200, "2 h"), (8.64e6, "100 d")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
