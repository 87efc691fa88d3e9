from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from mian.contract import (
    Contract,
    ContractError,
    Day,
    Field,
    History,
    Label,
    NumericTransform,
    Split,
    Vocabulary,
    read_contract,
)

#: A document as the first release wrote it, to the letter: later releases read it, or refuse it with a clear word.
VERSION_1 = """{
 "format": "mian-samples", "version": 1, "name": "old",
 "fields": [
  {"group": "candidate", "name": "item_id", "vocabulary": "item_id", "transform": null},
  {"group": "candidate", "name": "price", "vocabulary": null, "transform": {"kind": "log", "mean": 1.5, "std": 0.5}},
  {"group": "behaviors", "name": "item_id", "vocabulary": "item_id", "transform": null}
 ],
 "vocabularies": [{"name": "item_id", "size": 9, "path": "vocabularies/a1/item_id.parquet", "sha256": "00"}],
 "vocabulary_fingerprint": "a1", "history": {"length": 30, "days": 29},
 "label": {"kind": "impressions_and_clicks", "attribution_hours": 24.0, "negatives_per_positive": null},
 "splits": {"train": {"first": "2026-01-01", "last": "2026-01-02"}, "test": {"first": "2026-01-03", "last": "2026-01-03"}},
 "config_fingerprint": "c", "code_fingerprint": "d",
 "days": [{"day": "2026-01-01", "rows": 10, "positives": 2, "fingerprint": "e", "examples": null,
   "files": [{"path": "day=2026-01-01/part-00000-e.parquet", "rows": 10, "bytes": 99, "sha256": "11"}]}]
}"""


@pytest.fixture
def contract() -> Contract:
    return Contract.from_json(VERSION_1)


def test_a_document_of_version_1_is_read(contract: Contract) -> None:
    assert [field.column for field in contract.fields] == ["candidate_item_id", "candidate_price", "behavior_item_id"]
    assert contract.group("behaviors") == (Field(group="behaviors", name="item_id", vocabulary="item_id"),)
    assert contract.fields[1].transform == NumericTransform(kind="log", mean=1.5, std=0.5)
    assert contract.vocabulary("item_id").size == 9
    assert contract.history == History(length=30, days=29)
    assert contract.label == Label(kind="impressions_and_clicks", attribution_hours=24.0)


def test_what_models_of_earlier_releases_were_trained_on_is_still_the_same(contract: Contract) -> None:
    """A served model and new samples agree where this fingerprint does: keys that are added later are no part of it."""
    buckets = Vocabulary(name="hour", size=5, kind="buckets", edges=(1.0, 2.0))
    grown = contract.model_copy(update={"vocabularies": (*contract.vocabularies, buckets)})
    assert contract.fields_fingerprint == "6e82993fe3969c4b68042ae1f2aa6e9486c13f0ce4d2b5d55eee8529d4367631"
    assert grown.fields_fingerprint == "dda888b829b00b7b2a814c1a474429f3cddd4a29332d3bd9d9b86eb9dc57816a"


def test_days_that_vocabularies_were_made_from_may_be_one_span_or_several() -> None:
    one = VERSION_1.replace('"vocabulary_fingerprint": "a1",', '"vocabulary_fingerprint": "a1", "vocabulary_days": SPAN,')
    day = {"first": "2026-01-01", "last": "2026-01-02"}
    span = Split(first=dt.date(2026, 1, 1), last=dt.date(2026, 1, 2))
    for text, spans in (("null", ()), (json.dumps(day), (span,)), (json.dumps([day]), (span,))):
        assert Contract.from_json(one.replace("SPAN", text)).vocabulary_days == spans


def test_what_is_written_is_read(contract: Contract) -> None:
    assert Contract.from_json(contract.to_json()) == contract
    assert Contract.from_json(contract.to_json()).to_json() == contract.to_json()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("{", "not a JSON document"),
        ("[]", "not a mian-samples contract"),
        ('{"format": "something"}', "not a mian-samples contract"),
        ('{"format": "mian-samples", "version": 4}', "contract of version 4, this release reads versions 1 to 3"),
        ('{"format": "mian-samples"}', "contract of version None"),
        (VERSION_1.replace('"length": 30', '"length": "long"'), "damaged contract at 'history.length'"),
        (VERSION_1.replace('"name": "old",', ""), "damaged contract at 'name'"),
    ],
)
def test_any_other_document_is_refused_with_a_word(text: str, word: str) -> None:
    with pytest.raises(ContractError, match=word) as caught:
        Contract.from_json(text, "some/contract.json")
    assert str(caught.value).startswith("some/contract.json")
    assert "again" in str(caught.value) or "jobs/build_samples.py" in str(caught.value)


def test_a_folder_without_a_contract_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"no such file; run jobs/build_samples\.py"):
        read_contract(str(tmp_path))


def test_an_object_store_that_refuses_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Unable to locate credentials")  # clients have errors of their own

    monkeypatch.setattr(fsspec, "open", refuse)
    with pytest.raises(ContractError, match=r"s3://samples/contract\.json: cannot be opened: Unable to locate credentials"):
        read_contract("s3://samples")


def test_splits_name_their_days(contract: Contract) -> None:
    assert [day.day for day in contract.split("train")] == [dt.date(2026, 1, 1)]
    assert contract.missing_days("train") == (dt.date(2026, 1, 2),)
    with pytest.raises(ContractError, match="has no split 'tset'; it has test, train"):
        contract.split("tset")
    with pytest.raises(ContractError, match=r"no day of split 'test' .* --from 2026-01-03 --to 2026-01-03"):
        contract.split("test")


def test_differences_name_what_weights_depend_on(contract: Contract) -> None:
    def changed(**changes: object) -> list[str]:
        return list(contract.differences(contract.model_copy(update=changes)))

    assert changed() == []
    assert changed(days=(), name="new", splits={"train": Split(first=dt.date(2020, 1, 1), last=dt.date(2020, 1, 1))}) == []
    assert changed(fields=contract.fields[1:]) == ["field candidate_item_id is missing"]
    more = Field(group="user", name="age", vocabulary="age")
    assert changed(fields=(*contract.fields, more)) == ["field user_age is new"]
    assert changed(fields=contract.fields[::-1]) == ["fields are in another order"]
    number = contract.fields[1].model_copy(update={"transform": NumericTransform(kind="log", mean=0, std=1)})
    assert changed(fields=(contract.fields[0], number, contract.fields[2])) == [
        "field candidate_price is of another kind or transform"
    ]
    other = Vocabulary(name="item_id", size=9, path="elsewhere", sha256="22")
    assert changed(vocabularies=(other,)) == ["vocabulary item_id has other contents"]
    assert contract.model_copy(update={"vocabularies": (other,)}).fields_fingerprint != contract.fields_fingerprint


def test_a_day_outside_its_split_is_not_in_it() -> None:
    split = Split(first=dt.date(2026, 1, 2), last=dt.date(2026, 1, 3))
    assert [day in split for day in (dt.date(2026, 1, n) for n in (1, 2, 3, 4))] == [False, True, True, False]
    assert Day(day=split.first, rows=0, positives=0, fingerprint="", files=()).files == ()


def test_reading_a_contract_needs_neither_spark_nor_torch() -> None:
    code = "import sys, mian.contract; print(sorted({'pyspark', 'torch', 'mian.models', 'pipeline'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert json.loads(VERSION_1)["version"] == 1
