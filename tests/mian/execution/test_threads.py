"""How many threads compute: few for small batches."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from mian.execution.threads import default_threads, threads, usable_cores


@pytest.mark.parametrize(
    ("rows", "cores", "expected"),
    [(1, 8, 1), (128, 8, 1), (1023, 8, 1), (1024, 8, 2), (4096, 8, 8), (4096, 2, 2), (10**6, 64, 64)],
)
def test_a_thread_for_512_rows_and_no_more_than_there_are_cores(rows: int, cores: int, expected: int) -> None:
    assert default_threads(rows, cores) == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 64),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/pod/main\n", {"pod/cpu.max": "250000 100000\n", "pod/main/cpu.max": "max 100000\n"}, 2),
        ("0::/of/the/host\n", {"cpu.max": "50000 100000\n"}, 1),
        ("1:cpu:/pod\n0::/\n", {"cpu/pod/cpu.cfs_quota_us": "300000\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ("4:cpuset:/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_a_container_has_the_cores_that_its_quota_pays_for(
    own: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in {"own": own, **{f"cgroup/{name}": content for name, content in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr("mian.execution.threads.CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr("mian.execution.threads.OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    assert usable_cores() == expected


def test_a_machine_that_does_not_say_which_cores_a_process_has_lends_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mian.execution.threads.OWN_CGROUPS", tmp_path / "none")
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert usable_cores() == 6


def test_the_threads_are_as_before_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("given", "step_threads", "evaluation_threads"), [(None, 1, 2), (3, 3, 3)])
def test_a_training_scores_with_the_threads_of_its_larger_batches(
    samples: Any, monkeypatch: pytest.MonkeyPatch, given: int | None, step_threads: int, evaluation_threads: int
) -> None:
    used = []
    monkeypatch.setattr("mian.training.trainer.evaluate_split", lambda *_: used.append(torch.get_num_threads()))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    before = torch.get_num_threads()
    try:
        trainer = samples.trainer(threads=given, evaluation_batch_size=2048)
        assert torch.get_num_threads() == step_threads
        with pytest.raises(AttributeError):  # the scores that were not made
            trainer.run()
        assert used == [evaluation_threads]
    finally:
        torch.set_num_threads(before)
