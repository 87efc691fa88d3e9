"""Two and four real ranks whose gradients travel in 16 bits: what is sent, what comes of it, and what a training loses by it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.launcher import on_ranks
from tests.mian.trainer import exchange_work
from tests.mian.trainer.exchange_work import DENSE, ROWS, SIZES, TABLE_ROWS, WIDTH
from tests.mian.trainer.test_ranks import STEPS, configuration, work_on

pytestmark = pytest.mark.horovod

#: Half of the distance between two numbers of 16 bits, over the larger; what travels there and back is rounded twice.
ROUNDING = {"none": 2.0**-23, "fp16": 2.0**-11, "bf16": 2.0**-8}
COMPRESSIONS = ("fp16", "bf16")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.long)], ids=lambda ranks: f"{ranks} ranks")
def exchanged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank leaves, see ``exchange_work``."""
    folder, ranks = tmp_path_factory.mktemp("exchanged"), request.param
    launched = on_ranks(ranks, Path(exchange_work.__file__), folder, folder=folder)
    assert launched.code == 0, launched.output
    return [torch.load(folder / f"exchanged-{rank}.pt") for rank in range(ranks)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("compression", ["none", *COMPRESSIONS])
def test_the_mean_is_that_of_all_ranks_and_the_same_on_all(exchanged: list[dict[str, Any]], compression: str, size: str) -> None:
    of_ranks = [rank[compression][size] for rank in exchanged]
    dense = torch.stack([rank["own"]["dense"].double() for rank in of_ranks])
    table = torch.zeros(len(of_ranks), TABLE_ROWS, WIDTH, dtype=torch.float64)
    for rank, of_rank in zip(of_ranks, table, strict=True):
        of_rank.index_copy_(0, rank["own"]["rows"], rank["own"]["values"].double())
    bound = 2 * ROUNDING[compression]
    for name, own in (("dense", dense), ("table", table)):
        error = (of_ranks[0][name] - own.mean(dim=0)).abs()
        assert (error <= bound * own.abs().mean(dim=0) * 1.01).all(), f"{name}: {error.max():.1e}"
        assert all(torch.equal(rank[name], of_ranks[0][name]) for rank in of_ranks[1:])
    touched = torch.cat([rank["own"]["rows"] for rank in of_ranks]).unique()
    assert all(torch.equal(rank["rows"].sort().values, touched) for rank in of_ranks)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_gradients_take_half_of_the_bytes(exchanged: list[dict[str, Any]], compression: str) -> None:
    """All but the numbers of rows, which travel whole; as the kernel counts them, with what Horovod says beside them."""
    others = len(exchanged) - 1
    rows = others * ROWS * 8
    gradients = others * (ROWS * WIDTH + 2 * DENSE / len(exchanged)) * 4
    sent = {name: sum(rank[name]["usual"]["bytes"] for rank in exchanged) / len(exchanged) for name in ("none", compression)}
    print(f"bytes a rank, {len(exchanged)} ranks: {sent}")
    assert gradients <= sent["none"] - rows < 1.1 * gradients
    assert gradients / 2 <= sent[compression] - rows < 1.1 * gradients / 2


@pytest.mark.parametrize("compression", ["none", *COMPRESSIONS])
def test_what_one_rank_has_to_say_arrives_everywhere(exchanged: list[dict[str, Any]], compression: str) -> None:
    for rank in exchanged:
        flags = rank[compression]["flags"]
        assert flags["nobody"] == 0.0
        assert flags["stop"] == 1 / len(exchanged)
        assert torch.tensor([flags["nan"], flags["inf"]]).isnan().all()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_of_a_split_table_gradients_are_rounded_and_vectors_are_not(exchanged: list[dict[str, Any]], compression: str) -> None:
    for rank in exchanged:
        exact, rounded = rank["none"]["swapped"], rank[compression]["swapped"]
        assert torch.equal(exact["vectors"], exact["gradients"])
        assert torch.equal(rounded["vectors"], exact["vectors"])
        error = (rounded["gradients"] - exact["gradients"]).abs()
        assert (error <= ROUNDING[compression] * exact["gradients"].abs()).all()
        assert error.max() > 0


@pytest.fixture(scope="module")
def alone(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one rank has after the training, which exchanges nothing."""
    return work_on(tmp_path_factory.mktemp("one"), 1, config=configuration(samples, 1))[0]


@pytest.mark.parametrize(
    ("ranks", "tables", "compression"),
    [
        (2, "replicated", "fp16"),
        pytest.param(4, "split", "bf16", marks=pytest.mark.long),
        pytest.param(4, "replicated", "fp16", marks=pytest.mark.long),
        pytest.param(2, "split", "fp16", marks=pytest.mark.long),
        pytest.param(2, "replicated", "bf16", marks=pytest.mark.long),
        pytest.param(4, "replicated", "bf16", marks=pytest.mark.long),
    ],
)
def test_a_training_has_the_loss_curve_of_one_rank_and_all_ranks_the_same_weights(
    samples: Any, alone: dict[str, Any], tmp_path: Path, ranks: int, tables: str, compression: str
) -> None:
    config = configuration(samples, ranks, tables)
    config["optimizer"]["compression"] = compression
    trained = work_on(tmp_path, ranks, config=config)
    one, many = alone["curve"], trained[0]["curve"]
    assert list(one) == list(many) == list(range(1, STEPS + 1))
    differences = [abs(one[step] - many[step]) for step in one]
    print(f"largest difference of the loss, {compression}, {ranks} ranks, tables {tables}, {STEPS} steps: {max(differences):.1e}")
    assert max(differences) < {"fp16": 1e-4, "bf16": 1e-3}[compression]
    for other in trained[1:]:
        for name, weight in other["weights"].items():
            if tables == "replicated" or name not in other["table_rows"]:
                assert torch.equal(weight, trained[0]["weights"][name]), name


@pytest.fixture(scope="module")
def fast(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two ranks have after a training at ten times the rate, in which rounding grows from step to step."""
    return work_on(tmp_path_factory.mktemp("fast"), 2, config=fast_configuration(samples, "none"))[0]


def fast_configuration(samples: Any, compression: str) -> dict[str, Any]:
    return configuration(samples, 2, batch_size=24, optimizer={"learning_rate": 1e-2, "compression": compression})


@pytest.mark.long
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_training_learns_as_much(samples: Any, fast: dict[str, Any], tmp_path: Path, compression: str) -> None:
    rounded = work_on(tmp_path, 2, config=fast_configuration(samples, compression))[0]
    aucs = fast["metrics"]["auc"], rounded["metrics"]["auc"]
    print(f"AUC of the test split, none and {compression}: {aucs}")
    assert fast["metrics"]["auc"] > 0.7
    assert abs(aucs[0] - aucs[1]) < 0.005
    assert any(not torch.equal(weight, rounded["weights"][name]) for name, weight in fast["weights"].items()), "it is rounded"


def test_a_loss_that_is_no_number_ends_it_before_a_weight_changes(samples: Any, tmp_path: Path) -> None:
    config = configuration(samples, 2) | {"log_every": 4}
    failing = {
        f"{compression} {tables}": config
        | {"optimizer": {"learning_rate": 1e30, "compression": compression}, "tables": {"placement": tables}}
        for compression, tables in (("fp16", "replicated"), ("fp16", "split"), ("bf16", "replicated"))
    }
    first, second = (rank["errors"] for rank in work_on(tmp_path, 2, failing=failing))
    for name in failing:
        assert first[name].startswith("TrainingError: rank 0: step 2 cannot be done, the loss or a gradient is no number")
        assert second[name] == "RankError: rank 0 could not go on"
