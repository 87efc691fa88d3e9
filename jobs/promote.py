"""Promote a version that passes every gate: ``python jobs/promote.py --model mian --config conf/promotion.yaml``."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

import mlflow

from jobs import command
from jobs.configuration import ConfigError, check_output_file, load_config
from mian.atomic_write import write_atomically
from mian.contract import ContractError
from mian.models import ModelError
from mian.promotion.alias import AliasError
from mian.promotion.run import AlreadyServingError, Promotion, run_promotion, run_rollback
from mian.promotion.settings import PromotionConfig
from mian.serving import ServableError
from mian.stream import StreamError
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import DEFAULT_URI, STORE_ERRORS, tracking_uri

REFUSED = 2
DESCRIPTION = """Compares a version of a registered model with the one that serves, on days that neither has seen, and has the alias
point to it where every gate lets it through. The decision is kept as tags of the version, and as a document and a page
with its run.

exit code: 0 the alias is at the version, 2 refused, 1 an error (wrong arguments, too)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, judge, move the alias; 0 when it is at the version, 2 when a gate refuses it, 1 with one clear error."""
    parser = command.parser(DESCRIPTION, config="conf/promotion.yaml", usage_exit=1)
    parser.add_argument("--model", required=True, metavar="NAME", help="the registered name, such as mian")
    parser.add_argument(
        "--candidate", default="newest", metavar="VERSION", help="the number of a version, or an alias; newest by default"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing and move nothing; the exit code is that of the decision"
    )
    parser.add_argument(
        "--rollback", action="store_true", help="have the alias point to the version before, along the record of promotions"
    )
    parser.add_argument("--report", metavar="FILE.html", help="also write the page of the decision there")
    parser.add_argument("--tracking-uri", help=f"MLFLOW_TRACKING_URI, or else {DEFAULT_URI}, where it is not given")
    options = parser.parse_args(arguments)
    codes: list[int] = []
    errors = (AliasError, ContractError, ModelError, ServableError, StreamError, TrackingError, *STORE_ERRORS)
    return command.run(lambda: codes.append(_promote(options)), errors) or codes[0]


def _promote(options: argparse.Namespace) -> int:
    config = load_config(PromotionConfig, options.config, options.overrides)
    if options.rollback and (options.dry_run or options.report is not None):
        raise ConfigError(
            f"--rollback judges nothing, and takes no {'--dry-run' if options.dry_run else '--report'}; leave it out"
        )
    if options.report is not None:
        check_output_file("--report", options.report, (".html",))
    mlflow.set_tracking_uri(tracking_uri(options.tracking_uri))
    if options.rollback:
        print(run_rollback(options.model, config.alias))
        return 0
    try:
        promotion = run_promotion(options.model, options.candidate, config, options.dry_run)
    except AlreadyServingError as error:
        print(error)
        return 0
    if options.report is not None:
        write_atomically(pathlib.Path(options.report), promotion.page)
    print(_text(promotion, options.dry_run))
    return 0 if promotion.decision.is_promoted else REFUSED


def _text(promotion: Promotion, dry_run: bool) -> str:
    return promotion.decision.text(dry_run) + ("\nThis was a dry run: nothing was moved or written." if dry_run else "")


if __name__ == "__main__":
    sys.exit(main())
