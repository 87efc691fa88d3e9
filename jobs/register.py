"""Record and register a model that was trained while the tracking store was away: ``python jobs/register.py --model models/mian-...``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs import command
from jobs.configuration import load_config
from mian.checkpoint.retention import CHECKPOINTS, lock_path
from mian.checkpoint.training_lock import AlreadyRunningError, TrainingLock
from mian.config import TrainConfig
from mian.contract import ContractError
from mian.models import ModelError
from mian.scoring.servable_files import MODEL_FILE, ModelDescription
from mian.serving import ServableError
from mian.tracking.errors import HIDDEN, TrackingError
from mian.tracking.late_registration import record_and_register, refuse_other_settings
from mian.tracking.mlflow_store import STORE_ERRORS
from mian.tracking.records import TRAINING_FILE, read_training
from mian.tracking.registry import load_model

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, register; 0 when the model is in the registry, 1 with one clear error when not."""
    parser = command.parser(
        "Records and registers a model that a training kept in a local folder: what the tracking store lacks of the run is sent, and the\n"
        "model becomes a version. Model, options and metrics are those in the folder."
    )
    parser.add_argument("--model", required=True, metavar="FOLDER", help="the folder that the training named")
    parser.add_argument("--config", metavar="FILE", help="the training's configuration, where `tracking` in it has changed since")
    parser.add_argument("overrides", nargs="*", metavar="tracking.KEY=VALUE", help="such as tracking.uri=http://tracking:5000")
    options = parser.parse_args(arguments)
    errors = (AlreadyRunningError, ContractError, ModelError, ServableError, TrackingError, *STORE_ERRORS)
    return command.run(lambda: _register(Path(options.model), options.config, options.overrides), errors)


def _register(folder: Path, path: str | None, overrides: Sequence[str]) -> None:
    load_model(str(folder))
    record = read_training(folder)
    recorded = TrainConfig.model_validate(record.config)
    description = ModelDescription.model_validate_json((folder / MODEL_FILE).read_bytes())
    if (description.name, description.options) != (recorded.model.name, recorded.model.options):
        raise TrackingError(f"{folder / TRAINING_FILE}: of another model than {MODEL_FILE} beside it; copy the folder again")
    config = load_config(TrainConfig, path or str(folder / TRAINING_FILE), overrides, inside=None if path else "config")
    refuse_other_settings(config, recorded, path or "the overrides", folder)
    if f":{HIDDEN}@" in (config.tracking.uri or ""):
        raise TrackingError(
            f"{folder / TRAINING_FILE}: the password of {config.tracking.uri} is not kept there; give tracking.uri=..., or "
            "tracking.uri=null and MLFLOW_TRACKING_URI in the environment"
        )
    with TrainingLock(lock_path(folder.resolve().parent / CHECKPOINTS / record.key)):  # its training may still be scoring
        record_and_register(folder, record, config, recorded)


if __name__ == "__main__":
    sys.exit(main())
