"""What a training shows on a terminal, and in a log file."""

import io
import logging
import sys
from typing import Any

import pytest

from mian.checkpoint.progress import Progress
from mian.training import display
from mian.training.display import ProgressDisplay

SHARES = {"waiting": 0.0, "computing": 0.7, "exchanging": 0.3}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress() -> Progress:
    done = Progress(planned_samples=4000, world_size=2, batch_size=100)
    for _ in range(5):
        done.step_done()
    return done


def test_a_log_file_has_whole_lines_and_no_more_than_one_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
) -> None:
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO), ProgressDisplay(progress(), 4, shown=True) as shown:
        shown.step_done(200)
        shown.show(0.51234, None, SHARES)
        now[0] += display.SECONDS_A_LINE - 1
        shown.show(0.4, 5000.0, SHARES)
        now[0] += 1
        shown.show(0.3, 5000.0, SHARES)
        shown.write("validation: good")
    assert [record.getMessage() for record in caplog.records] == [
        "step 5, epoch 1 of 4, 25 % of the samples: logloss 0.5123, waiting 0%, computing 70%, exchanging 30%",
        "step 5, epoch 1 of 4, 25 % of the samples, 5,000 a second: logloss 0.3000, waiting 0%, computing 70%, exchanging 30%",
    ]
    printed = capsys.readouterr()
    assert printed.out == "validation: good\n"
    assert "\r" not in printed.err


def test_a_terminal_has_a_bar_and_no_lines_beside_it(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO), ProgressDisplay(progress(), 4, shown=True) as shown:
        shown.show(0.3, 5000.0, SHARES)
    assert "logloss=0.3000" in terminal.getvalue()
    assert caplog.records == []


def test_other_ranks_show_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO), ProgressDisplay(progress(), 4, shown=False) as shown:
        shown.step_done(200)
        shown.show(0.3, 5000.0, SHARES)
        shown.write("validation: good")
    assert (terminal.getvalue(), capsys.readouterr().out, caplog.records) == ("", "", [])
