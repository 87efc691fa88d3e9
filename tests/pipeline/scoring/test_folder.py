"""A publication that stops at any step leaves each day as it was or as it is to be, and nothing else that readers see."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import pytest

from mian.contract import ContractError, SampleFile
from pipeline.dataset.lock import DatasetLock
from pipeline.io.files import LocalFiles
from pipeline.scoring.folder import ScoresFolder
from pipeline.scoring.manifest import MANIFEST_FILE, Manifest, ScoredBy, ScoredDay

DAY = dt.date(2026, 3, 1)
MOMENT = dt.datetime(2026, 3, 2, 4, tzinfo=dt.timezone.utc)


class StoppedError(Exception):
    """The process is gone."""


class StoppingFiles(LocalFiles):
    """Files of a process that is gone after some changes; -1 is never."""

    def __init__(self, changes: int = -1) -> None:
        self._left = changes

    def _change(self) -> None:
        if not self._left:
            raise StoppedError
        self._left -= 1

    def write(self, path: str, content: bytes) -> None:
        self._change()
        super().write(path, content)

    def replace(self, source: str, target: str) -> None:
        self._change()
        super().replace(source, target)

    def remove(self, path: str) -> None:
        """A folder goes file by file."""
        root = Path(path)
        for file in sorted(root.rglob("*")):
            if file.is_file():
                self._change()
                file.unlink()
        self._change()
        super().remove(path)


def scored_by(version: str) -> ScoredBy:
    return ScoredBy(model_version=version, model="0", settings="0", inputs="0", smallest_group=4, samples_version=2)


def stage(folder: ScoresFolder, contents: list[bytes], version: str, day: dt.date = DAY) -> tuple[ScoredDay, dict[str, str], str]:
    """Files that a run has written, and the day that is to name them."""
    staging = folder.staging("host-1-00000000")
    files, names = [], {}
    for number, content in enumerate(contents):
        sha256 = hashlib.sha256(content).hexdigest()
        path = f"day={day}/part-{number:05d}-{sha256[:16]}.parquet"
        LocalFiles().write(f"{staging}/written/{number}", content)
        names[f"{staging}/written/{number}"] = path
        files.append(SampleFile(path=path, rows=1, bytes=len(content), sha256=sha256))
    scored = ScoredDay(day=day, rows=len(files), scored_by=scored_by(version), scored_at=MOMENT, files=tuple(files))
    return scored, names, staging


def publish(path: Path, contents: list[bytes], version: str, files: LocalFiles, day: dt.date = DAY) -> None:
    folder = ScoresFolder(files, str(path), "shop")
    with DatasetLock(LocalFiles(), str(path)) as lock:
        scored, names, staging = stage(folder, contents, version, day)
        folder.publish(scored, names, staging, lock)
        folder.remove_staging(staging)


def visible(path: Path) -> dict[str, bytes]:
    """What a reader of Parquet folders sees."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(("_", ".")) for part in file.relative_to(path).parts)
    }


def hidden(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir() if child.name.startswith("_"))


OLD, NEW = [b"old 0", b"old 1"], [b"new 0", b"new 1", b"new 2"]


def test_a_publication_that_stops_anywhere_leaves_the_day_as_it_was_or_as_it_is_to_be(tmp_path: Path) -> None:
    expected: list[dict[str, Any]] = []
    for name, contents in (("old", OLD), ("new", NEW)):
        publish(tmp_path / name, contents, name, LocalFiles())
        expected.append({"files": visible(tmp_path / name), "manifest": (tmp_path / name / MANIFEST_FILE).read_text()})
    ends = []
    for changes in range(1000):
        path = tmp_path / str(changes)
        publish(path, OLD, "old", LocalFiles())
        try:
            publish(path, NEW, "new", StoppingFiles(changes))
            ended = True
        except StoppedError:
            ended = False
        assert visible(path) in [{}, *(state["files"] for state in expected)], "a day is seen whole, or not at all"
        for again in range(1000):  # the next run may stop as well
            try:
                ScoresFolder(StoppingFiles(again), str(path), "shop").recover()
                break
            except StoppedError:
                assert visible(path) in [{}, *(state["files"] for state in expected)]
        state = {"files": visible(path), "manifest": (path / MANIFEST_FILE).read_text()}
        assert state in expected
        assert hidden(path) == ["_locks", MANIFEST_FILE]
        ends.append(state == expected[1])
        if ended:
            break
    assert ends[-1]
    assert 5 < len(ends) < 100
    assert ends == sorted(ends), "from one step on the new day is there to stay"


def test_a_first_publication_that_stops_leaves_nothing_that_readers_see_after_the_next_one_began(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    publish(whole, NEW, "new", LocalFiles())
    seen = set()
    for changes in range(1000):
        path = tmp_path / str(changes)
        folder = ScoresFolder(LocalFiles(), str(path), "shop")
        folder.begin("0" * 64, MOMENT)
        try:
            publish(path, NEW, "new", StoppingFiles(changes))
            break
        except StoppedError:
            folder.refuse_foreign()
            folder.recover()
        named = folder.manifest().days
        assert visible(path) == (visible(whole) if named else {})
        seen.add(bool(named))
    assert False in seen


def test_the_moment_at_which_a_run_began_counts_until_it_has_ended(tmp_path: Path) -> None:
    folder = ScoresFolder(LocalFiles(), str(tmp_path), "shop")
    began = folder.begin("a" * 64, None)
    assert began.tzinfo is not None
    assert folder.begin("a" * 64, None) == began
    assert folder.begin("b" * 64, None) > began
    assert folder.begin("a" * 64, MOMENT) == MOMENT
    assert folder.begin("a" * 64, None) == MOMENT, "what was said by hand counts from then on"
    folder.end("a" * 64)
    assert folder.begin("a" * 64, None) > began


def test_other_days_stay_as_they_are(tmp_path: Path) -> None:
    publish(tmp_path / "out", OLD, "old", LocalFiles(), DAY)
    before = visible(tmp_path / "out")
    publish(tmp_path / "out", NEW, "new", LocalFiles(), dt.date(2026, 2, 1))
    assert visible(tmp_path / "out").items() > before.items()
    days = ScoresFolder(LocalFiles(), str(tmp_path / "out"), "shop").manifest().days
    assert [(day.day, day.scored_by.model_version) for day in days] == [(dt.date(2026, 2, 1), "new"), (DAY, "old")]


def test_a_manifest_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = ScoresFolder(LocalFiles(), str(tmp_path), "shop")
    for text in ("", "{}", '{"format": "mian-scores", "name": "shop", "days": [{}]}', "\xff"):
        (tmp_path / MANIFEST_FILE).write_bytes(text.encode("latin-1"))
        with pytest.raises(ContractError, match=rf"{MANIFEST_FILE}: no manifest of scores of this release, or damaged"):
            folder.manifest()
    manifest = Manifest(name="shop", days=(stage(folder, OLD, "old")[0],))
    assert Manifest.from_json(manifest.to_json(), "here") == manifest
