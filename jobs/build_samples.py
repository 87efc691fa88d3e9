"""Build samples from logs: ``spark-submit jobs/build_samples.py --config conf/data/demo.yaml --from 2026-01-01 --to 2026-02-14``."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Sequence

from jobs import command
from pipeline.build import BuildReport, PlannedDay, build_samples, plan_build
from pipeline.config import DataConfig
from pipeline.contract import ContractError
from pipeline.log_errors import LogError
from pipeline.schedule import spans
from pipeline.session import spark_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, build, say what was done; 0 when the samples are there, 1 with one clear error when not."""
    parser = command.parser(
        "Joins logs into samples, a Parquet file for about 50,000 rows of a day, and writes the contract that describes them.\n"
        "Days that are finished and whose logs, configuration and code did not change are left as they are.",
        config="conf/data/demo.yaml",
    )
    parser.add_argument("--from", dest="first", type=_date, metavar="DAY", help="first day; the first of all splits by default")
    parser.add_argument("--to", dest="last", type=_date, metavar="DAY", help="last day; the last of all splits by default")
    parser.add_argument(
        "--plan", action="store_true", help="say which days would be built, why, and how many rows; build nothing"
    )
    parser.add_argument(
        "--extend-vocabularies",
        action="store_true",
        help="give ids to values of training days that came after those that the vocabularies were made from; no id moves",
    )
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for another build of the data set; 0 by default"
    )
    options = parser.parse_args(arguments)
    return command.run(lambda: _build(options), (LogError, ContractError))


def _build(options: argparse.Namespace) -> None:
    config = command.load_config(DataConfig, options.config, options.overrides)
    first = options.first or min(split.first for split in config.splits.values())
    last = options.last or max(split.last for split in config.splits.values())
    if last < first:
        raise command.ConfigError(f"--to {last} is before --from {first}")
    spark = spark_session(f"build_samples {config.name}")
    try:
        if options.plan:
            print(_planned(config, plan_build(spark, config, first, last)))
        else:
            wait, extend = options.wait, options.extend_vocabularies
            print(_summary(config, build_samples(spark, config, first, last, extend_vocabularies=extend, wait=wait)))
    finally:
        spark.stop()


def _planned(config: DataConfig, days: Sequence[PlannedDay]) -> str:
    stale = [day for day in days if day.reason]
    lines = [f"{day.day}  {'build' if day.reason else 'keep':<5} {day.rows:>12,} samples  {day.reason}".rstrip() for day in days]
    return "\n".join(
        [
            *lines,
            f"{config.samples}: {len(stale)} of {len(days)} days would be built, about {sum(d.rows for d in stale):,} samples",
        ]
    )


def _summary(config: DataConfig, report: BuildReport) -> str:
    contract = report.contract
    lines = [f"{config.samples}: {len(report.built)} days built, {len(report.kept)} finished before and unchanged"]
    for name in contract.splits:
        days = [day for day in contract.days if day.day in contract.splits[name]]
        rows, positives = sum(day.rows for day in days), sum(day.positives for day in days)
        share = f", {positives / rows:.2%} positive" if rows else ""
        lines.append(f"  {name:<12} {len(days):>4} days {rows:>12,} samples{share}")
    open_days = [day.day for day in contract.days if not day.final]
    if open_days:
        lines.append(f"  not final yet, clicks may still come: {spans(open_days)}")
    rejected = sum(n for day in contract.days if day.quality is not None for n in day.quality.quarantined.values())
    if rejected:
        lines.append(
            f"  {rejected:,} rows of the logs broke a rule and lie in quarantine files; jobs/describe.py says which rules"
        )
    sizes = ", ".join(f"{vocabulary.name} {vocabulary.size:,}" for vocabulary in contract.vocabularies)
    return "\n".join([*lines, f"  vocabularies: {sizes}"])


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day; write it as in 2026-01-31") from error


if __name__ == "__main__":
    sys.exit(main())
