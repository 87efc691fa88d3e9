"""The commands of a tutorial run as they stand."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.ranks, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs" / "tutorials" / "your-own-logs.md"
#: What a command needs of the project's folder.
NEEDED = ("jobs", "mian", "pipeline", "conf", "scripts")


def blocks() -> list[str]:
    """The commands of the tutorial, but for the set-up that a test has behind it."""
    found = re.findall(r"```bash\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    assert "setup.sh" in found[0]
    return found[1:]


def test_your_own_logs_becomes_a_model_command_by_command(tmp_path: Path) -> None:
    for name in NEEDED:
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SPARK_CONF_DIR": str(ROOT / "conf" / "spark"),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    said = []
    for block in blocks():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        wrong = "membr" in block  # the mistake that the tutorial makes on purpose
        assert done.returncode == int(wrong), f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        if wrong:
            assert "error: log.impressions.columns.user_id: " in done.stderr
            assert "the columns there are id, member, platform, sku, slot, ts_ms" in done.stderr
        said.append(done.stdout)
    assert "42,000 impressions, 3,940 clicks" in said[0]
    assert any("nothing found" in text for text in said)
    model, regression = (
        float(re.search(rf"^{name} +(\S+)", said[-1], re.MULTILINE)[1]) for name in ("model", "logistic_regression")
    )  # type: ignore[index]
    assert model > regression > 0.5
    assert (tmp_path / "data" / "shop" / "samples.html").exists()
