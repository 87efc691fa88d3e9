import json
import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mian.contract import read_contract
from mian.layers import embedding
from mian.models import MODELS
from mian.serving import Servable, ServableError, ServingInputError, load_servable
from mian.serving import servable as module
from tests.factories import make_model, write_servable


@pytest.fixture
def folder(trained: Any, tmp_path: Path) -> Path:
    trained.save(tmp_path / "servable")
    return tmp_path / "servable"


@pytest.fixture
def servable(folder: Path) -> Servable:
    return load_servable(folder)


def test_it_gives_what_the_model_gives(trained: Any, servable: Servable, raw: pd.DataFrame) -> None:
    got = servable.predict_proba(raw)
    assert got.dtype == np.float64
    assert len(set(got.round(5))) == len(raw), "rows that all score the same would prove nothing"
    np.testing.assert_allclose(got, trained.probabilities(raw), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "mian"])
def test_every_model_gives_as_a_servable_what_it_gives(trained_once: Any, raw: pd.DataFrame, tmp_path: Path, name: str) -> None:
    other = replace(trained_once, model=make_model(trained_once.contract, name, options := {"init_std": 0.1}))
    folder = write_servable(tmp_path / "servable", other.model, other.contract, other.samples, name, options)
    got = load_servable(folder).predict_proba(raw)
    assert len(set(got.round(5))) > 1
    np.testing.assert_allclose(got, other.probabilities(raw), atol=1e-6)


def test_it_needs_no_samples(trained: Any, folder: Path, raw: pd.DataFrame, tmp_path: Path) -> None:
    Path(trained.samples).rename(tmp_path / "elsewhere")
    np.testing.assert_allclose(load_servable(folder).predict_proba(raw), trained.probabilities(raw), atol=1e-6)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "model.json",
        "weights.pt",
        "contract.json",
        *(f"vocabularies/{v.name}.parquet" for v in trained.contract.vocabularies),
    }


def test_a_vocabulary_of_any_name_has_a_file(trained_once: Any, raw: pd.DataFrame, tmp_path: Path) -> None:
    names = ["x" * 300, "x" * 301, "team/größe", "..", "a%20b", "A:b c", ".hidden", "ü" * 100]
    old = [vocabulary.name for vocabulary in trained_once.contract.vocabularies]
    renamed = dict(zip(old, names, strict=False))
    contract = trained_once.contract
    contract = contract.model_copy(
        update={
            "vocabularies": tuple(v.model_copy(update={"name": renamed[v.name]}) for v in contract.vocabularies),
            "fields": tuple(f.model_copy(update={"vocabulary": renamed.get(f.vocabulary)}) for f in contract.fields),
        }
    )
    write_servable(tmp_path / "model", make_model(contract, "lr", {}), contract, trained_once.samples, "lr", {})
    assert load_servable(tmp_path / "model").predict_proba(raw).shape == (len(raw),)
    files = [path.name for path in (tmp_path / "model" / "vocabularies").iterdir()]
    assert len(files) == len([v for v in contract.vocabularies if v.path is not None])
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+\.parquet", name) for name in files), files


def test_its_contract_is_the_one_it_was_trained_on(trained: Any, folder: Path) -> None:
    assert read_contract(str(folder)).fields_fingerprint == trained.contract.fields_fingerprint


def test_batches_do_not_change_scores(
    trained: Any, servable: Servable, raw: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS_PER_BATCH", 4)
    many = pd.concat([raw] * 3)
    np.testing.assert_allclose(servable.predict_proba(many), np.tile(trained.probabilities(raw), 3), atol=1e-6)


def test_no_rows_have_no_probabilities(servable: Servable, raw: pd.DataFrame) -> None:
    assert servable.predict_proba(raw.head(0)).shape == (0,)


def test_training_mode_and_extra_columns_change_nothing(trained: Any, raw: pd.DataFrame, tmp_path: Path) -> None:
    trained.model.train()
    trained.save(tmp_path / "other")
    got = load_servable(tmp_path / "other").predict_proba(raw.assign(user_name="Ann")[["user_name", *reversed(raw.columns)]])
    np.testing.assert_allclose(got, trained.probabilities(raw), atol=1e-6)


@pytest.mark.parametrize(
    "same",
    [
        lambda raw: raw.map(lambda value: np.array(value, object) if isinstance(value, list) else value),
        lambda raw: raw.map(lambda value: tuple(value) if isinstance(value, list) else value),
        lambda raw: raw.assign(**{c: raw[c].astype("category") for c in ("user_age", "context_hour")}),
        lambda raw: raw.assign(candidate_price=raw["candidate_price"].astype("Float64")),
        lambda raw: raw.assign(behavior_item_id=[float("nan") if value is None else value for value in raw["behavior_item_id"]]),
    ],
    ids=["arrays", "tuples", "categories", "nullable", "nan for a list"],
)
def test_other_ways_to_write_the_same_rows(
    trained: Any, servable: Servable, raw: pd.DataFrame, same: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    np.testing.assert_allclose(servable.predict_proba(same(raw)), trained.probabilities(raw), atol=1e-6)


def test_whole_numbers_as_ids_are_their_digits(servable: Servable, raw: pd.DataFrame) -> None:
    one = raw.head(1)
    np.testing.assert_array_equal(
        servable.predict_proba(one.assign(context_hour=17)), servable.predict_proba(one.assign(context_hour="17"))
    )


@pytest.mark.parametrize("group", ["candidate", "user", "context", "behavior"])
def test_a_column_of_nothing_but_missing_values(trained: Any, servable: Servable, raw: pd.DataFrame, group: str) -> None:
    columns = [name for name in raw.columns if name.startswith(group)]
    expected = trained.probabilities(raw.assign(**{name: pd.Series([None] * len(raw), raw.index, object) for name in columns}))
    for nothing in (None, float("nan")):
        np.testing.assert_allclose(servable.predict_proba(raw.assign(**dict.fromkeys(columns, nothing))), expected, atol=1e-6)


def test_a_missing_column_is_named(servable: Servable, raw: pd.DataFrame) -> None:
    with pytest.raises(ServingInputError, match="lacks the column candidate_price, user_age"):
        servable.predict_proba(raw.drop(columns=["user_age", "candidate_price"]))


def test_lists_of_different_lengths_are_named(servable: Servable, raw: pd.DataFrame) -> None:
    raw.at[50, "behavior_gap"] = [1.0]
    with pytest.raises(
        ServingInputError, match=r"row 4: .* behavior_item_id 3, behavior_category 3, behavior_gap 1 \(1 such rows of 6\)"
    ):
        servable.predict_proba(raw)


def test_lists_that_differ_beyond_the_history_are_refused_as_well(servable: Servable, raw: pd.DataFrame) -> None:
    raw.at[40, "behavior_gap"] = [float(n) for n in range(8)]
    with pytest.raises(ServingInputError, match="row 3"):
        servable.predict_proba(raw)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("user_age", pd.Timestamp(0), "column user_age: an id is text, got timestamp"),
        ("candidate_price", "12", "column candidate_price, row 0: a number is needed, got str"),
        ("behavior_item_id", "i1", "column behavior_item_id, row 0: a list of behaviors is needed"),
        ("user_age", {"a": 1}, "column user_age, row 0: an id is text, a number or a boolean, got dict"),
    ],
)
def test_a_column_of_a_wrong_type_is_named(
    servable: Servable, raw: pd.DataFrame, column: str, value: object, message: str
) -> None:
    with pytest.raises(ServingInputError, match=message):
        servable.predict_proba(raw.assign(**{column: [value] * len(raw)}))


def test_lists_of_a_wrong_type_are_named(servable: Servable, raw: pd.DataFrame) -> None:
    with pytest.raises(ServingInputError, match="column behavior_item_id, row 0: an id is text, a number or a boolean, got dict"):
        servable.predict_proba(raw.assign(behavior_item_id=[[{"a": 1}]] * len(raw)))
    with pytest.raises(ServingInputError, match="column behavior_gap, row 0: a number is needed, got str"):
        servable.predict_proba(raw.assign(behavior_gap=raw["behavior_item_id"]))


@pytest.mark.parametrize("value", [17, 17.0, np.int16(17), np.float32(17), Decimal("17.000"), b"17", np.str_("17")])
def test_an_id_is_the_same_whatever_type_it_comes_in(servable: Servable, raw: pd.DataFrame, value: object) -> None:
    expected = servable.predict_proba(raw.assign(context_hour="17"))
    np.testing.assert_array_equal(
        servable.predict_proba(raw.assign(context_hour=pd.Series([value] * len(raw), raw.index))), expected
    )
    mixed = pd.Series(["17", value, *[17] * (len(raw) - 2)], raw.index, object)
    np.testing.assert_array_equal(servable.predict_proba(raw.assign(context_hour=mixed)), expected)


def test_a_missing_value_is_unknown_among_values_of_several_types(servable: Servable, raw: pd.DataFrame) -> None:
    expected = servable.predict_proba(raw.assign(context_hour=[None, "17", None, None, "17", "8"]))
    mixed = pd.Series([None, 17, float("nan"), pd.NA, "17", 8.0], raw.index, object)
    np.testing.assert_array_equal(servable.predict_proba(raw.assign(context_hour=mixed)), expected)


def test_mixed_numbers_are_named(servable: Servable, raw: pd.DataFrame) -> None:
    prices = pd.Series([1.5, "2", *[3] * (len(raw) - 2)], raw.index, object)
    with pytest.raises(ServingInputError, match="column candidate_price, row 1: a number is needed, got str"):
        servable.predict_proba(raw.assign(candidate_price=prices))


def test_saving_again_replaces(trained: Any, folder: Path, raw: pd.DataFrame) -> None:
    other = trained.with_other_weights()
    other.save(folder)
    np.testing.assert_allclose(load_servable(folder).predict_proba(raw), other.probabilities(raw), atol=1e-6)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["samples", "servable"]


def test_what_a_killed_process_left_of_a_save_goes_with_the_next(trained: Any, folder: Path) -> None:
    for name in (".servable.abcdefgh", ".servable.12345678", ".servables.12345678"):
        (folder.parent / name / "servable").mkdir(parents=True)
    trained.save(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == [".servables.12345678", "samples", "servable"]


def test_a_save_that_fails_leaves_what_was_there(trained: Any, folder: Path, raw: pd.DataFrame) -> None:
    with pytest.raises(ServableError, match="not the weights of model 'mian'"):
        trained.save(folder, embedding_dim=6)
    np.testing.assert_allclose(load_servable(folder).predict_proba(raw), trained.probabilities(raw), atol=1e-6)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["samples", "servable"]


def test_saving_and_loading_draw_no_table_and_read_none_whole(
    trained: Any, folder: Path, raw: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> torch.Tensor:
        raise AssertionError("a table is drawn")

    monkeypatch.setattr(embedding, "truncated_normal", refuse)
    mapped = []

    def load(*arguments: Any, **options: Any) -> Any:
        mapped.append(options.get("mmap"))
        return torch_load(*arguments, **options)

    torch_load = torch.load
    monkeypatch.setattr(torch, "load", load)
    trained.save(tmp_path / "other")
    other = load_servable(tmp_path / "other")
    assert mapped == [True, True]
    np.testing.assert_allclose(other.predict_proba(raw), trained.probabilities(raw), atol=1e-6)
    for name, weight in trained.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], weight, rtol=0, atol=0)
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in other.model.parameters())


def test_vocabularies_built_again_are_refused(trained: Any, tmp_path: Path) -> None:
    item, category = (Path(trained.samples) / trained.contract.vocabulary(name).path for name in ("item", "category"))
    item.write_bytes(category.read_bytes())
    with pytest.raises(ServableError, match=r"item\.parquet: not the vocabulary that the contract names"):
        trained.save(tmp_path / "servable")
    item.unlink()
    with pytest.raises(ServableError, match=r"item\.parquet: no such file"):
        trained.save(tmp_path / "servable")
    assert not (tmp_path / "servable").exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04garbage"])
def test_damaged_weights_are_named(folder: Path, content: bytes) -> None:
    (folder / "weights.pt").write_bytes(content)
    with pytest.raises(ServableError, match=r"weights\.pt: not the weights"):
        load_servable(folder)


def test_a_description_of_another_release_is_named(folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 1}))
    with pytest.raises(ServableError, match=r"model\.json: damaged, or of another release: .*version"):
        load_servable(folder)
    path.unlink()
    with pytest.raises(ServableError, match=r"model\.json: no such file"):
        load_servable(folder)
