"""The command that lists checkpoints, and removes those that no training goes on from."""

import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs import checkpoints, train
from jobs.stop_signal import STOPPED
from mian.checkpoint.notes import NOTES
from mian.checkpoint.retention import lock_path
from mian.checkpoint.training_lock import TrainingLock
from mian.contract import CONTRACT_FILE
from mian.models import Mian
from tests.jobs.conftest import Workplace, before_each_report, one_error


@pytest.fixture
def stopped(workplace: Workplace) -> str:
    """The key of a training that was stopped."""
    with pytest.MonkeyPatch.context() as patch:
        before_each_report(patch, lambda step: signal.raise_signal(signal.SIGTERM))
        assert train.main(["--config", str(workplace.config)]) == STOPPED
    (folder,) = (workplace.folder / "models" / "checkpoints").iterdir()
    return folder.name


def listed(workplace: Workplace, capsys: Any, *arguments: str) -> list[str]:
    capsys.readouterr()
    assert checkpoints.main(["--output", str(workplace.folder / "models"), *arguments]) == 0
    return list(capsys.readouterr().out.splitlines())


def test_checkpoints_are_current_from_whatever_folder_they_are_listed(
    workplace: Workplace, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(workplace.samples.parent)
    with pytest.MonkeyPatch.context() as patch:
        before_each_report(patch, lambda step: signal.raise_signal(signal.SIGTERM))
        assert train.main(["--config", str(workplace.config), f"samples={workplace.samples.name}"]) == STOPPED
    other = tmp_path / "other"
    shutil.copytree(workplace.samples, other / workplace.samples.name)
    contract = other / workplace.samples.name / CONTRACT_FILE
    contract.write_text(contract.read_text().replace("small world", "another world"))
    monkeypatch.chdir(other)
    (line,) = listed(workplace, capsys, "--remove-old")
    assert "current" in line
    assert len(listed(workplace, capsys)) == 1


def test_checkpoints_whose_notes_cannot_be_read_are_not_old(workplace: Workplace, stopped: str, capsys: Any) -> None:
    notes = workplace.folder / "models" / "checkpoints" / stopped / NOTES
    notes.unlink()
    notes.mkdir()
    (line,) = listed(workplace, capsys, "--remove-old")
    assert "unknown: its settings cannot be read" in line
    assert notes.exists()


def test_checkpoints_are_listed_and_old_ones_removed(
    workplace: Workplace, stopped: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = listed(workplace, capsys, "--remove-old")
    assert line.startswith(f"{stopped}  mian ")
    assert "step        21" in line
    assert line.endswith(f"current  ({workplace.samples})")

    samples = workplace.folder / "gone"
    shutil.move(contract := workplace.samples / CONTRACT_FILE, samples)
    try:
        (line,) = listed(workplace, capsys, "--remove-old")
        assert "unknown: the samples cannot be read" in line
    finally:
        shutil.move(samples, contract)

    monkeypatch.setattr(Mian, "weights_version", 7)
    (line,) = listed(workplace, capsys)
    assert "old: the code has changed: mian 1, now 7" in line
    folder = workplace.folder / "models" / "checkpoints" / stopped
    with TrainingLock(lock_path(folder)):
        assert checkpoints.main(["--output", str(workplace.folder / "models"), "--remove-old"]) == 1
        assert "this training is running already" in one_error(capsys)
    assert folder.exists()
    listed(workplace, capsys, "--remove-old")
    assert workplace.output == []


def test_a_training_is_removed_by_its_key(workplace: Workplace, stopped: str, capsys: Any) -> None:
    assert checkpoints.main(["--output", str(workplace.folder / "models"), "--remove", "abc"]) == 1
    assert f"has no checkpoints with the key abc; choose from {stopped}" in one_error(capsys)
    listed(workplace, capsys, "--remove", stopped)
    assert listed(workplace, capsys) == []


def test_a_second_start_of_a_command_is_refused(workplace: Workplace, stopped: str, capsys: Any) -> None:
    folder = workplace.folder / "models" / "checkpoints" / stopped
    with TrainingLock(lock_path(folder)):
        capsys.readouterr()
        assert train.main(["--config", str(workplace.config)]) == 1
        assert "this training is running already, on host" in one_error(capsys)
        assert train.main(["--config", str(workplace.config), "seed=5", "max_steps=2"]) == 0, "another training is not"
    assert train.main(["--config", str(workplace.config)]) == 0
    assert [name for name in workplace.output if not name.startswith("mian-")] == []


def test_an_ended_training_is_given_more_epochs_by_the_same_command(workplace: Workplace, capsys: Any, caplog: Any) -> None:
    command = ["--config", str(workplace.config), "checkpoint.keep_ended=true"]
    assert train.main(command) == 0
    (line,) = listed(workplace, capsys)
    assert "current: ended after 1 epochs" in line
    with caplog.at_level(logging.INFO):
        assert train.main([*command, "epochs=2"]) == 0
    assert "goes on after step 63, in epoch 1" in caplog.text
    assert train.main([*command, "epochs=1"]) == 0
    (line,) = listed(workplace, capsys)
    assert "current: ended after 2 epochs" in line, "a shorter training does not take its place"
    (line,) = listed(workplace, capsys, "--remove", line.split()[0])
    assert "current: ended after 2 epochs" in line
    assert [name for name in workplace.output if not name.startswith("mian-")] == []


def test_an_ended_training_whose_samples_have_changed_since_stays_for_init_from(
    workplace: Workplace, tmp_path: Path, capsys: Any
) -> None:
    samples = shutil.copytree(workplace.samples, tmp_path / "samples")
    command = ["--config", str(workplace.config), f"samples={samples}", "epochs=1"]
    assert train.main([*command, "checkpoint.keep_ended=true"]) == 0
    contract = json.loads((samples / CONTRACT_FILE).read_text())
    contract["days"][0]["fingerprint"] = "built anew"
    (samples / CONTRACT_FILE).write_text(json.dumps(contract))
    (line,) = listed(workplace, capsys, "--remove-old")
    assert "current: ended after 1 epochs, on other samples: for init_from" in line
    ended = workplace.folder / "models" / "ended" / line.split()[0]
    assert train.main([*command, f"init_from={ended}", "init_moments=true", "max_steps=2"]) == 0
    assert train.main([*command, f"init_from={ended}x", "init_moments=true", "max_steps=2"]) == 1
    assert f"{ended}x is no folder; name what checkpoint.keep_ended left" in one_error(capsys)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, capsys: Any) -> None:
    assert checkpoints.main(["--output", str(tmp_path / "none"), "--remove-old"]) == 1
    assert "none is not a folder; give the folder of the trainings" in one_error(capsys)
