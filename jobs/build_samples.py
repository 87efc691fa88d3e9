"""Build samples from logs: ``spark-submit jobs/build_samples.py --config conf/data/demo.yaml --from 2026-01-01 --to 2026-02-14``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from jobs import command
from jobs.configuration import ConfigError, load_config
from mian.contract import ContractError
from pipeline.build import build_samples, generations, plan_build, rollback
from pipeline.build_texts import build_text, generations_text, plan_text, rollback_text
from pipeline.config import DataConfig
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
    parser.add_argument(
        "--from", dest="first", type=command.day, metavar="DAY", help="first day; the first of all splits by default"
    )
    parser.add_argument("--to", dest="last", type=command.day, metavar="DAY", help="last day; the last of all splits by default")
    parser.add_argument(
        "--extend-vocabularies",
        action="store_true",
        help="give ids to values of training days that came after those that the vocabularies were made from; no id moves",
    )
    parser.add_argument(
        "--drop-days",
        action="store_true",
        help="publish although days that are published now would be missing, or are built again without logs that are gone; without it "
        "such a build is refused",
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
    config = load_config(DataConfig, options.config, options.overrides)
    first = options.first or min(split.first for split in config.splits.values())
    last = options.last or max(split.last for split in config.splits.values())
    if options.generation is not None and not options.rollback:
        raise ConfigError("--generation says which generation --rollback publishes again; say --rollback too")
    if last < first:
        raise ConfigError(f"--to {last} is before --from {first}")
    spark = spark_session(f"build_samples {config.name}")
    try:
        if options.generations:
            print(generations_text(config, generations(spark, config)))
        elif options.rollback:
            print(rollback_text(config, rollback(spark, config, options.generation, wait=options.wait)))
        elif options.plan:
            print(plan_text(config, plan_build(spark, config, first, last)))
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
            print(build_text(config, report))
    finally:
        spark.stop()


if __name__ == "__main__":
    sys.exit(main())
