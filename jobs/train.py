"""Train a model: ``horovodrun -np 2 python jobs/train.py --config conf/train/mian.yaml``, or without the launcher on one process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs import command, stop_signal
from jobs.configuration import ConfigError, load_config
from jobs.stop_signal import StopSignal
from mian.config import TrainConfig
from mian.distributed.collectives import Ranks
from mian.tracking.session import train
from mian.tracking.tracked_run import TRAINING_ERRORS
from mian.training import ElasticSession

DESCRIPTION = """Trains a model on samples, tracks the run in MLflow and registers the model.
Every rank is one process; batch_size is the samples of a step and rank.
Stopped or killed, it goes on from its newest checkpoint when it is started again with the same settings; SIGTERM takes one
before it ends, with exit code 75."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, train, track, register.

    Returns:
        0 when the model is there, 1 after one clear error, 75 when it was stopped by SIGTERM and can go on.
    """
    parser = command.parser(DESCRIPTION, config="conf/train/mian.yaml")
    parser.add_argument("--profile", action="store_true", help="each rank writes a trace of some steps (as profile=true)")
    options = parser.parse_args(arguments)
    overrides = [*options.overrides, *(["profile=true"] if options.profile else [])]
    stop = StopSignal()
    session = ElasticSession(stop.requested)

    def job() -> None:
        with session.translate_errors():
            session.run(lambda: train(_config(options.config, overrides, session.ranks), session, stop.heed))

    return stop_signal.run(job, (ConfigError, *TRAINING_ERRORS), stop, lambda: session.ranks.rank)


def _config(path: str, overrides: Sequence[str], ranks: Ranks) -> TrainConfig:
    def load() -> TrainConfig:
        command.refuse_other_launchers(ranks.size)
        return load_config(TrainConfig, path, overrides)

    return ranks.run_on_all_ranks(load, (ConfigError,))


if __name__ == "__main__":
    sys.exit(main())
