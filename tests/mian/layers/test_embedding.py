import pytest
import torch

from mian.layers import FieldEmbedding, initialize
from tests.mian.models.contracts import CONTRACTS, SIZES


@pytest.fixture
def embedding():
    torch.manual_seed(0)
    layer = FieldEmbedding(CONTRACTS["all groups"], 4, sparse=True)
    initialize(layer, 0.5)
    return layer


@pytest.fixture
def batch():
    ids = {f.column: torch.tensor([2, 0], dtype=torch.int32) for f in CONTRACTS["all groups"].fields if f.is_categorical}
    numbers = {f.column: torch.tensor([1.5, 0.0]) for f in CONTRACTS["all groups"].fields if not f.is_categorical}
    behaviors = {name: column[:, None].expand(2, 3) for name, column in (ids | numbers).items() if name.startswith("behavior_")}
    return ids | numbers | behaviors


def test_every_field_is_embedded_at_one_width(embedding, batch):
    embedded = embedding(batch)
    assert set(embedded) == {field.column for field in CONTRACTS["all groups"].fields}
    for column, vectors in embedded.items():
        assert vectors.shape == ((2, 3, 4) if column.startswith("behavior_") else (2, 4))


def test_padding_is_a_zero_vector_and_so_is_the_number_0(embedding, batch):
    for vectors in embedding(batch).values():
        assert (vectors[1] == 0).all()
        assert (vectors[0] != 0).all()


def test_a_number_is_times_a_vector_of_its_field(embedding, batch):
    one = embedding({**batch, "user_tenure": torch.tensor([1.0, -2.0])})["user_tenure"]
    torch.testing.assert_close(one[1], -2 * one[0])
    assert not torch.equal(embedding(batch)["user_tenure"], embedding(batch)["candidate_price"])


def test_tables_are_as_long_as_their_vocabularies_and_shared_by_their_fields(embedding, batch):
    assert {name: len(table.weight) for name, table in zip(embedding.columns_of, embedding.tables, strict=True)} == SIZES
    assert embedding.columns_of["items"] == ["candidate_item_id", "behavior_item_id", "user_favorite"]
    embedded = embedding(batch)
    assert torch.equal(embedded["candidate_item_id"], embedded["user_favorite"])


def test_an_id_outside_its_vocabulary_is_an_error(embedding, batch):
    with pytest.raises(IndexError):
        embedding({**batch, "user_age": torch.tensor([7, 0], dtype=torch.int32)})


def test_a_missing_column_is_an_error_that_names_it(embedding, batch):
    del batch["user_age"]
    with pytest.raises(KeyError, match="user_age"):
        embedding(batch)
