"""Whether a data set's configuration is the one that a model was trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from mian.contract import Contract, ContractError, Field
from pipeline.config import DataConfig, FieldConfig
from pipeline.dataset.fingerprints import setting_fingerprints

log = logging.getLogger(__name__)

#: Parts of the configuration that decide what a model reads and say nothing of where logs lie.
_DECISIVE = ("fields", "history", "day_time_zone", "clock_skew_seconds")
#: Parts that do too, and also say where tables lie.
_PLACED = ("log", "users", "items", "lookups")


def refuse_other_settings(config: DataConfig, contract: Contract, model: str) -> None:
    """Make sure that candidates are joined and described as the model's samples were.

    Labels, vocabularies, splits and thresholds may differ: the first three are not used, and ids are those of the model.

    Args:
        config: the data set's configuration.
        contract: the model's.
        model: what to call the model.

    Raises:
        ContractError: what differs, and what to do.
    """
    found = list(_differences(config, contract))
    if not found:
        parts = setting_fingerprints(config)
        known = contract.settings  # of no part in contracts of early releases
        found = [f"{part} is another one" for part in _DECISIVE if known and parts.get(part) != known.get(part)]
    if found:
        more = f", and {len(found) - 5} more" * (len(found) > 5)
        raise ContractError(
            f"the configuration is not the one of the samples that {model} was trained on: {'; '.join(found[:5])}{more}. Give --config "
            "the configuration that these samples were built with, or a model that was trained on samples of this one"
        )
    elsewhere = [part for part in _PLACED if contract.settings and parts.get(part) != contract.settings.get(part)]
    if elsewhere:
        log.warning(
            "%s of the configuration are not those of the samples that %s was trained on; that is right where only a path differs",
            ", ".join(elsewhere),
            model,
        )


def _differences(config: DataConfig, contract: Contract) -> Iterator[str]:
    fields = {column: field for column, _, field in config.columns()}
    known = {field.column: field for field in contract.fields}
    yield from (f"field {column} is missing" for column in known if column not in fields)
    yield from (f"field {column} is unknown to the model" for column in fields if column not in known)
    for column, field in fields.items():
        if column in known and _form(column, field) != _form_of_contract(known[column]):
            yield f"field {column} is of another kind, transform or vocabulary"
    rules, trained = config.history_rules.model_dump(), contract.history.model_dump()
    yield from (f"history.{name} is {rules[name]}, not {trained[name]}" for name in rules if rules[name] != trained[name])
    if config.log.kind != contract.label.kind:
        yield f"log.kind is {config.log.kind}, not {contract.label.kind}, so behaviors come from another log"
    if config.day_time_zone != contract.day_time_zone:
        yield f"day_time_zone is {config.day_time_zone}, not {contract.day_time_zone}"


def _form(column: str, field: FieldConfig) -> tuple[str, str | None, str | None]:
    if field.kind == "categorical":
        return "value", field.vocabulary or column.split("_", 1)[1], None
    if field.kind == "time_gap":
        return "time_gap", None, None
    return ("number", None, None) if field.transform == "quantiles" else ("number", None, field.transform or "identity")


def _form_of_contract(field: Field) -> tuple[str, str | None, str | None]:
    if field.transform is not None:
        return "number", None, field.transform.kind
    return field.kind, field.vocabulary if field.kind == "value" else None, None
