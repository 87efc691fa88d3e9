"""Who may import whom. Each folder is a room of one trade, on a floor; imports go down. See docs/concepts/architecture.md."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ("mian", "pipeline", "jobs")
#: What a room may import of the project, besides itself: all rooms, packages or modules that are named here, and no other.
ROOMS: dict[str, set[str]] = {
    "mian/contract": set(),
    "mian/kernels": set(),
    "mian/reports": set(),
    "mian/metrics": {"mian.reports.palette"},
    "mian/layers": {"mian.contract", "mian.kernels"},
    "mian/execution": {"mian.config", "mian.layers", "mian.models"},
    "mian/stream": {"mian.contract", "mian.seeds"},
    "mian/models": {"mian.contract", "mian.kernels", "mian.layers"},
    "mian/distributed": {"mian.execution", "mian.kernels"},
    "mian/checkpoint": {
        "mian.atomic_write", "mian.config",
        "mian.contract", "mian.distributed", "mian.fingerprint", "mian.layers", "mian.models", "mian.stream"},
    "mian/scoring": {"mian.contract"},
    "mian/server": {
        "mian.atomic_write",
        "mian.contract",
        "mian.scoring",
        "mian.serving",
        "mian.tracking.alias_lookup",
        "mian.tracking.client_defaults",
        "mian.tracking.model_source",
    },
    "mian/serving": {"mian.contract", "mian.fingerprint", "mian.layers", "mian.models", "mian.reports.palette", "mian.scoring"},
    "mian/optim": {"mian.config", "mian.distributed", "mian.kernels", "mian.layers", "mian.models"},
    "mian/evaluation": {
        "mian.contract",
        "mian.distributed",
        "mian.execution",
        "mian.metrics",
        "mian.models",
        "mian.reports",
        "mian.scoring",
        "mian.serving",
        "mian.stream",
    },
    "mian/training": {
        "mian.checkpoint",
        "mian.config",
        "mian.contract",
        "mian.distributed",
        "mian.evaluation",
        "mian.execution",
        "mian.fingerprint",
        "mian.layers",
        "mian.models",
        "mian.optim",
        "mian.seeds",
        "mian.stream",
    },
    "mian/tracking": {
        "mian.atomic_write",
        "mian.checkpoint",
        "mian.config",
        "mian.contract",
        "mian.distributed",
        "mian.evaluation",
        "mian.execution",
        "mian.fingerprint",
        "mian.metrics",
        "mian.models",
        "mian.scoring",
        "mian.serving",
        "mian.stream",
        "mian.training",
    },
    "mian/promotion": {
        "mian.config",
        "mian.contract",
        "mian.evaluation",
        "mian.metrics",
        "mian.reports",
        "mian.scoring",
        "mian.serving",
        "mian.tracking",
    },
    "mian/monitoring": {
        "mian.config",
        "mian.contract",
        "mian.evaluation",
        "mian.metrics",
        "mian.reports",
        "mian.scoring",
        "mian.serving",
        "mian.tracking",
    },
    "mian/nightly": {
        "mian.atomic_write",
        "mian.checkpoint",
        "mian.config",
        "mian.contract",
        "mian.promotion",
        "mian.scoring",
        "mian.tracking",
    },
    "mian/experiments": {
        "mian.atomic_write",
        "mian.checkpoint",
        "mian.config",
        "mian.contract",
        "mian.distributed",
        "mian.evaluation",
        "mian.execution",
        "mian.metrics",
        "mian.models",
        "mian.optim",
        "mian.reports",
        "mian.scoring",
        "mian.seeds",
        "mian.serving",
        "mian.tracking",
        "mian.training",
    },
    "pipeline/io": set(),
    "pipeline/config": {"mian.contract", "pipeline.days"},
    "pipeline/importers": {"mian.fingerprint", "pipeline.io"},
    "pipeline/simulate": {"mian.contract", "mian.fingerprint", "pipeline.config", "pipeline.days", "pipeline.io"},
    "pipeline/logs": {
        "mian.contract",
        "pipeline.arrays",
        "pipeline.config",
        "pipeline.days",
        "pipeline.hashing",
        "pipeline.io",
        "pipeline.timelines",
    },
    "pipeline/join": {
        "mian.contract",
        "pipeline.arrays",
        "pipeline.config",
        "pipeline.days",
        "pipeline.hashing",
        "pipeline.io",
        "pipeline.logs",
        "pipeline.timelines",
    },
    "pipeline/encoding": {
        "mian.contract",
        "pipeline.arrays",
        "pipeline.config",
        "pipeline.hashing",
        "pipeline.io",
        "pipeline.join",
    },
    "pipeline/dataset": {
        "mian.contract",
        "mian.fingerprint",
        "pipeline.config",
        "pipeline.days",
        "pipeline.encoding",
        "pipeline.io",
        "pipeline.join",
        "pipeline.logs",
    },
    "pipeline/scoring": {
        "mian.contract",
        "pipeline.arrays",
        "pipeline.config",
        "pipeline.dataset",
        "pipeline.days",
        "pipeline.encoding",
        "pipeline.io",
        "pipeline.join",
        "pipeline.logs",
    },
    "pipeline/describe": {"mian.contract", "pipeline.days", "pipeline.encoding", "pipeline.io"},
    # its rules of time are written a second time, so nothing of the join and none of the logs' own rules of time
    "pipeline/audit": {
        "mian.contract",
        "pipeline.config",
        "pipeline.dataset.fingerprints",
        "pipeline.io",
        "pipeline.logs.errors",
        "pipeline.logs.expressions",
        "pipeline.logs.ids",
        "pipeline.logs.rules",
        "pipeline.logs.sources",
    },
}  # fmt: skip
#: Libraries that a room must do without.
FOREIGN: dict[str, tuple[str, ...]] = {
    "pipeline": ("torch", "horovod", "petastorm", "mlflow"),
    "mian": ("pyspark", "pipeline", "jobs"),
    "mian/contract": ("pyspark", "torch", "pandas"),
    "mian/scoring": ("torch", "pandas", "mlflow", "horovod", "petastorm"),
    "mian/kernels": ("horovod", "petastorm", "mlflow"),
    "mian/layers": ("horovod", "petastorm", "mlflow"),
    "mian/models": ("horovod", "petastorm", "mlflow"),
    "mian/metrics": ("torch", "horovod", "mlflow"),
    "mian/reports": ("torch", "horovod", "petastorm", "mlflow", "pandas"),
    "mian/server": ("torch", "pandas", "mlflow"),
    "mian/stream": ("horovod", "mlflow"),
    "mian/distributed": ("petastorm", "mlflow"),
    "mian/execution": ("mlflow",),
    "mian/optim": ("petastorm", "mlflow"),
    "mian/checkpoint": ("mlflow",),
    "mian/evaluation": ("mlflow",),
    "mian/training": ("mlflow",),
    "pipeline/describe": ("pyspark",),
}


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, at its top or anywhere inside, by their full names."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)  # `from mian import contract` is of mian.contract


def is_within(module: str, package: str) -> bool:
    """Whether a module is a package, or lies in it."""
    return module == package or module.startswith(f"{package}.")


def found(room: str, *strangers: str) -> list[str]:
    """Where files of a room import any of the strangers."""
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"there is no room {room}"
    return [
        f"{path.relative_to(ROOT)}: {module}"
        for path in files
        for module in imports(path)
        if any(is_within(module, stranger) for stranger in strangers)
    ]


def test_every_folder_is_a_room() -> None:
    folders = {
        path.relative_to(ROOT).as_posix()
        for package in ("mian", "pipeline")
        for path in (ROOT / package).iterdir()
        if path.is_dir() and any(path.glob("*.py"))
    }
    assert folders == ROOMS.keys()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_what_it_may_and_no_more(room: str) -> None:
    own = room.replace("/", ".")
    strangers = [
        line
        for line in found(room, *LIBRARY)
        if not any(is_within(line.split(": ")[1], allowed) for allowed in (own, *ROOMS[room]))
    ]
    assert strangers == []
    unused = [allowed for allowed in ROOMS[room] if not found(room, allowed)]
    assert unused == [], "nothing imports them any more; take them out of the rule"


@pytest.mark.parametrize("room", sorted(FOREIGN))
def test_a_room_does_without_some_libraries(room: str) -> None:
    assert found(room, *FOREIGN[room]) == []


def test_the_pipeline_knows_of_mian_the_contract_and_the_fingerprint_alone() -> None:
    beyond = [
        line
        for line in found("pipeline", "mian")
        if not any(is_within(line.split(": ")[1], allowed) for allowed in ("mian.contract", "mian.fingerprint"))
    ]
    assert beyond == []


def test_nothing_imports_jobs_or_tests() -> None:
    assert found("pipeline", "jobs", "tests") + found("mian", "jobs", "tests") + found("jobs", "tests") == []


def test_no_two_folders_import_each_other_by_any_way_round() -> None:
    edges: dict[str, set[str]] = defaultdict(set)
    for package in LIBRARY:
        for path in sorted((ROOT / package).rglob("*.py")):
            folder = node_of(path)
            for module in imports(path):
                target = folder_of(module)
                if target is not None and target != folder:
                    edges[folder].add(target)
    assert circle(edges) is None


def node_of(path: Path) -> str:
    """The folder of a file; one that lies beside the folders is a folder of its own."""
    place = path.relative_to(ROOT)
    return (place if len(place.parts) == 2 and path.name != "__init__.py" else place.parent).as_posix()


def folder_of(module: str) -> str | None:
    """The node of a module of the project, see :func:`node_of`."""
    parts = module.split(".")
    if parts[0] not in LIBRARY:
        return None
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        if path.is_dir():
            return path.relative_to(ROOT).as_posix()
        if path.with_suffix(".py").is_file():
            return node_of(path.with_suffix(".py"))
    return None


def circle(edges: dict[str, set[str]]) -> list[str] | None:
    """A way from a folder back to itself; None where there is none. A package and what lies in it are apart."""
    done: set[str] = set()

    def walk(folder: str, way: list[str]) -> list[str] | None:
        if folder in way:
            return [*way[way.index(folder) :], folder]
        if folder in done:
            return None
        for target in sorted(edges.get(folder, ())):
            if target != folder.split("/")[0] and (back := walk(target, [*way, folder])) is not None:
                return back
        done.add(folder)
        return None

    for folder in sorted(edges):
        if "/" in folder and (back := walk(folder, [])) is not None:
            return back
    return None


def test_a_file_beside_the_folders_is_a_node_as_it_imports_and_as_it_is_imported() -> None:
    assert node_of(ROOT / "pipeline" / "arrays.py") == folder_of("pipeline.arrays.group_rows") == "pipeline/arrays.py"
    assert node_of(ROOT / "pipeline" / "__init__.py") == folder_of("pipeline") == "pipeline"
    assert node_of(ROOT / "mian" / "models" / "mian.py") == folder_of("mian.models.mian.Mian") == "mian/models"


def test_a_circle_is_seen() -> None:
    assert circle({"mian/a": {"mian/b"}, "mian/b": {"mian/c"}, "mian/c": {"mian/a"}}) == ["mian/a", "mian/b", "mian/c", "mian/a"]
    assert circle({"mian/a": {"mian/b", "mian/c"}, "mian/b": {"mian/c"}}) is None


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import torch.nn as n", "torch.nn"),
        ("from torch import nn", "torch.nn"),
        ("def f():\n    import torch", "torch"),
        ("if a:\n    from mian.models import build", "mian.models.build"),
        ("from . import storage", "pipeline.storage"),
        ("from .contract import Field", "pipeline.contract.Field"),
    ],
)
def test_every_way_to_import_is_seen(line: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pipeline" / "file.py"
    path.parent.mkdir()
    path.write_text(line)
    monkeypatch.setitem(imports.__globals__, "ROOT", tmp_path)
    assert list(imports(path)) == [module]
