"""Show a data set on one page: ``python jobs/describe.py --samples data/demo/samples --output data/demo/describe.html``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jobs import command
from mian.contract import ContractError
from pipeline.describe import DescribeError, describe, write_page


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, describe, say where the page is; 0 when it is there, 1 with one clear error when not."""
    parser = command.parser(
        "Writes one HTML page that shows what a data set holds, how it changes from day to day, and what is odd about it.\n"
        "It reads the contract, the days' statistics and the samples' user and candidate columns, and needs no Spark."
    )
    parser.add_argument("--samples", required=True, metavar="FOLDER", help="what jobs/build_samples.py wrote")
    parser.add_argument("--output", required=True, metavar="FILE", help="the page, such as data/demo/describe.html")
    options = parser.parse_args(arguments)
    return command.run(lambda: _describe(options.samples, options.output), (ContractError, DescribeError))


def _describe(samples: str, output: str) -> None:
    write_page(describe(samples), output)
    print(output)


if __name__ == "__main__":
    sys.exit(main())
