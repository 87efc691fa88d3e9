"""The trained model that a training begins with."""

from __future__ import annotations

import mlflow

from mian.config import TrainConfig
from mian.evaluation import extended_vocabularies, load_model
from mian.models import ClickModel
from mian.serving import Servable, ServableError
from mian.tracking.store import STORE_ERRORS, tracking_uri
from pipeline.contract import Contract, ContractError


def initial_model(config: TrainConfig, contract: Contract) -> ClickModel | None:
    """Load the model that ``init_from`` names; None where it names none.

    The samples may have more fields than those that the model was trained on, and more values behind those of its vocabularies.

    Args:
        config: of the training.
        contract: of its samples.

    Raises:
        ContractError: the model was trained on other fields or vocabularies.
        ServableError: it is no such model, or is damaged; MLflow has none, or does not answer.
    """
    if config.init_from is None:
        return None
    mlflow.set_tracking_uri(tracking_uri(config.tracking.uri))
    try:
        servable = load_model(config.init_from)
    except STORE_ERRORS as error:
        raise ServableError(f"init_from: {config.init_from} cannot be loaded ({' '.join(str(error).split())})") from error
    differences = list(servable.contract.differences(_known(servable, contract, config.samples)))
    if differences:
        raise ContractError(
            f"init_from: the training on {config.samples} cannot begin with {config.init_from}: {'; '.join(differences[:5])}; name a model "
            "of the same fields, whose vocabularies these samples have or extend"
        )
    return servable.model


def _known(servable: Servable, contract: Contract, samples: str) -> Contract:
    """The samples' contract as far as the model knows it: without added fields, and with its own vocabularies where they were extended."""
    mine = servable.contract
    columns = {field.column for field in mine.fields}
    names = {vocabulary.name for vocabulary in mine.vocabularies}
    fields = tuple(field for field in contract.fields if field.column in columns)
    extended = extended_vocabularies(servable, contract, samples)
    known = tuple(mine.vocabulary(v.name) if v.name in extended else v for v in contract.vocabularies if v.name in names)
    return contract.model_copy(update={"fields": fields, "vocabularies": known})
