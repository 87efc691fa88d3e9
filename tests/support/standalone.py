"""A Spark standalone cluster on this machine: a master and workers that are processes of their own, and know nothing of this project."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyspark

SPARK_HOME = Path(pyspark.__file__).parent
START_SECONDS = 90.0
SUBMIT_SECONDS = 240.0

#: JVMs that live for a minute.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

#: All drivers and executors: small, heard on this machine alone, without web pages.
SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.extraJavaOptions": JAVA_OPTIONS,
    "spark.driver.memory": "800m",
    "spark.executor.extraJavaOptions": JAVA_OPTIONS,
    "spark.sql.shuffle.partitions": "4",
    "spark.ui.enabled": "false",
}


@dataclass(frozen=True)
class Cluster:
    """``url`` is the master's; each worker has a folder, in which each of its executors has one named by its number."""

    url: str
    workers: tuple[Path, ...]

    def executors(self) -> list[set[str]]:
        """The numbers of the executors that each worker has started, of all applications."""
        return [{path.name for path in folder.glob("app-*/*")} for folder in self.workers]


def python_without_project(folder: Path) -> Path:
    """An interpreter with all packages of this one, but for those that are installed in place, as this project is."""
    venv.create(folder, symlinks=True)
    version = sysconfig.get_python_version()
    # a .pth file inside of a folder that comes from a .pth file is not heeded, and an editable install is one
    (folder / f"lib/python{version}/site-packages/packages.pth").write_text(f"{SPARK_HOME.parent}\n")
    return folder / "bin" / "python"


def submit(folder: Path, python: Path, *arguments: str) -> str:
    """Run ``spark-submit`` in a folder with an interpreter for the driver and the workers; what it printed.

    Raises:
        AssertionError: it failed, or did not end in time.
    """
    settings = [word for key, value in SETTINGS.items() for word in ("--conf", f"{key}={value}")]
    with (folder / "submit.log").open("w+") as log:
        command = [str(SPARK_HOME / "bin/spark-submit"), *settings, *arguments]
        process = subprocess.Popen(command, cwd=folder, env=_environment(folder, python), stdout=log, stderr=log)
        try:
            code: int | None = process.wait(SUBMIT_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        log.seek(0)
        printed = log.read()
    assert code == 0, f"spark-submit {'did not end' if code is None else f'ended with {code}'}:\n{printed[-6000:]}"
    return printed


@contextmanager
def standalone_cluster(folder: Path, python: Path, workers: int = 2) -> Iterator[Cluster]:
    """A master and some workers, each with a core and room for one small executor; they end with the block."""
    with ExitStack() as running:
        address = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        master = _daemon(running, folder / "master", python, "master.Master", *address)
        url = _said(master, r"Starting Spark master at (spark://\S+)")
        folders = []
        started = []
        for number in range(workers):
            place = folder / f"worker-{number}"
            room = ["--cores", "1", "--memory", "1g", "--work-dir", str(place / "work")]
            started.append(_daemon(running, place, python, "worker.Worker", *address, *room, url))
            folders.append(place / "work")
        for worker in started:
            _said(worker, r"(Successfully registered with master)")
        yield Cluster(url, tuple(folders))


@dataclass(frozen=True)
class _Daemon:
    process: subprocess.Popen[bytes]
    log: Path


def _daemon(running: ExitStack, folder: Path, python: Path, name: str, *arguments: str) -> _Daemon:
    folder.mkdir(parents=True)
    command = [str(SPARK_HOME / "bin/spark-class"), f"org.apache.spark.deploy.{name}", *arguments]
    path = folder / "log"
    with path.open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=_environment(folder, python), stdout=log, stderr=log)
    running.callback(_end, process)
    return _Daemon(process, path)


def _said(daemon: _Daemon, pattern: str) -> str:
    """The first group of a pattern, once the log has it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and daemon.process.poll() is None:
        found = re.search(pattern, daemon.log.read_text())
        if found:
            return found[1]
        time.sleep(0.2)
    raise AssertionError(f"{daemon.log} does not say {pattern!r}:\n{daemon.log.read_text()[-3000:]}")


def _environment(folder: Path, python: Path) -> dict[str, str]:
    """Nothing of this process's environment but where programs are: no PYTHONPATH, no settings of Spark."""
    (folder / "conf").mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "JAVA_HOME", "LANG") if name in os.environ}
    return kept | {
        "PYSPARK_DRIVER_PYTHON": str(python),
        "PYSPARK_PYTHON": str(python),
        "SPARK_CONF_DIR": str(folder / "conf"),
        "SPARK_DAEMON_JAVA_OPTS": JAVA_OPTIONS,
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_HOME": str(SPARK_HOME),
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    try:
        all_of_it = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        process.wait()
        return
    for each in all_of_it:
        _signal(each, kill=False)
    _, left = psutil.wait_procs(all_of_it, timeout=15)
    for each in left:
        _signal(each, kill=True)
    process.wait()


def _signal(process: psutil.Process, *, kill: bool) -> None:
    with suppress(psutil.NoSuchProcess):
        if kill:
            process.kill()
        else:
            process.terminate()
