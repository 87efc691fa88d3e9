"""A training that begins with another one's model: its learning rate, and what the rows of new values begin with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mian.config import TrainConfig
from mian.contract import PADDING_ID, UNKNOWN_ID
from mian.layers import FieldEmbedding
from mian.models import MODELS, ClickModel, build
from mian.training import CarryOverError
from mian.training.carry_over import carry_over
from mian.training.new_rows import begin_new_rows, value_categories
from tests.factories import whole_split
from tests.launcher import work_on
from tests.support.launches import configuration
from tests.support.resumed import trainer_of
from tests.support.warm_start_work import FEWER, shorter

FIRST_ID = UNKNOWN_ID + 1


def begun(samples: Any, name: str, **values: Any) -> tuple[ClickModel, ClickModel, dict[str, torch.Tensor], int]:
    """A model of shorter vocabularies, one that begins with it, the latter's weights as they were drawn, and the number of new rows."""
    config = samples.config(init_from="a model", **values)
    torch.manual_seed(1)
    old = build(name, shorter(samples.contract), {}).eval()
    torch.manual_seed(2)
    new = build(name, samples.contract, {}).eval()
    drawn = {weight: value.clone() for weight, value in new.state_dict().items()}
    carry_over(old, new, new.state_dict())
    return old, new, drawn, begin_new_rows(old, new, new.state_dict(), config, samples.contract)


def new_rows(old: ClickModel, new: ClickModel, vocabulary: str) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """Of each embedding that has rows of a vocabulary: its table's name, the known rows, and the new ones."""
    found = []
    olds = dict(old.named_modules())
    for name, module in new.named_modules():
        if isinstance(module, FieldEmbedding):
            known = olds[name]
            assert isinstance(known, FieldEmbedding)
            for key, rows in module.rows.items():
                if key == vocabulary or key.endswith(f"_{vocabulary}") or (vocabulary == "item" and key.endswith("item_id")):
                    before = known.table.weight[known.rows[key]].detach()
                    found.append((f"{name}.table.weight", before, module.table.weight[rows][len(before) :].detach()))
    assert found, f"{vocabulary} has rows"
    return found


@pytest.mark.parametrize("name", sorted(MODELS))
def test_new_values_begin_as_unknown_ones_so_that_scores_are_those_of_the_model(samples: Any, name: str) -> None:
    old, new, _, count = begun(samples, name)
    assert count >= sum(FEWER.values())
    batch = whole_split(samples.folder, samples.contract, "test")
    known = dict(batch)
    items = samples.contract.vocabulary("item").size - FEWER["item"]
    ages = samples.contract.vocabulary("age").size - FEWER["age"]
    for column, size in (("candidate_item_id", items), ("behavior_item_id", items), ("user_age", ages)):
        assert (batch[column] >= size).any(), "some are new"
        known[column] = torch.where(batch[column] >= size, UNKNOWN_ID, batch[column])
    with torch.no_grad():
        torch.testing.assert_close(new(batch), old(known), atol=1e-6, rtol=0)


def test_new_values_may_stay_as_they_were_drawn(samples: Any) -> None:
    old, new, drawn, count = begun(samples, "mian", init_new_rows="draw")
    assert count == sum(FEWER.values())
    for vocabulary, fewer in FEWER.items():
        for table, known, added in new_rows(old, new, vocabulary):
            assert len(added) == fewer
            rows = new.embedding.rows[vocabulary]  # type: ignore[union-attr, index]
            assert torch.equal(added, drawn[table][rows][len(known) :])


@pytest.mark.parametrize("name", ["mian", "din", "deepfm"])
def test_new_values_begin_with_the_mean_of_the_known_ones_of_their_category(samples: Any, name: str) -> None:
    old, new, _, _ = begun(samples, name, init_new_rows="category_mean")
    batch = whole_split(samples.folder, samples.contract, "train")
    pairs = set(zip(batch["candidate_item_id"].tolist(), batch["candidate_category"].tolist(), strict=True))
    first = samples.contract.vocabulary("item").size - FEWER["item"]
    means = 0
    for _, known, added in new_rows(old, new, "item"):
        for number, vector in enumerate(added):
            (category,) = {c for item, c in pairs if item == first + number}
            alike = sorted({item for item, c in pairs if c == category and FIRST_ID <= item < first})
            expected = known[alike].double().mean(dim=0).float() if alike else known[UNKNOWN_ID]
            torch.testing.assert_close(vector, expected, atol=1e-7, rtol=1e-6)
            means += bool(alike)
    assert means
    for _, known, added in new_rows(old, new, "age"):
        assert torch.equal(added, known[UNKNOWN_ID].expand_as(added)), "no field of the candidate"
    for module in new.modules():
        if isinstance(module, FieldEmbedding):
            assert all(not module.table.weight[rows.start + PADDING_ID].any() for rows in module.rows.values())


def test_a_value_of_several_categories_has_none(samples: Any) -> None:
    config = samples.config(init_category="item_id")
    found = value_categories(config, samples.contract, {"category", "age"})
    assert set(found) == {"category"}, "age is no field of the candidate"
    assert not found["category"].any(), "each category has several items"
    found = value_categories(samples.config(), samples.contract, {"item"})
    batch = whole_split(samples.folder, samples.contract, "train")
    items, categories = batch["candidate_item_id"].numpy(), batch["candidate_category"].numpy()
    expected = np.zeros(samples.contract.vocabulary("item").size, np.int64)
    for item in np.unique(items):
        item_categories = np.unique(categories[items == item])
        expected[item] = item_categories[0] if len(item_categories) == 1 else 0
    assert expected.any()
    np.testing.assert_array_equal(found["item"], expected)


def test_a_category_that_is_no_field_of_the_candidate_is_one_error(samples: Any) -> None:
    with pytest.raises(CarryOverError, match=r"no categorical field 'age'; it has .*category.*: name one of these, or take"):
        begun(samples, "mian", init_new_rows="category_mean", init_category="age")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, 1.0),
        ({"warm_rate": 0.5}, 1.0),
        ({"init_from": "m"}, 1 / 6),
        ({"init_from": "m", "warm_rate": 0.5}, 0.5),
        ({"init_from": "m", "init_moments": True}, 1.0),
        ({"init_from": "m", "init_moments": True, "warm_rate": 0.25}, 0.25),
    ],
)
def test_the_learning_rate_is_that_of_a_warm_start_where_a_model_is_named(values: dict[str, Any], expected: float) -> None:
    for rates in ({"learning_rate": 0.6}, {"learning_rate": 0.6, "learning_rate_tables": 1.2}):
        config = TrainConfig.model_validate({"samples": "s", "optimizer": rates, **values})
        optimizer = config.optimizer_of_start()
        assert optimizer.learning_rate == pytest.approx(0.6 * expected)
        if "learning_rate_tables" in rates:
            assert optimizer.learning_rate_tables == pytest.approx(1.2 * expected)
        else:
            assert optimizer.learning_rate_tables is None
    with pytest.raises(ValidationError, match="warm_rate"):
        TrainConfig.model_validate({"samples": "s", "warm_rate": 0})


def test_a_warm_start_learns_as_a_training_of_its_scaled_rate_does(samples: Any) -> None:
    before = trainer_of(samples, max_steps=5).run().model
    learned = []
    for rate, warm in ((3e-3, 0.25), (7.5e-4, 1.0), (3e-3, 1.0)):
        trainer = trainer_of(samples, init_from="a model", warm_rate=warm, optimizer={"learning_rate": rate}, max_steps=5, seed=3)
        trainer.begin_with(before)
        learned.append(trainer.run().model.state_dict())
    scaled, same, other = learned
    assert all(torch.equal(weight, same[name]) for name, weight in scaled.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in scaled.items())


@pytest.mark.ranks
@pytest.mark.long
def test_two_ranks_begin_with_the_weights_of_one_and_learn_as_it_does(samples: Any, tmp_path: Path) -> None:
    """Sharded for each way of new rows and with moments, and once replicated."""
    kinds: list[tuple[str, dict[str, Any]]] = [(way, {"init_new_rows": way}) for way in ("unknown", "draw", "category_mean")]
    kinds.append(("moments", {"init_moments": True}))

    def works(ranks: int, placements: tuple[str, ...]) -> dict[str, Any]:
        return {
            f"{kind}, {tables}": {
                "begins": True,
                "config": configuration(samples, ranks, tables, init_from="m", max_steps=5, output=str(tmp_path / "o"), **values),
            }
            for kind, values in kinds
            for tables in placements
            if tables == "sharded" or ranks == 1 or kind == "category_mean"
        }

    alone = work_on(tmp_path, 1, works(1, ("replicated",)))
    both = work_on(tmp_path, 2, works(2, ("replicated", "sharded")))
    for work, (first, second) in both.items():
        kind, _, tables = work.partition(", ")
        (one,) = alone[f"{kind}, replicated"]
        for name, weight in one["first"].items():
            assert torch.equal(first["first"][name], weight), f"{work}: {name} before the first step"
            torch.testing.assert_close(first["weights"][name], one["weights"][name], atol=2e-3, rtol=1e-4)
        assert any(not torch.equal(weight, one["first"][name]) for name, weight in first["weights"].items()), "they learn"
        assert first["validation"] == pytest.approx(one["validation"], abs=1e-6)
        for step, loss in one["curve"].items():
            assert first["curve"][step] == pytest.approx(loss, abs=1e-4)
        held = [sum(rank["table_rows"].values()) for rank in (first, second)]
        whole = sum(one["table_rows"].values())
        assert sum(held) == (whole if tables == "sharded" else 2 * whole)
