"""The page of an evaluation: it says what the table says, shows the right row, and needs no other file."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from mian.evaluation.auc_plot import plot_auc
from mian.evaluation.example_row import choose_row, example_row, read_row
from mian.evaluation.offline import SplitEvaluation, compare, evaluate_offline, metric_texts
from mian.evaluation.report_page import NO_ATTENTION, NO_CLICK, report_page
from mian.models import build
from mian.reports.pictures import style
from mian.serving import Servable, explain, shown
from tests.factories import LENGTH, SMALL_MODEL, make_servable, read_examples
from tests.mian.conftest import Samples
from tests.support.readable import assert_readable

VOID = {"meta", "img"}
MODEL = "models:/mian/1"


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def pictures(self) -> list[str]:
        return [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]


@pytest.fixture(scope="module")
def servable(samples: Samples) -> Servable:
    return make_servable(samples.contract, samples.folder)


@pytest.fixture(scope="module")
def evaluation(samples: Samples, servable: Servable) -> SplitEvaluation:
    return evaluate_offline(servable, samples.contract, str(samples.folder), "test", ["popularity"], "train", None)


@pytest.fixture(scope="module")
def with_truth(evaluation: SplitEvaluation) -> SplitEvaluation:
    """The same beside true probabilities, of which one is in any order as good as the labels."""
    noise = np.linspace(0, 0.5, len(evaluation.scored.labels))
    truth = {
        "attainable": 0.4 * evaluation.scored.labels + 0.5 * noise,
        "upper bound": 0.6 * evaluation.scored.labels + 0.3 * noise,
    }
    return replace(evaluation, table=compare(evaluation.scored, truth))


@pytest.fixture(scope="module")
def rows(samples: Samples) -> pd.DataFrame:
    """The test split's rows in the order of the contract's files."""
    files = [file.path for day in samples.contract.split("test") for file in day.files]
    return pd.concat([pq.read_table(samples.folder / path).to_pandas() for path in files], ignore_index=True)


def test_the_page_needs_no_other_file_and_asks_the_network_for_nothing(servable: Servable, evaluation: SplitEvaluation) -> None:
    text = report_page(servable, MODEL, evaluation)
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert len(page.pictures()) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures())
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "a", "iframe", "object", "form"})
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text
    policy = next(str(attributes["content"]) for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_it_says_what_was_evaluated(
    samples: Samples, servable: Servable, evaluation: SplitEvaluation, rows: pd.DataFrame
) -> None:
    page = Page(report_page(servable, MODEL, evaluation))
    clicks = int(rows["label"].sum())
    assert f"small world: {MODEL} on split test" in page.text
    assert str(samples.folder) in page.text
    assert "2026-03-06" in page.text
    facts = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", report_page(servable, MODEL, evaluation))
    assert dict(facts) == {
        "day": "1",
        "rows": f"{len(rows):,}",
        "positives": f"{clicks:,}",
        "click rate": f"{clicks / len(rows):.2%}",
        "AUC of the model": f"{evaluation.table.loc['model', 'auc']:.4f}",
    }


def test_its_table_is_the_one_that_is_printed(servable: Servable, with_truth: SplitEvaluation) -> None:
    tables = Page(report_page(servable, MODEL, with_truth)).tables
    (found,) = [table for table in tables if "auc" in table[0]]
    texts = metric_texts(with_truth.table)
    assert found == [
        ["", *texts.columns],
        *([name, *row] for name, row in zip(texts.index, texts.to_numpy().tolist(), strict=True)),
    ]
    assert [row[0] for row in found[1:]] == ["model", "attainable", "upper bound"]
    assert found[1][found[0].index("auc")] == f"{with_truth.table.loc['model', 'auc']:.5f}"


def test_with_the_truth_it_says_which_share_of_the_attainable_the_model_has(
    servable: Servable, evaluation: SplitEvaluation, with_truth: SplitEvaluation
) -> None:
    auc = with_truth.table["auc"]
    share = (auc["model"] - 0.5) / (auc["attainable"] - 0.5)
    page = report_page(servable, MODEL, with_truth)
    assert f"<dt>of attainable</dt><dd>{share:.1%}</dd>" in page
    assert "(AUC - 0.5) / (attainable AUC - 0.5)" in page
    assert "attainable" not in report_page(servable, MODEL, evaluation)


def test_the_chart_has_a_bar_from_a_half_to_each_auc_and_the_share_beside_it(with_truth: SplitEvaluation) -> None:
    table = with_truth.table
    (axes,) = plot_auc(table).axes
    assert [bar.get_x() for bar in axes.patches] == [0.5] * len(table)
    assert [bar.get_width() for bar in axes.patches] == pytest.approx((table["auc"] - 0.5).tolist())
    assert [label.get_text() for label in axes.get_yticklabels()] == list(table.index)
    assert [text.get_text() for text in axes.texts] == [
        f"{auc:.4f}, {share:.1%} of attainable" for auc, share in zip(table["auc"], table["share"], strict=True)
    ]


def test_the_chart_of_an_undefined_auc_says_so() -> None:
    (axes,) = plot_auc(pd.DataFrame({"auc": [float("nan"), 0.75]}, index=["model", "popularity"])).axes
    assert [bar.get_width() for bar in axes.patches] == [0.0, 0.25]
    assert [text.get_text() for text in axes.texts] == ["undefined", "0.7500"]


@pytest.mark.parametrize(
    "aucs",
    [
        [0.78, 0.67, 0.57, 0.8173, 0.8237],
        [0.4, 0.67, 0.57, 0.8173, 0.8237],
        [0.5, 0.5, 0.5, 0.5001, 0.5001],
        [0.99, 0.98, 0.97, 1.0, 1.0],
        [0.001, 0.3, 0.2, 0.51, 0.52],
    ],
)
def test_no_text_of_the_chart_lies_on_another(aucs: list[float]) -> None:
    table = pd.DataFrame({"auc": aucs}, index=["model", "logistic_regression", "popularity", "attainable", "upper bound"])
    table["share"] = (table["auc"] - 0.5) / (table.loc["attainable", "auc"] - 0.5)
    with style():
        figure = plot_auc(table)
        assert_readable(figure, least=12)
    (axes,) = figure.axes
    ends = [bar.get_x() + bar.get_width() for bar in axes.patches]
    assert all(text.get_position()[0] > max(ends) for text in axes.texts)


def test_the_example_is_the_clicked_row_with_a_full_history_that_scores_highest(
    servable: Servable, evaluation: SplitEvaluation, rows: pd.DataFrame
) -> None:
    eligible = rows[(rows["label"] == 1) & (rows["behavior_length"] == LENGTH)]
    assert 10 < len(eligible) < len(rows) / 2, "there are others"
    probabilities = pd.Series(evaluation.scored.probabilities)
    best = probabilities[eligible.index].idxmax()
    assert probabilities.max() > probabilities[best], "others score higher"
    page = Page(report_page(servable, MODEL, evaluation)).text
    assert f"impression {rows['impression_id'][best]} of" in page
    assert f"{pd.Timestamp(rows['time'][best], unit='us'):%Y-%m-%d %H:%M} UTC, {probabilities[best]:.4f}" in page
    assert f"a full history of {LENGTH} behaviors" in page


@pytest.mark.parametrize(
    ("labels", "probabilities", "lengths", "number"),
    [
        ([0, 1, 1, 1], [0.9, 0.5, 0.6, 0.8], [6, 6, 6, 2], 2),
        ([1, 1, 1, 0], [0.5, 0.7, 0.9, 1.0], [3, 3, 2, 6], 1),  # none is full: the longest of the clicked
        ([1, 1, 0, 0], [0.5, 0.5, 0.9, 1.0], [6, 6, 6, 6], 0),
        ([0, 0, 0, 0], [0.5, 0.5, 0.9, 1.0], [6, 6, 6, 6], None),
    ],
)
def test_the_row_is_clicked_of_the_longest_history_and_scores_highest(
    labels: list[int], probabilities: list[float], lengths: list[int], number: int | None
) -> None:
    assert choose_row(np.array(labels), np.array(probabilities, np.float32), np.array(lengths)) == number


@pytest.mark.parametrize("number", [0, 169, 170, 270, 271, 332])
def test_a_row_is_found_in_any_file(samples: Samples, rows: pd.DataFrame, number: int) -> None:
    row = read_row(samples.contract, str(samples.folder), "test", number)
    assert row["impression_id"] == rows["impression_id"][number]
    assert row["behavior_item_id"] == rows["behavior_item_id"][number].tolist()


def test_beyond_the_last_row_there_is_none(samples: Samples, rows: pd.DataFrame) -> None:
    with pytest.raises(IndexError):
        read_row(samples.contract, str(samples.folder), "test", len(rows))


def chosen(evaluation: SplitEvaluation, number: int) -> SplitEvaluation:
    """The same, but that only one row was clicked."""
    labels = np.zeros_like(evaluation.scored.labels)
    labels[number] = 1
    return replace(evaluation, scored=evaluation.scored._replace(labels=labels))


def test_values_and_weights_are_those_of_the_raw_row(samples: Samples, servable: Servable, evaluation: SplitEvaluation) -> None:
    raw = read_examples(samples.folder, samples.contract, "test")
    for number, expected in enumerate(explain(servable, raw)):
        example = example_row(servable, chosen(evaluation, number))
        assert example is not None
        assert example.impression_id == raw["impression_id"][number]
        assert example.probability == pytest.approx(float(servable.predict_proba(raw.iloc[[number]])[0]), abs=1e-6)
        assert example.attention["weight"].tolist() == pytest.approx(expected["weight"].tolist(), abs=1e-5)
        assert example.attention[["module", "name"]].equals(expected[["module", "name"]])
        for found, value in zip(example.attention["value"], expected["value"], strict=True):
            assert shown(found) == shown(None if value == "90s" else value)  # no training day has that one
        for column in ("candidate_item_id", "candidate_category"):
            assert example.values[column] == raw[column][number]
        if not np.isnan(raw["candidate_price"][number]):
            assert example.values["candidate_price"] == pytest.approx(raw["candidate_price"][number], rel=1e-4)


def test_values_of_the_example_stand_beside_their_weights(servable: Servable, evaluation: SplitEvaluation) -> None:
    example = example_row(servable, evaluation)
    assert example is not None
    page = Page(report_page(servable, MODEL, evaluation))
    (weights,) = [table for table in page.tables if table[0] == ["module", "name", "value", "weight"]]
    assert [row[0] for row in weights[1:]] == example.attention["module"].tolist()
    behaviors = [row for row in weights if row[0] == "IBIM"]
    assert len(behaviors) == LENGTH
    for place, (row, weight) in enumerate(zip(behaviors, example.attention["weight"], strict=False)):
        assert row[1] == str(place + 1)
        assert f"item_id {example.values['behavior_item_id'][place]}, category" in row[2]
        assert row[3] == f"{weight:.4f}"
    (candidate,) = [table for table in page.tables if table[0] == ["field", "value"]]
    assert ["candidate_item_id", example.values["candidate_item_id"]] in candidate


def test_ids_that_came_after_the_model_was_trained_are_unknown_to_it(
    samples: Samples, servable: Servable, evaluation: SplitEvaluation
) -> None:
    items = servable.contract.vocabulary("item")
    smaller = items.model_copy(update={"size": items.size - 10})
    contract = servable.contract.model_copy(
        update={"vocabularies": tuple(smaller if v.name == "item" else v for v in servable.contract.vocabularies)}
    )
    torch.manual_seed(0)
    model = build("mian", contract, dict(SMALL_MODEL))  # whose table has no rows for them
    older = Servable(contract, model, {**servable.vocabularies, "item": servable.vocabularies["item"].slice(0, items.size - 12)})
    late = [
        n for n in range(40) if read_row(samples.contract, str(samples.folder), "test", n)["candidate_item_id"] >= smaller.size
    ]
    assert late
    example = example_row(older, chosen(evaluation, late[0]))
    assert example is not None
    assert example.values["candidate_item_id"] is None
    assert "unknown" in str(Page(report_page(older, MODEL, chosen(evaluation, late[0]))).tables)


def test_a_model_without_attention_is_said_to_have_none(samples: Samples) -> None:
    plain = make_servable(samples.contract, samples.folder, "lr", {})
    found = evaluate_offline(plain, samples.contract, str(samples.folder), "test", [], "train", None)
    page = Page(report_page(plain, MODEL, found))
    assert len(page.pictures()) == 2
    assert NO_ATTENTION in page.text
    assert NO_CLICK not in page.text


def test_without_a_click_there_is_no_example_and_no_auc(servable: Servable, evaluation: SplitEvaluation) -> None:
    scored = evaluation.scored._replace(labels=np.zeros_like(evaluation.scored.labels))
    page = Page(report_page(servable, MODEL, replace(evaluation, scored=scored, table=compare(scored, {}))))
    assert NO_CLICK in page.text
    assert "undefined" in page.text
    assert len(page.pictures()) == 2


def test_names_are_text_whatever_they_hold(servable: Servable, evaluation: SplitEvaluation) -> None:
    name = 'models/<img src="x">&amp;$a_b$'
    text = report_page(servable, name, evaluation)
    assert html.escape(name, quote=False) in text.replace("&#34;", '"')
    assert name in Page(text).text
    assert len(Page(text).pictures()) == 3


def test_the_same_evaluation_gives_the_same_page(servable: Servable, evaluation: SplitEvaluation) -> None:
    assert report_page(servable, MODEL, evaluation) == report_page(servable, MODEL, evaluation)
