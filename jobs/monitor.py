"""Look at the days since a training: ``python jobs/monitor.py --model models:/mian@champion --config conf/monitoring.yaml``."""

from __future__ import annotations

import argparse
import datetime as dt
import pathlib
import sys
from collections.abc import Sequence

import mlflow
import pyarrow as pa

from jobs import command
from jobs.configuration import check_output_file, load_config
from mian.atomic_write import write_atomically
from mian.contract import ContractError
from mian.models import ModelError
from mian.monitoring.days import MonitoringError, Span
from mian.monitoring.page import monitoring_page
from mian.monitoring.run import PublishedScores, monitor
from mian.monitoring.settings import MonitoringConfig
from mian.serving import ServableError
from mian.stream import StreamError
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import DEFAULT_URI, STORE_ERRORS, tracking_uri
from pipeline.scoring.published import read_manifest, read_scores

ALARM = 2
DESCRIPTION = """Compares each day since a model's training with the first days that it had not seen: rows, click rate, logloss, AUC,
calibration, the spread of its scores and of each field, unknown values. Limits follow from how much those first days differ
among each other. The model scores the samples, or published scores of jobs/score.py are read.

exit code: 0 no alarm, 2 an alarm, 1 an error (wrong arguments, too)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, compare, say what was found; 0 without an alarm, 2 with one, 1 with one clear error."""
    parser = command.parser(DESCRIPTION, config="conf/monitoring.yaml", usage_exit=1)
    parser.add_argument(
        "--model", required=True, help="models:/mian/1, models:/mian@champion, or the folder that a training kept"
    )
    parser.add_argument(
        "--scores", metavar="FOLDER", help="scores that jobs/score.py published; by default the model scores the samples"
    )
    for name, what in {
        "from": "first day to look at; the one after the reference by default",
        "to": "last day to look at; the last with final labels by default",
        "reference-from": "first day to compare with; by default the first that the model had not seen",
        "reference-to": "last day to compare with; by default reference_days of the configuration are taken",
    }.items():
        parser.add_argument(f"--{name}", dest=name.replace("-", "_"), type=command.day, metavar="DAY", help=what)
    parser.add_argument("--report", metavar="FILE.html", help="also write a page there")
    parser.add_argument("--json", metavar="FILE.json", help="also write all figures there")
    parser.add_argument("--tracking-uri", help=f"MLFLOW_TRACKING_URI, or else {DEFAULT_URI}, where it is not given")
    options = parser.parse_args(arguments)
    codes: list[int] = []
    errors = (ContractError, ModelError, MonitoringError, ServableError, StreamError, TrackingError, *STORE_ERRORS)
    return command.run(lambda: codes.append(_monitor(options)), errors) or codes[0]


def _monitor(options: argparse.Namespace) -> int:
    config = load_config(MonitoringConfig, options.config, options.overrides)
    for name, suffix in (("report", ".html"), ("json", ".json")):
        if getattr(options, name) is not None:
            check_output_file(f"--{name}", getattr(options, name), (suffix,))
    mlflow.set_tracking_uri(tracking_uri(options.tracking_uri))
    reference = Span(options.reference_from, options.reference_to)
    report = monitor(
        options.model,
        config,
        Span(vars(options)["from"], options.to),
        None if reference == Span() else reference,
        None if options.scores is None else _published(options.scores),
    )
    if options.report is not None:
        write_atomically(pathlib.Path(options.report), monitoring_page(report))
    if options.json is not None:
        write_atomically(pathlib.Path(options.json), report.model_dump_json(indent=1) + "\n")
    print(report.text())
    return ALARM if report.alarms else 0


def _published(folder: str) -> PublishedScores:
    days = {day.day: day for day in read_manifest(folder).days if day.rows}

    def read(day: dt.date) -> pa.Table:
        return read_scores(folder, days[day], ("impression_id", "score"))

    return PublishedScores(folder, {day: scored.scored_by.model_version for day, scored in days.items()}, read)


if __name__ == "__main__":
    sys.exit(main())
