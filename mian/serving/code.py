"""The code that travels with a registered model: which it is, and whether it is what this process has imported."""

from __future__ import annotations

import hashlib
from pathlib import Path

import mian
import pipeline

#: The parts of the code that a served model runs, each with its package.
ROOMS = (
    ("mian", "kernels"),
    ("mian", "layers"),
    ("mian", "models"),
    ("mian", "serving"),
    ("pipeline", "contract"),
)


class ServableCodeError(ImportError):
    """A model brings other code along than this process has imported, which no second copy can stand beside."""


def code_digest(packages: dict[str, Path]) -> str:
    """SHA-256, hexadecimal, of the source files that a served model runs.

    Args:
        packages: where the packages ``mian`` and ``pipeline`` lie.
    """
    digest = hashlib.sha256()
    for package, room in ROOMS:
        for path in sorted((packages[package] / room).rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(packages[package]).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def imported_packages() -> dict[str, Path]:
    """Where the packages ``mian`` and ``pipeline`` of this process lie."""
    assert mian.__file__ is not None and pipeline.__file__ is not None, "mian and pipeline are packages with an __init__.py"
    return {"mian": Path(mian.__file__).parent, "pipeline": Path(pipeline.__file__).parent}


def check_code(folder: Path) -> None:
    """Refuse a model whose code is not the code that runs.

    Args:
        folder: of the model's code, with ``mian`` and ``pipeline`` in it; nothing is checked where there is none.

    Raises:
        ServableCodeError: it is another one.
    """
    if not folder.is_dir():  # the model is being logged
        return
    imported = imported_packages()
    ours, theirs = code_digest(imported), code_digest({name: folder / name for name in imported})
    if ours != theirs:
        raise ServableCodeError(
            f"the model brings its own code along ({folder}, {theirs[:12]}), and this process has imported other code of the same name "
            f"({imported['mian']}, {ours[:12]}); load models of different code in processes of their own"
        )
