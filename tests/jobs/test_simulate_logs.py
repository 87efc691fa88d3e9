from __future__ import annotations

from pathlib import Path

import pytest

from jobs import simulate_logs


def test_a_data_set_of_real_logs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate_logs.main(["--config", "conf/data/demo.yaml", "simulate=null"]) == 1
    assert "no section 'simulate'" in capsys.readouterr().err


def test_a_mistyped_key_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate_logs.main(["--config", "conf/data/demo.yaml", "simulate.impresions=5"]) == 1
    assert "did you mean 'impressions'" in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate_logs.main(["--config", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml" in capsys.readouterr().err
