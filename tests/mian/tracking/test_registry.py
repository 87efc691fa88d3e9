"""The way into the registry."""

import os
from pathlib import Path

import mlflow
import pytest

from mian.tracking import registry as module
from mian.tracking.errors import ArtifactStoreError
from mian.tracking.registry import TIMEOUT, _time_for, fetch_model


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


def test_an_object_store_that_refuses_a_download_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to locate credentials")

    monkeypatch.setattr(module, "check_store", lambda *_, **__: None)
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", refuse)
    with pytest.raises(ArtifactStoreError, match="artifacts cannot be downloaded: RuntimeError: Unable to locate credentials"):
        fetch_model("s3://models/mian", tmp_path)
