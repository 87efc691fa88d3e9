"""Build samples from logs: ``spark-submit jobs/build_samples.py --config conf/data/demo.yaml --from 2026-01-01 --to 2026-02-14``."""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections.abc import Sequence

from pyspark.errors import PySparkException

from jobs import command
from pipeline.build import BuildReport, build_samples
from pipeline.config import DataConfig
from pipeline.contract import ContractError
from pipeline.logs import LogError
from pipeline.session import spark_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, build, say what was done; 0 when the samples are there, 1 with one clear error when not."""
    parser = command.parser(
        "Joins logs into samples, a Parquet file for about 50,000 rows of a day, and writes the contract that describes them.\n"
        "Days that are finished and whose logs, configuration and code did not change are left as they are.",
        config="conf/data/demo.yaml",
    )
    parser.add_argument(
        "--from", dest="first", type=_date, metavar="DAY", help="first day (UTC); the first of all splits by default"
    )
    parser.add_argument("--to", dest="last", type=_date, metavar="DAY", help="last day (UTC); the last of all splits by default")
    options = parser.parse_args(arguments)
    return command.run(lambda: _build(options.config, options.overrides, options.first, options.last), (LogError, ContractError))


def _build(path: str, overrides: Sequence[str], first: dt.date | None, last: dt.date | None) -> None:
    config = command.load_config(DataConfig, path, overrides)
    first = first or min(split.first for split in config.splits.values())
    last = last or max(split.last for split in config.splits.values())
    if last < first:
        raise command.ConfigError(f"--to {last} is before --from {first}")
    spark = spark_session(f"build_samples {config.name}")
    try:
        report = build_samples(spark, config, first, last)
    except PySparkException as error:
        raise LogError(f"Spark could not work on the logs: {_reason(error)}") from error
    finally:
        spark.stop()
    print(_summary(config, report))


def _summary(config: DataConfig, report: BuildReport) -> str:
    contract = report.contract
    lines = [f"{config.samples}: {len(report.built)} days built, {len(report.kept)} finished before and unchanged"]
    for name in contract.splits:
        days = [day for day in contract.days if day.day in contract.splits[name]]
        rows, positives = sum(day.rows for day in days), sum(day.positives for day in days)
        share = f", {positives / rows:.2%} positive" if rows else ""
        lines.append(f"  {name:<12} {len(days):>4} days {rows:>12,} samples{share}")
    sizes = ", ".join(f"{vocabulary.name} {vocabulary.size:,}" for vocabulary in contract.vocabularies)
    return "\n".join([*lines, f"  vocabularies: {sizes}"])


def _reason(error: PySparkException) -> str:
    """The sentence of an error, without the stack of the cluster."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"\[[A-Z_.]+\]|Caused by: |[\w.]+(Error|Exception|Invalid): ", line)]
    return " ".join(dict.fromkeys([lines[0], *causes[-1:]]))


def _date(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


if __name__ == "__main__":
    sys.exit(main())
