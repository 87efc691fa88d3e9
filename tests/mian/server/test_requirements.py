"""The list of packages that the server's image installs is the one that setup.cfg has."""

from __future__ import annotations

import configparser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_requirements_of_the_server_are_the_extra_and_hold_no_torch() -> None:
    said = configparser.ConfigParser()
    said.read(ROOT / "setup.cfg", encoding="utf-8")
    extra = said["options.extras_require"]["serving"].split()
    lines = (ROOT / "requirements-serving.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == extra
    assert not [name for name in extra if name.startswith(("torch", "mlflow>", "pandas"))]
