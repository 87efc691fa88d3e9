"""Audit samples against the raw logs: ``spark-submit jobs/audit_samples.py --config conf/data/demo.yaml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from jobs import command
from jobs.configuration import load_config
from mian.contract import ContractError
from pipeline.audit import AuditError, Report, audit
from pipeline.config import DataConfig
from pipeline.io.session import spark_session
from pipeline.logs.errors import LogError, spark_words


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, audit, say what was found; 0 where all is well, 1 with findings or with one clear error."""
    parser = command.parser(
        "Takes a finished data set and the raw logs, recomputes some rows the slow obvious way, and scans all of it for what no\n"
        "sample may know: behaviors at or after their impression, labels outside their window, vocabularies of later days, negatives of\n"
        "items that did not exist yet, and missing or unknown values that tell the label in training days alone.",
        config="conf/data/demo.yaml",
    )
    parser.add_argument(
        "--rows",
        type=_positive,
        default=200,
        metavar="N",
        help="samples, and impressions of the log, that are drawn; 200 by default",
    )
    parser.add_argument("--seed", type=_seed, default=0, help="of the draw; 0 by default")
    parser.add_argument(
        "--no-record",
        action="store_true",
        help="do not write the verdict beside the samples, where trainings and promotions find it; for rules that are only tried",
    )
    options = parser.parse_args(arguments)
    reports: list[Report] = []
    code = command.run(lambda: reports.append(_audit(options)), (AuditError, ContractError, LogError))
    return code or int(bool(reports[0].findings))


def _audit(options: argparse.Namespace) -> Report:
    config = load_config(DataConfig, options.config, options.overrides)
    spark = spark_session(f"audit_samples {config.name}")
    try:
        report = audit(spark, config, options.rows, options.seed, not options.no_record)
    except (PySparkException, Py4JError) as error:
        raise AuditError(f"Spark could not read the samples or the logs: {spark_words(error)}") from error
    finally:
        spark.stop()
    print(f"{config.samples}: audited by the rules of {options.config}")
    print(report.text())
    return report


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError("from 0 to 2^63 - 1")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
