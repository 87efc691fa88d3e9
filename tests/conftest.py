"""What all tests share: their order, one small Spark session, and how JVMs are run."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from pyspark.sql import SparkSession

from pipeline.io.session import spark_session

#: Most JVMs here, those that tests start as processes of their own included, live for less than optimizing them takes.
os.environ["JDK_JAVA_OPTIONS"] = f"-XX:TieredStopAtLevel=1 {os.environ.get('JDK_JAVA_OPTIONS', '')}"

#: How long an example takes says nothing on a busy machine.
hypothesis.settings.register_profile("mian", deadline=None)
hypothesis.settings.load_profile("mian")

#: What the tests import stays: looking through it for garbage again and again takes a third of the time that collecting them takes.
gc.disable()

#: Rooms of long files come first: whoever runs several files at a time then ends with short ones.
FIRST = ("e2e", "pipeline", "jobs")


#: What starts more than this process; a test with none of these is a unit test.
TIERS = ("spark", "ranks", "e2e")


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")
        if {"e2e", "jobs"} & set(item.path.parts):
            item.add_marker("e2e")
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            item.add_marker("unit")

    def place(item: pytest.Item) -> int:
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        return FIRST.index(room) if room in FIRST else len(FIRST)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Garbage is looked for among what the tests themselves make."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session of two cores, set up as the jobs' sessions are, but for what few rows do not pay for."""
    settings = {
        "spark.master": "local[2]",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        # A query of a few rows takes longer to compile than to interpret. The jobs of tests/e2e compile theirs.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    }
    arguments = " ".join(f"--conf {key}={value}" for key, value in settings.items())
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"{arguments} pyspark-shell"
    session = spark_session("tests")
    yield session
    session.stop()
