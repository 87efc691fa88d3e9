"""Register a model that was trained while the tracking store was away: ``python jobs/register.py --model models/mian-...``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from jobs import command
from mian.config import TrainConfig
from mian.evaluation import load_model
from mian.models import ModelError
from mian.serving import ServableError, input_example
from mian.tracking import STORE_ERRORS, Tracker, register
from pipeline.contract import ContractError, read_contract

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, register; 0 when the model is in the registry, 1 with one clear error when not."""
    parser = command.parser("Registers a model that a training kept in a local folder.", config="conf/train/mian.yaml")
    parser.add_argument("--model", required=True, metavar="FOLDER", help="the folder that the training named")
    options = parser.parse_args(arguments)
    errors = (ContractError, ModelError, ServableError, *STORE_ERRORS)
    return command.run(lambda: _register(options.model, options.config, options.overrides), errors)


def _register(folder: str, path: str, overrides: Sequence[str]) -> None:
    config = command.load_config(TrainConfig, path, overrides)
    load_model(folder)
    example = input_example(read_contract(config.samples), config.samples)
    tracker = Tracker(config.tracking)
    tracker.start(config.model_dump(), read_contract(folder), config.samples)
    if tracker.failure is not None:
        raise ServableError(f"{folder} was not registered: {tracker.failure}")
    registered = False
    try:
        log.info("registered as %s", register(folder, example, config.tracking))
        registered = True
    finally:
        tracker.end("FINISHED" if registered else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
