"""Trainings on two hosts, which reach each other by ssh and a cable; and what happens when the cable is pulled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.hosts import Host, missing, two_hosts
from tests.support.launcher import ENVIRONMENT, ROOT, processes_with
from tests.support.sample_data import write_samples
from tests.support.trainings import the_run, write_training

SECONDS = 120
#: So long an exchange may take, and a rank may start later than another; then Horovod counts the others as lost.
GLOO_SECONDS = 10
#: From the cut to the launcher's end: that, and what it needs to notice and to end what is left.
UNTIL_ENDED = GLOO_SECONDS + 45
ON_BOTH = ["-np", "2", "-H", "a:1,b:1"]
#: Prints the hosts that can be reached.
DISCOVERY = """#!/bin/sh
echo a:1
ssh -o StrictHostKeyChecking=no -o ConnectTimeout=2 b true 2> /dev/null && echo b:1
true
"""

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, Host]]:
    with two_hosts(tmp_path / "hosts") as made:
        yield made


class Training:
    """A training that is launched on host ``a``."""

    def __init__(self, folder: Path, samples: Path, **values: object) -> None:
        self.folder = folder
        self.config = write_training(folder, samples, **{"log_every": 5, **values})
        self._output = folder / "output"

    @contextmanager
    def launched(self, host: Host, options: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Launched from a host, with options of horovodrun's."""
        launcher = [str(Path(sys.executable).with_name("horovodrun")), "--gloo", *options, "--network-interfaces", "eth0"]
        job = [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", str(self.config)]
        # horovodrun keeps a cache in HOME
        environment = os.environ | ENVIRONMENT | {"HOME": str(self.folder)}
        with self._output.open("wb") as output:
            process = subprocess.Popen(
                host.command(self.folder, *launcher, "--gloo-timeout-seconds", str(GLOO_SECONDS), *job),
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def said(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait_until_said(self, words: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + SECONDS
        while words not in self.said():
            assert process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)

    def rank_on(self, host: Host) -> list[str]:
        """The ranks whose processes run on a host."""
        ranks = []
        for process in psutil.process_iter():
            try:
                if process.cmdline()[1:2] == [str(ROOT / "jobs" / "train.py")] and host.is_of(process):
                    ranks.append(process.environ()["HOROVOD_RANK"])
            except (psutil.Error, OSError):
                continue
        return ranks


def test_a_training_on_two_hosts_makes_one_model(hosts: dict[str, Host], samples: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, samples, epochs=3)
    with training.launched(hosts["a"], ON_BOTH) as process:
        training.wait_until_said("logloss=", process)
        assert {name: training.rank_on(host) for name, host in hosts.items()} == {"a": ["0"], "b": ["1"]}
        assert process.wait(timeout=SECONDS) == 0, training.said()
    assert len(list(tmp_path.glob("models/mian-*"))) == 1
    run = the_run(training.folder)
    assert (run.info.status, run.data.params["ranks"]) == ("FINISHED", "2")


def test_where_a_host_is_cut_off_the_other_ends_and_says_so(hosts: dict[str, Host], samples: Path, tmp_path: Path) -> None:
    training = Training(tmp_path, samples, epochs=1_000)
    with training.launched(hosts["a"], ON_BOTH) as process:
        training.wait_until_said("logloss=", process)
        hosts["b"].cut_off()
        assert process.wait(timeout=UNTIL_ENDED) == 1, training.said()
    assert (
        f"error: rank 1 did not come to an exchange for {GLOO_SECONDS} s: it hangs, was killed, or its host is cut off"
        in training.said()
    )
    assert the_run(training.folder).info.status == "FAILED"
    assert training.rank_on(hosts["a"]) == []
    assert processes_with(training.config) == []  # nor on the host that was cut off


@pytest.mark.long
def test_where_a_host_is_cut_off_an_elastic_training_goes_on(hosts: dict[str, Host], samples: Path, tmp_path: Path) -> None:
    script = tmp_path / "hosts.sh"
    script.write_text(DISCOVERY)
    script.chmod(0o755)
    training = Training(tmp_path, samples, epochs=6)
    elastic = ["-np", "2", "--min-np", "1", "--max-np", "2", "--host-discovery-script", str(script)]
    with training.launched(hosts["a"], [*elastic, "--blacklist-cooldown-range", "2", "4"]) as process:
        training.wait_until_said("logloss=", process)
        hosts["b"].cut_off()
        training.wait_until_said("1 ranks,", process)
        assert process.wait(timeout=SECONDS) == 0, training.said()
    assert len(list(tmp_path.glob("models/mian-*"))) == 1
    assert the_run(training.folder).info.status == "FINISHED"
