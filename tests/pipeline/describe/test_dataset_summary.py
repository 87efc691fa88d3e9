"""The figures: each one against what the small data set has written down, or against the plain formula."""

import json
import math
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mian.contract import CONTRACT_FILE, ContractError, Field, Label, Reference, Vocabulary
from pipeline.describe import DescribeError, describe, sample_folder
from pipeline.describe.intervals import rate_interval
from pipeline.describe.value_charts import value_rates
from tests.support.small_set import FIELDS, REFERENCE, SMALL, VALUES, Plan, days, write_set


def plain_index(expected: list[float], actual: list[float]) -> float:
    pairs = [(max(e, 1e-4), max(a, 1e-4)) for e, a in zip(expected, actual, strict=True)]
    return sum((a - e) * math.log(a / e) for e, a in pairs)


def test_table_1_counts_each_user_once_and_the_ids_of_items_and_categories(tmp_path: Path) -> None:
    write_set(tmp_path)
    table = describe(str(tmp_path)).table1
    assert (table.users, table.items, table.categories, table.samples) == (6, 4, 2, 400)


def test_users_are_told_apart_however_many_wait_to_be_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_folder, "WAITING", 0)
    write_set(tmp_path)
    assert describe(str(tmp_path)).table1.users == 6


def test_samples_may_lie_in_any_store(tmp_path: Path) -> None:
    write_set(tmp_path)
    fsspec.filesystem("memory").put(f"{tmp_path}/", "/described", recursive=True)
    assert describe("memory://described").table1 == describe(str(tmp_path)).table1


def test_a_hashed_vocabulary_does_not_say_how_many_items_there_are(tmp_path: Path) -> None:
    contract = write_set(tmp_path)
    item, *others = contract.vocabularies
    write_set(tmp_path, vocabularies=(Vocabulary(name="item", size=item.size, kind="hash"), *others))
    assert describe(str(tmp_path)).table1.items is None


@pytest.mark.parametrize(
    ("name", "counts"), [("cate_id", True), ("main_category", True), ("sub_cat", True), ("location", False), ("cat_food", False)]
)
def test_which_field_is_taken_for_the_category(tmp_path: Path, name: str, counts: bool) -> None:
    candidate = Field(group="candidate", name=name, vocabulary="category")
    write_set(tmp_path, [replace(plan, category=name) for plan in SMALL], fields=(FIELDS[0], candidate, *FIELDS[2:]))
    assert describe(str(tmp_path)).table1.categories == (2 if counts else None)


def test_ids_that_candidates_have_leave_out_unknown(tmp_path: Path) -> None:
    write_set(tmp_path, [*SMALL[:3], Plan("2026-03-04", users=((1, 2, 3, 4),), ids=(5, 1, 0, 5))])
    assert describe(str(tmp_path)).candidates_seen == {"candidate_item_id": 3, "candidate_category": 1}  # ids 2, 3 and 5


def test_shares_of_a_split_are_over_all_its_samples(tmp_path: Path) -> None:
    plans = [
        Plan("2026-03-01", rows=300, positives=30, seen=60, history=(100, 50, 50, 50, 50), age=(60, 140, 100)),
        Plan("2026-03-02", rows=100, positives=30, seen=0, history=(0, 0, 0, 20, 80), age=(0, 50, 50)),
        *SMALL[2:],
    ]
    write_set(tmp_path, plans)
    train = describe(str(tmp_path)).splits[0]
    assert (train.name, train.rows, train.positives) == ("train", 400, 60)
    assert (train.rate, train.seen, train.empty, train.full) == (0.15, 0.15, 0.25, 0.325)
    age = next(c for c in describe(str(tmp_path)).columns if c.field.column == "user_age")
    assert age.unknown == {"train": 0.15, "validation": 0.1, "test": 0.1}


def test_users_that_training_does_not_have(tmp_path: Path) -> None:
    write_set(tmp_path)
    found = {split.name: (split.users, split.new_users) for split in describe(str(tmp_path)).splits}
    assert found == {"train": (3, 0), "validation": (2, 1), "test": (3, 2)}


def test_label_rates_are_those_before_negatives_were_left_out(tmp_path: Path) -> None:
    """20 positives and 80 negatives, a tenth of those that there were: 20 of 820."""
    write_set(tmp_path, [*days("2026-03-01", 2, kept=0.1), *SMALL[2:]])
    description = describe(str(tmp_path))
    assert description.days[0].rate == pytest.approx(20 / 820)
    assert description.splits[0].rate == pytest.approx(20 / 820)
    assert description.splits[2].rate == pytest.approx(0.2)


def test_drift_is_of_whole_splits_against_the_training_days(tmp_path: Path) -> None:
    plans = [
        *SMALL[:2],
        Plan("2026-03-03", position=(0, 20, 30, 50)),
        Plan("2026-03-04", position=(0, 50, 30, 20)),
        Plan("2026-03-05", position=(0, 100, 0, 0)),
    ]
    write_set(tmp_path, plans)
    drift = {column.field.column: column.drift for column in describe(str(tmp_path)).columns}
    position = drift["context_position"]
    assert position is not None
    train = plain_index([0, 0.5, 0.3, 0.2], [0, 120 / 300, 90 / 300, 90 / 300])
    assert position.splits["train"] == pytest.approx(train, abs=1e-6)
    assert position.splits["validation"] == 0
    assert position.splits["test"] == pytest.approx(plain_index([0, 0.5, 0.3, 0.2], [0, 1, 0, 0]), abs=1e-6)
    assert position.usual["test"] == pytest.approx(plain_index([0, 0.5, 0.3, 0.2], [0, 0.2, 0.3, 0.5]), abs=1e-6)
    assert drift["behavior_item_id"] is None  # the contract has no reference for it


def test_drift_knows_ids_that_came_when_a_vocabulary_was_extended(tmp_path: Path) -> None:
    reference = {**REFERENCE, "context_position": Reference(shares=(0.0, 0.6, 0.4))}
    write_set(tmp_path, reference=reference)
    found = describe(str(tmp_path)).columns[4].drift
    assert found is not None
    assert found.splits["test"] == pytest.approx(plain_index([0, 0.6, 0.4, 0], [0, 0.5, 0.3, 0.2]), abs=1e-6)


def test_rates_of_values_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    write_set(tmp_path)
    rates = value_rates(describe(str(tmp_path)), FIELDS[4])
    assert [(r.value, r.rows, r.rate) for r in rates] == [("1", 80, 0.25), ("2", 120, 5 / 30), ("10", 200, 0.2)]
    assert all(r.low < r.rate < r.high for r in rates)


def test_rates_of_text_are_in_the_order_of_ids_with_unknown_last(tmp_path: Path) -> None:
    write_set(tmp_path)
    rates = value_rates(describe(str(tmp_path)), FIELDS[3])
    assert [(r.value, r.rows, r.rate) for r in rates] == [("20s", 200, 0.4), ("30s", 160, 0.0), ("unknown", 40, 0.0)]


def test_rates_of_many_values_are_those_of_the_first_twenty_and_of_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VALUES, "position", [str(n) for n in range(30)])
    bins = {"position": (0, *[4] * 20, 20), "position_clicks": (0, *[0] * 20, 20)}
    write_set(tmp_path, [replace(plan, **bins) for plan in SMALL], reference={})
    rates = value_rates(describe(str(tmp_path)), FIELDS[4])
    assert [r.value for r in rates] == [*map(str, range(20)), "others"]
    assert [(r.rows, r.rate) for r in rates] == [(16, 0.0)] * 20 + [(80, 1.0)]


def test_a_column_of_ids_has_no_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty of very many values say nothing of the column."""
    monkeypatch.setitem(VALUES, "position", [str(n) for n in range(1000)])
    bins = {"position": (0, *[1] * 20, 80), "position_clicks": (0, *[1] * 20, 0)}
    write_set(tmp_path, [replace(plan, **bins) for plan in SMALL], reference={})
    assert value_rates(describe(str(tmp_path)), FIELDS[4]) == []


def test_texts_that_begin_with_a_number_are_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VALUES, "position", ["25-34", "65+", "18-24"])
    write_set(tmp_path)
    assert [r.value for r in value_rates(describe(str(tmp_path)), FIELDS[4])] == ["18-24", "25-34", "65+"]


def test_rates_of_numbers_are_by_ranges_of_what_the_log_has(tmp_path: Path) -> None:
    """The edge 1.0 is that of (x - 10) / 2."""
    write_set(tmp_path, [*days("2026-03-01", 2, kept=0.5), *SMALL[2:]])
    rates = value_rates(describe(str(tmp_path)), FIELDS[5])
    assert [(r.value, r.rows) for r in rates] == [("< 12", 200), ("≥ 12", 200)]
    assert rates[0].rate == pytest.approx(20 / (20 + 2 * 45 + 2 * 90))
    assert rates[1].rate == pytest.approx(60 / (60 + 2 * 35 + 2 * 70))


def test_a_hashed_column_has_no_rates(tmp_path: Path) -> None:
    contract = write_set(tmp_path)
    hashed = tuple(
        Vocabulary(name=v.name, size=v.size, kind="hash") if v.name == "position" else v for v in contract.vocabularies
    )
    write_set(tmp_path, vocabularies=hashed)
    assert value_rates(describe(str(tmp_path)), FIELDS[4]) == []


def test_buckets_are_named_by_their_edges(tmp_path: Path) -> None:
    contract = write_set(tmp_path)
    buckets = Vocabulary(name="position", size=5, kind="buckets", edges=(5.0, 9.5))
    kinds = tuple(buckets if v.name == "position" else v for v in contract.vocabularies)
    fields = tuple(Field(**{**f.model_dump(), "kind": "number"}) if f.name == "position" else f for f in FIELDS)
    write_set(tmp_path, vocabularies=kinds, fields=fields)
    assert [r.value for r in value_rates(describe(str(tmp_path)), fields[4])] == ["< 5", "5 to 9.5", "≥ 9.5"]


def test_an_interval_holds_the_rate_as_often_as_it_says() -> None:
    """Over all outcomes of 200 rows with a rate of 0.1, each weighed by how likely it is."""
    chances = {k: math.comb(200, k) * 0.1**k * 0.9 ** (200 - k) for k in range(201)}
    held = sum(p for k, p in chances.items() if rate_interval(k, 200 - k)[0] <= 0.1 <= rate_interval(k, 200 - k)[1])
    assert held == pytest.approx(0.95, abs=0.015)


def test_an_interval_before_negatives_were_left_out_has_the_same_odds() -> None:
    odds = [share / (1 - share) for share in (*rate_interval(20, 80), *rate_interval(20, 80, kept=0.1))]
    assert odds[2:] == pytest.approx([odds[0] / 10, odds[1] / 10])


def test_a_contract_of_an_earlier_build_is_described_as_far_as_it_is_known(tmp_path: Path) -> None:
    write_set(tmp_path, [replace(plan, measured=False) for plan in SMALL], reference={}, vocabulary_days=None)
    contract = json.loads((tmp_path / CONTRACT_FILE).read_text())
    (tmp_path / CONTRACT_FILE).write_text(json.dumps({**contract, "version": 1}))
    description = describe(str(tmp_path))
    assert description.table1.users == 6
    assert len(description.unmeasured) == 4
    assert description.splits[0].seen is None
    assert all(not column.unknown and column.drift is None for column in description.columns)


def test_a_day_that_is_known_to_be_empty_is_no_earlier_build(tmp_path: Path) -> None:
    write_set(tmp_path, [SMALL[0], Plan("2026-03-02", rows=0, positives=0, users=(), age=(0,), measured=False), *SMALL[2:]],
              label=Label(kind="labeled"))  # fmt: skip
    description = describe(str(tmp_path))
    assert description.unmeasured == ()
    assert description.splits[0].seen == 0.05


class TestWhatCannotBeDescribed:
    def test_no_contract(self, tmp_path: Path) -> None:
        with pytest.raises(ContractError, match="no such file"):
            describe(str(tmp_path))

    def test_no_days(self, tmp_path: Path) -> None:
        write_set(tmp_path, days=())
        with pytest.raises(DescribeError, match=r"no day with samples; run jobs/build_samples.py"):
            describe(str(tmp_path))

    def test_statistics_are_missing(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        (tmp_path / "day=2026-03-02/statistics.json").unlink()
        with pytest.raises(DescribeError, match=r"day=2026-03-02/statistics.json: no such file, though the contract names it"):
            describe(str(tmp_path))

    @pytest.mark.parametrize("file", ["day=2026-03-02/statistics.json", "vocabularies/age.parquet"])
    def test_a_file_has_another_checksum(self, tmp_path: Path, file: str) -> None:
        write_set(tmp_path)
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes().replace(b"0", b"1"))
        with pytest.raises(DescribeError, match=f"{file}: does not have the checksum"):
            describe(str(tmp_path))

    def test_samples_are_missing(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        (tmp_path / "day=2026-03-02/part-00001.parquet").unlink()
        with pytest.raises(DescribeError, match=r"day=2026-03-02/part-00001.parquet: no such file"):
            describe(str(tmp_path))

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            (pa.table({"user_key": [1]}), "has no column candidate_item_id"),
            (pa.table({"user_key": [1], "candidate_item_id": [2], "candidate_category": [2]}), "has 1 rows, the contract says 2"),
            (pa.table({"user_key": [1, 2], "candidate_item_id": [2, 99], "candidate_category": [2, 2]}), "outside 0 to 5"),
        ],
    )
    def test_samples_are_not_those_of_the_contract(self, tmp_path: Path, table: pa.Table, words: str) -> None:
        write_set(tmp_path)
        pq.write_table(table, tmp_path / "day=2026-03-02/part-00001.parquet")
        with pytest.raises(DescribeError, match=words):
            describe(str(tmp_path))

    def test_samples_are_no_parquet(self, tmp_path: Path) -> None:
        write_set(tmp_path)
        (tmp_path / "day=2026-03-02/part-00001.parquet").write_text("nothing of the kind")
        with pytest.raises(DescribeError, match=r"part-00001.parquet: cannot be read"):
            describe(str(tmp_path))
