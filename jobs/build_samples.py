"""Build samples from logs: ``spark-submit jobs/build_samples.py --config conf/data/demo.yaml --from 2026-01-01 --to 2026-02-14``."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from collections.abc import Sequence

from jobs import command
from mian.contract import Contract, ContractError
from pipeline.build import BuildReport, PlannedDay, build_samples, generations, plan_build, rollback
from pipeline.config import DataConfig
from pipeline.dataset.folder import Generation
from pipeline.dataset.schedule import spans
from pipeline.days import days_between
from pipeline.io.session import spark_session
from pipeline.logs.errors import LogError


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, build, say what was done; 0 when the samples are there, 1 with one clear error when not."""
    parser = command.parser(
        "Joins logs into samples, a Parquet file for about 50,000 rows of a day, and writes the contract that describes them.\n"
        "Days that are finished and whole, and whose logs and configuration did not change, are left as they are. A change of what\n"
        "samples are makes a new generation, which takes the place of the published one when it has all its days.",
        config="conf/data/demo.yaml",
    )
    parser.add_argument("--from", dest="first", type=_date, metavar="DAY", help="first day; the first of all splits by default")
    parser.add_argument("--to", dest="last", type=_date, metavar="DAY", help="last day; the last of all splits by default")
    parser.add_argument(
        "--extend-vocabularies",
        action="store_true",
        help="give ids to values of training days that came after those that the vocabularies were made from; no id moves",
    )
    parser.add_argument(
        "--drop-days",
        action="store_true",
        help="publish although days that are published now would be missing; without it such a build is refused",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare the checksums of the published files, and not their sizes alone; days with damaged files are built again",
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--plan", action="store_true", help="say which days would be built, why, and how many rows; build nothing")
    other.add_argument("--generations", action="store_true", help="list the generations that are kept; build nothing")
    other.add_argument(
        "--rollback", action="store_true", help="publish the generation before the published one again; build nothing"
    )
    parser.add_argument("--generation", type=int, metavar="NUMBER", help="with --rollback: the generation to publish again")
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="wait so long for another build of the data set; 0 by default"
    )
    options = parser.parse_args(arguments)
    return command.run(lambda: _build(options), (LogError, ContractError))


def _build(options: argparse.Namespace) -> None:
    config = command.load_config(DataConfig, options.config, options.overrides)
    first = options.first or min(split.first for split in config.splits.values())
    last = options.last or max(split.last for split in config.splits.values())
    if options.generation is not None and not options.rollback:
        raise command.ConfigError("--generation says which generation --rollback publishes again; say --rollback too")
    if last < first:
        raise command.ConfigError(f"--to {last} is before --from {first}")
    spark = spark_session(f"build_samples {config.name}")
    try:
        if options.generations:
            print(_listed(config, generations(spark, config)))
        elif options.rollback:
            print(_published(config, rollback(spark, config, options.generation, wait=options.wait)))
        elif options.plan:
            print(_planned(config, plan_build(spark, config, first, last)))
        else:
            report = build_samples(
                spark,
                config,
                first,
                last,
                extend_vocabularies=options.extend_vocabularies,
                drop_days=options.drop_days,
                verify=options.verify,
                wait=options.wait,
            )
            print(_summary(config, report))
    finally:
        spark.stop()


def _planned(config: DataConfig, days: Sequence[PlannedDay]) -> str:
    lines = [f"{day.day}  {day.action:<7} {day.rows:>12,} samples  {day.reason}".rstrip() for day in days]
    built = [day for day in days if day.action == "build"]
    missing = [day.day for day in days if day.action == "missing"]
    asked = len(days) - len(missing)
    lines.append(
        f"{config.samples}: {len(built)} of {asked} days would be built, about {sum(day.rows for day in built):,} samples"
    )
    if missing:
        lines.append(f"{len(missing)} published days would be missing ({spans(missing)}): ask for them too, or say --drop-days")
    return "\n".join(lines)


def _listed(config: DataConfig, kept: Sequence[Generation]) -> str:
    if not kept:
        return f"{config.samples}: no samples are published"
    lines = ["generation  revision  days       samples  vocabularies"]
    for generation in kept:
        contract = generation.contract
        rows = sum(day.rows for day in contract.days)
        lines.append(
            f"{generation.number:>10}  {contract.publication.revision:>8}  {len(contract.days):>4}  {rows:>12,}  "
            f"version {contract.vocabulary_version}, {spans(_vocabulary_days(contract))}{'  published' if generation.current else ''}"
        )
    return "\n".join(lines)


def _published(config: DataConfig, contract: Contract) -> str:
    days = spans(day.day for day in contract.days)
    return f"{config.samples}: generation {contract.publication.generation} is published again, with the days {days}"


def _vocabulary_days(contract: Contract) -> list[dt.date]:
    return [day for span in contract.vocabulary_days for day in days_between(span.first, span.last)]


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
