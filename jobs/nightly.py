"""Do a night: ``python jobs/nightly.py --day 2026-02-10 --config conf/nightly/demo.yaml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

import mlflow

from jobs import command
from jobs.configuration import ConfigError, load_config
from mian.checkpoint.training_lock import AlreadyRunningError
from mian.config import TrainConfig
from mian.contract import ContractError
from mian.nightly.plan import NightError, settings_fingerprint
from mian.nightly.run import Configurations, run_night
from mian.nightly.settings import NightlyConfig
from mian.promotion.alias import AliasError
from mian.promotion.settings import PromotionConfig
from mian.serving import ServableError
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import STORE_ERRORS, tracking_uri
from pipeline.config import DataConfig

DESCRIPTION = """Builds the samples up to the last day whose labels are final, audits them, trains on the new days from the version that
serves, evaluates, and promotes the new version where every gate lets it through. A night that was stopped goes on where it
was; of a finished one nothing is done again.

exit code: 0 the new version serves, 2 it was refused, 1 an error (wrong arguments, too)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, do the night; 0 when its version serves, 2 when it was refused, 1 with one clear error."""
    parser = command.parser(DESCRIPTION, config="conf/nightly/demo.yaml", usage_exit=1)
    parser.add_argument("--day", required=True, type=command.day, metavar="DAY", help="the last day of which there are logs")
    parser.add_argument(
        "--data", nargs="*", default=[], metavar="KEY=VALUE", help="values that replace those of the data set's configuration"
    )
    options = parser.parse_args(arguments)
    codes: list[int] = []
    errors = (AliasError, AlreadyRunningError, ContractError, NightError, ServableError, TrackingError, *STORE_ERRORS)
    return command.run(lambda: codes.append(_night(options)), errors) or codes[0]


def _night(options: argparse.Namespace) -> int:
    nightly = load_config(NightlyConfig, options.config, options.overrides)
    data = load_config(DataConfig, nightly.data, options.data)
    train = load_config(TrainConfig, nightly.train)
    promotion = load_config(PromotionConfig, nightly.promotion)
    if len(urlsplit(data.samples).scheme) > 1:
        raise ConfigError(f"{nightly.data}: samples {data.samples} are not on this machine; mount them and name a local folder")
    mlflow.set_tracking_uri(tracking_uri(train.tracking.uri))
    settings = settings_fingerprint(nightly, options.data)
    code, said = run_night(options.day, Configurations(nightly, train, promotion, data.samples, settings, options.data))
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
