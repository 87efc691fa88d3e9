"""A training whose disks are full, or cannot be written, or give back half of what was written."""

import logging
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import train
from jobs.stop_signal import STOPPED
from mian.serving import load_servable
from tests.jobs.conftest import Workplace, before_each_report, one_error, the_run

#: A file system in memory, of a size, at a folder.
Mount = Callable[[Path, str], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts; what is mounted goes with the test."""
    mounted: list[Path] = []

    def make(folder: Path, options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)

    if shutil.which("mount") is None:
        pytest.skip("there is no mount here")
    yield make
    for folder in reversed(mounted):
        subprocess.run(["umount", folder], check=True)


def weights(place: Workplace) -> dict[str, torch.Tensor]:
    (folder,) = (folder for folder in place.models if folder.name.startswith("mian-"))
    return load_servable(folder).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


@pytest.mark.parametrize("options", ["size=64k", "ro"])
def test_checkpoints_that_cannot_be_written_are_said_once_and_cost_no_model(
    workplace: Workplace, mount: Mount, caplog: Any, options: str
) -> None:
    folder = workplace.folder / "models" / "checkpoints"
    mount(folder, options)
    with caplog.at_level(logging.WARNING):
        assert train.main(["--config", str(workplace.config), "checkpoint.every_steps=10"]) == 0
    (said,) = (record.getMessage() for record in caplog.records if "checkpoint" in record.getMessage())
    assert str(folder) in said
    assert "step-000000010: the checkpoint cannot be written" in said
    assert "the training goes on, and tries again at each next checkpoint" in said
    assert the_run(workplace).info.status == "FINISHED"
    assert weights(workplace)
    assert list(folder.glob("*/*")) == [], "halves"


def test_when_checkpoints_can_be_written_again_that_is_said_and_done(
    workplace: Workplace, mount: Mount, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workplace.folder / "models" / "checkpoints"
    mount(folder, "ro")

    def repair(step: int) -> None:
        if step == 20:
            subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        if step == 40:
            signal.raise_signal(signal.SIGTERM)

    before_each_report(monkeypatch, repair)
    with caplog.at_level(logging.INFO):
        assert train.main(["--config", str(workplace.config), "checkpoint.every_steps=10"]) == STOPPED
    said = [record.getMessage() for record in caplog.records]
    assert sum("the checkpoint cannot be written" in line for line in said) == 1
    assert sum("checkpoints can be written again, the first after step 20" in line for line in said) == 1
    assert sorted(path.name for path in folder.glob("*/step-*")) == ["step-000000040", "step-000000041"]


def test_a_full_disk_when_the_model_is_kept_is_one_error_that_leaves_nothing(
    workplace: Workplace, mount: Mount, capsys: Any
) -> None:
    output = workplace.folder / "models"
    mount(output, "size=64k")
    assert train.main(["--config", str(workplace.config), "max_steps=5", "checkpoint.enabled=false"]) == 1
    error = one_error(capsys)
    assert f"{output}/mian-" in error
    assert "the trained model cannot be written" in error
    assert "make room there, or make it writable, and start the same command again" in error
    assert list(output.iterdir()) == []
    assert the_run(workplace).info.status == "FAILED"
    assert workplace.store().search_registered_models() == []


def test_an_output_that_became_read_only_costs_no_more_than_the_last_steps(
    workplace: Workplace, mount: Mount, capsys: Any, caplog: Any
) -> None:
    output = workplace.folder / "models"
    mount(output, "size=50m")

    def close(step: int) -> None:
        if step == 40:
            subprocess.run(["mount", "-o", "remount,ro", output], check=True)

    with pytest.MonkeyPatch.context() as patch:
        before_each_report(patch, close)
        assert train.main(["--config", str(workplace.config), "checkpoint.every_steps=10"]) == 1
    assert "the trained model cannot be written" in one_error(capsys)
    assert the_run(workplace).info.status == "FAILED"
    assert workplace.output == ["checkpoints", "tracking"]

    subprocess.run(["mount", "-o", "remount,rw", output], check=True)
    with caplog.at_level(logging.INFO):
        assert train.main(["--config", str(workplace.config), "checkpoint.every_steps=10"]) == 0
    assert "goes on after step 30" in caplog.text
    assert the_run(workplace).info.status == "FINISHED"
    assert weights(workplace)


def test_a_training_whose_newest_checkpoint_is_cut_off_goes_on_from_the_one_before(workplace: Workplace, caplog: Any) -> None:
    job = ["--config", str(workplace.config), "checkpoint.every_steps=10", "model.options.dropout=0.2"]
    assert train.main(job) == 0
    expected = weights(workplace)
    shutil.rmtree(workplace.folder / "models")

    with pytest.MonkeyPatch.context() as patch:
        before_each_report(patch, lambda step: signal.raise_signal(signal.SIGTERM) if step == 40 else None)
        assert train.main(job) == STOPPED
    (newest,) = workplace.folder.glob("models/checkpoints/*/step-000000041/state.pt")
    newest.write_bytes(newest.read_bytes()[:1000])
    with caplog.at_level(logging.INFO):
        assert train.main(job) == 0
    assert f"{newest}: cut off or changed" in caplog.text
    assert "the checkpoint before it is used" in caplog.text
    assert "goes on after step 40" in caplog.text
    assert same(weights(workplace), expected)
