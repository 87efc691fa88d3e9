"""A training begins with the weights of a trained model, also where vocabularies were extended or a field was added."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mian.checkpoint.store import CheckpointStore
from mian.config import OptimizerConfig
from mian.contract import Contract, Field, Vocabulary
from mian.distributed.collectives import Ranks
from mian.layers import FieldEmbedding
from mian.models import MODELS, ClickModel, build
from mian.optim.optimizer import Optimizer
from mian.stream import SampleStream
from mian.tracking.initial_model import initial_model
from mian.training import CarryOverError
from mian.training.carry_over import carry_over, carry_over_moments
from mian.training.step import TrainingStep
from tests.factories import make_model
from tests.support.curves import Curves
from tests.support.resumed import EVALUATE_SPLIT, store_of, trainer_of

MORE = {"item": 7, "category": 3, "hour": 1}


def extended(contract: Contract) -> Contract:
    vocabularies = (v.model_copy(update={"size": v.size + MORE.get(v.name, 0)}) for v in contract.vocabularies)
    return contract.model_copy(update={"vocabularies": tuple(vocabularies)})


def with_a_field(contract: Contract) -> Contract:
    """Of users, before the ones that were there."""
    fields = tuple(contract.fields)
    place = next(number for number, field in enumerate(fields) if field.group == "user")
    city = Field(group="user", name="city", vocabulary="city")
    vocabularies = (Vocabulary(name="city", size=9, kind="hash"), *contract.vocabularies)
    return contract.model_copy(update={"fields": (*fields[:place], city, *fields[place:]), "vocabularies": vocabularies})


def drawn(name: str, contract: Contract, seed: int) -> ClickModel:
    torch.manual_seed(seed)
    return build(name, contract, {}).eval()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_model_of_longer_vocabularies_scores_old_values_as_the_old_model(samples: Any, name: str) -> None:
    batch = next(SampleStream(str(samples.folder), samples.contract, "train", 64).epoch(0))
    old, new = drawn(name, samples.contract, 1), drawn(name, extended(samples.contract), 2)
    new.set_negative_sampling_rate(0.5)
    before = {table: weight.clone() for table, weight in new.state_dict().items() if table in new.tables()}
    assert carry_over(old, new, new.state_dict()) == []
    with torch.no_grad():
        expected = old(batch) + torch.tensor(0.5).log()
        torch.testing.assert_close(new(batch), expected, atol=1e-6, rtol=0)
    for table, drawn_rows in before.items():
        as_drawn = (new.state_dict()[table] == drawn_rows).all(dim=1)
        more = len(drawn_rows) - len(old.state_dict()[table])
        assert more >= sum(MORE.values())
        paddings = sum(len(module.rows) for module in new.modules() if isinstance(module, FieldEmbedding))
        assert more <= int(as_drawn.sum()) <= more + paddings, "new rows are as drawn, and padding is 0"


def test_of_a_model_with_a_field_more_the_other_fields_vectors_are_kept(samples: Any) -> None:
    old, new = drawn("mian", samples.contract, 1), drawn("mian", with_a_field(extended(samples.contract)), 2)
    stay = carry_over(old, new, new.state_dict())
    assert stay, "of one field more some layer has another shape"
    assert all(new.state_dict()[name].shape != old.state_dict().get(name, torch.empty(0)).shape for name in stay)
    for vocabulary, rows in old.embedding.rows.items():  # type: ignore[union-attr, operator]
        start = new.embedding.rows[vocabulary].start  # type: ignore[union-attr, index]
        size = rows.stop - rows.start
        for module, first in ((old, rows.start), (new, start)):
            assert module.embedding.rows[vocabulary].start == first  # type: ignore[union-attr, index]
        taken = new.embedding.table.weight[start : start + size]  # type: ignore[union-attr, index]
        assert torch.equal(taken, old.embedding.table.weight[rows])  # type: ignore[union-attr, index]
    columns = [new.embedding.numbers.index(column) for column in old.embedding.numbers]  # type: ignore[union-attr, operator]
    assert torch.equal(new.embedding.number_vectors[columns], old.embedding.number_vectors)  # type: ignore[union-attr, index]


def test_models_of_another_kind_or_width_are_refused(samples: Any) -> None:
    new = drawn("din", samples.contract, 2)
    with pytest.raises(CarryOverError, match="init_from: it is a Mian, and DIN is to be trained"):
        carry_over(drawn("mian", samples.contract, 1), new, new.state_dict())
    narrow = build("din", samples.contract, {"embedding_dim": 4})
    with pytest.raises(CarryOverError, match="it was trained with embedding_dim=4, and embedding_dim=16 is to be trained"):
        carry_over(narrow, new, new.state_dict())
    del narrow.config  # a model of the user's own may have none
    with pytest.raises(CarryOverError, match="its vectors have a width of 4, those to be trained 16"):
        carry_over(narrow, new, new.state_dict())


@pytest.mark.parametrize(("trained", "wanted"), [("none", "cin"), ("cin", "none"), ("fm", "cin")])
def test_a_model_of_other_options_is_refused(samples: Any, trained: str, wanted: str) -> None:
    old, new = (build("mian_plus", samples.contract, {"interactions": name}) for name in (trained, wanted))
    with pytest.raises(
        CarryOverError, match=f"it was trained with interactions={trained}, .* take model.options.interactions={trained}"
    ):
        carry_over(old, new, new.state_dict())
    del old.config  # a model of the user's own may have none
    with pytest.raises(CarryOverError, match=r"init_from: it has .*; take the options that it was trained with"):
        carry_over(old, new, new.state_dict())


def test_weights_that_fit_are_refused_where_other_options_compute_something_else_with_them(samples: Any) -> None:
    old, new = (build("mian", samples.contract, {"transformer": name}) for name in ("pre_ln", "post_ln"))
    with pytest.raises(CarryOverError, match=r"take model\.options\.transformer=pre_ln"):
        carry_over(old, new, new.state_dict())
    other_dropout = build("mian", samples.contract, {"transformer": "pre_ln", "dropout": 0.4})
    assert carry_over(old, other_dropout, other_dropout.state_dict()) == []


def test_a_training_that_begins_with_a_model_is_scored_before_its_first_step(samples: Any) -> None:
    before = trainer_of(samples, epochs=1).run()
    curves = Curves()
    trainer = trainer_of(samples, curves=curves, epochs=1, seed=5)
    trainer.begin_with(before.model)
    trained = trainer.run()
    assert curves["validation_logloss"][0] == before.validation["logloss"]
    assert trained.validation["logloss"] < before.validation["logloss"], "it goes on learning"


@pytest.mark.parametrize("tables", ["lazy_adam", "rowwise_adagrad"])
def test_moments_go_with_the_rows_of_their_values_and_begin_at_zero_for_what_is_new(samples: Any, tables: str) -> None:
    batch = next(SampleStream(str(samples.folder), samples.contract, "train", 64).epoch(0))
    config = OptimizerConfig.model_validate({"tables": tables})
    old = drawn("mian", samples.contract, 1)
    optimizer = Optimizer(old, config, Ranks())
    for _ in range(2):
        TrainingStep(old, optimizer)(batch, 0.0)
    before = optimizer.state()

    new = drawn("mian", extended(samples.contract), 2)
    moments = Optimizer(new, config, Ranks()).state()
    assert carry_over_moments(old, new, before, moments) == []
    for name, moment in moments.items():
        if "embedding" not in name or not moment.dim():
            assert torch.equal(moment, before[name])
            continue
        assert before[name].any()
        for vocabulary, rows in new.embedding.rows.items():  # type: ignore[union-attr, operator]
            known = old.embedding.rows[vocabulary]  # type: ignore[union-attr, index]
            size = known.stop - known.start
            assert torch.equal(moment[rows][:size], before[name][known])
            assert not moment[rows][size:].any()

    wider = drawn("mian", with_a_field(samples.contract), 2)
    moments = Optimizer(wider, config, Ranks()).state()
    assert carry_over_moments(old, wider, before, moments) == ["optimizer.dense"]
    assert not moments["optimizer.dense.exp_avg"].any()
    assert moments["optimizer.dense.step"] == 0


def test_a_training_begins_with_the_weights_and_moments_of_one_that_has_ended(samples: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1}
    trainer_of(samples, store := store_of(samples, tmp_path, settings), **settings).run()
    store.clear()
    (ended,) = (tmp_path / "ended").iterdir()
    saved = CheckpointStore(ended, 1).newest()
    assert saved is not None
    begun = {"init_from": str(ended), "init_moments": True}
    trainer = trainer_of(samples, **begun)
    initial = initial_model(samples.config(**begun), samples.contract)
    trainer.begin_with(initial.model, initial.moments)
    state = trainer.state()
    for part in ("model", "optimizer"):
        for name, value in saved[part].items():
            assert torch.equal(state[part][name], value), name

    best = initial_model(samples.config(init_from=str(ended)), samples.contract)
    assert best.moments is None
    for name, value in best.model.state_dict().items():
        assert torch.equal(value, saved["best"][name]), name


def test_a_calibrated_model_is_scored_as_it_is_and_lends_its_calibration_to_nothing_else(samples: Any) -> None:
    settings: dict[str, Any] = {"epochs": 2, "evaluations_per_epoch": 1, "optimizer": {"learning_rate": 1e-2}}
    before = trainer_of(samples, calibration="platt", **settings).run()
    assert before.calibration is not None
    assert before.is_calibrated
    curves = Curves()
    trainer = trainer_of(samples, curves=curves, seed=5, **settings)
    trainer.begin_with(before.model)
    assert trainer.model.calibration == (1, 0)
    trained = trainer.run()
    assert curves["validation_logloss"][0] == pytest.approx(before.calibration.logloss_after, abs=1e-6)
    assert curves["validation_calibration"][0] == pytest.approx(1, abs=1e-5)
    assert trained.model.calibration == (1, 0)

    again = trainer_of(samples, seed=5, calibration="platt", **settings)
    again.begin_with(before.model)
    anew = again.run()
    assert anew.validation == trained.validation, "the parent's calibration decides no weights"
    assert anew.is_calibrated
    assert anew.calibration != before.calibration


def test_a_first_scoring_that_fails_leaves_no_calibration_behind(samples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(samples.contract)
    model.set_calibration(2.0, 1.0)
    trainer = trainer_of(samples, epochs=1)
    trainer.begin_with(model)

    def fails(*arguments: Any) -> None:
        assert trainer.model.calibration == (2, 1)
        raise RuntimeError("a rank is gone")

    monkeypatch.setattr(EVALUATE_SPLIT, fails)
    with pytest.raises(RuntimeError, match="a rank is gone"):
        trainer.run()
    assert trainer.state()["model"]["calibration_scale"] == 1
