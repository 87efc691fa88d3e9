"""Who may import whom: each folder is a room with doors, see docs/architecture.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or anywhere inside, by their full names."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)  # `from pipeline import contract` is of mian.contract


def of(module: str, room: str) -> bool:
    """Whether a module is a package, or lies in it."""
    return module == room or module.startswith(f"{room}.")


def found(room: str, *strangers: str) -> list[str]:
    """Where files of a room import any of the strangers."""
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"there is no room {room}"
    return [
        f"{path.relative_to(ROOT)}: {module}"
        for path in files
        for module in imports(path)
        if any(of(module, stranger) for stranger in strangers)
    ]


def test_the_pipeline_knows_neither_torch_nor_mian() -> None:
    assert found("pipeline", "torch", "horovod", "petastorm", "mlflow", "mian", "jobs", "tests") == []


def test_the_contract_knows_neither_spark_nor_torch_nor_the_rest_of_the_pipeline() -> None:
    assert found("mian/contract", "pyspark", "torch", "mian", "jobs") == []
    assert [line for line in found("mian/contract", "pipeline") if ": mian.contract" not in line] == []


def test_mian_knows_no_spark_and_of_the_pipeline_the_contract_alone() -> None:
    assert found("mian", "pyspark", "jobs", "tests") == []
    beyond = [line for line in found("mian", "pipeline") if ": mian.contract" not in line]
    # The served model takes the code that it needs along, the folder of `pipeline` included.
    assert [line for line in beyond if not line.startswith("mian/serving/code.py: pipeline")] == []


def test_the_kernels_know_nothing_of_models_or_samples() -> None:
    assert [line for line in found("mian/kernels", "mian", "pipeline") if ": mian.kernels" not in line] == []


def test_nothing_imports_the_jobs_but_tests() -> None:
    assert found("pipeline", "jobs") + found("mian", "jobs") == []


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import torch.nn as n", "torch.nn"),
        ("from torch import nn", "torch.nn"),
        ("def f():\n    import torch", "torch"),
        ("if a:\n    from mian.models import build", "mian.models.build"),
        ("from . import storage", "pipeline.io.storage"),
        ("from .contract import Field", "mian.contract.Field"),
    ],
)
def test_every_way_to_import_is_seen(line: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pipeline" / "file.py"
    path.parent.mkdir()
    path.write_text(line)
    monkeypatch.setitem(imports.__globals__, "ROOT", tmp_path)
    assert list(imports(path)) == [module]
