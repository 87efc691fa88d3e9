"""One writer at a time, whoever comes, whenever it dies."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipeline.dataset import lock as locks
from pipeline.dataset.lock import DatasetLock, DatasetLockedError
from pipeline.io.files import LocalFiles


class NoFiles(LocalFiles):
    """A file system that takes no more writes once it is broken."""

    def __init__(self) -> None:
        self.broken = False

    def write(self, path: str, content: bytes) -> None:
        if self.broken:
            raise OSError(28, "No space left on device", path)
        super().write(path, content)


def lock_file(folder: Path) -> Path:
    return max((folder / "_locks").glob("*.json"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def left_by(folder: Path, **holder: Any) -> None:
    """A lock as a builder leaves it that was killed."""
    with DatasetLock(LocalFiles(), str(folder)):
        held = lock_file(folder).read_text()
    lock_file(folder).write_text(held)
    change(lock_file(folder), **holder)


def test_one_of_many_threads_that_start_at_one_moment_gets_the_lock(tmp_path: Path) -> None:
    count, rounds = 20, 10
    for attempt in range(rounds):
        folder = tmp_path / str(attempt)
        start, end = threading.Barrier(count), threading.Barrier(count)

        def build(folder: Path = folder, start: threading.Barrier = start, end: threading.Barrier = end) -> str:
            start.wait()
            try:
                with DatasetLock(LocalFiles(), str(folder)):
                    end.wait()  # at work until all others have been answered
                    return "built"
            except DatasetLockedError as error:
                end.wait()
                return str(error)

        with ThreadPoolExecutor(count) as pool:
            answers = [future.result() for future in [pool.submit(build) for _ in range(count)]]
        others = [answer for answer in answers if answer != "built"]
        assert len(others) == count - 1
        assert all("builds this data set now" in answer and "process" in answer for answer in others)


def test_tokens_rise_from_holder_to_holder(tmp_path: Path) -> None:
    tokens = []
    for _ in range(3):
        with DatasetLock(LocalFiles(), str(tmp_path)) as lock:
            (tmp_path / "contract.json").touch()
            tokens.append(lock.token)
    assert tokens == [1, 2, 3]
    assert [path.name for path in (tmp_path / "_locks").iterdir()] == ["000003.json"]


def test_tokens_rise_also_where_the_locks_were_removed(tmp_path: Path) -> None:
    with DatasetLock(LocalFiles(), str(tmp_path), after=7) as lock:
        assert lock.token == 8


def test_who_read_the_numbers_before_others_came_and_went_does_not_get_in_beside_the_holder(tmp_path: Path) -> None:
    class SlowReader(LocalFiles):
        """Between its look at the numbers and its claim two others come, and one of them stays."""

        def __init__(self) -> None:
            self.others: list[DatasetLock] = []

        def create(self, path: str, content: bytes) -> bool:
            if not self.others:
                with DatasetLock(LocalFiles(), str(tmp_path)):
                    pass
                self.others.append(DatasetLock(LocalFiles(), str(tmp_path)).__enter__())
            return super().create(path, content)

    left_by(tmp_path, released=True)
    files = SlowReader()
    with pytest.raises(DatasetLockedError, match=r"_locks/000003\.json"):
        DatasetLock(files, str(tmp_path)).__enter__()
    assert [path.name for path in (tmp_path / "_locks").glob("*.json")] == ["000003.json"]
    files.others[0].check()


def test_a_lock_that_cannot_be_given_back_for_want_of_room_is_removed(tmp_path: Path) -> None:
    files = NoFiles()
    with pytest.raises(OSError, match="No space left"), DatasetLock(files, str(tmp_path)):
        (tmp_path / "contract.json").touch()
        files.broken = True
    with DatasetLock(LocalFiles(), str(tmp_path)):
        pass


def test_a_folder_that_was_made_for_the_lock_alone_goes_with_it(tmp_path: Path) -> None:
    with DatasetLock(LocalFiles(), f"{tmp_path}/samples"):
        assert (tmp_path / "samples").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "holder",
    [lambda: {"pid": ended_process()}, lambda: {"started": 1.0}, lambda: {"released": True}],
    ids=["of a process that ended", "of an earlier process of that number", "given back"],
)
def test_a_lock_whose_holder_is_gone_is_taken_over_at_once(tmp_path: Path, holder: Any) -> None:
    left_by(tmp_path, **holder())
    with DatasetLock(LocalFiles(), str(tmp_path)) as lock:
        assert lock.token == 2


def test_a_holder_that_cannot_be_seen_is_not_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # another container: the same host name, and a process number that nobody has here
    left_by(tmp_path, machine="this host, another container", pid=ended_process())
    with pytest.raises(DatasetLockedError, match=r"_locks/000001.json: process \d+ on .* builds this data set now"):
        DatasetLock(LocalFiles(), str(tmp_path)).__enter__()
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
    with DatasetLock(LocalFiles(), str(tmp_path)) as lock:
        assert lock.token == 2


def test_a_lock_that_is_half_written_is_somebody_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_locks").mkdir()
    (tmp_path / "_locks" / "000004.json").write_text('{"host": ')
    with pytest.raises(DatasetLockedError, match=r"000004\.json: process"):
        DatasetLock(LocalFiles(), str(tmp_path)).__enter__()
    monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
    with DatasetLock(LocalFiles(), str(tmp_path)) as lock:
        assert lock.token == 5


def test_who_is_overtaken_learns_it_and_leaves_the_other_s_lock_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DatasetLock(LocalFiles(), str(tmp_path)) as first:
        first.check()
        change(lock_file(tmp_path), machine="elsewhere")  # from now on it cannot be seen, and looks dead
        monkeypatch.setattr(locks, "STALE_SECONDS", 0.0)
        with DatasetLock(LocalFiles(), str(tmp_path)) as second:
            with pytest.raises(DatasetLockedError, match="this build lost its lock"):
                first.check()
            second.check()
            assert second.token == 2
            first._renew_once()
            assert [path.name for path in (tmp_path / "_locks").glob("*.json")] == ["000002.json"]
    assert json.loads(lock_file(tmp_path).read_text())["released"]


def test_a_lock_that_could_not_be_renewed_for_long_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = NoFiles()
    monkeypatch.setattr(locks, "LOST_SECONDS", 0.2)
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.02)
    with DatasetLock(files, str(tmp_path)) as lock:
        for _ in range(20):
            threading.Event().wait(0.02)
            lock.check()  # renewed meanwhile
        files.broken = True
        threading.Event().wait(0.4)
        with pytest.raises(DatasetLockedError, match="could not renew it"):
            lock.check()


def test_a_build_waits_for_another(tmp_path: Path) -> None:
    first = DatasetLock(LocalFiles(), str(tmp_path))
    first.__enter__()
    (tmp_path / "contract.json").touch()
    threading.Timer(1.0, lambda: first.__exit__(None, None, None)).start()
    with DatasetLock(LocalFiles(), str(tmp_path), wait=60) as second:
        assert second.token == 2
