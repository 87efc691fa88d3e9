"""The trained model that a training begins with."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pyarrow as pa
import torch

from mian.checkpoint.notes import NOTES, noted_config, noted_contract
from mian.checkpoint.store import CheckpointError, CheckpointStore
from mian.config import TrainConfig
from mian.contract import Contract, ContractError, Split, vocabulary_values
from mian.contract.lineage import Parent, merged
from mian.evaluation.offline import extended_vocabularies
from mian.models import ClickModel, restore
from mian.serving import ServableError, read_vocabularies
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import STORE_ERRORS, tracking_uri
from mian.tracking.model_source import is_registered
from mian.tracking.registry import load_model, pinned


@dataclass(frozen=True)
class InitialModel:
    """A trained model, and what its optimizer remembers where that is wanted."""

    model: ClickModel
    contract: Contract
    vocabularies: Mapping[str, pa.Array]
    """By name, the values of those that are tables, as far as they are there."""
    moments: Mapping[str, torch.Tensor] | None
    parent: Parent
    """What the lineage of a training that begins with it says of it."""


def initial_model(config: TrainConfig, contract: Contract) -> InitialModel:
    """Load what ``init_from`` names.

    The samples may have more fields than those that the model was trained on, and more values behind those of its vocabularies.

    Args:
        config: of the training.
        contract: of its samples.

    Raises:
        CheckpointError: its checkpoints cannot be read, or moments are wanted of what has none.
        ContractError: the model was trained on other fields or vocabularies.
        ServableError: it is no such model, or is damaged; MLflow has none, or does not answer.
    """
    assert config.init_from is not None, "a model is named"
    initial = _loaded(config.init_from, config)
    differences = list(initial.contract.differences(_known(initial, contract, config.samples)))
    if differences:
        raise ContractError(
            f"init_from: the training on {config.samples} cannot begin with {config.init_from}: {'; '.join(differences[:5])}; name a model "
            "of the same fields, whose vocabularies these samples have or extend"
        )
    return initial


def _loaded(source: str, config: TrainConfig) -> InitialModel:
    if (Path(source) / NOTES).exists():
        return _of_checkpoints(Path(source), config.init_moments)
    if config.init_moments:
        what = "is no folder of checkpoints, and a model alone has no moments" if Path(source).exists() else "is no folder"
        raise CheckpointError(
            f"init_moments: {source} {what}; name what checkpoint.keep_ended left, as jobs/checkpoints.py --output lists it"
        )
    mlflow.set_tracking_uri(tracking_uri(config.tracking.uri))
    try:
        version = pinned(source)  # an alias may move between two looks
        servable = load_model(version)
    except (TrackingError, *STORE_ERRORS) as error:
        raise ServableError(f"init_from: {source} cannot be loaded ({' '.join(str(error).split())})") from error
    parent = Parent(
        source=version.removeprefix("models:/") if is_registered(source) else source,
        weights_sha256=servable.weights_sha256,
        seen=None if servable.lineage is None else servable.lineage.seen,
        audit="not audited" if servable.lineage is None else servable.lineage.audit_now(config.samples),
        days=None if servable.lineage is None else servable.lineage.days_with_ancestors,
    )
    return InitialModel(servable.model, servable.contract, servable.vocabularies, None, parent)


def _of_checkpoints(folder: Path, moments: bool) -> InitialModel:
    """The best weights, or the last ones with their moments."""
    before, contract, state = noted_config(folder), noted_contract(folder), CheckpointStore(folder, 1).newest()
    if before is None or contract is None or state is None:
        raise CheckpointError(f"init_from: {folder} has no checkpoint of this release")
    weights = state["model"] if moments else state["best"] or state["model"]
    vocabularies: dict[str, pa.Array] = {}
    for vocabulary in contract.vocabularies:
        with contextlib.suppress(ServableError):  # of a vocabulary that is gone nothing shows that it was extended
            contents = read_vocabularies(contract.model_copy(update={"vocabularies": (vocabulary,)}), before.samples)
            vocabularies |= {name: vocabulary_values(io.BytesIO(content)) for name, content in contents.items()}
    model = restore(before.model.name, contract, before.model.options, weights)
    seen = _seen(before, contract, state["progress"].get("parent"))
    parent = Parent(source=str(folder), seen=seen)  # the contract's days, and what was known of them, are not kept there
    return InitialModel(model, contract, vocabularies, state["optimizer"] if moments else None, parent)


def _seen(config: TrainConfig, contract: Contract, parent: str | None) -> tuple[Split, ...] | None:
    """The days of a training of which there are checkpoints, and those of the model that it began with; whole splits, built or not."""
    inherited: tuple[Split, ...] | None = ()
    if config.init_from is not None:
        inherited = None if parent is None else Parent.model_validate_json(parent).seen
    if inherited is None:
        return None
    splits = contract.splits[config.train_split], contract.splits[config.validation_split]
    return merged([*splits, *contract.vocabulary_days, *inherited])


def _known(initial: InitialModel, contract: Contract, samples: str) -> Contract:
    """The samples' contract as far as the model knows it: without added fields, and with its own vocabularies where they were extended."""
    mine = initial.contract
    columns = {field.column for field in mine.fields}
    names = {vocabulary.name for vocabulary in mine.vocabularies}
    fields = tuple(field for field in contract.fields if field.column in columns)
    extended = extended_vocabularies(mine, initial.vocabularies, contract, samples)
    known = tuple(mine.vocabulary(v.name) if v.name in extended else v for v in contract.vocabularies if v.name in names)
    return contract.model_copy(update={"fields": fields, "vocabularies": known})
