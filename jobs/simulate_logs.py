"""Write the raw logs of a simulated world: ``spark-submit jobs/simulate_logs.py --config conf/data/demo.yaml``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs import command
from jobs.configuration import ConfigError, load_config
from pipeline.config import DataConfig
from pipeline.io.session import spark_session
from pipeline.simulate.world_folder import SimulateError
from pipeline.simulate.write import simulate_logs


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, simulate, say what was written; 0 when the logs are there, 1 with one clear error when not."""
    parser = command.parser(
        "Writes impressions, clicks, users, items and the true click probabilities of a simulated world; see\n"
        "docs/concepts/simulated-world.md. simulate.impressions=100000000 makes it larger.\n"
        "Logs that are there already are left as they are.",
        config="conf/data/demo.yaml",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the logs of another world at the same place")
    options = parser.parse_args(arguments)
    return command.run(lambda: _simulate(options.config, options.overrides, options.overwrite), (SimulateError,))


def _simulate(path: str, overrides: Sequence[str], overwrite: bool) -> None:
    config = load_config(DataConfig, path, overrides).simulate
    if config is None:
        raise ConfigError(f"{path}: has no section 'simulate', which says how many impressions, of which days, and where to")
    spark = spark_session("simulate_logs")
    try:
        record = simulate_logs(spark, config, overwrite=overwrite)
    finally:
        spark.stop()
    print(f"{config.output}:\n{record.summary.table()}")


if __name__ == "__main__":
    sys.exit(main())
