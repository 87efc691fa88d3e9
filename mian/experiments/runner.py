"""Do the trainings of an experiment, one after the other, on one process or on many ranks."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from mian.checkpoint.progress import Progress
from mian.checkpoint.store import CheckpointStore
from mian.contract import Contract
from mian.distributed.collectives import RankError, Ranks
from mian.experiments.trials import Experiment, ExperimentError, Result, Trial, shown
from mian.models import ClickModel
from mian.scoring.stand_ins import serving_stand_ins
from mian.serving import read_vocabularies, save_servable
from mian.tracking.errors import TrackingError
from mian.tracking.model_lineage import training_lineage, with_parent
from mian.tracking.records import Outcome
from mian.tracking.tracked_run import TRAINING_ERRORS, open_trainer, start_run, tracked_run
from mian.tracking.tracker import Tracker
from mian.training import Trainer, TrainingError, TrainingResult, TrainingStopped, open_streams

log = logging.getLogger(__name__)

CURVE = "curve.jsonl"
JOURNAL = "tracking"
WAIT_SECONDS = 2.0


def train_all(experiment: Experiment, ranks: Ranks, parent_run: str | None, stopping: Callable[[], bool]) -> None:
    """Do every training that has not ended; those that other processes have are waited for.

    Args:
        experiment: The experiment; all ranks have the same.
        ranks: who takes part in each training; all call this.
        parent_run: of MLflow, that the trainings' runs are nested in; on the first rank.
        stopping: asked whether to stop.

    Raises:
        TrainingStopped: it was asked to stop. What has ended is kept; the training that has not goes on from its checkpoint next time.
        ExperimentError: An experiment's file is damaged, or cannot be written.
        RankError: Another rank has failed.
        Exception: One of :data:`mian.tracking.tracked_run.TRAINING_ERRORS`, if a training cannot start.
    """
    vocabularies = ranks.run_on_all_ranks(lambda: _vocabularies(experiment, ranks), TRAINING_ERRORS)
    claim = partial(_claim, experiment, stopping) if ranks.is_first else _nothing
    while True:
        ranks.limit_exchanges(math.inf)  # as long as another process takes
        claimed = ranks.run_on_all_ranks(claim, (ExperimentError, TrainingStopped))
        chosen = ranks.broadcast_object(None if claimed is None else (claimed[0].variant, claimed[0].point, claimed[0].seed))
        if chosen is None:
            return
        with ExitStack() as stack:
            if claimed is not None:
                stack.callback(claimed[1].release)
            _train(experiment, experiment.trial(*chosen), ranks, parent_run, vocabularies, stopping)


def _claim(experiment: Experiment, stopping: Callable[[], bool]) -> tuple[Trial, FileLock] | None:
    waited = False
    while True:
        if stopping():
            raise TrainingStopped("asked to stop between two trainings")
        with suppress(Timeout):
            return experiment.claim()
        if not waited:
            log.info("waiting for the trainings of other processes")
            waited = True
        time.sleep(WAIT_SECONDS)


def _nothing() -> None:
    """What the other ranks have to say."""


def _vocabularies(experiment: Experiment, ranks: Ranks) -> dict[str, bytes]:
    return read_vocabularies(experiment.contract, experiment.config.samples) if ranks.is_first else {}


def _train(
    experiment: Experiment,
    trial: Trial,
    ranks: Ranks,
    parent_run: str | None,
    vocabularies: Mapping[str, bytes],
    stopping: Callable[[], bool],
) -> None:
    config, contract = trial.config, experiment.contract
    streams = ranks.run_on_all_ranks(lambda: open_streams(config, contract, ranks), TRAINING_ERRORS)
    store = None
    if ranks.is_first:
        trial.folder.mkdir(parents=True, exist_ok=True)
        where = " ".join(f"{key}={value}" for key, value in shown(trial.point).items())
        log.info("%s %s seed=%d: %s", trial.variant, where, trial.seed, trial.folder)
        if config.checkpoint.enabled:
            store = CheckpointStore(trial.folder / "checkpoints", config.checkpoint.keep)
    tracker = Tracker(config.tracking, trial.folder / JOURNAL, parent_run)
    curve = _Curve(trial.folder / CURVE, tracker)
    trainer, _ = open_trainer(
        config,
        contract,
        streams,
        ranks,
        report=curve.report,
        store=store,
        saved=lambda: store.newest() if store is not None else None,
        stopping=stopping,
    )
    result: Result | None = None

    def end(outcome: Outcome) -> None:
        if result is not None and result.failed is not None:
            outcome = "FAILED"
        if ranks.is_first and tracker.end(outcome) and result is not None:
            tracker.journal.remove()

    with tracked_run(end):
        start_run(trainer, config, contract, ranks, tracker, lambda: curve.forget_after(trainer.progress.step))
        trained = _result_or_failure(trainer, ranks)
        model = trainer.whole_model() if isinstance(trained, TrainingResult) else None
        if ranks.is_first:
            kept = Result(ranks=ranks.size, run_id=tracker.run_id, curve=curve.points())
            if isinstance(trained, TrainingResult) and model is not None:
                kept = _keep_model(trial, contract, vocabularies, model, trained, kept, trainer.progress)
                metrics = {f"best_validation_{name}": value for name, value in trained.validation.items()}
                tracker.report(metrics, trained.best_step)
            else:
                kept = kept.model_copy(update={"failed": str(trained)})
                log.warning("%s: this point of the grid has failed: %s", trial.variant, trained)
            trial.keep(kept)
            result = kept
            shutil.rmtree(trial.folder / "checkpoints", ignore_errors=True)


def _result_or_failure(trainer: Trainer, ranks: Ranks) -> TrainingResult | str:
    """What came of a training, or why its losses are no longer numbers, which is a result of its point of the grid."""
    try:
        return trainer.run()
    except (TrainingError, RankError) as error:
        failure = str(error)
        ranks.barrier()  # where a rank is gone, this fails, and that is another error
        return failure


def _keep_model(
    trial: Trial,
    contract: Contract,
    vocabularies: Mapping[str, bytes],
    model: ClickModel,
    trained: TrainingResult,
    result: Result,
    progress: Progress,
) -> Result:
    """Save a trial's model; its result with what is known of the model.

    Raises:
        ExperimentError: The model cannot be written.
    """
    choice = trial.config.model
    try:
        stand_ins = serving_stand_ins(contract, trial.config.position_fields, vocabularies)
        lineage = with_parent(training_lineage(contract, trial.config), progress.parent, trial.config)
        save_servable(trial.model, model, choice.name, choice.options, contract, vocabularies, stand_ins, lineage)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        why = " ".join(str(error).split())
        raise ExperimentError(f"{trial.model} cannot be written ({why}); make room there, and start again") from error
    dense, tables = parameters(model)
    return result.model_copy(
        update={
            "validation": trained.validation,
            "best_step": trained.best_step,
            "steps": trained.steps,
            "samples": progress.samples,
            "dense_parameters": dense,
            "table_parameters": tables,
        }
    )


def send_records(experiment: Experiment, parent_run: str | None) -> None:
    """Send what the tracking store lacks of trainings that have ended: it was away then, or the process was killed.

    Args:
        experiment: The experiment.
        parent_run: that the trainings' runs are nested in; None: the store is still away, and nothing is done.

    Raises:
        ExperimentError: what came of a training is damaged.
    """
    for variant, point in experiment.config.points_by_variant() if parent_run is not None else ():
        for seed in experiment.config.seeds:
            trial = experiment.trial(variant, point, seed)
            if (trial.folder / JOURNAL).exists():
                with suppress(Timeout), experiment.lock(f"trials/{trial.folder.name}/lock").acquire(timeout=0):
                    if not _send_record(trial, experiment.contract, parent_run):
                        return


def _send_record(trial: Trial, contract: Contract, parent_run: str | None) -> bool:
    """Whether the store answers."""
    result = trial.result()
    if result is None:
        return True  # the training goes on
    tracker = Tracker(trial.config.tracking, trial.folder / JOURNAL, parent_run)
    try:
        params = trial.config.model_dump() | {"ranks": result.ranks}
        tracker.start(params, contract, trial.config.samples, result.run_id)
    except TrackingError as error:
        log.warning("%s: the record of this training cannot be sent: %s", trial.folder, error)
    finally:
        sent = tracker.end("FINISHED" if result.failed is None else "FAILED")
    if sent:
        tracker.journal.remove()
    return tracker.failure is None


def parameters(model: ClickModel) -> tuple[int, int]:
    """How many numbers a model has outside of its embedding tables, and in them."""
    dense = sum(parameter.numel() for parameter in model.dense_parameters().values())
    return dense, sum(table.weight.numel() for table in model.tables().values())


def forget_others(experiment: Experiment) -> None:
    """Delete the models of trainings that no variant has chosen.

    Raises:
        ExperimentError: a variant's best point is not known yet.
    """
    chosen = {trial.folder for variant in experiment.config.variants for trial in experiment.chosen(variant)}
    if not chosen:
        raise ExperimentError("the grid has not been searched to its end")
    for variant, point in experiment.config.points_by_variant():
        trial = experiment.trial(variant, point, experiment.config.seeds[0])
        if trial.folder not in chosen:
            shutil.rmtree(trial.model, ignore_errors=True)


class _Curve:
    """What a training reports, also kept in a file, so that one that is stopped and goes on has all of it."""

    def __init__(self, path: Path, tracker: Tracker) -> None:
        self._path = path
        self._tracker = tracker

    def report(self, metrics: Mapping[str, float], step: int) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([step, metrics]) + "\n")
        self._tracker.report(metrics, step)

    def forget_after(self, step: int) -> None:
        """What was reported behind the checkpoint that the training goes on from is reported again."""
        kept = [json.dumps(point) + "\n" for point in self.points() if point[0] <= step and step]
        self._path.write_text("".join(kept), encoding="utf-8")

    def points(self) -> tuple[tuple[int, dict[str, float]], ...]:
        if not self._path.exists():
            return ()
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may have been cut off
        points = {(step, *metrics): (step, metrics) for step, metrics in whole}  # a split that was scored again is there twice
        return tuple(points.values())
