"""One MLflow run a training; a tracking server that is not there for a while costs nothing of the record."""

from __future__ import annotations

import io
import logging
import os
import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.entities import Metric, Param, RunTag

from mian.config import TrackingConfig
from mian.contract import CONTRACT_FILE, Contract
from mian.tracking.errors import TrackingError, hide_passwords
from mian.tracking.journal import Journal
from mian.tracking.mlflow_store import (
    STORE_ERRORS,
    check_store,
    error_text,
    find_run,
    known_run,
    open_experiment,
    refuses,
    run_of_environment,
    tracking_uri,
    uploading,
)
from mian.tracking.records import TRAINING_TAG, Outcome, flatten, quality_table, tags
from mian.tracking.registry import register

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # takes a second, and a training's other ranks do without

log = logging.getLogger(__name__)

QUALITY_FILE = "samples_quality.csv"
FLUSH_SECONDS = 5.0
PATIENCE = 10.0
"""After an attempt that failed, the next one waits so many times as long as that took: an outage takes a tenth of the time at most."""
ATTEMPTS_AT_THE_END = 3
LOCKED = "database is locked"
"""What SQLite says while other processes write."""
POINTS_A_REQUEST = 1000
PARAMS_A_REQUEST = 100


class Tracker:
    """Records a training as a run of the tracking store; used on rank 0 alone.

    Everything that is reported is written to a journal first. Every few seconds the new entries of the journal are sent to the store. If
    the store does not answer, the training goes on. The entries are then sent at the next attempt, at the end of the training, by the
    next process of the same training, or by ``jobs/register.py``. The run gets each metric once.

    Args:
        config: the settings of the tracking store.
        folder: the folder of the journal; no other training uses it.
        parent_run: the id of the run that the run of this training is nested in.
        training: the id of the training, if it is known and its journal may be gone.

    Attributes:
        journal: what was reported.
        run_id: the id of the run; None until the store has answered.
        failure: why the store does not answer; None while it does.
        goes_on: whether the store had the run already.
        uri: the address of the store; ``shown_uri`` is the same without its password, for messages.
        status_before: the status of the run that the store had already; None if it had none.
    """

    def __init__(
        self, config: TrackingConfig, folder: pathlib.Path, parent_run: str | None = None, training: str | None = None
    ) -> None:
        self._config = config
        self._parent_run = parent_run
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._resumed: str | None = None
        self._flushed = time.monotonic()
        self._next_attempt = 0.0
        self.journal = Journal(folder, training)
        self._journal_is_new = not self.journal.exists
        self.run_id: str | None = None
        self.failure: str | None = None
        self.goes_on = False
        self.status_before: str | None = None
        self.uri = tracking_uri(config.uri)
        self.shown_uri = hide_passwords(self.uri)

    def start(self, params: Mapping[str, Any], contract: Contract, samples: str, run_id: str | None = None) -> None:
        """Begin the run, or go on with it: every configuration value, the contract and its fingerprint, the code's version.

        Args:
            params: the configuration.
            contract: of the samples.
            samples: where they are.
            run_id: of a run that is to go on, where the journal knows of none; one that is gone from the store is begun anew.

        Raises:
            TrackingError: the store, the experiment or the run can never take the record.
        """
        self._params = {name: hide_passwords(str(value)) for name, value in flatten(params)}
        self._tags = tags(contract, hide_passwords(samples), self.journal.training)
        self._resumed = run_id
        self.journal.note("training", self.journal.training)
        if "told" not in self.journal.notes:
            self.journal.attach(CONTRACT_FILE, contract.to_json().encode())
            self.journal.attach(QUALITY_FILE, quality_table(contract).to_csv(index=False).encode())
        try:
            self._send_all(refused=True)
        except TrackingError:
            self._params = {}  # there is no run to end
            if not self.journal.points:
                self.journal.remove()
            raise

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        """Points of curves; they travel together every few seconds."""
        self.journal.report(metrics, step)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what waits, unless the store did not answer a short while ago."""
        if time.monotonic() >= self._next_attempt:
            self._send_all()

    def figure(self, figure: Figure, name: str) -> None:
        """A plot, made without pyplot."""
        content = io.BytesIO()
        figure.savefig(content, format=pathlib.Path(name).suffix[1:])
        self.journal.attach(name, content.getvalue())
        self.flush()

    def table(self, rows: pd.DataFrame, name: str) -> None:
        """Upload a table as a CSV file, now or with what waits."""
        self.journal.attach(name, rows.to_csv(index=False).encode())
        self.flush()

    def files(self, folder: pathlib.Path) -> None:
        """The files of a folder, if there is one, under the name of the folder above it."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.journal.attach(f"{folder.parent.name}/{file.relative_to(folder)}", file.read_bytes())
        self.flush()

    def register(self, folder: str, example: pd.DataFrame, move_alias: bool = True) -> str | None:
        """Log the trained model, and register it where the configuration names it; once a run.

        Args:
            folder: the model.
            example: see :func:`mian.serving.input_example`.
            move_alias: whether the alias may point to the version then, see :func:`mian.tracking.registry.register`.

        Returns:
            Its URI, such as ``models:/mian/3``; None where the store does not answer.
        """
        if not self._send_all():
            return None
        began = time.monotonic()
        try:
            return register(folder, example, self._config, move_alias)
        except STORE_ERRORS as error:
            self._give_up(error, time.monotonic() - began)
            return None

    def end(self, outcome: Outcome | None) -> bool:
        """End the run, also where the store has failed: it may be back. A database that others have locked is tried again.

        Args:
            outcome: the run's status; None: the one that it had before, ``FAILED`` where it is new.

        Returns:
            Whether the run has all that was reported.
        """
        for attempt in range(ATTEMPTS_AT_THE_END):
            time.sleep(attempt)
            if self._end(outcome):
                return True
            if LOCKED not in (self.failure or ""):
                break
        return False

    def _end(self, outcome: Outcome | None) -> bool:
        sent = self._send_all()
        if self.run_id is None:
            return sent
        began = time.monotonic()
        status = outcome or self.status_before or "FAILED"
        try:
            if mlflow.active_run() is not None:
                mlflow.end_run(status)
            else:  # the attempt before this one failed
                mlflow.MlflowClient().set_terminated(self.run_id, status)
        except STORE_ERRORS as error:
            self._give_up(error, time.monotonic() - began)
            return False
        return sent

    def _send_all(self, refused: bool = False) -> bool:
        """Try to send everything that waits.

        Args:
            refused: whether it is an error that the store refuses it; otherwise that is said, as an outage is.

        Returns:
            Whether the store has taken all.
        """
        began = self._flushed = time.monotonic()
        if not self._params:
            return False  # the run was never to begin
        try:
            if self.failure is not None or self.run_id is None:
                check_store(self.uri)
            if self.run_id is None:
                self._begin()
            self._send(self.run_id or "")
        except TrackingError as error:
            if refused:
                raise
            self._give_up(error, time.monotonic() - began)
            return False
        except STORE_ERRORS as error:
            if refused and refuses(error):
                raise TrackingError(
                    f"the tracking store {self.shown_uri} can never take this run: {error_text(error)}"
                ) from error
            self._give_up(error, time.monotonic() - began)
            return False
        if self.failure is not None:
            log.info("the tracking store %s answers again, and has all that was reported meanwhile", self.shown_uri)
        self.failure = None
        return True

    def _begin(self) -> None:
        mlflow.set_tracking_uri(self.uri)
        experiment = open_experiment(self.uri, self._config.experiment)
        mlflow.set_experiment(experiment_id=experiment)
        mlflow.enable_system_metrics_logging()  # type: ignore[no-untyped-call]
        run = find_run(experiment, self.journal.training)
        if run is not None and self._journal_is_new:  # an earlier one, which is gone since it was sent, has told the run
            self.journal.note("told", run.info.run_id)
            for name in (CONTRACT_FILE, QUALITY_FILE):
                self.journal.uploaded(name)
        if run is None and self._resumed is not None:
            run = known_run(self._resumed)
        self.goes_on = run is not None
        environment = os.environ.get("MLFLOW_RUN_ID")
        if run is None and environment and self._parent_run is None:
            run = run_of_environment(environment, experiment, self._params)
        nested = self._parent_run is not None
        if run is not None:
            self.status_before = run.info.status
            started = mlflow.start_run(run_id=run.info.run_id, nested=nested)
        else:
            started = mlflow.start_run(
                run_name=self._config.run_name,
                nested=nested,
                parent_run_id=self._parent_run,
                tags={TRAINING_TAG: self.journal.training},
            )
        self.run_id = started.info.run_id

    def _send(self, run_id: str) -> None:
        client, journal = mlflow.MlflowClient(), self.journal
        if journal.notes.get("told") != run_id:
            logged_params = client.get_run(run_id).data.params
            params = [Param(name, value) for name, value in self._params.items() if name not in logged_params]
            run_tags = [RunTag(name, value) for name, value in self._tags.items()]
            client.log_batch(run_id, tags=run_tags)
            for first in range(0, len(params), PARAMS_A_REQUEST):
                client.log_batch(run_id, params=params[first : first + PARAMS_A_REQUEST])
            journal.note("told", run_id)
        while points := journal.waiting(run_id)[:POINTS_A_REQUEST]:
            metrics = [Metric(point.name, point.value, point.at, point.step) for point in points]
            client.log_batch(run_id, metrics=metrics)  # a point that is there already, to the millisecond, is taken once
            journal.sent(run_id, len(points))
        for name, content in list(journal.files.items()):
            path = pathlib.PurePosixPath(name)
            with tempfile.TemporaryDirectory() as folder:
                (file := pathlib.Path(folder) / path.name).write_bytes(content)
                with uploading():
                    client.log_artifact(run_id, str(file), None if path.parent == pathlib.PurePosixPath() else str(path.parent))
            journal.uploaded(name)

    def _give_up(self, error: Exception, seconds: float) -> None:
        self._next_attempt = time.monotonic() + PATIENCE * seconds
        if self.failure is None:
            log.warning(
                "the tracking store %s %s, training goes on without it; what is reported is kept in %s, and sent when it can be (%s)",
                self.shown_uri,
                "refuses the record" if isinstance(error, TrackingError) or refuses(error) else "does not answer",
                self.journal.folder,
                error_text(error),
            )
        self.failure = error_text(error)
