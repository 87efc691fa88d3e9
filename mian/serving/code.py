"""The code that travels with a registered model: which it is, and whether it is what this process has imported."""

from __future__ import annotations

from pathlib import Path

from mian.fingerprint import source_fingerprint

#: The rooms of ``mian`` that decide what a served model answers.
ROOMS = ("contract", "kernels", "layers", "models", "scoring", "serving")


class ServableCodeError(ImportError):
    """A model brings other code along than this process has imported, which no second copy can stand beside."""


def code_digest(package: Path) -> str:
    """Fingerprint of the source files that a served model runs; see :func:`mian.fingerprint.source_fingerprint`.

    Args:
        package: The folder of the package ``mian``.
    """
    return source_fingerprint(package / room for room in ROOMS)


def imported_package() -> Path:
    """The folder of the package ``mian`` that this process has imported."""
    return Path(__file__).resolve().parents[1]


def check_code(folder: Path) -> None:
    """Refuse a model whose code is not the code that runs.

    Args:
        folder: of the model's code, with ``mian`` in it; nothing is checked where there is none.

    Raises:
        ServableCodeError: it is another one.
    """
    if not folder.is_dir():  # the model is being logged
        return
    imported = imported_package()
    running, packaged = code_digest(imported), code_digest(folder / "mian")
    if running != packaged:
        raise ServableCodeError(
            f"the model brings its own code along ({folder}, {packaged[:12]}), and this process has imported other code of the same name "
            f"({imported}, {running[:12]}); load models of different code in processes of their own"
        )
