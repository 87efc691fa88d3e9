"""Explanations: every weight beside the raw value that it is of."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mian.models import build
from mian.serving import Servable, ServingInputError, explain, load_servable, shown
from mian.serving.explanation_plot import LONGEST_LABEL, plot_explanation
from tests.factories import make_model, write_servable
from tests.support.readable import assert_readable


@pytest.fixture
def servable(trained: Any, tmp_path: Any) -> Servable:
    trained.save(tmp_path / "servable")
    return load_servable(tmp_path / "servable")


def test_each_module_names_what_it_weighs(servable: Servable, raw: pd.DataFrame) -> None:
    table = explain(servable, raw)[0]
    ibim, iuim, icim, gim = (table[table["module"] == module] for module in ("IBIM", "IUIM", "ICIM", "GIM"))
    assert ibim["name"].tolist() == ["1", "2"]
    assert ibim["value"].tolist() == [
        {"item_id": "i1", "category": "books", "gap": 1.0},
        {"item_id": "i2", "category": "7", "gap": 30.0},
    ]
    assert list(zip(iuim["name"], iuim["value"], strict=True)) == [("user_age", "20s")]
    assert list(zip(icim["name"], icim["value"], strict=True)) == [("context_hour", "9")]
    assert gim["name"].tolist() == ["e_i", "e_c", "e_b", "e_u", "R_ibim", "R_iuim", "R_icim"]
    for part in (ibim, iuim, icim, gim):
        assert part["weight"].sum() == pytest.approx(1.0, abs=1e-6)


def test_the_weights_are_the_models_own(trained: Any, servable: Servable, raw: pd.DataFrame) -> None:
    weights = servable.explain(raw)
    tables = explain(servable, raw)
    assert len(tables) == len(raw)
    for row, table in enumerate(tables):
        lists = raw["behavior_item_id"].iloc[row]
        length = min(len(lists), trained.contract.history.length) if isinstance(lists, list) else 0
        assert len(table[table["module"] == "IBIM"]) == length
        got = table.groupby("module", sort=False)["weight"].apply(np.array)
        np.testing.assert_array_equal(got["GIM"], weights["global"][row])
        if length:
            np.testing.assert_array_equal(got["IBIM"], weights["behaviors"][row, :length])
        assert (weights["behaviors"][row, length:] == 0).all()


def test_missing_values_are_none(servable: Servable, raw: pd.DataFrame) -> None:
    table = explain(servable, raw)[2]
    assert table["value"].tolist() == [None] * len(table)


def test_a_module_that_the_model_lacks_is_left_out(trained: Any, raw: pd.DataFrame, tmp_path: Any) -> None:
    options = {**trained.options, "without": ["iuim", "gim"]}
    other = replace(trained, model=build("mian", trained.contract, options), options=options)
    other.save(tmp_path / "other")
    assert set(explain(load_servable(tmp_path / "other"), raw)[0]["module"]) == {"IBIM", "ICIM"}


def test_a_model_without_attention_is_refused(trained: Any, raw: pd.DataFrame, tmp_path: Any) -> None:
    model = make_model(trained.contract, "lr", {})
    write_servable(tmp_path / "lr", model, trained.contract, trained.samples, "lr", {})
    with pytest.raises(ServingInputError, match="no attention"):
        explain(load_servable(tmp_path / "lr"), raw)


def test_a_row_that_lacks_a_column_is_refused(servable: Servable, raw: pd.DataFrame) -> None:
    with pytest.raises(ServingInputError, match="lacks the column user_age"):
        explain(servable, raw.drop(columns="user_age"))


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.25, "0.25"), ("i1", "i1"), ({"item_id": "i1", "gap": 3.0}, "item_id i1, gap 3")]
)
def test_values_are_shown_on_one_line(value: Any, text: str) -> None:
    assert shown(value) == text


def test_the_plot_has_a_panel_a_module_and_a_bar_a_weight(servable: Servable, raw: pd.DataFrame) -> None:
    for table in explain(servable, raw):
        figure = plot_explanation(table, 0.25)
        modules = list(dict.fromkeys(table["module"]))
        assert [axes.get_xlabel() for axes in figure.axes] == [f"weight of {module}" for module in modules]
        for axes, module in zip(figure.axes, modules, strict=True):
            assert [bar.get_width() for bar in axes.patches] == table[table["module"] == module]["weight"].tolist()
        figure.savefig(io.BytesIO(), format="png")


def test_a_behaviors_label_has_its_values_in_the_order_of_the_title(servable: Servable, raw: pd.DataFrame) -> None:
    behaviors = plot_explanation(explain(servable, raw)[0], 0.25).axes[0]
    assert "(item_id, category, gap)" in behaviors.get_title(loc="left").replace("\n", " ")
    assert [label.get_text() for label in behaviors.get_yticklabels()] == ["1 i1, books, 1", "2 i2, 7, 30"]


def test_long_and_missing_values_leave_the_plot_readable(servable: Servable, raw: pd.DataFrame) -> None:
    table = explain(servable, raw)[0]
    table["value"] = [{"item_id": "i" * 200, "category": None} if isinstance(v, dict) else v for v in table["value"]]
    figure = plot_explanation(table, 0.25)
    label = figure.axes[0].get_yticklabels()[0].get_text()
    assert label == f"1 {'i' * (LONGEST_LABEL - 3)}\N{HORIZONTAL ELLIPSIS}"
    assert_readable(figure, least=10)
    table["value"] = [{"item_id": None} if isinstance(v, dict) else v for v in table["value"]]
    assert plot_explanation(table, 0.25).axes[0].get_yticklabels()[0].get_text() == "1 unknown"
