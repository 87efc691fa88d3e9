"""Workers of an elastic training are killed and come back while it runs; it ends by itself with the model that it would have made."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import mlflow
import psutil
import pytest

from mian.tracking.journal import JOURNAL_FILE, JOURNALS
from tests.factories import write_samples
from tests.launcher import Launch, processes_with
from tests.support.trainings import Training, the_run

#: So many trainings are killed at drawn moments: MIAN_KILLS=10 MIAN_SEED=3.
KILLS = int(os.environ.get("MIAN_KILLS", "1"))
SEED = int(os.environ.get("MIAN_SEED", "0"))
SECONDS = 300
LOG_EVERY = 20
#: Of two workers that stay: two epochs of 30,000 samples, 64 a step.
STEPS = 930
#: Each a host of its own to Horovod, which bars a host whole when a worker on it dies.
HOSTS = ("localhost", "127.0.0.1")

pytestmark = [pytest.mark.ranks]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder, train=((5000, 5000),) * 3, validation=((2000, 2000),), test=((6000, 6000),))
    return folder


class ElasticTraining(Training):
    """A training of its own folder, on one or two workers."""

    def __init__(self, folder: Path, samples: Path, **values: object) -> None:
        learning = {
            "optimizer": {"learning_rate": 3e-3, "schedule": "linear"},
            "batch_size": 32,
            "epochs": 2,
            "log_every": LOG_EVERY,
        }
        super().__init__(folder, samples, **{**learning, **values})
        self.hosts(*HOSTS)
        script = folder / "hosts.sh"
        script.write_text(f"#!/bin/sh\ncat {folder}/hosts\n")
        script.chmod(0o755)

    def hosts(self, *names: str) -> None:
        """Name the hosts that the launcher finds from now on, of one worker each."""
        part = self.folder / "hosts.part"
        part.write_text("".join(f"{name}:1\n" for name in names))
        part.rename(self.folder / "hosts")

    @contextmanager
    def started(self) -> Iterator[Launch]:
        """Started; ended with the context, where it has not ended by itself."""
        elastic = ["--host-discovery-script", self.folder / "hosts.sh", "--network-interfaces", "lo"]
        patience = ["--blacklist-cooldown-range", 2, 4, "--gloo-timeout-seconds", 30]
        with self.start(options=["-np", 2, "--min-np", 1, "--max-np", 2, *elastic, *patience]) as launch:
            yield launch

    def steps(self) -> int:
        """How many steps it has done, as far as its journal says."""
        points = 0
        for journal in self.folder.glob(f"models/{JOURNALS}/*/{JOURNAL_FILE}"):
            with suppress(FileNotFoundError):  # it goes with the end
                points += journal.read_text(encoding="utf-8").count('"train_logloss"')
        return points * LOG_EVERY

    def wait_for_steps(self, launch: Launch) -> None:
        """Until it trains; before that whoever goes on may not know of the run that the first rank began."""
        launch.wait_until(lambda: self.steps() > 0, SECONDS)

    def workers(self) -> dict[str, psutil.Process]:
        """The workers that run, by the name of their host."""
        return self.ranks("HOROVOD_HOSTNAME")

    def first(self) -> str:
        """The host of rank 0, before any worker was killed."""
        (host,) = (host for host, worker in self.workers().items() if worker.environ()["HOROVOD_RANK"] == "0")
        return host

    def auc(self) -> float:
        """Of the one model that the one run made, on the test split."""
        run = the_run(self.folder)
        assert run.info.status == "FINISHED"
        (version,) = mlflow.MlflowClient(f"sqlite:///{self.folder}/mlflow.db").search_model_versions("name='mian'")
        assert version.run_id == run.info.run_id
        return float(run.data.metrics["test_auc"])


def worlds(launch: Launch) -> list[int]:
    """The numbers of ranks that a training has gone through."""
    return [int(line.partition(" ranks,")[0].rpartition(" ")[2]) for line in launch.output.splitlines() if " ranks, " in line]


def wait_for(launch: Launch, *expected: int) -> None:
    """Until it has gone through these numbers of ranks."""
    launch.wait_until(lambda: worlds(launch) == list(expected), SECONDS)


@pytest.fixture(scope="module")
def undisturbed(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The AUC of a training whose two workers stay."""
    training = ElasticTraining(tmp_path_factory.mktemp("whole") / "training", samples)
    with training.started() as launch:
        assert launch.wait(SECONDS) == 0, launch.output
    assert worlds(launch) == [2]
    return training.auc()


@pytest.mark.long
@pytest.mark.parametrize(
    ("rank", "ended_by"),
    [
        (0, signal.SIGKILL),
        (1, signal.SIGKILL),
        (0, signal.SIGTERM),
    ],
)
def test_a_worker_that_ended_comes_back_while_the_other_goes_on(
    samples: Path, tmp_path: Path, undisturbed: float, rank: int, ended_by: signal.Signals
) -> None:
    training = ElasticTraining(tmp_path / "killed", samples)
    draw = random.Random(SEED + rank)
    with training.started() as launch:
        wait_for(launch, 2)
        training.wait_for_steps(launch)
        time.sleep(draw.uniform(0, 2))
        first = training.first()
        (other,) = set(HOSTS) - {first}
        training.workers()[(first, other)[rank]].send_signal(ended_by)
        wait_for(launch, 2, 1)
        wait_for(launch, 2, 1, 2)
        assert launch.wait(SECONDS) == 0, launch.output
    assert worlds(launch) == [2, 1, 2]
    assert processes_with(training.folder) == []
    assert training.auc() == pytest.approx(undisturbed, abs=0.002)


@pytest.mark.long
def test_a_worker_that_is_killed_while_it_comes_back_keeps_nobody_waiting(
    samples: Path, tmp_path: Path, undisturbed: float
) -> None:
    training = ElasticTraining(tmp_path / "killed", samples)
    with training.started() as launch:
        wait_for(launch, 2)
        (killed := training.workers()[HOSTS[1]]).kill()
        wait_for(launch, 2, 1)
        while (comes_back := training.workers().get(HOSTS[1], killed)) == killed:
            assert launch.code is None, launch.output
            time.sleep(0.02)
        comes_back.kill()
        assert launch.wait(SECONDS) == 0, launch.output
    assert worlds(launch)[:3] == [2, 1, 1]
    assert training.auc() == pytest.approx(undisturbed, abs=0.002)


@pytest.mark.long
@pytest.mark.parametrize("attempt", range(KILLS))
def test_it_ends_by_itself_whenever_a_worker_is_killed(samples: Path, tmp_path: Path, undisturbed: float, attempt: int) -> None:
    training = ElasticTraining(tmp_path / "killed", samples)
    draw = random.Random(SEED * 1_000 + attempt)
    steps, host = draw.uniform(0, STEPS), draw.choice(HOSTS)
    with training.started() as launch:
        while training.steps() < steps and launch.code is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 0.2))
        if worker := training.workers().get(host):
            worker.kill()
        assert launch.wait(SECONDS) == 0, launch.output
    difference = training.auc() - undisturbed
    print(f"{host} killed after step {steps:.0f}: worlds {worlds(launch)}, AUC {difference:+.5f}")
    assert processes_with(training.folder) == []
    assert abs(difference) < 0.002
