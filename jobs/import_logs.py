"""Turn a published data set into logs: ``spark-submit jobs/import_logs.py --dataset movielens-100k --input ... --output ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs import command
from pipeline.importers import IMPORTERS, ImporterError, import_logs
from pipeline.io.session import spark_session


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, import, say what was written; 0 when the logs are there, 1 with one clear error when not."""
    homes = "\n".join(f"  {name:<16} {importer.home}" for name, importer in sorted(IMPORTERS.items()))
    parser = command.parser(
        "Writes the canonical logs of a published data set, from files that you downloaded (docs/how-to/public-data.md).\n"
        f"Logs that are there already are left as they are. The sets:\n\n{homes}"
    )
    parser.add_argument("--dataset", required=True, choices=sorted(IMPORTERS), metavar="NAME", help="one of the sets above")
    parser.add_argument("--input", required=True, metavar="FOLDER", help="holds the published files, plain or with .gz")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="to be made: `logs` of the set's YAML under conf/data")
    parser.add_argument("--overwrite", action="store_true", help="replace another import at the same place")
    options = parser.parse_args(arguments)
    return command.run(lambda: _import(options.dataset, options.input, options.output, options.overwrite), (ImporterError,))


def _import(dataset: str, folder: str, output: str, overwrite: bool) -> None:
    spark = spark_session("import_logs")
    try:
        record = import_logs(spark, dataset, folder, output, overwrite=overwrite)
    finally:
        spark.stop()
    print(f"{output}:\n{record.table()}")


if __name__ == "__main__":
    sys.exit(main())
