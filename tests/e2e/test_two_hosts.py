"""Trainings on two hosts, which reach each other by ssh and a cable; and what happens when the cable is pulled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
import pytest

from tests.factories import write_samples
from tests.launcher import Launch, processes_with
from tests.support.hosts import Host, missing, two_hosts
from tests.support.trainings import Training, the_run

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


class TwoHostTraining(Training):
    """A training that is launched on host ``a``."""

    def __init__(self, folder: Path, samples: Path, **values: object) -> None:
        super().__init__(folder, samples, **{"log_every": 5, **values})

    def launched(self, host: Host, options: Sequence[str]) -> AbstractContextManager[Launch]:
        """Launched from a host, with options of horovodrun's."""
        return self.start(
            options=[*options, "--network-interfaces", "eth0", "--gloo-timeout-seconds", GLOO_SECONDS],
            through=host.command,
            environment={"HOME": str(self.folder)},  # where horovodrun keeps a cache
        )

    def ranks_on(self, host: Host) -> list[str]:
        """The ranks whose processes run on a host."""
        ranks = []
        for rank, process in self.ranks().items():
            with suppress(psutil.Error, OSError):
                if host.is_of(process):
                    ranks.append(rank)
        return ranks


def wait_until_said(words: str, launch: Launch) -> None:
    launch.wait_until(lambda: words in launch.output, SECONDS)


def test_a_training_on_two_hosts_makes_one_model(hosts: dict[str, Host], samples: Path, tmp_path: Path) -> None:
    training = TwoHostTraining(tmp_path, samples, epochs=3)
    with training.launched(hosts["a"], ON_BOTH) as launch:
        wait_until_said("logloss=", launch)
        assert {name: training.ranks_on(host) for name, host in hosts.items()} == {"a": ["0"], "b": ["1"]}
        assert launch.wait(SECONDS) == 0, launch.output
    assert len(list(tmp_path.glob("models/mian-*"))) == 1
    run = the_run(training.folder)
    assert (run.info.status, run.data.params["ranks"]) == ("FINISHED", "2")


def test_where_a_host_is_cut_off_the_other_ends_and_says_so(hosts: dict[str, Host], samples: Path, tmp_path: Path) -> None:
    training = TwoHostTraining(tmp_path, samples, epochs=1_000)
    with training.launched(hosts["a"], ON_BOTH) as launch:
        wait_until_said("logloss=", launch)
        hosts["b"].cut_off()
        assert launch.wait(UNTIL_ENDED) == 1, launch.output
    assert (
        f"error: rank 1 did not come to an exchange for {GLOO_SECONDS} s: it hangs, was killed, or its host is cut off"
        in launch.output
    )
    assert the_run(training.folder).info.status == "FAILED"
    assert training.ranks_on(hosts["a"]) == []
    assert processes_with(training.config) == []  # nor on the host that was cut off


@pytest.mark.long
def test_where_a_host_is_cut_off_an_elastic_training_goes_on(hosts: dict[str, Host], samples: Path, tmp_path: Path) -> None:
    script = tmp_path / "hosts.sh"
    script.write_text(DISCOVERY)
    script.chmod(0o755)
    training = TwoHostTraining(tmp_path, samples, epochs=6)
    elastic = ["-np", "2", "--min-np", "1", "--max-np", "2", "--host-discovery-script", str(script)]
    with training.launched(hosts["a"], [*elastic, "--blacklist-cooldown-range", "2", "4"]) as launch:
        wait_until_said("logloss=", launch)
        hosts["b"].cut_off()
        wait_until_said("1 ranks,", launch)
        assert launch.wait(SECONDS) == 0, launch.output
    assert len(list(tmp_path.glob("models/mian-*"))) == 1
    assert the_run(training.folder).info.status == "FINISHED"
