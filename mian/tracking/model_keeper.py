"""What is kept of a finished training: the model's folder, its metrics, its version in the registry."""

from __future__ import annotations

import datetime as dt
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from mian.config import TrainConfig
from mian.contract import Contract
from mian.contract.lineage import Lineage
from mian.distributed.collectives import Ranks
from mian.evaluation.distributed_metrics import Evaluation
from mian.metrics import plot_reliability
from mian.models import ClickModel
from mian.scoring.stand_ins import described, serving_stand_ins
from mian.serving import input_example, read_vocabularies, save_servable
from mian.tracking.model_lineage import training_lineage, with_parent
from mian.tracking.records import (
    CalibrationRecord,
    ModelMetrics,
    TrainingRecord,
    recorded_settings,
    uncalibrated_metrics,
    undefined_as_none,
    write_record,
)
from mian.training import Trainer, TrainingError, TrainingResult

if TYPE_CHECKING:
    from mian.tracking.tracker import Tracker  # MLflow takes seconds to import, and only the first rank needs it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SampleAttachments:
    """What a model takes along of the samples that it is trained on."""

    vocabularies: dict[str, bytes]
    """By name, each as a Parquet file."""
    example: pd.DataFrame
    """Raw rows; see :func:`mian.serving.input_example`."""
    stand_ins: dict[str, int | float]
    """What is read where a request leaves out a field of the context; see :func:`mian.scoring.stand_ins.serving_stand_ins`."""
    lineage: Lineage
    """What the model is made from, but for the model that the training begins with."""

    @classmethod
    def read(cls, contract: Contract, config: TrainConfig) -> SampleAttachments:
        """Read them before the training starts, since the samples may be built anew meanwhile.

        Raises:
            ServableError: A vocabulary is missing or damaged.
            ContractError: ``position_fields`` names a field or a value that the samples lack; a verdict of an audit is damaged.
        """
        vocabularies = read_vocabularies(contract, config.samples)
        stand_ins = serving_stand_ins(contract, config.position_fields, vocabularies)
        for column, value in stand_ins.items():
            log.info(
                "%s: where a request leaves it out, the model reads %s", column, described(contract, column, value, vocabularies)
            )
        return cls(vocabularies, input_example(contract, config.samples), stand_ins, training_lineage(contract, config))


class ModelKeeper:
    """Keeps the trained model before the test split is scored, and its test metrics afterwards. All ranks call each method.

    Args:
        config: The settings.
        contract: The contract of the samples.
        trainer: Trains the model.
        ranks: The ranks of the training.
        tracker: The record of the run, on rank 0; None on the others.
        attachments: On rank 0; None on the others.
        key: The key of the training; see :func:`mian.checkpoint.keys.training_key`.

    Attributes:
        folder: Where the model is kept; empty until it is.
    """

    def __init__(
        self,
        config: TrainConfig,
        contract: Contract,
        trainer: Trainer,
        ranks: Ranks,
        tracker: Tracker | None,
        attachments: SampleAttachments | None,
        key: str,
    ) -> None:
        self._config = config
        self._contract = contract
        self._trainer = trainer
        self._ranks = ranks
        self._tracker = tracker
        self._attachments = attachments
        self._key = key
        self.folder = ""

    def keep(self, trained: TrainingResult) -> None:
        """Save the model, then register it.

        Raises:
            TrainingError: The model cannot be written; on rank 0.
            RankError: On the other ranks then.
        """
        model = self._trainer.whole_model()
        self._ranks.limit_exchanges(math.inf)  # saving may take longer than an exchange
        self.folder = self._ranks.broadcast_object(
            self._ranks.run_on_all_ranks(lambda: self._save(model, trained), (TrainingError,))
        )
        if self._tracker is not None:
            self._register(self._tracker, trained)
        self._ranks.barrier()
        self._ranks.limit_exchanges(self._config.exchange_timeout_seconds)

    def scoring_failed(self, error: Exception) -> TrainingError:
        """The error to end with if the test split cannot be scored."""
        return TrainingError(
            f"the model is kept in {self.folder}, but split {self._config.test_split} cannot be scored: {error}; the same command started "
            "again on these samples goes on with the scoring, on samples built anew it trains anew; jobs/evaluate.py --model "
            f"{self.folder} scores any other samples"
        )

    def record_test(self, trained: TrainingResult) -> None:
        """Add the metrics of the test split to the model's folder and to the run."""
        tracker = self._tracker
        if tracker is None or trained.test is None:
            return
        metrics = trained.test.metrics
        _write_metrics(self.folder, trained)
        tracker.report({f"test_{metric}": value for metric, value in metrics.items()}, trained.best_step)
        self._record_reliability(tracker, trained.test, trained.test_uncalibrated)
        if trained.test_uncalibrated is not None:
            before = uncalibrated_metrics(trained.test_uncalibrated)
            tracker.report({f"uncalibrated_test_{metric}": value for metric, value in before.items()}, trained.best_step)
            log.info("test before calibration: logloss %.5f  calibration %.3f", before["logloss"], before["calibration"])
        log.info(
            "test: AUC %.5f  logloss %.5f  gAUC %.5f  calibration %.3f  on %s samples",
            metrics["auc"],
            metrics["logloss"],
            metrics["gauc"],
            metrics["calibration"],
            f"{int(metrics['rows']):,}",
        )

    def _record_reliability(self, tracker: Tracker, test: Evaluation, uncalibrated: Evaluation | None) -> None:
        """Keep the table and the picture of reliability with the run: of the model, and of what it was before its calibration."""
        name, table = self._config.model.name, test.reliability()
        tracker.table(table, "reliability.csv")
        tables = {name: table}
        if uncalibrated is not None:
            before = uncalibrated.reliability()
            tracker.table(before, "reliability_uncalibrated.csv")
            tables = {f"{name}, before calibration": before, f"{name}, calibrated": table}
        tracker.figure(plot_reliability(tables), "reliability.png")

    def register_late(self) -> None:
        """Register the model once more if the tracking store was away when the model was kept."""
        if self._tracker is not None and self._tracker.journal.notes["registered"] == "no":
            self._try_to_register(self._tracker)

    def _save(self, model: ClickModel, trained: TrainingResult) -> str:
        config, tracker = self._config, self._tracker
        if tracker is None or self._attachments is None:
            return ""
        name = f"{config.model.name}-{dt.datetime.now(dt.timezone.utc):%Y%m%dT%H%M%S%f}"
        # a process that was killed before the end has left a name, whose folder is written again
        folder = tracker.journal.notes.get("model") or str(Path(config.output) / name)
        tracker.journal.note("model", folder)
        record = TrainingRecord(
            training=tracker.journal.training,
            key=self._key,
            ranks=self._ranks.size,
            ended=time.time_ns() // 1_000_000,
            config=recorded_settings(config),
        )
        why = None
        try:
            attached = self._attachments
            save_servable(
                folder,
                model,
                config.model.name,
                config.model.options,
                self._contract,
                attached.vocabularies,
                attached.stand_ins,
                with_parent(attached.lineage, self._trainer.progress.parent, config),
            )
            write_record(Path(folder), record)
            _write_metrics(folder, trained)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            why = " ".join(str(error).split())
        if why is not None:  # outside of the handler: the error keeps files open that were being written
            raise TrainingError(
                f"{folder}: the trained model cannot be written ({why}); make room there, or make it writable, and start the same command "
                "again: it goes on from the newest checkpoint, if one could be written"
            )
        log.info(
            "best weights: those of step %s of %s; the model is in %s", f"{trained.best_step:,}", f"{trained.steps:,}", folder
        )
        return folder

    def _register(self, tracker: Tracker, trained: TrainingResult) -> None:
        tracker.report({"best_step": trained.best_step}, trained.steps)
        if not self._try_to_register(tracker):
            log.warning(
                "the model is not registered; that is tried once more when the test split is scored, and later by: python "
                "jobs/register.py --model %s (tracking.uri=... for another store)",
                self.folder,
            )

    def _try_to_register(self, tracker: Tracker) -> bool:
        assert self._attachments is not None, "rank 0 has read them"
        trial = self._config.max_steps is not None
        uri = tracker.register(self.folder, self._attachments.example, move_alias=not trial)
        tracker.journal.note("registered", "yes" if uri is not None else "no")
        if uri is not None:
            log.info("logged to %s as %s%s", tracker.shown_uri, uri, "; alias unchanged, it is a trial" * trial)
        return uri is not None


def _write_metrics(folder: str, trained: TrainingResult) -> None:
    test = None if trained.test is None else undefined_as_none(trained.test.metrics)
    metrics = ModelMetrics(
        steps=trained.steps,
        best_step=trained.best_step,
        validation=undefined_as_none(trained.validation),
        test=test,
        calibration=CalibrationRecord.of(trained),
    )
    write_record(Path(folder), metrics)
