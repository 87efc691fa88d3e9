"""Score logs of candidates: ``spark-submit jobs/score.py --model models:/mian@champion --config conf/data/demo.yaml ...``."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
from collections.abc import Sequence

import mlflow

from jobs import command
from jobs.configuration import ConfigError, load_config
from mian.contract import ContractError
from mian.scoring.servable_files import read_description
from mian.scoring.stand_ins import position_stand_ins
from mian.serving import ServableError
from mian.serving.batch_scorer import load_batch_scorer
from mian.serving.servable import servable_digest, servable_files
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import DEFAULT_URI, STORE_ERRORS, tracking_uri
from mian.tracking.registry import fetch_model
from pipeline.config import DataConfig
from pipeline.io.session import spark_session
from pipeline.logs.errors import LogError
from pipeline.scoring.report import report_text
from pipeline.scoring.run import ScoringRequest, score_days
from pipeline.scoring.scorer import ScoringModel

#: Workers share the machine's cores: one thread each.
SETTINGS = {"spark.executorEnv.OMP_NUM_THREADS": "1"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, score, say what was done; 0 when the scores are there, 1 with one clear error when not."""
    parser = command.parser(
        "Scores a log of candidates by a model, with the histories, profiles and attributes that samples of them would have.\n"
        "Days are published one by one, each whole. Days that are finished are left as they are. A run that was stopped is\n"
        "completed by the same command.",
        config="conf/data/demo.yaml",
    )
    parser.add_argument(
        "--model", required=True, help="models:/mian/1, models:/mian@champion, or the folder that a training kept"
    )
    parser.add_argument(
        "--impressions",
        required=True,
        metavar="PATH",
        help="the candidates, in the place of the configuration's log.impressions.path; without labels",
    )
    parser.add_argument("--output", required=True, metavar="FOLDER", help="where scores go: day=.../*.parquet and a manifest")
    parser.add_argument(
        "--from", dest="first", type=command.day, metavar="DAY", help="first day; the first of the candidates by default"
    )
    parser.add_argument(
        "--to", dest="last", type=command.day, metavar="DAY", help="last day; the last of the candidates by default"
    )
    parser.add_argument(
        "--position",
        choices=["logged", "serving"],
        default="logged",
        help="serving: candidates that are not ranked yet. They need no column for fields that are known only after ranking "
        "(position_fields of the training); the model reads what it reads where a request to the server leaves them out",
    )
    parser.add_argument(
        "--scored-at",
        type=_moment,
        metavar="TIME",
        help="what the column scored_at says, as in 2026-01-31T04:00:00Z; the moment at which the first run began by default",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="score finished days anew that another model, configuration or input made; without it such days are refused",
    )
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for another run in the folder; 0 by default"
    )
    parser.add_argument("--tracking-uri", help=f"MLFLOW_TRACKING_URI, or else {DEFAULT_URI}, where it is not given")
    options = parser.parse_args(arguments)
    errors = (ContractError, LogError, ServableError, TrackingError, *STORE_ERRORS)
    return command.run(lambda: _score(options), errors)


def _score(options: argparse.Namespace) -> None:
    config = load_config(DataConfig, options.config, options.overrides)
    if options.first is not None and options.last is not None and options.last < options.first:
        raise ConfigError(f"--to {options.last} is before --from {options.first}")
    mlflow.set_tracking_uri(tracking_uri(options.tracking_uri))
    names = ("impressions", "output", "first", "last", "scored_at", "overwrite", "wait")
    with tempfile.TemporaryDirectory() as copy:
        folder, version = fetch_model(options.model, copy)
        stand_ins = position_stand_ins(read_description(folder).stand_ins, options.position)
        request = ScoringRequest(**{name: getattr(options, name) for name in names}, stand_ins=stand_ins)
        files, digest = servable_files(folder), servable_digest(folder)
        spark = spark_session(f"score {config.name}", SETTINGS)
        try:
            model = ScoringModel(str(folder), files, version, digest, load_batch_scorer)
            print(report_text(request.output, score_days(spark, config, model, request)))
        finally:
            spark.stop()


def _moment(text: str) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a moment; write it as in 2026-01-31T04:00:00Z") from error
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.timezone.utc)).astimezone(dt.timezone.utc)


if __name__ == "__main__":
    sys.exit(main())
