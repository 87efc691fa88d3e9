"""The page: it says the figures, it stands alone, and nothing in the data becomes markup."""

import base64
import re
import stat
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mian.contract import History, Label
from pipeline.describe import DescribeError, describe, render, write_page
from pipeline.describe.formatting import rules
from tests.support.small_set import DUPLICATE, SMALL, VALUES, Plan, days, table, write_set

DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("samples")
    odd = Plan("2026-03-04", quarantined={DUPLICATE: 7}, final=False, drift={"context_position": 0.123})
    write_set(folder, [*SMALL[:3], odd])
    return str(folder)


@pytest.fixture(scope="module")
def page(samples: str) -> str:
    return render(describe(samples))


def images(page: str) -> list[str]:
    """The pictures' SVG texts."""
    return [base64.b64decode(found).decode() for found in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)]


def test_table_1(page: str) -> None:
    assert table(page, "table1")[1] == ["small set", "4", "4", "2", "400"]


def test_splits(page: str) -> None:
    train, _, test = table(page, "splits")[1:]
    assert train == [
        "train",
        "2026-03-01 to 2026-03-02",
        "2",
        "200",
        "40",
        "20.00 %",
        "3",
        DASH,
        "10.0 %",
        "20.0 %",
        "100.0 %",
        "0",
    ]
    assert test[6:] == ["3", "0.0 %", "10.0 %", "20.0 %", "100.0 %", "1"]


def test_columns_have_unknown_shares_and_drift_of_splits_and_days(page: str) -> None:
    columns = {row[0]: row[1:] for row in table(page, "columns")[2:]}
    assert columns["user_age"] == ["4", "10.0 %", "10.0 %", "10.0 %", "0.000", "0.000", "0.000", DASH, DASH, DASH]
    assert columns["context_position"][-1] == "0.123"
    assert columns["context_price"][:4] == ["number", DASH, DASH, DASH]


def test_broken_rows(page: str) -> None:
    assert table(page, "broken")[1:] == [[DUPLICATE, "7", "1.75 %", "1", "2026-03-04: 7"]]


def test_vocabularies_and_days(page: str) -> None:
    assert table(page, "vocabularies")[1] == ["item", "table", "6", "candidate_item_id, behavior_item_id", "2 of 4"]
    assert table(page, "days")[-1] == [
        "2026-03-04", "test", "100", "20", "20.00 %", "100", "30", "7", "10.0 %", "100.0 %", "no",
    ]  # fmt: skip


def test_what_to_look_at_and_the_rules_are_said(page: str) -> None:
    assert "1 day is not final: 2026-03-04." in page
    assert "came within 24 hours of it" in page
    assert "25.0 % are older than 30 days (the paper: more than half)" in page


def test_it_stands_alone(page: str) -> None:
    assert "http://" not in page
    assert "https://" not in page
    assert not re.search(r"<(script|link|iframe|object)\b", page)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in re.findall(r'src="([^"]*)"', page))
    named = set(re.findall(r"https?://[^\"]*", "".join(images(page))))
    assert named == {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of XML's, which nobody opens
    assert not re.search(r"url\((?!#)|href=\"(?!#|data:)", page + "".join(images(page)))


def test_all_figures_are_there_and_whole(page: str) -> None:
    titles = re.findall(r"<h3>(.*)</h3>", page)
    assert titles == [
        "Label rate and samples a day",
        "(a) Candidate is in the history",
        "(b) Number of behaviors",
        "(b) Age of behaviors",
        "(c) Attributes a group",
        "context_position",
        "context_price",
        "user_age",
        "Unknown ids and missing numbers by column and day",
        "Drift by column and day",
        "By rule and day",
    ]
    assert [ElementTree.fromstring(image).tag for image in images(page)] == ["{http://www.w3.org/2000/svg}svg"] * len(titles)


def test_the_same_samples_give_the_same_page(samples: str, page: str) -> None:
    assert render(describe(samples)) == page


def test_nothing_in_the_data_becomes_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    write_set(tmp_path, [*SMALL[:3], Plan("2026-03-04", quarantined={evil: 50})], name=evil)
    page = render(describe(str(tmp_path)))
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4  # title, heading, tables
    assert all(ElementTree.fromstring(image) is not None for image in images(page))


def test_values_that_are_no_formulas_nor_latin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"age": ["$a$ < \x00_{", "二十代"], "position": ["$10-$20", "\\frac", "a long value, far too long for an axis"]}
    for name, found in values.items():
        monkeypatch.setitem(VALUES, name, found)
    write_set(tmp_path)
    drawn = "".join(images(render(describe(str(tmp_path)))))
    assert all(text in drawn for text in ("$a$ &lt;  _{", "二十代", "$10-$20", "\\frac", "a long value,…"))


def test_an_earlier_build_gives_the_page_without_what_is_not_known(tmp_path: Path) -> None:
    write_set(tmp_path, [Plan(f"2026-03-0{n}", measured=False) for n in range(1, 5)], reference={})
    page = render(describe(str(tmp_path)))
    assert "An earlier release built 4 days without statistics" in page
    assert "Not known: an earlier release built these samples." in page
    assert table(page, "splits")[1][8:10] == [DASH, DASH]
    assert re.findall(r"<h3>(.*)</h3>", page) == ["Label rate and samples a day", "(c) Attributes a group"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label": Label(kind="labeled")}, "its label is the one that the log gives"),
        ({"label": Label(kind="positives_only", negatives_per_positive=2)}, "2 negatives are drawn for each positive"),
        (
            {"label": Label(kind="impressions_and_clicks", attribution_hours=1.5, attribution_by="user_and_item")},
            "where its user clicked its item within 1.5 hours",
        ),
        (
            {"history": History(length=4, days=29, cutoff="previous_day", lag_hours=2)},
            "more than 2 hours before the day of the impression (UTC) began is in it",
        ),
        ({"vocabulary_version": 3}, "They were extended since: this is version 3."),
    ],
)
def test_the_rules_in_words(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    assert words in " ".join(text for _, text in rules(write_set(tmp_path, **changes)))


def test_a_year_is_not_too_much(tmp_path: Path) -> None:
    write_set(tmp_path, [*days("2025-01-01", 363, users=((1,),)), *SMALL[2:]])
    page = render(describe(str(tmp_path)))
    assert len(table(page, "days")) == 366
    assert len(page) < 3_000_000


class TestWriting:
    def test_the_folder_is_made_and_nothing_else_is_left(self, samples: str, tmp_path: Path) -> None:
        output = tmp_path / "new" / "page.html"
        write_page(describe(samples), str(output))
        assert [path.name for path in output.parent.iterdir()] == ["page.html"]
        assert output.read_text(encoding="utf-8").rstrip().endswith("</html>")
        assert stat.S_IMODE(output.stat().st_mode) & 0o444 == 0o444  # as any file that one writes, not as a temporary one

    def test_where_it_cannot_be_written_nothing_is_left(self, samples: str, tmp_path: Path) -> None:
        (tmp_path / "page.html" / "inside").mkdir(parents=True)
        with pytest.raises(DescribeError, match=r"page.html: cannot be written"):
            write_page(describe(samples), str(tmp_path / "page.html"))
        assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
