"""``scripts/tracking_server.sh`` as its users run it: what it says, and that any end of it leaves what the next start goes on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import mlflow
import psutil
import pytest

from tests.support.tracking_script import SCRIPT, TrackingScript, missing

with_postgresql = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture
def server() -> Iterator[TrackingScript]:
    with TrackingScript() as server:
        yield server


def said(*arguments: object, **environment: str) -> tuple[int, str]:
    """The exit code of the script, and what it said on standard error; it prints nothing else."""
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | {"PYTHON": sys.executable} | environment, capture_output=True, text=True)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "start, stop or status?"),
        (["start", "stop"], "start or stop, not both"),
        (["begin"], "unknown argument begin"),
        (["start", "--folder"], "--folder needs a value"),
        (["start", "--port", "five"], "--port is a number from 1 to 65535, not five"),
        (["start", "--port", "65536"], "--port is a number from 1 to 65535, not 65536"),
        (["start", "--workers", "0"], "--workers is a number from 1 on, not 0"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: list[str], error: str) -> None:
    code, text = said(*arguments)
    assert (code, error in text) == (2, True), text


def test_the_help_says_what_there_is() -> None:
    shown = subprocess.run(["bash", str(SCRIPT), "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--folder", "--host", "--port", "--workers", "--install", "PYTHON=", "POSTGRESQL_BIN="):
        assert option in shown


def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    folder = tmp_path / "tracking"
    code, text = said("start", "--folder", folder, POSTGRESQL_BIN=str(tmp_path))
    assert (code, "run: apt-get install postgresql" in text) == (1, True), text
    (programs := tmp_path / "bin").mkdir()
    for name in ("initdb", "pg_ctl", "psql", "postgres"):
        (programs / name).write_text("#!/bin/sh\necho postgres 15.1\n")
        (programs / name).chmod(0o755)
    (python := tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without what pip installed
    python.chmod(0o755)
    alone = {"POSTGRESQL_BIN": str(programs), "PYTHON": str(python), "PYTHONPATH": str(tmp_path)}
    code, text = said("start", "--folder", folder, **alone)
    assert (code, "has no mlflow; run: bash scripts/setup.sh" in text) == (1, True), text
    (tmp_path / "mlflow.py").touch()
    code, text = said("start", "--folder", folder, **alone)
    assert (code, "run: pip install 'mian[postgresql]'" in text) == (1, True), text


@with_postgresql
def test_a_folder_that_does_not_serve_is_refused(tmp_path: Path) -> None:
    code, text = said("start", "--folder", tmp_path / ("long" * 30))
    assert (code, "too long for that of a socket" in text) == (1, True), text
    code, text = said("stop", "--folder", tmp_path / "nothing")
    assert (code, "there is no " in text) == (1, True), text
    code, text = said("status", "--folder", tmp_path / "nothing")
    assert (code, "database: does not run; server: does not run" in text) == (3, True), text
    assert not (tmp_path / "nothing").exists()
    made = tmp_path / "made" / "database" / "data"
    made.mkdir(parents=True)
    (made / "PG_VERSION").write_text("9\n")
    code, text = said("start", "--folder", tmp_path / "made")
    assert (code, "was made by PostgreSQL 9" in text and "install postgresql-9" in text) == (1, True), text


@with_postgresql
@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as another user")
def test_a_folder_that_postgresql_s_user_cannot_enter_is_refused() -> None:
    with tempfile.TemporaryDirectory() as closed:  # mode 700; pytest's folders can have too long a path for a socket
        code, text = said("start", "--folder", Path(closed) / "tracking")
    assert (code, "the user postgres" in text and "chmod o+x" in text) == (1, True), text


@pytest.mark.long
@with_postgresql
def test_what_was_stopped_goes_on_with_the_same_data(server: TrackingScript) -> None:
    assert "making the database" in server.start()
    client = mlflow.MlflowClient(server.uri)
    run = client.create_run(client.create_experiment("kept")).info.run_id
    client.log_metric(run, "loss", 0.5, step=3)
    client.log_text(run, "words", "file.txt")
    assert "it runs already" in server.start()
    assert "it runs already, at" in server.run("start", "--port", "1", code=1).stderr
    assert server.run("status").stdout == f"MLFLOW_TRACKING_URI={server.uri}\n"
    database = server.database()
    assert database is not None
    assert {connection.status for connection in database.net_connections("tcp")} == set(), "it listens on a socket alone"
    server.run("stop")
    assert server.processes() == []
    assert "database: does not run; server: does not run" in server.run("status", code=3).stderr
    server.run("stop")
    assert "making the database" not in server.start()
    assert [point.value for point in client.get_metric_history(run, "loss")] == [0.5]
    (file,) = (server.folder / "artifacts").rglob("file.txt")
    assert file.read_text() == "words"
    assert [artifact.path for artifact in client.list_artifacts(run)] == ["file.txt"]


@pytest.mark.long
@with_postgresql
def test_what_was_killed_is_started_again(server: TrackingScript) -> None:
    for moment in ("database/data.part", "database/data", "server.pid"):
        kill_when(server, (server.folder / moment).exists)
    server.start()  # the server that was about to start when the script was killed is used
    mlflow.MlflowClient(server.uri).create_experiment("kept")
    server.kill_server()
    server.stop_database(signal.SIGKILL)
    assert (server.folder / "server.pid").exists(), "a process id of the past"
    assert "database: does not run; server: does not run" in server.run("status", code=3).stderr
    assert "starting the database" in server.start()
    assert mlflow.MlflowClient(server.uri).get_experiment_by_name("kept") is not None


def kill_when(server: TrackingScript, reached: Callable[[], bool]) -> None:
    """SIGKILL the script and what waits for it when it has come so far."""
    process = subprocess.Popen(
        server.command("start"), env=server.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not reached():
        assert process.poll() is None
        time.sleep(0.005)
    for child in [process, *psutil.Process(process.pid).children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
