"""The model that ``docs/how-to/add-a-model.md`` shows is one, and every model is in ``docs/concepts/models.md``."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from mian.distributed.collectives import Ranks
from mian.models import MODELS
from mian.models.registry import Entry
from mian.training import Trainer, open_streams
from tests.support.curves import Curves

DOCS = Path(__file__).parents[3] / "docs"


def test_the_model_of_the_documentation_learns(samples: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, line = re.findall(r"```python\n(.*?)```", (DOCS / "how-to" / "add-a-model.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(file.splitlines()) + len(line.splitlines()) <= 40
    (tmp_path / "two_towers.py").write_text(file, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("two_towers", tmp_path / "two_towers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "two_towers", module)
    spec.loader.exec_module(module)
    (name, entry), *others = eval("{" + line + "}", {"Entry": Entry, **vars(module)}).items()
    assert not others
    monkeypatch.setitem(MODELS, name, entry)  # type: ignore[arg-type]

    settings = {"model": {"name": name}, "epochs": 2, "optimizer": {"learning_rate": 1e-2}}
    config, ranks = samples.config(**settings), Ranks()
    trained = Trainer(config, samples.contract, open_streams(config, samples.contract, ranks), ranks, Curves()).run()
    assert trained.validation["auc"] > 0.65


def test_every_model_is_in_the_documentation() -> None:
    documented = re.findall(
        r"^\| `(\w+)` \| .* \| `mian/models/(?:\w+).py` \|$",
        (DOCS / "concepts" / "models.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert documented == list(MODELS)
