"""The way into the registry."""

import os
from pathlib import Path

import pytest

from mian.tracking.registry import TIMEOUT, _time_for


@pytest.mark.parametrize(("before", "expected", "after"), [("30", 3030, "30"), (None, 3120, None)])
def test_a_server_has_the_time_that_the_largest_file_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, expected: int, after: str | None
) -> None:
    if before is None:
        monkeypatch.delenv(TIMEOUT, raising=False)
    else:
        monkeypatch.setenv(TIMEOUT, before)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "a.json").write_text("{}")
    with (tmp_path / "weights.pt").open("wb") as file:
        file.truncate(3_000_000_000)  # takes no room
    with _time_for(tmp_path):
        assert int(os.environ[TIMEOUT]) == expected
    assert os.environ.get(TIMEOUT) == after
