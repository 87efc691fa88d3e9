import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from mian.config import TrainConfig
from mian.distributed.collectives import Ranks
from mian.evaluation.offline import score
from mian.models import ClickModel, build
from mian.stream import SampleStream
from mian.training import Trainer, TrainingResult, open_streams
from tests.support.curves import Curves

STEPS = 63  # an epoch of 2036 samples in batches of 32


def train(samples: Any, curves: Curves | None = None, options: dict[str, Any] | None = None, **values: Any) -> TrainingResult:
    ranks = Ranks()
    config = samples.config(options, **values)
    streams = open_streams(config, samples.contract, ranks)
    return Trainer(config, samples.contract, streams, ranks, curves or Curves()).run()


def weights(model: ClickModel) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


def fresh_model(samples: Any, config: TrainConfig) -> ClickModel:
    """The model that a training with this configuration starts from."""
    torch.manual_seed(config.seed)
    return build("mian", samples.contract, config.model.options)


def first_batches(samples: Any, config: TrainConfig, count: int) -> list[dict[str, torch.Tensor]]:
    stream = SampleStream(config.samples, samples.contract, "train", config.batch_size, seed=config.seed)
    return [batch for batch, _ in zip(stream.epoch(0), range(count), strict=False)]


def touched(samples: Any, model: ClickModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Which rows of the table a batch holds; padding is none."""
    mask = torch.zeros(len(model.embedding.table.weight), dtype=torch.bool)
    for name, rows in model.embedding.rows.items():
        columns = [field.column for field in samples.contract.fields if field.vocabulary == name]
        ids = torch.cat([batch[column].flatten() for column in columns]).long()
        mask[rows.start + ids[ids > 0]] = True
    return mask


def test_it_learns_what_is_there_to_learn(samples: Any) -> None:
    trained = train(samples, epochs=3, optimizer={"learning_rate": 3e-3})
    assert trained.test is not None
    assert trained.test.metrics["auc"] > 0.7
    assert trained.validation["auc"] > 0.7


def test_it_learns_nothing_where_labels_are_shuffled(noise: Any) -> None:
    trained = train(noise, epochs=2, optimizer={"learning_rate": 3e-3})
    assert trained.test is not None
    assert trained.test.metrics["auc"] == pytest.approx(0.5, abs=0.1)


def test_one_seed_gives_one_model_and_another_seed_another(samples: Any) -> None:
    settings = {"options": {"dropout": 0.3}, "max_steps": 20}
    models = [weights(train(samples, seed=seed, **settings).model) for seed in (5, 5, 6)]
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


def test_the_number_of_reading_threads_changes_nothing(samples: Any) -> None:
    one, four = (weights(train(samples, max_steps=20, stream={"workers": workers}).model) for workers in (1, 4))
    assert same(one, four)


def test_training_stops_after_two_bad_evaluations_in_a_row_and_keeps_the_best_weights(samples: Any) -> None:
    settings: dict[str, Any] = {"optimizer": {"learning_rate": 1e-2}, "evaluations_per_epoch": 6, "epochs": 6}
    curves = Curves()
    trained = train(samples, curves, patience=2, **settings)

    losses = list(curves["validation_logloss"].values())
    bad = [loss >= min(losses[:place], default=math.inf) for place, loss in enumerate(losses)]
    first_two_in_a_row = next(place for place in range(1, len(bad)) if bad[place - 1] and bad[place])
    assert len(losses) == first_two_in_a_row + 1
    assert trained.steps == list(curves["validation_logloss"])[-1] < 6 * STEPS
    assert min(losses) == trained.validation["logloss"] == curves["validation_logloss"][trained.best_step]

    until_then = train(samples, patience=100, max_steps=trained.best_step, **settings)
    assert same(weights(trained.model), weights(until_then.model))
    assert trained.test is not None
    assert until_then.test is not None
    assert trained.test.metrics == until_then.test.metrics
    assert trained.test.reliability().equals(until_then.test.reliability())
    assert not trained.model.training


def test_max_steps_ends_training_with_an_evaluation(samples: Any) -> None:
    curves = Curves()
    trained = train(samples, curves, max_steps=7, log_every=3)
    assert (trained.steps, trained.best_step) == (7, 7)
    assert list(curves["train_logloss"]) == [3, 6]
    assert list(curves["validation_logloss"]) == [7]


def test_evaluations_come_at_even_distances_in_each_epoch(samples: Any) -> None:
    curves = Curves()
    train(samples, curves, epochs=2, evaluations_per_epoch=3, patience=100, test_split=None)
    assert list(curves["validation_auc"]) == [21, 42, 63, 84, 105, 126]
    assert [int(epoch) for epoch in curves["epoch"].values()].count(0) == 4  # three evaluations, and the curve's point at step 50


def test_a_point_of_the_curve_is_the_mean_loss_of_its_steps(samples: Any) -> None:
    every, fifth = Curves(), Curves()
    for curves, log_every in ((every, 1), (fifth, 5)):
        train(samples, curves, max_steps=10, log_every=log_every)
    for step in (5, 10):
        mean = np.mean([every["train_logloss"][step - back] for back in range(5)])
        assert fifth["train_logloss"][step] == pytest.approx(mean, rel=1e-6)
    assert all(rate > 0 for rate in fifth["samples_per_second"].values())


def test_at_each_point_of_the_curve_the_time_is_shared_out(samples: Any) -> None:
    curves = Curves()
    train(samples, curves, max_steps=20, log_every=5)
    waiting, computing, exchanging = (curves[f"time_{name}_share"] for name in ("waiting", "computing", "exchanging"))
    assert list(waiting) == list(computing) == list(exchanging) == [5, 10, 15, 20]
    for step in waiting:
        assert 0 < waiting[step] < 1
        assert 0 < computing[step] < 1
        assert exchanging[step] == 0, "there is nobody to exchange with"
        assert waiting[step] + computing[step] == pytest.approx(1)


def test_metrics_are_those_of_scikit_learn(samples: Any) -> None:
    trained = train(samples, max_steps=20)
    assert trained.test is not None
    metrics = trained.test.metrics
    scores = score(
        trained.model, SampleStream(str(samples.folder), samples.contract, "test", 1000, shuffle=False, drop_last=False)
    )
    assert metrics["auc"] == pytest.approx(roc_auc_score(scores.labels, scores.probabilities), abs=1e-9)
    assert metrics["logloss"] == pytest.approx(log_loss(scores.labels, scores.probabilities.astype(np.float64)), abs=1e-9)
    assert metrics["rows"] == sum(day.rows for day in samples.contract.split("test"))
    assert metrics["positives"] == sum(day.positives for day in samples.contract.split("test"))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ({"schedule": "constant"}, [1e-2, 1e-2, 1e-2]),
        ({"schedule": "linear"}, [1e-2, 1e-2 * 2 / 3, 1e-2 / 3]),
        ({"schedule": "cosine"}, [1e-2, 1e-2 * 3 / 4, 1e-2 / 4]),
        ({"warmup": 0.5}, [1e-4, 1e-4 + 2 / 3 * (1e-2 - 1e-4), 1e-2]),
    ],
)
def test_steps_are_those_of_adam_for_dense_weights_and_of_lazy_adam_for_embeddings(
    samples: Any, schedule: dict[str, Any], rates: list[float]
) -> None:
    """Three steps by hand: gradient, L2, clipping, update; a table's row is updated in the steps whose batch holds it."""
    beta1, beta2, epsilon, steps = 0.8, 0.95, 1e-8, 3
    regularization = {"l2": 0.05, "l2_embedding": 0.03, "clip_norm": 0.05}
    optimizer = {"learning_rate": 1e-2, **schedule, "beta1": beta1, "beta2": beta2, **regularization}
    config = samples.config(batch_size=4, optimizer=optimizer)
    trained = train(samples, batch_size=4, optimizer=optimizer, max_steps=steps).model

    model = fresh_model(samples, config)
    table = model.embedding.table.weight
    dense = [parameter for parameter in model.parameters() if parameter is not table]
    adam = torch.optim.Adam(dense, betas=(beta1, beta2), eps=epsilon)
    first, second = torch.zeros_like(table), torch.zeros_like(table)
    for step, (batch, lr) in enumerate(zip(first_batches(samples, config, steps), rates, strict=True), start=1):
        model.zero_grad()
        adam.param_groups[0]["lr"] = lr
        binary_cross_entropy_with_logits(model(batch), batch["label"].float()).backward()
        with torch.no_grad():
            for parameter in dense:
                if parameter.dim() > 1:
                    parameter.grad += 0.05 * parameter
            norm = torch.sqrt(sum((parameter.grad**2).sum() for parameter in dense))
            assert norm > 0.05, "clipping is to be seen"
            for parameter in dense:
                parameter.grad *= 0.05 / (norm + 1e-6)
            rows = touched(samples, model, batch)
            gradient = table.grad.to_dense() + 0.03 * table
            first[rows] = (beta1 * first + (1 - beta1) * gradient)[rows]
            second[rows] = (beta2 * second + (1 - beta2) * gradient**2)[rows]
            root = (second / (1 - beta2**step)).sqrt() + epsilon
            table[rows] -= (lr * first / (1 - beta1**step) / root)[rows]
        adam.step()
    expected = model.state_dict()
    for name, weight in trained.state_dict().items():
        torch.testing.assert_close(
            weight, expected[name], atol=2e-5, rtol=1e-4, msg=lambda message, name=name: f"{name}: {message}"
        )


def test_rows_that_the_batch_does_not_hold_stay_as_they_were(samples: Any) -> None:
    optimizer = {"l2_embedding": 0.5, "learning_rate": 1e-2}
    config = samples.config(batch_size=2, optimizer=optimizer)
    before = fresh_model(samples, config)
    after = train(samples, batch_size=2, optimizer=optimizer, max_steps=1).model
    rows = touched(samples, before, first_batches(samples, config, 1)[0])
    old, new = before.embedding.table.weight, after.embedding.table.weight
    assert (~rows).sum() > 10
    assert torch.equal(old[~rows], new[~rows])
    assert (old[rows] != new[rows]).any(dim=1).all()


def test_without_l2_there_is_none(samples: Any) -> None:
    one, none, both = (
        weights(train(samples, max_steps=2, optimizer=optimizer).model)
        for optimizer in ({}, {"l2": 0.0, "l2_embedding": 0.0}, {"l2": 0.1, "l2_embedding": 0.1})
    )
    assert same(one, none)
    assert not same(one, both)
