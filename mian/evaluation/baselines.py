"""What a model must beat: popularity and logistic regression, trained on the same samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from mian.contract import PADDING_ID, Contract, ContractError, Field

#: Columns of samples by name: ``(N,)`` for single values, ``(N, T)`` for behaviors.
Columns = Mapping[str, npt.NDArray[np.generic]]


class BaselineError(ValueError):
    """A baseline cannot be fitted on these samples."""


class PopularityBaseline:
    """Scores a candidate by its clicks in the training days.

    The probability is that of scikit-learn's logistic regression with one feature, log(1 + clicks). While it is fitted, a sample's own
    click is left out of its count, or the count would give the label away.

    Args:
        contract: what the samples are.
        field: the candidate field that says what is clicked.

    Raises:
        ContractError: there is no such categorical field.
    """

    def __init__(self, contract: Contract, field: str = "item_id") -> None:
        categorical = {f.name: f for f in contract.group("candidate") if f.vocabulary is not None}
        if field not in categorical:
            raise ContractError(
                f"contract {contract.name!r} has no categorical candidate field {field!r}; it has {', '.join(categorical)}"
            )
        self._column = categorical[field].column
        self._clicks = np.zeros(contract.vocabulary(categorical[field].vocabulary or "").size, np.int64)
        self._model = LogisticRegression()

    def fit(self, columns: Columns, labels: npt.NDArray[np.generic]) -> PopularityBaseline:
        """Count clicks, and fit the map from them to probability.

        Args:
            columns: columns of N samples.
            labels: shape ``(N,)``, 0 or 1.

        Raises:
            BaselineError: they are all the same.
        """
        _check_classes(labels)
        clicked = labels.astype(np.int64)
        ids = columns[self._column].astype(np.int64)
        self._clicks = np.bincount(ids, weights=clicked, minlength=len(self._clicks)).astype(np.int64)
        self._model.fit(np.log1p(self._clicks[ids] - clicked)[:, np.newaxis], labels)
        return self

    def predict_proba(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Probability of label 1, shape ``(N,)``."""
        counts = self._clicks[columns[self._column].astype(np.int64)]
        return _positive(self._model.predict_proba(np.log1p(counts)[:, np.newaxis]))


class LogisticRegressionBaseline:
    """Logistic regression as scikit-learn has it, untuned, on what :class:`SparseFeatures` makes of a sample.

    Half a million rows of 50 values in 50,000 columns take L-BFGS, scikit-learn's default, some 550 to 1,200 iterations to converge.
    Stopped long before, it would be a little better on other days, as any model is that stops early; but what it gave would then
    depend on where it stopped.

    Args:
        contract: what the samples are.
        max_iter: iterations at most; scikit-learn's own 100 would stop it early.
    """

    def __init__(self, contract: Contract, max_iter: int = 5000) -> None:
        self._features = SparseFeatures(contract)
        self._model = LogisticRegression(max_iter=max_iter)

    def fit(self, columns: Columns, labels: npt.NDArray[np.generic]) -> LogisticRegressionBaseline:
        """Fit the weights.

        Args:
            columns: columns of N samples.
            labels: shape ``(N,)``, 0 or 1.

        Raises:
            BaselineError: they are all the same.
        """
        _check_classes(labels)
        self._model.fit(self._features.matrix(columns), labels)
        return self

    def predict_proba(self, columns: Columns) -> npt.NDArray[np.float64]:
        """Probability of label 1, shape ``(N,)``."""
        return _positive(self._model.predict_proba(self._features.matrix(columns)))


class SparseFeatures:
    """Samples as the rows of a sparse matrix.

    A candidate, user or context field is one-hot where categorical, one column where numeric. The history is a bag: each
    categorical behavior field has a column an id that counts how often the id occurs, each numeric one a column with its sum.

    Args:
        contract: what the samples are.
    """

    def __init__(self, contract: Contract) -> None:
        self._fields = contract.fields
        widths = [contract.vocabulary(f.vocabulary).size if f.vocabulary is not None else 1 for f in contract.fields]
        self._offsets = np.cumsum([0, *widths])

    @property
    def width(self) -> int:
        """How many columns the matrix has."""
        return int(self._offsets[-1])

    def matrix(self, columns: Columns) -> csr_matrix:
        """The matrix of N samples, shape ``(N, width)``, float32; an id that occurs twice in a history is stored twice."""
        blocks = [
            self._entries(f, columns[f.column], int(offset)) for f, offset in zip(self._fields, self._offsets, strict=False)
        ]
        indices = np.hstack([block[0] for block in blocks])  # (N, S), with S the number of values of a sample, padding included
        values = np.hstack([block[1] for block in blocks])
        kept = values != 0
        row_ends = np.cumsum(kept.sum(axis=1))
        return csr_matrix((values[kept], indices[kept], np.append(0, row_ends)), shape=(len(indices), self.width))

    @staticmethod
    def _entries(
        field: Field, column: npt.NDArray[np.generic], offset: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Column indices and values, both of shape ``(N, 1)`` or ``(N, T)``; where the value is 0 there is nothing."""
        column = column.reshape(len(column), -1)
        if not field.is_categorical:
            return np.full(column.shape, offset, np.int32), column.astype(np.float32)
        ids = column.astype(np.int32)
        return ids + np.int32(offset), (ids != PADDING_ID).astype(np.float32)


def _check_classes(labels: npt.NDArray[np.generic]) -> None:
    present = np.unique(labels).tolist()
    if len(present) < 2:
        raise BaselineError(
            f"a baseline learns from both labels, and all {len(labels):,} rows have {present[0] if present else 'none'}"
        )


def _positive(probabilities: npt.NDArray[np.floating[npt.NBitBase]]) -> npt.NDArray[np.float64]:
    return probabilities[:, 1].astype(np.float64)
