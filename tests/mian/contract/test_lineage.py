"""Which days a model has seen, and what audits said of them."""

import datetime as dt
from pathlib import Path

import pytest

from mian.contract import ContractError, Split
from mian.contract.audit_verdict import AuditVerdict, audit_state, read_verdict, verdict_path, worst
from mian.contract.lineage import Lineage, Parent, UsedDay, lineage_of, merged
from tests.factories import FIRST_DAY, write_samples

ROWS = ((40,), (40,), (40,))


def span(first: int, last: int) -> Split:
    return Split(first=FIRST_DAY + dt.timedelta(days=first), last=FIRST_DAY + dt.timedelta(days=last))


def audited(folder: Path, day: int, findings: dict[str, int], fingerprint: str | None = None) -> None:
    date = FIRST_DAY + dt.timedelta(days=day)
    verdict = AuditVerdict(
        day=date,
        fingerprint=fingerprint or f"fingerprint of {date}",
        findings=findings,
        rules="r",
        audited="2026-04-01T00:00:00Z",
    )
    path = folder / verdict_path(date, f"fingerprint of {date}")
    path.parent.mkdir(exist_ok=True)
    path.write_text(verdict.model_dump_json())


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    write_samples(tmp_path, ROWS, ((40,),), ((40,),))
    return tmp_path


def lineage(samples: Path) -> Lineage:
    contract = write_samples(samples, ROWS, ((40,),), ((40,),))
    return lineage_of(contract.model_copy(update={"vocabulary_days": (span(0, 1),)}), str(samples), "train", "validation", "code")


def test_spans_are_joined_where_they_touch() -> None:
    assert merged([span(5, 6), span(0, 1), span(2, 3), span(1, 2), span(8, 8)]) == (span(0, 3), span(5, 6), span(8, 8))
    assert merged([]) == ()


def test_a_model_has_seen_training_and_validation_days_and_not_those_of_the_test(samples: Path) -> None:
    found = lineage(samples)
    assert [day.use for day in found.days] == ["train"] * 3 + ["validation"]
    assert found.seen == (span(0, 3),)
    assert found.last_seen == FIRST_DAY + dt.timedelta(days=3)


def test_what_a_model_began_with_has_seen_is_seen(samples: Path) -> None:
    found = lineage(samples)
    assert found.begun_with(Parent(source="mian/1", seen=(span(-9, -5), span(4, 6)))).seen == (span(-9, -5), span(0, 6))
    unknown = found.begun_with(Parent(source="old", seen=None))
    assert unknown.seen is None
    assert unknown.last_seen is None


def test_the_verdict_on_a_day_is_that_of_its_fingerprint(samples: Path) -> None:
    assert lineage(samples).audit == "not audited"
    for day in range(4):
        audited(samples, day, {})
    found = lineage(samples)
    assert found.audit == "clean"
    assert found.begun_with(Parent(source="mian/1", seen=(), audit="not audited")).audit == "not audited"
    audited(samples, 1, {"leak": 2})
    assert lineage(samples).audit == "findings"
    audited(samples, 1, {}, fingerprint="of a day that was built again")
    assert lineage(samples).audit == "not audited"


def test_a_damaged_verdict_is_told(samples: Path) -> None:
    path = samples / verdict_path(FIRST_DAY, f"fingerprint of {FIRST_DAY}")
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(ContractError, match="audit the samples again"):
        read_verdict(str(samples), FIRST_DAY, f"fingerprint of {FIRST_DAY}")
    assert audit_state(str(samples), FIRST_DAY, "another") == "not audited"


def test_the_worst_verdict_counts() -> None:
    assert worst([]) == worst(["clean"]) == "clean"
    assert worst(["clean", "not audited"]) == "not audited"
    assert worst(["not audited", "findings", "clean"]) == "findings"


def test_days_that_were_audited_since_count_for_whoever_begins_with_the_model(samples: Path) -> None:
    found = lineage(samples)
    for day in range(4):
        audited(samples, day, {})
    assert (found.audit, found.audit_now(str(samples))) == ("not audited", "clean")
    audited(samples, 2, {"leak": 1})
    assert found.audit_now(str(samples)) == "findings"
    assert found.begun_with(Parent(source="mian/1", seen=(), audit="findings")).audit_now("elsewhere") == "findings"


def test_a_model_knows_the_days_of_all_that_it_began_with_where_each_of_them_does(samples: Path) -> None:
    found = lineage(samples)
    date = FIRST_DAY - dt.timedelta(days=3)
    old = UsedDay(day=date, fingerprint=f"fingerprint of {date}", use="train", audit="clean")
    child = found.begun_with(Parent(source="mian/1", seen=(), audit="clean", days=(old,)))
    assert found.days_with_ancestors == found.days
    assert child.days_with_ancestors == (old, *found.days)
    assert found.begun_with(Parent(source="checkpoints", seen=())).days_with_ancestors is None
    for day in range(4):
        audited(samples, day, {})
    assert child.audit_now(str(samples)) == "clean"
    audited(samples, -3, {"leak": 1})
    assert child.audit_now(str(samples)) == "findings"
    assert Lineage.model_validate_json(child.model_dump_json()) == child
