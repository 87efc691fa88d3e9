"""A change that is to change no behavior changes none: compared with what ``tests/support/golden_record.py`` wrote before it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support import golden_record as record
from tests.support.simulated_rows import GOLDEN, world_fingerprint

#: Processors differ in the last digits of a product, and 50 steps carry that on.
RELATIVE = 1e-3


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(record.RECORDED.read_text())
    return found


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return Path(shutil.copytree(record.KEPT / "samples", tmp_path / "samples"))


def test_a_simulated_world_has_the_same_rows(recorded: dict[str, Any]) -> None:
    assert world_fingerprint(GOLDEN) == recorded["world"]


def test_a_model_that_was_kept_scores_as_it_did(recorded: dict[str, Any], tmp_path: Path, samples: Path) -> None:
    found = record.metrics(tmp_path, samples, record.KEPT / "model")
    assert found.keys() == recorded["metrics"].keys()
    for name, metrics in recorded["metrics"].items():
        assert found[name] == pytest.approx(metrics, rel=RELATIVE), name


def test_a_checkpoint_that_was_kept_goes_on_as_it_did(recorded: dict[str, Any], tmp_path: Path, samples: Path) -> None:
    shutil.copytree(record.KEPT / "ended", tmp_path / "models" / "ended")
    said, losses = record.one_more_epoch(tmp_path, samples)
    assert "goes on after step" in said
    assert losses == pytest.approx(recorded["one more epoch"][-len(losses) :], rel=RELATIVE)
    assert len(losses) > 20


@pytest.mark.long
@pytest.mark.spark
def test_samples_are_the_same_bytes(recorded: dict[str, Any], tmp_path: Path) -> None:
    record.build(tmp_path)
    assert record.sample_files(tmp_path) == recorded["sample_files"]


@pytest.mark.long
@pytest.mark.ranks
def test_fifty_steps_of_three_models_on_one_rank_and_two_have_the_same_losses(recorded: dict[str, Any], samples: Path) -> None:
    found = record.fifty_steps(samples)
    assert found.keys() == recorded["losses"].keys()
    for name, losses in recorded["losses"].items():
        assert found[name] == pytest.approx(losses, rel=RELATIVE), name
        assert len(losses) == 50
