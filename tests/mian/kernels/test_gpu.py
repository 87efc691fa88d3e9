"""What a GPU computes, told by Triton's interpreter where there is none; ``tests/mian/training/test_on_gpu.py`` has what runs on one."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="a torch without CUDA brings no Triton")
def test_operators_of_a_gpu_are_those_of_torch() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, ROOT / "tests" / "support" / "interpreted.py"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    differences = json.loads(ended.stdout.splitlines()[-1])
    assert len(differences) == 7
    assert max(differences.values()) <= 1, differences
