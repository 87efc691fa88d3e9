"""What another rank's end leaves behind: a training that any new world can go on with."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from horovod.common.exceptions import HorovodInternalError

from mian.distributed.collectives import Ranks
from mian.training import Trainer, TrainingResult, open_streams
from tests.support.curves import Curves


class Left(Ranks):
    """A rank that the others leave at an exchange: the ``number``-th of ``exchange``."""

    def __init__(self, exchange: str, number: int) -> None:
        super().__init__()
        self._exchange, self._until = exchange, number

    def _count(self, exchange: str, *changed: torch.Tensor) -> None:
        if exchange == self._exchange:
            self._until -= 1
            if not self._until:
                for tensor in changed:  # an exchange in place that fails may have done its part, or half of it
                    tensor.fill_(7.0)
                raise HorovodInternalError

    def allreduce_mean_(self, value: torch.Tensor) -> None:
        self._count("mean_", value)
        super().allreduce_mean_(value)

    def allreduce_gradients(
        self, dense: torch.Tensor, tables: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        self._count("allreduce_gradients", dense)
        return super().allreduce_gradients(dense, tables)

    def gather_to(self, rank: int, rows: Any) -> Any:
        self._count("gather_to")
        return super().gather_to(rank, rows)


def trainer(samples: Any, ranks: Ranks, curves: Curves) -> Trainer:
    config = samples.config(
        {"dropout": 0.0}, epochs=2, log_every=20, evaluations_per_epoch=2, optimizer={"l2": 1e-4, "l2_embedding": 1e-4}
    )
    return Trainer(config, samples.contract, open_streams(config, samples.contract, ranks), ranks, curves)


@pytest.fixture(scope="module")
def undisturbed(samples: Any) -> tuple[TrainingResult, Curves]:
    curves = Curves()
    return trainer(samples, Ranks(), curves).run(), curves


@pytest.mark.parametrize(
    ("exchange", "number"),
    [
        ("allreduce_gradients", 1),  # in the first step
        ("allreduce_gradients", 30),
        ("mean_", 1),  # the mean of the training curve
        ("gather_to", 3),  # the second evaluation's scores, at the end of the first epoch
        ("gather_to", 8),  # the last one's users
    ],
)
def test_what_is_in_memory_is_that_of_a_whole_step(
    samples: Any, undisturbed: tuple[TrainingResult, Curves], exchange: str, number: int
) -> None:
    curves = Curves()
    left = trainer(samples, Left(exchange, number), curves)
    with pytest.raises(HorovodInternalError):
        left.run()
    going_on = trainer(samples, Ranks(), curves)
    assert going_on.resume(left.state())
    trained = going_on.run()
    expected, expected_curves = undisturbed
    assert (trained.steps, trained.best_step, trained.validation) == (expected.steps, expected.best_step, expected.validation)
    assert curves["validation_logloss"] == expected_curves["validation_logloss"]
    assert all(torch.equal(weight, trained.model.state_dict()[name]) for name, weight in expected.model.state_dict().items())
