"""Two and four real ranks whose gradients travel in 16 bits: what is sent, what comes of it, and what a training loses by it."""

from typing import Any

import pytest
import torch

from tests.support.exchange_work import DENSE, ROWS, SIZES, TABLE_ROWS, WIDTH
from tests.support.launches import STEPS, Launches

pytestmark = pytest.mark.ranks

#: Half of the distance between two numbers of 16 bits, over the larger; what travels there and back is rounded twice.
ROUNDING = {"none": 2.0**-23, "fp16": 2.0**-11, "bf16": 2.0**-8}
COMPRESSIONS = ("fp16", "bf16")


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.long)], ids=lambda ranks: f"{ranks} ranks")
def exchanged(request: pytest.FixtureRequest, launches: Launches) -> list[dict[str, Any]]:
    """What each rank leaves, see ``exchange_work``."""
    return launches.of(request.param, "exchange")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("compression", ["none", *COMPRESSIONS])
def test_the_mean_is_that_of_all_ranks_and_the_same_on_all(exchanged: list[dict[str, Any]], compression: str, size: str) -> None:
    rank_results = [rank[compression][size] for rank in exchanged]
    dense = torch.stack([rank["own"]["dense"].double() for rank in rank_results])
    table = torch.zeros(len(rank_results), TABLE_ROWS, WIDTH, dtype=torch.float64)
    for rank, rank_table in zip(rank_results, table, strict=True):
        rank_table.index_copy_(0, rank["own"]["rows"], rank["own"]["values"].double())
    bound = 2 * ROUNDING[compression]
    for name, own in (("dense", dense), ("table", table)):
        error = (rank_results[0][name] - own.mean(dim=0)).abs()
        assert (error <= bound * own.abs().mean(dim=0) * 1.01).all(), f"{name}: {error.max():.1e}"
        assert all(torch.equal(rank[name], rank_results[0][name]) for rank in rank_results[1:])
    touched = torch.cat([rank["own"]["rows"] for rank in rank_results]).unique()
    assert all(torch.equal(rank["rows"].sort().values, touched) for rank in rank_results)


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


@pytest.mark.parametrize(
    ("ranks", "tables", "compression"),
    [
        (2, "replicated", "fp16"),
        pytest.param(4, "sharded", "bf16", marks=pytest.mark.long),
        pytest.param(4, "replicated", "fp16", marks=pytest.mark.long),
        pytest.param(2, "sharded", "fp16", marks=pytest.mark.long),
        pytest.param(2, "replicated", "bf16", marks=pytest.mark.long),
        pytest.param(4, "replicated", "bf16", marks=pytest.mark.long),
    ],
)
def test_a_training_has_the_loss_curve_of_one_rank_and_all_ranks_the_same_weights(
    launches: Launches, ranks: int, tables: str, compression: str
) -> None:
    (alone,) = launches.of(1, "training, replicated")
    trained = launches.of(ranks, f"training, {tables}, {compression}")
    one, many = alone["curve"], trained[0]["curve"]
    assert list(one) == list(many) == list(range(1, STEPS + 1))
    differences = [abs(one[step] - many[step]) for step in one]
    print(f"largest difference of the loss, {compression}, {ranks} ranks, tables {tables}, {STEPS} steps: {max(differences):.1e}")
    assert max(differences) < {"fp16": 1e-4, "bf16": 1e-3}[compression]
    for other in trained[1:]:
        for name, weight in other["weights"].items():
            if tables == "replicated" or name not in other["table_rows"]:
                assert torch.equal(weight, trained[0]["weights"][name]), name


@pytest.mark.long
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_training_learns_as_much(launches: Launches, compression: str) -> None:
    fast, rounded = (launches.of(2, f"fast, {layout}")[0] for layout in ("none", compression))
    aucs = fast["metrics"]["auc"], rounded["metrics"]["auc"]
    print(f"AUC of the test split, none and {compression}: {aucs}")
    assert fast["metrics"]["auc"] > 0.7
    assert abs(aucs[0] - aucs[1]) < 0.005
    assert any(not torch.equal(weight, rounded["weights"][name]) for name, weight in fast["weights"].items()), "it is rounded"


@pytest.mark.parametrize(("tables", "compression"), [("replicated", "fp16"), ("sharded", "fp16"), ("replicated", "bf16")])
def test_a_loss_that_is_no_number_ends_it_before_a_weight_changes(launches: Launches, tables: str, compression: str) -> None:
    first, second = launches.of(2, f"diverges, {tables}, {compression}")
    assert first.startswith("TrainingError: rank 0: step 2 cannot be done, the loss or a gradient is no number")
    assert second == "RankError: rank 0 could not go on"
