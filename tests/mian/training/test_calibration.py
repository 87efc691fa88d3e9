"""A training that calibrates its model on the validation split."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mian.checkpoint.keys import training_key
from mian.evaluation.offline import score
from mian.metrics import calibration, logloss
from mian.stream import SampleStream
from mian.training import TrainingResult
from tests.support.curves import Curves
from tests.support.resumed import assert_same, store_of, trainer_of

LEARNS: dict[str, Any] = {"epochs": 2, "evaluations_per_epoch": 1, "optimizer": {"learning_rate": 1e-2}}
PLATT: dict[str, Any] = {**LEARNS, "calibration": "platt"}


@dataclass(frozen=True)
class Trainings:
    """Two that differ in the setting alone, and the curves of each."""

    without: TrainingResult
    with_platt: TrainingResult
    without_curves: Curves
    curves: Curves
    said: list[str]


@pytest.fixture(scope="module")
def trainings(samples: Any) -> Trainings:
    curves, without_curves = Curves(), Curves()
    without = trainer_of(samples, curves=without_curves, **LEARNS).run()
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("mian.training.calibration")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with_platt = trainer_of(samples, curves=curves, **PLATT).run()
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)
    return Trainings(without, with_platt, without_curves, curves, said)


def split_metrics(samples: Any, trained: TrainingResult, split: str) -> tuple[float, float]:
    found = score(trained.model, SampleStream(str(samples.folder), samples.contract, split, 64, shuffle=False, drop_last=False))
    return logloss(found.labels, found.probabilities), calibration(found.labels, found.probabilities)


def test_a_calibration_changes_two_numbers_of_the_model_and_no_choice(samples: Any, trainings: Trainings) -> None:
    without, with_platt, curves = trainings.without, trainings.with_platt, trainings.curves
    differing = {
        name
        for name, weight in with_platt.model.state_dict().items()
        if not torch.equal(weight, without.model.state_dict()[name])
    }
    assert differing == {"calibration_scale", "calibration_offset"}
    assert without.calibration is None
    assert (with_platt.validation, with_platt.best_step) == (without.validation, without.best_step), "they are those before"
    assert trainings.without_curves["validation_logloss"] == curves["validation_logloss"]

    found = with_platt.calibration
    assert found is not None
    assert with_platt.model.calibration == (found.scale, found.offset)
    assert found.logloss_before == pytest.approx(without.validation["logloss"], abs=1e-6)
    assert found.calibration_before == pytest.approx(without.validation["calibration"], abs=1e-5)
    assert split_metrics(samples, with_platt, "validation") == pytest.approx(
        (found.logloss_after, found.calibration_after), abs=1e-5
    )
    reported = {name: curves[name] for name in ("calibration_scale", "calibration_offset", "calibrated_validation_logloss")}
    best = with_platt.best_step
    assert reported == {
        "calibration_scale": {best: found.scale},
        "calibration_offset": {best: found.offset},
        "calibrated_validation_logloss": {best: found.logloss_after},
    }
    (said,) = trainings.said
    assert f"logloss {found.logloss_before:.5f} -> {found.logloss_after:.5f}" in said


def test_the_test_split_is_scored_with_the_calibration_and_beside_it_without(samples: Any, trainings: Trainings) -> None:
    without, with_platt = trainings.without, trainings.with_platt
    assert without.test is not None
    assert without.test_uncalibrated is None
    assert with_platt.test is not None
    assert with_platt.test_uncalibrated is not None
    assert split_metrics(samples, with_platt, "test") == pytest.approx(
        (with_platt.test.metrics["logloss"], with_platt.test.metrics["calibration"]), abs=1e-9
    )
    for name, value in without.test.metrics.items():
        assert with_platt.test_uncalibrated.metrics[name] == value, name
    for name in ("auc", "gauc"):
        assert with_platt.test.metrics[name] == pytest.approx(without.test.metrics[name], abs=1e-4), name


def test_what_cannot_be_fitted_is_said_in_one_line_and_left_out(
    samples: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mian.models.Mian.logits", lambda model, batch: model.calibration_offset.expand(len(batch["label"])) + 0)
    trainer = trainer_of(samples, **PLATT)
    trainer.progress.finished, trainer.progress.best_step = True, 0
    trained = trainer.run()
    assert trained.model.calibration == (1, 0)
    assert not trained.is_calibrated
    assert trained.test is not None
    assert trained.test_uncalibrated is None
    (said,) = [record.getMessage() for record in caplog.records if "platt" in record.getMessage()]
    assert said == "calibration: platt is left out (scale 1, offset 0) on split validation: all rows have one score"


def test_a_training_that_ends_while_it_is_kept_comes_to_the_same_calibration(
    samples: Any, trainings: Trainings, tmp_path: Path
) -> None:
    expected = trainings.with_platt
    assert expected.is_calibrated

    def killed(trained: TrainingResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer_of(samples, store_of(samples, tmp_path, PLATT), **PLATT).run(killed)
    from_checkpoint = trainer_of(samples, store_of(samples, tmp_path, PLATT), **PLATT)
    assert from_checkpoint.model.calibration == (1, 0)
    assert_same(from_checkpoint.run(), expected)

    state = from_checkpoint.state()  # as ranks of an elastic job keep it, the calibration in it
    assert state["model"]["calibration_scale"] != 1
    from_memory = trainer_of(samples, **PLATT)
    from_memory.resume(state)
    found = from_memory.run()
    assert_same(found, expected)
    assert found.calibration == expected.calibration


def test_the_setting_decides_the_weights_and_off_it_is_a_training_of_before(samples: Any) -> None:
    keys = [training_key(samples.config(**values), samples.contract) for values in ({}, {"calibration": "none"}, PLATT)]
    assert keys[0] == keys[1] != keys[2]
    assert samples.config().settings() != samples.config(calibration="platt").settings()
