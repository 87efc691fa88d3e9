"""Compare models: ``python jobs/reproduce.py --config conf/experiment/simulated.yaml``, or under ``horovodrun -np N``."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence

from jobs import command, stop_signal
from jobs.configuration import ConfigError, load_config
from jobs.stop_signal import StopSignal
from mian.atomic_write import write_atomically
from mian.contract import read_contract
from mian.distributed.collectives import Ranks
from mian.evaluation.truth import TruthError, open_truth
from mian.experiments import Experiment, ExperimentConfig, ExperimentError, forget_others, send_records, train_all, write_report
from mian.experiments.held_out import SPLIT
from mian.tracking.errors import TrackingError
from mian.tracking.records import Outcome
from mian.tracking.tracked_run import TRAINING_ERRORS
from mian.tracking.tracker import Tracker
from mian.training import TrainingStopped

log = logging.getLogger(__name__)

ERRORS = (ConfigError, ExperimentError, TruthError, *TRAINING_ERRORS)
RUN = "run.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, train what is not trained yet, write the report.

    Returns:
        0 when the report is there, 1 after one clear error, 75 when it was stopped by SIGTERM and can go on.
    """
    parser = command.parser(
        "Trains models on the samples of one data set, each at its own best point of one grid, with several seeds, and writes a report.\n"
        "Started again it goes on where it was stopped. Started several times at once it shares the trainings: processes see each other\n"
        "by the files in the output folder, and each writes the report when all trainings are done.",
        config="conf/experiment/simulated.yaml",
    )
    parser.add_argument("--no-report", action="store_true", help="only train")
    options = parser.parse_args(arguments)
    stop = StopSignal()
    ranks = Ranks()

    def job() -> None:
        with ranks.translate_errors():
            _job(options.config, options.overrides, ranks, stop, report=not options.no_report)

    return stop_signal.run(job, ERRORS, stop, lambda: ranks.rank)


def _job(path: str, overrides: Sequence[str], ranks: Ranks, stop: StopSignal, report: bool) -> None:
    def prepare() -> Experiment:
        command.refuse_other_launchers(ranks.size)
        config = load_config(ExperimentConfig, path, overrides)
        contract = read_contract(config.samples)
        contract.split(SPLIT)
        contract.check_unthinned(SPLIT)  # the trainings do not look at it
        if config.truth is not None:
            open_truth(config.truth)
        return Experiment(config, contract)

    experiment = ranks.run_on_all_ranks(prepare, ERRORS)
    named = experiment.config.tracking.model_copy(update={"run_name": experiment.config.name})
    tracker = Tracker(named, experiment.folder / "tracking")
    outcome: Outcome = "FAILED"
    try:
        ranks.run_on_all_ranks(lambda: _start(experiment, tracker) if ranks.is_first else None, (ExperimentError, TrackingError))
        stop.heed()
        train_all(experiment, ranks, tracker.run_id, stop.requested)
        stop.heeded = False
        if ranks.is_first:
            tracker.flush()
            send_records(experiment, tracker.run_id)
            with experiment.lock("report.lock"):
                forget_others(experiment)
                if report:
                    folder = write_report(experiment)
                    tracker.files(folder)
                    log.info("the report is in %s", folder)
        outcome = "FINISHED"
    except TrainingStopped:
        outcome = "KILLED"
        raise
    finally:
        if ranks.is_first and tracker.end(outcome) and outcome == "FINISHED":
            tracker.journal.remove()


def _start(experiment: Experiment, tracker: Tracker) -> None:
    """Begin the run that the trainings' runs are nested in, or go on with it."""
    config, path = experiment.config, experiment.folder / RUN
    with experiment.lock("run.lock"):
        known = json.loads(path.read_text(encoding="utf-8"))["run_id"] if path.exists() else None
        params = config.model_dump(mode="json", exclude={"models", "ablations", "extra_models", "published"})
        tracker.start(params, experiment.contract, config.samples, known)
        write_atomically(path, json.dumps({"run_id": tracker.run_id}).encode())
    send_records(experiment, tracker.run_id)


if __name__ == "__main__":
    sys.exit(main())
