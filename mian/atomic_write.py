"""Writing small files whole or not at all."""

from __future__ import annotations

from pathlib import Path


def part_of(path: Path) -> Path:
    """The file beside ``path`` that :func:`write_atomically` writes first; a killed process may leave it behind."""
    return path.with_name(f".{path.name}.part")


def write_atomically(path: Path, content: bytes | str, make_folder: bool = True) -> None:
    """Write a file so that readers see the old content or the new one, never a part. One process at a time may write it.

    Args:
        path: The file.
        content: Text is written as UTF-8.
        make_folder: Whether its folder is made; if not, a missing one is an error.

    Raises:
        OSError: It cannot be written; a file that was there is unchanged, and nothing else is left.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
