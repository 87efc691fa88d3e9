"""A loss that is no number stops the training before it harms a weight, and the rows that it is of are named."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from mian.checkpoint.store import CheckpointStore
from mian.config import TrainConfig
from mian.contract import Contract
from mian.distributed.collectives import Ranks
from mian.stream import SampleStream
from mian.training import Trainer, TrainingError, open_streams
from tests.factories import SMALL_MODEL, spoil, write_samples
from tests.support.curves import Curves

FILE = "day=2026-03-02/part-00001.parquet"
OF_VALIDATION = "day=2026-03-05/part-00002.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "samples"


@pytest.fixture
def contract(folder: Path) -> Contract:
    return write_samples(folder)


def rows_with_history(folder: Path, path: str, empty: bool) -> list[int]:
    """The rows of a file whose history is empty, or those whose history is not."""
    lengths = pq.read_table(folder / path, columns=["behavior_length"]).column(0).to_numpy()
    return [int(row) for row in np.flatnonzero((lengths == 0) == empty)]


def trainer_of(folder: Path, contract: Contract, store: CheckpointStore | None = None, **values: Any) -> Trainer:
    model = {"options": dict(SMALL_MODEL)}
    settings = {"samples": str(folder), "model": model, "batch_size": 32, "threads": 1, "log_every": 1000}
    config = TrainConfig.model_validate(settings | values)
    ranks = Ranks()
    return Trainer(config, contract, open_streams(config, contract, ranks), ranks, Curves(), store)


def error_of(trainer: Trainer) -> str:
    with pytest.raises(TrainingError) as raised:
        trainer.run()
    return str(raised.value)


def impression(folder: Path, path: str, row: int) -> str:
    return str(pq.read_table(folder / path, columns=["impression_id"]).column(0)[row])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_named_with_its_row(folder: Path, contract: Contract, value: float) -> None:
    contract = spoil(folder, contract, FILE, "candidate_price", [17], value)
    error = error_of(trainer_of(folder, contract))
    assert error.startswith("rank 0: step ")
    assert "1 of the batch's 32 rows hold a value that is no number" in error
    assert f"(impression {impression(folder, FILE, 17)}, row 17 of {FILE}): candidate_price is {value}" in error


def test_the_batch_that_is_named_is_the_one_that_holds_the_row(folder: Path, contract: Contract) -> None:
    contract = spoil(folder, contract, FILE, "user_visits", [3], float("nan"))
    trainer = trainer_of(folder, contract)
    error = error_of(trainer)
    said = re.search(r"step (\d+) cannot be done.*; batch (\d+) of epoch 0 on this rank.*: row (\d+) \(", error)
    assert said is not None, error
    step, batch, row = map(int, said.groups())
    stream = SampleStream(str(folder), contract, "train", 32)
    drawn = next(stream.epoch(0, batch))
    assert drawn["user_visits"].isnan().nonzero().tolist() == [[row]]
    assert (step, batch) == (trainer.progress.step + 1, trainer.progress.step)


def test_a_value_in_a_history_is_found_and_one_behind_its_end_is_none(folder: Path, contract: Contract) -> None:
    behind, within = rows_with_history(folder, FILE, True)[0], rows_with_history(folder, FILE, False)[0]
    contract = spoil(folder, contract, FILE, "behavior_hours_ago", [behind], float("nan"))
    assert trainer_of(folder, contract, epochs=1).run().steps == 63
    contract = spoil(folder, contract, FILE, "behavior_hours_ago", [within], float("nan"))
    error = error_of(trainer_of(folder, contract))
    assert f"row {within} of {FILE}): behavior_hours_ago is nan" in error
    assert "1 of the batch's 32 rows" in error


def test_of_many_such_rows_the_first_are_named(folder: Path, contract: Contract) -> None:
    contract = spoil(folder, contract, FILE, "candidate_price", range(263), float("nan"))
    error = error_of(trainer_of(folder, contract, stream={"shuffle_window": 1, "mixed_row_groups": 1}))
    assert error.count("candidate_price is nan") == 3
    assert ", ...; correct what it is made of" in error


def test_no_weight_is_touched_and_no_checkpoint_holds_anything_but_numbers(
    folder: Path, contract: Contract, tmp_path: Path
) -> None:
    contract = spoil(folder, contract, FILE, "candidate_price", [17], float("nan"))
    store = CheckpointStore(tmp_path / "checkpoints", 2)
    trainer = trainer_of(folder, contract, store, checkpoint={"every_steps": 1})
    error_of(trainer)
    assert all(weight.isfinite().all() for weight in trainer.model.state_dict().values())
    state = store.newest()
    assert state is not None
    assert state["progress"]["step"] == trainer.progress.step > 0
    for part in ("model", "optimizer"):
        assert all(torch.as_tensor(tensor).isfinite().all() for tensor in state[part].values())
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(state["model"][name], weight), "as after the step before"


def test_a_learning_rate_that_is_too_large_is_said_to_be(folder: Path, contract: Contract) -> None:
    error = error_of(trainer_of(folder, contract, optimizer={"learning_rate": 1e30}))
    assert "rank 0: step 2 cannot be done" in error
    assert "all values of the batch are numbers" in error
    assert "lower optimizer.learning_rate, or set optimizer.clip_norm" in error


def test_weights_that_are_no_numbers_are_never_kept(folder: Path, contract: Contract, tmp_path: Path) -> None:
    """A step whose loss and gradients are numbers makes them infinite; nothing but a look at them tells before the next step."""
    store = CheckpointStore(tmp_path / "checkpoints", 2)
    learning_rate = 1e39  # not a float32
    error = error_of(
        trainer_of(folder, contract, store, optimizer={"learning_rate": learning_rate}, checkpoint={"every_steps": 1})
    )
    assert error.startswith("after step 1: a weight is NaN or infinite, so the weights are not kept")
    assert store.steps() == []
    error = error_of(trainer_of(folder, contract, store, optimizer={"learning_rate": learning_rate}, max_steps=1))
    assert error.startswith("after step 1: a weight is NaN or infinite")
    assert list(tmp_path.glob("checkpoints/*")) == []


def test_a_gradient_alone_that_is_no_number_ends_it_too(folder: Path, contract: Contract) -> None:
    trainer = trainer_of(folder, contract)
    trainer.model.mlp.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * float("nan"),))  # type: ignore[union-attr]
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    error = error_of(trainer)
    assert "rank 0: step 1 cannot be done" in error
    assert "all its values and losses are numbers, and a gradient is none" in error
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.state_dict().items())


def test_a_row_of_the_validation_split_is_named_too(folder: Path, contract: Contract) -> None:
    contract = spoil(folder, contract, OF_VALIDATION, "context_slot", [5], float("nan"))
    error = error_of(trainer_of(folder, contract, max_steps=4))
    assert "rank 0: after step 4 split 'validation' cannot be scored" in error
    assert f"(impression {impression(folder, OF_VALIDATION, 5)}, row 5 of {OF_VALIDATION}): context_slot is nan" in error
