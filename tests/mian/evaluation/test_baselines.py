import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mian.contract import Contract, ContractError
from mian.evaluation.baselines import LogisticRegressionBaseline, PopularityBaseline, SparseFeatures
from mian.metrics import auc
from tests.factories import categorical, make_contract, numeric


@pytest.fixture
def contract() -> Contract:
    """Two vocabularies: three items and two cities."""
    return make_contract(
        categorical("candidate", "item_id", "item"),
        numeric("candidate", "price"),
        categorical("behaviors", "item_id", "item"),
        numeric("behaviors", "gap"),
        categorical("user", "city", "city"),
        vocabularies={"item": 5, "city": 4},
        length=3,
    )


def random_columns(rows: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 4, rows)
    real = np.arange(3) < lengths[:, np.newaxis]
    return {
        "candidate_item_id": random.integers(1, 5, rows, np.int32),
        "candidate_price": random.normal(size=rows).astype(np.float32),
        "behavior_item_id": np.where(real, random.integers(1, 5, (rows, 3)), 0).astype(np.int32),
        "behavior_gap": np.where(real, random.normal(size=(rows, 3)), 0).astype(np.float32),
        "behavior_length": lengths.astype(np.int32),
        "user_city": random.integers(1, 4, rows, np.int32),
    }


def test_the_matrix_is_one_hot_fields_and_a_bag_of_behaviors(contract: Contract) -> None:
    columns = {
        "candidate_item_id": np.array([2, 4], np.int32),
        "candidate_price": np.array([0.5, -1], np.float32),
        "behavior_item_id": np.array([[3, 1, 3], [0, 0, 0]], np.int32),
        "behavior_gap": np.array([[1, 2, 4], [0, 0, 0]], np.float32),
        "behavior_length": np.array([3, 0], np.int32),
        "user_city": np.array([1, 3], np.int32),
    }
    matrix = SparseFeatures(contract).matrix(columns)
    assert matrix.toarray().tolist() == [
        # candidate item        price  behavior items          gaps  city
        [*(0, 0, 1, 0, 0), *(0.5,), *(0, 1, 0, 2, 0), *(7,), *(0, 1, 0, 0)],
        [*(0, 0, 0, 0, 1), *(-1.0,), *(0, 0, 0, 0, 0), *(0,), *(0, 0, 0, 1)],
    ]
    assert matrix.dtype == np.float32


def test_logistic_regression_is_scikit_learn_s_on_the_dense_matrix(contract: Contract) -> None:
    train, test = random_columns(2_000, seed=0), random_columns(500, seed=1)
    labels = train["candidate_item_id"] + train["candidate_price"] + (train["behavior_item_id"] == 3).sum(axis=1) > 4
    features = SparseFeatures(contract)
    dense = LogisticRegression(max_iter=1000).fit(features.matrix(train).toarray().astype(np.float64), labels)

    got = LogisticRegressionBaseline(contract).fit(train, labels).predict_proba(test)
    assert got.shape == (500,)
    assert got.dtype == np.float64
    assert got == pytest.approx(dense.predict_proba(features.matrix(test).toarray())[:, 1], abs=1e-3)


def test_logistic_regression_learns_from_the_history(contract: Contract) -> None:
    train, test = random_columns(4_000, seed=0), random_columns(1_000, seed=1)
    clicked, held_out = ((c["behavior_item_id"] == 2).any(axis=1).astype(np.int32) for c in (train, test))
    assert auc(held_out, LogisticRegressionBaseline(contract).fit(train, clicked).predict_proba(test)) > 0.95


def test_popularity_ranks_by_clicks_in_the_training_rows(contract: Contract) -> None:
    train = random_columns(2_000, seed=0)
    labels = np.random.default_rng(0).random(2_000) < np.array([0, 0.05, 0.5, 0.3, 0.1])[train["candidate_item_id"]]
    model = PopularityBaseline(contract).fit(train, labels)
    unknown, a, b, c = model.predict_proba({"candidate_item_id": np.array([1, 2, 3, 4], np.int32)})
    assert 0 < unknown < c < b < a < 1
    assert model.predict_proba(train).mean() == pytest.approx(labels.mean(), abs=1e-3)


def test_popularity_is_not_fitted_on_a_sample_s_own_click(contract: Contract) -> None:
    """Every candidate has one sample: its count would be its label, and says nothing of the other rows."""
    ids = np.array([1, 2, 3, 4], np.int32)
    model = PopularityBaseline(contract).fit({"candidate_item_id": ids}, np.array([0, 0, 1, 1]))
    assert model.predict_proba({"candidate_item_id": ids}) == pytest.approx(0.5)


def test_popularity_of_a_field_that_is_not_there_is_refused(contract: Contract) -> None:
    with pytest.raises(ContractError, match="no categorical candidate field 'price'; it has item_id"):
        PopularityBaseline(contract, "price")
