"""Names that would hide one another, or that nothing can hold, are refused before any row is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import DataConfig
from tests.support.small_logs import EVENT, config


def values(**changes: Any) -> dict[str, Any]:
    """The configuration of the small logs as plain values."""
    return config(Path("/logs")).model_dump(by_alias=True, exclude_unset=True) | changes


def with_columns(**columns: str) -> dict[str, Any]:
    made = values()
    made["log"]["impressions"]["columns"] |= columns
    return made


def with_field(group: str, name: str, **field: Any) -> dict[str, Any]:
    made = values()
    made["fields"][group][name] = field
    return made


def refused(made: dict[str, Any], *words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DataConfig.model_validate(made)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "name", ["geo.city", "a`b", "geo/city", "..", "../x", "_reason", "", " city", "city ", "*", "a\tb", "a\\b"]
)
def test_a_name_that_nothing_can_hold_is_refused(name: str) -> None:
    refused(with_columns(**{name: "device"}), f"log.impressions.columns: {name!r} cannot be a name", "geo_city: geo.city")
    refused(with_field("context", name, expression="device"), f"fields.context: {name!r} cannot be a name")
    refused(
        with_field("context", "place", expression="device", vocabulary=name), f"fields.context: {name!r} cannot be a vocabulary"
    )


@pytest.mark.parametrize("name", ["day", "kind", "file", "payload", "geo city", "geo-city", "größe", "a,b", "2nd", "C1", "a{b}"])
def test_any_other_name_is_taken(name: str) -> None:
    made = with_columns(**{name: "device"})
    made["fields"]["context"][name] = {}
    assert name in DataConfig.model_validate(made).fields.context


def test_columns_that_differ_in_case_only_are_refused() -> None:
    refused(with_columns(Device="bid"), "log.impressions.columns: 'device' and 'Device' differ in case only")
    refused(with_field("context", "Device", expression="bid"), "fields.context: 'device' and 'Device' differ in case only")


@pytest.mark.parametrize("name", ["users", "items", "lookups"])
def test_a_table_whose_column_is_one_of_the_events_but_for_the_case_is_refused(name: str) -> None:
    key = {"users": "user_id", "items": "item_id", "lookups": "device"}[name]
    table: dict[str, Any] = {"path": "/table", "columns": {key: "k", "Bid": "b"}}
    place = {"lookups": "lookups.0"}.get(name, name)
    made = values(**{name: [table | {"keys": [key]}] if name == "lookups" else table})
    refused(made, f"{place}.columns: 'Bid' is a column of the events already but for the case ('bid')", "another name")


def test_two_tables_that_bring_one_column_are_refused() -> None:
    made = values(users={"path": "/users", "columns": {"user_id": "user_id", "Category": "c"}})
    refused(made, "users.columns: 'Category'", "already but for the case ('category')")


def test_a_table_of_items_whose_column_a_log_of_behaviors_has_is_refused() -> None:
    made = values()
    made["log"]["behaviors"] = {"view": {"path": "/views", "columns": {**EVENT, "CATEGORY": "c"}}}
    refused(made, "items.columns: 'category'", "already but for the case ('CATEGORY')")


@pytest.mark.parametrize("name", ["label", "Label"])
def test_a_label_beside_clicks_is_refused(name: str) -> None:
    refused(with_columns(**{name: "clicked"}), f"log.impressions.columns: {name!r}", "kind: labeled", "another name")


@pytest.mark.parametrize(("group", "name", "column"), [("behaviors", "length", "behavior_length"), ("user", "key", "user_key")])
def test_a_field_whose_column_every_sample_has_already_is_refused(group: str, name: str, column: str) -> None:
    refused(with_field(group, name, expression="item_id"), f"fields.{group}.{name}: its column would be {column}")


@pytest.mark.parametrize("field", [{}, {"vocabulary": "candidate_price"}])
def test_a_vocabulary_with_the_name_of_another_field_s_buckets_is_refused(field: dict[str, str]) -> None:
    made = with_columns(price="bid")
    made["fields"]["candidate"]["price"] = {"kind": "numeric", "transform": "quantiles"}
    name = "shelf" if field else "candidate_price"
    made["fields"]["context"][name] = {"expression": "device", **field}
    refused(made, f"fields.context.{name}: its vocabulary would be 'candidate_price'", "fields.candidate.price", "vocabulary:")
    made["fields"]["context"][name] = {"expression": "device", "vocabulary": f"context_{name}"}
    DataConfig.model_validate(made)


@pytest.mark.parametrize("buckets", [2**31 - 2, 2**31, 2**33])
def test_more_hash_buckets_than_there_are_ids_are_refused(buckets: int) -> None:
    refused(values(vocabularies={"item_id": {"hash_buckets": buckets}}), "hash_buckets", "less than or equal to 2147483645")
    refused(values(vocabularies={"item_id": {"max_size": 2**31}}), "max_size", "less than or equal to 2147483647")
    DataConfig.model_validate(values(vocabularies={"item_id": {"hash_buckets": 2**31 - 3}}))
