"""The version of the code."""

from __future__ import annotations

import hashlib
import pathlib

import mian


def code_fingerprint() -> str:
    """SHA-256 of the package's source files."""
    assert mian.__file__ is not None, "mian is a package with an __init__.py"
    root = pathlib.Path(mian.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.cpp", "*.h") for path in root.rglob(kind)):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
