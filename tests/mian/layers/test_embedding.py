import pytest
import torch

from mian.layers import EmbeddingTable, FieldEmbedding, initialize
from tests.factories import CONTRACTS, SIZES


@pytest.fixture
def embedding():
    torch.manual_seed(0)
    layer = FieldEmbedding(CONTRACTS["all groups"], 4)
    initialize(layer, 0.5)
    return layer


@pytest.fixture
def batch():
    """Two samples; the first has three behaviors, the second two."""
    ids = {f.column: torch.tensor([2, 0], dtype=torch.int32) for f in CONTRACTS["all groups"].fields if f.is_categorical}
    numbers = {f.column: torch.tensor([1.5, 0.0]) for f in CONTRACTS["all groups"].fields if not f.is_categorical}
    behaviors = {name: column[:, None].expand(2, 3) for name, column in (ids | numbers).items() if name.startswith("behavior_")}
    return ids | numbers | behaviors | {"behavior_length": torch.tensor([3, 2], dtype=torch.int32)}


def of(embedding, batch, column):
    """A column's vectors."""
    group = next(group for group, columns in embedding.columns.items() if column in columns)
    return getattr(embedding(batch), group)[:, embedding.columns[group].index(column)]


def test_every_field_is_embedded_at_one_width(embedding, batch):
    embedded = embedding(batch)
    assert {column for columns in embedding.columns.values() for column in columns} == {
        field.column for field in CONTRACTS["all groups"].fields
    }
    assert embedded.candidate.shape == (2, 3, 4)
    assert embedded.behaviors.shape == (5, 3, 4), "the real positions alone"
    assert embedded.user.shape == (2, 3, 4)
    assert embedded.context.shape == (2, 2, 4)
    assert embedded.layout.lengths.tolist() == [3, 2]


def test_a_group_without_fields_is_none(batch):
    embedded = FieldEmbedding(CONTRACTS["no behaviors"], 4)(batch)
    assert embedded.behaviors is None
    assert embedded.layout is None


def test_padding_is_a_zero_vector_and_so_is_the_number_0(embedding, batch):
    embedded = embedding(batch)
    for vectors in (embedded.candidate, embedded.user, embedded.context):
        assert (vectors[1] == 0).all()
        assert (vectors[0] != 0).all()
    assert (embedded.behaviors[3:] == 0).all()
    assert (embedded.behaviors[:3] != 0).all()


def test_a_number_is_times_a_vector_of_its_field(embedding, batch):
    one = of(embedding, {**batch, "user_tenure": torch.tensor([1.0, -2.0])}, "user_tenure")
    torch.testing.assert_close(one[1], -2 * one[0])
    assert not torch.equal(of(embedding, batch, "user_tenure"), of(embedding, batch, "candidate_price"))


def test_tables_are_as_long_as_their_vocabularies_and_shared_by_their_fields(embedding, batch):
    assert {name: rows.stop - rows.start for name, rows in embedding.rows.items()} == SIZES
    assert len(embedding.table.weight) == sum(SIZES.values())
    assert torch.equal(of(embedding, batch, "candidate_item_id"), of(embedding, batch, "user_favorite"))
    assert not torch.equal(of(embedding, batch, "candidate_item_id"), of(embedding, batch, "candidate_category"))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize(("column", "ids", "wrong"), [("user_age", [7, 0], 7), ("candidate_item_id", [1, -1], -1)])
def test_an_id_outside_its_vocabulary_is_an_error_that_names_the_column(embedding, batch, column, ids, wrong, gradients):
    with torch.set_grad_enabled(gradients), pytest.raises(IndexError, match=rf"column '{column}' holds id {wrong}\b"):
        embedding({**batch, column: torch.tensor(ids, dtype=torch.int32)})


def test_a_missing_column_is_an_error_that_names_it(embedding, batch):
    del batch["user_age"]
    with pytest.raises(KeyError, match="user_age"):
        embedding(batch)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_gradient_of_a_table_is_that_of_an_embedding_with_each_row_once(dtype):
    torch.manual_seed(0)
    table, rows, weight = (
        EmbeddingTable(9, 2, padding=[0, 5]),
        torch.tensor([3, 8, 3, 0, 5, 8, 1], dtype=dtype),
        torch.randn(7, 2),
    )
    torch.nn.init.normal_(table.weight)
    expected = table.weight.detach().clone().requires_grad_()
    torch.testing.assert_close(table(rows), expected[rows.long()])
    (table(rows) * weight).sum().backward()
    (expected[rows.long()] * weight).sum().backward()
    expected.grad[[0, 5]] = 0
    torch.testing.assert_close(table.weight.grad.to_dense(), expected.grad)
    assert sorted(table.weight.grad._indices()[0].tolist()) == [0, 1, 3, 5, 8]


@pytest.mark.parametrize("vocabularies", [1, 8, 60])
def test_a_backward_pass_sorts_nothing_however_many_vocabularies_there_are(vocabularies):
    """A sort makes the host wait for a GPU, which a CUDA graph cannot record."""
    torch.manual_seed(0)
    table = EmbeddingTable(60 * 20, 2, padding=range(0, vocabularies * 20, 20))
    table.draw(0.5)
    looked_up = table(torch.arange(60 * 20, dtype=torch.int32))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        looked_up.sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert any("_Lookup" in name for name in names)
    assert not [name for name in names if any(word in name for word in ("sort", "unique", "isin", "nonzero", "_local_scalar"))]
    gradient = table.weight.grad.to_dense()
    assert (gradient[range(0, vocabularies * 20, 20)] == 0).all()
    assert (gradient[1::20] != 0).all(), "padding alone has none"
