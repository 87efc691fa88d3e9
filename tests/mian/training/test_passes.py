"""A batch in several passes gives what it gives in one, and takes the memory of a part."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mian.checkpoint.store import CheckpointStore
from mian.config import OptimizerConfig
from mian.distributed.collectives import Ranks
from mian.kernels import distinct
from mian.models import ClickModel, build
from mian.models.dien import DIEN
from mian.optim.optimizer import Optimizer
from mian.stream import SampleStream
from mian.training import Trainer, TrainingError, open_streams
from mian.training.step import TrainingStep
from tests.factories import SMALL_MODEL, spoil, write_samples
from tests.launcher import work_on
from tests.mian.conftest import Samples
from tests.support.curves import Curves
from tests.support.resumed import assert_same, stopped, trainer_of

STEPS = 50


def configuration(samples: Any, passes: int, ranks: int = 1, tables: str = "replicated", **values: Any) -> dict[str, Any]:
    """A training without dropout whose global batches do not depend on the number of ranks, with all that is done to gradients."""
    settings = {
        "batch_size": 48 // ranks,
        "backward_passes_per_step": passes,
        "stream": {"order": "global"},
        "optimizer": {
            "learning_rate": 5e-3,
            "l2": 1e-4,
            "l2_embedding": 1e-4,
            "clip_norm": 1.0,
            "warmup": 0.1,
            "schedule": "linear",
        },
        "tables": {"placement": tables},
        "max_steps": STEPS,
        "log_every": 1,
    }
    config: dict[str, Any] = samples.config({"dropout": 0.0}, **{**settings, **values}).model_dump()
    return config


@pytest.fixture(scope="module")
def alone(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one rank has after one pass a step."""
    return work_on(tmp_path_factory.mktemp("one"), 1, {"whole": {"config": configuration(samples, 1)}})["whole"][0]


@pytest.mark.parametrize(
    ("passes", "ranks", "tables"),
    [
        (2, 1, "replicated"),
        (4, 1, "replicated"),
        (24, 1, "replicated"),
        pytest.param(4, 2, "replicated", marks=[pytest.mark.ranks, pytest.mark.long]),
        pytest.param(2, 2, "sharded", marks=[pytest.mark.ranks, pytest.mark.long]),
        pytest.param(2, 2, "replicated", marks=[pytest.mark.ranks, pytest.mark.long]),
        pytest.param(4, 2, "sharded", marks=[pytest.mark.ranks, pytest.mark.long]),
    ],
)
def test_passes_have_the_losses_of_the_whole_batch(
    samples: Any, alone: dict[str, Any], tmp_path: Path, passes: int, ranks: int, tables: str
) -> None:
    many = work_on(tmp_path, ranks, {"passes": {"config": configuration(samples, passes, ranks, tables)}})["passes"][0]
    one = alone["curve"]
    assert list(one) == list(many["curve"]) == list(range(1, STEPS + 1))
    differences = [abs(one[step] - many["curve"][step]) for step in one]
    print(f"largest difference of the loss, one pass and {passes} on {ranks} ranks, {STEPS} steps: {max(differences):.1e}")
    assert max(differences) < 1e-5
    assert min(one.values()) < 0.98 * one[1], "the loss is to fall, or the curves say little"


def first_batch(samples: Any, size: int) -> dict[str, torch.Tensor]:
    return next(SampleStream(str(samples.folder), samples.contract, "train", size).epoch(0))


def model_of(samples: Any) -> ClickModel:
    torch.manual_seed(1)
    return build("mian", samples.contract, samples.config().model.options)


class Seen(Ranks):
    """Keeps the gradients of tables that would travel."""

    def allreduce_gradients(self, dense: Any, tables: Any) -> Any:
        self.dense, self.tables = dense.clone(), {name: tuple(part.clone() for part in of) for name, of in tables.items()}
        return super().allreduce_gradients(dense, tables)


@pytest.mark.parametrize("passes", [2, 8])
def test_each_row_of_a_table_travels_once_with_the_gradients_of_all_passes(samples: Any, passes: int) -> None:
    batch = first_batch(samples, 64)
    seen = {}
    for number in (1, passes):
        model, ranks = model_of(samples).double(), Seen()
        TrainingStep(model, Optimizer(model, OptimizerConfig(), ranks), passes=number)(batch, 0.0)
        ((rows, values),) = ranks.tables.values()
        assert values.shape == (len(rows), SMALL_MODEL["embedding_dim"])
        assert len(distinct(rows)[0]) == len(rows)
        order = rows.argsort()
        seen[number] = (rows[order], values[order], ranks.dense)
    for whole, cut in zip(seen[1], seen[passes], strict=True):
        torch.testing.assert_close(cut, whole, atol=1e-12, rtol=0)


def gradients_of_dien(
    samples: Any, batch: dict[str, torch.Tensor], ranks: Seen, passes: int = 1, **options: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of dense weights and of the table, both dense, in float64."""
    torch.manual_seed(1)
    model = build("dien", samples.contract, {"embedding_dim": 4, "mlp": [8], "activation": "relu", **options}).double()
    TrainingStep(model, Optimizer(model, OptimizerConfig(), ranks), passes=passes)(batch, 0.0)
    ((rows, values),) = ranks.tables.values()
    (table,) = model.tables().values()
    return ranks.dense, torch.zeros_like(table.weight).index_add(0, rows, values)


class OneOfTwo(Seen):
    """A rank of two, of which the other one has counted so many."""

    def __init__(self, other: int) -> None:
        super().__init__()
        self._other = other

    def allreduce_mean_(self, value: torch.Tensor) -> None:
        value.add_(self._other).div_(2)

    def allreduce_gradients(self, dense: Any, tables: Any) -> Any:
        self.size = 1
        return super().allreduce_gradients(dense, tables)


@pytest.mark.parametrize("auxiliary", ["inner_product", "network"])
def test_the_auxiliary_loss_of_passes_and_ranks_is_that_of_the_whole_batch(
    samples: Any, auxiliary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each behavior is its own negative, so that nothing is drawn; histories are of unlike lengths in each part."""
    loss = DIEN.auxiliary_loss
    monkeypatch.setattr(DIEN, "auxiliary_loss", lambda self, h, e, drawn, layout: loss(self, h, e, torch.arange(len(e)), layout))
    batch = first_batch(samples, 64)
    order = batch["behavior_length"].argsort(stable=True)  # the first parts have next to nothing
    batch = {name: column[order] for name, column in batch.items()}
    whole = gradients_of_dien(samples, batch, Seen(), auxiliary=auxiliary)
    without = gradients_of_dien(samples, batch, Seen(), auxiliary=auxiliary, auxiliary_weight=0.0)
    assert not torch.allclose(whole[1], without[1], rtol=0.1), "the auxiliary loss is to matter"
    for passes in (2, 8, 32):
        torch.testing.assert_close(
            gradients_of_dien(samples, batch, Seen(), passes, auxiliary=auxiliary), whole, atol=1e-12, rtol=0
        )

    halves = [{name: column[part] for name, column in batch.items()} for part in (slice(0, 32), slice(32, 64))]
    counts = [int((half["behavior_length"] - 1).clamp(min=0).sum()) for half in halves]
    assert counts[1] > 2 * counts[0] > 0
    for passes in (1, 4):
        ranks = [OneOfTwo(counts[1]), OneOfTwo(counts[0])]
        for rank in ranks:
            rank.size = 2
        rank_results = [
            gradients_of_dien(samples, half, rank, passes, auxiliary=auxiliary) for half, rank in zip(halves, ranks, strict=True)
        ]
        means = tuple((one + other) / 2 for one, other in zip(*rank_results, strict=True))
        torch.testing.assert_close(means, whole, atol=1e-12, rtol=0)


def test_a_pass_takes_the_memory_of_its_part(samples: Any) -> None:
    """Of what the way back needs: no more than a part's is there at any moment."""
    batch = first_batch(samples, 512)
    most = {passes: most_saved(samples, batch, passes) for passes in (1, 8)}
    assert most[8] < most[1] / 6, "an eighth, and some weights"


def most_saved(samples: Any, batch: dict[str, torch.Tensor], passes: int) -> int:
    """The most bytes that are kept for the way back at one time, in a step."""
    model = model_of(samples)
    step = TrainingStep(model, Optimizer(model, OptimizerConfig(), Ranks()), passes=passes)
    now = most = 0

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal now, most
            self.tensor = tensor
            self.bytes = 0 if tensor.requires_grad and tensor.is_leaf else tensor.numel() * tensor.element_size()
            now += self.bytes
            most = max(most, now)

        def __del__(self) -> None:
            nonlocal now
            now -= self.bytes

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        step(batch, 0.0)
    assert now == 0
    return most


def test_a_batch_that_cannot_be_cut_evenly_is_said(samples: Any) -> None:
    with pytest.raises(ValidationError, match=r"batch_size \(32\) has to be a multiple of backward_passes_per_step \(5\)"):
        samples.config(backward_passes_per_step=5)


def test_a_value_that_is_no_number_is_named_in_whichever_pass_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    contract = spoil(folder, write_samples(folder), "day=2026-03-02/part-00001.parquet", "candidate_price", [17], float("nan"))
    config = Samples(folder, contract).config(backward_passes_per_step=4)
    ranks = Ranks()
    trainer = Trainer(config, contract, open_streams(config, contract, ranks), ranks, Curves())
    with pytest.raises(
        TrainingError, match=r"1 of the batch's 32 rows hold a value that is no number: .*, row 17 of day=2026-03-02"
    ):
        trainer.run()
    assert all(weight.isfinite().all() for weight in trainer.model.state_dict().values())


def test_a_training_in_passes_that_warms_up_goes_on_as_if_it_had_not_been_stopped(samples: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "backward_passes_per_step": 2,
        "optimizer": {"learning_rate": 3e-3, "warmup": 0.4, "schedule": "cosine", "learning_rate_scaling": "linear"},
    }
    undisturbed = trainer_of(samples, **settings).run()
    for step in (20, 100):  # in the warm-up, and behind it
        assert stopped(trainer_of(samples, CheckpointStore(tmp_path, 2), step, **settings)) == step
    assert_same(trainer_of(samples, CheckpointStore(tmp_path, 2), **settings).run(), undisturbed)


def test_what_decides_weights_is_part_of_what_a_checkpoint_is_found_by(samples: Any) -> None:
    settings = samples.config().settings()
    others: list[dict[str, Any]] = [
        {"backward_passes_per_step": 2},
        {"optimizer": {"learning_rate_scaling": "linear"}},
        {"optimizer": {"warmup": 0.1}},
        {"optimizer": {"schedule": "cosine"}},
        {"optimizer": {"compression": "fp16"}},
    ]
    for other in others:
        assert samples.config(**other).settings() != settings
