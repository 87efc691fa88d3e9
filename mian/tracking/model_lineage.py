"""What a training's model is made from; see :mod:`mian.contract.lineage`."""

from __future__ import annotations

from mian.config import TrainConfig
from mian.contract import Contract
from mian.contract.lineage import Lineage, Parent, lineage_of
from mian.fingerprint import package_fingerprint
from mian.tracking.errors import hide_passwords


def training_lineage(contract: Contract, config: TrainConfig) -> Lineage:
    """What a training is about to use, but for the model that it begins with.

    Args:
        contract: of the samples, read before the training starts.
        config: the settings.

    Raises:
        ContractError: a split is missing, or a verdict of an audit is damaged.
    """
    splits = config.train_split, config.validation_split
    return lineage_of(contract, hide_passwords(config.samples), *splits, package_fingerprint("mian"))


def lineage_tags(lineage: Lineage) -> dict[str, str]:
    """What of a lineage a version in the registry has as tags, for people and searches; ``model.json`` has all of it."""
    used = {use: [day.day for day in lineage.days if day.use == use] for use in ("train", "validation")}
    return {
        **{f"mian.{use}_days": f"{days[0]} to {days[-1]} ({len(days)})" for use, days in used.items()},
        "mian.samples": lineage.samples,
        "mian.vocabulary_version": str(lineage.vocabulary_version),
        "mian.contract.fields": lineage.fields_fingerprint,
        "mian.contract.config": lineage.config_fingerprint,
        "mian.code": lineage.code_fingerprint,
        "mian.audit": lineage.audit,
        "mian.parent": "none" if lineage.parent is None else lineage.parent.source,
    }


def with_parent(lineage: Lineage, parent: str | None, config: TrainConfig) -> Lineage:
    """Add the model that the training began with.

    Args:
        lineage: see :func:`training_lineage`.
        parent: as :attr:`mian.checkpoint.progress.Progress.parent` keeps it; None where the training did not note it.
        config: the settings; ``init_from`` says whether there is one.
    """
    if parent is not None:
        return lineage.begun_with(Parent.model_validate_json(parent))
    return lineage if config.init_from is None else lineage.begun_with(Parent(source=config.init_from, seen=None))
