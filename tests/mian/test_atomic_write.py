from pathlib import Path

import pytest

from mian.atomic_write import part_of, write_atomically


def test_text_and_bytes_replace_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    for content, expected in (("ä", "ä".encode()), (b"bytes", b"bytes")):
        write_atomically(path, content)
        assert path.read_bytes() == expected
    assert [each.name for each in path.parent.iterdir()] == ["file.json"]


def test_a_folder_that_is_gone_is_not_made_again_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "gone" / "metrics.json", "{}", make_folder=False)
    assert not (tmp_path / "gone").exists()


def test_a_failure_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", "content")
    assert [each.name for each in tmp_path.iterdir()] == ["taken"]


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    part_of(tmp_path / "file").write_text("half")
    write_atomically(tmp_path / "file", "whole")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "whole")]
