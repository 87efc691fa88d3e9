"""A trained model on a split of samples, beside what it has to beat and beside the best that is possible."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from sklearn.isotonic import IsotonicRegression

from mian.contract import UNKNOWN_ID, Contract, ContractError, vocabulary_values
from mian.contract.document import LABEL_COLUMN
from mian.evaluation.baselines import BaselineError, LogisticRegressionBaseline, PopularityBaseline
from mian.evaluation.scoring import Scores, scores
from mian.evaluation.split_columns import impression_ids, ordered_stream, read_columns
from mian.evaluation.truth import ATTAINABLE, true_probabilities
from mian.metrics import evaluate
from mian.models import ClickModel
from mian.scoring.stand_ins import Position, position_stand_ins
from mian.serving import Servable, ServableError, read_vocabularies
from mian.stream import SampleStream
from mian.stream.schema import Tensors

MODEL = "model"
"""What a table calls the model that is evaluated."""
ISOTONIC = "isotonic"
"""What a table calls the model's scores after an isotonic regression."""
DISTINCT = "distinct_scores"
"""The column of a table that has the number of distinct probabilities."""
_DIGITS = {"auc": 5, "logloss": 5, "gauc": 5, "calibration": 4, "rows": 0, "positives": 0, "share": 4, DISTINCT: 0}
FORMATS = {name: f"{{:,.{digits}f}}".format for name, digits in _DIGITS.items()}
"""By metric, what shows a value of it."""
BaselineName = Literal["logistic_regression", "popularity"]


@dataclass(frozen=True)
class SplitEvaluation:
    """A model's scores of a split of N rows, and its metrics beside those of others.

    Attributes:
        contract: What the samples are.
        samples: Their folder.
        split: Which of their splits.
        ids: Impression ids, shape ``(N,)``.
        scored: Labels, the model's probabilities, and users, in the same order.
        table: Metrics, see :func:`compare`.
        isotonic: The probabilities of :func:`isotonic_scores`, ``(N,)``; None where they were not asked for.
        isotonic_split: The split that they are fitted on.
    """

    contract: Contract
    samples: str
    split: str
    ids: npt.NDArray[np.object_]
    scored: Scores
    table: pd.DataFrame
    isotonic: npt.NDArray[np.float64] | None = None
    isotonic_split: str | None = None


def evaluate_offline(
    servable: Servable,
    contract: Contract,
    samples: str,
    split: str,
    baselines: Iterable[BaselineName],
    train: str,
    truth: str | None,
    position: Position = "logged",
    isotonic_split: str | None = None,
) -> SplitEvaluation:
    """Score a split with a model, and with what it is held against.

    Args:
        servable: The model.
        contract: The contract of the samples.
        samples: The folder of the samples.
        split: What is scored.
        baselines: What to fit.
        train: The split that they are fitted on.
        truth: See :func:`mian.evaluation.truth.true_probabilities`; None where the true probabilities are not known.
        position: See :func:`score_split`.
        isotonic_split: The split to fit an isotonic regression on, see :func:`isotonic_scores`; None for none.

    Raises:
        ContractError, StreamError: See :func:`score_split`.
        BaselineError, TruthError: See :func:`baseline_scores` and :func:`mian.evaluation.truth.true_probabilities`.
    """
    scored = score_split(servable, contract, samples, split, position)
    others: dict[str, npt.NDArray[np.float64]] = {}
    isotonic = None
    if isotonic_split is not None:
        isotonic = isotonic_scores(score_split(servable, contract, samples, isotonic_split, position), scored.probabilities)
        others[ISOTONIC] = isotonic
    others |= {name: baseline_scores(name, contract, samples, train, split) for name in baselines}
    ids = impression_ids(contract, samples, split)
    if truth is not None:
        others |= true_probabilities(truth, ids)
    table = compare(scored, others)
    return SplitEvaluation(contract, samples, split, ids, scored, table, isotonic, isotonic_split)


def isotonic_scores(fitted_on: Scores, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The probabilities that an isotonic regression makes of a model's (Zadrozny and Elkan 2002), as scikit-learn has it.

    It is for reports alone, and in no model: it makes many scores equal, and so loses their order.

    Args:
        fitted_on: The model's scores of another split, with labels.
        probabilities: The model's scores of the split that is evaluated, ``(N,)``.

    Returns:
        Probabilities, ``(N,)``.
    """
    regression = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    regression.fit(fitted_on.probabilities.astype(np.float64), fitted_on.labels.astype(np.float64))
    found: npt.NDArray[np.float64] = regression.predict(probabilities.astype(np.float64))
    return found


def score_split(servable: Servable, contract: Contract, samples: str, split: str, position: Position = "logged") -> Scores:
    """Score a split in the order of the contract's files and their rows.

    The samples' vocabularies may have been extended since the model was trained. The model scores the values that it does not know as
    unknown ones, as it does when it is served.

    Args:
        servable: The model.
        contract: The contract of the samples.
        samples: The folder of the samples; a local path or any URL that fsspec opens.
        split: The split to score, of N rows.
        position: ``logged``: all fields are those of the samples. ``serving``: fields that are known only after ranking are what the
            model reads where a request leaves them out, see :func:`mian.scoring.stand_ins.serving_stand_ins`.

    Returns:
        Labels, probabilities and users, each ``(N,)``.

    Raises:
        ContractError: the model was trained on other fields or vocabularies, there is no such split, or its negatives were thinned; or it
            has no such stand-ins.
        StreamError: samples cannot be read.
    """
    contract.check_unthinned(split)
    sizes = known_sizes(servable, contract, samples)
    stand_ins = position_stand_ins(servable.stand_ins, position)
    return score(servable.model, ordered_stream(contract, samples, split), sizes, stand_ins)


def known_sizes(servable: Servable, contract: Contract, samples: str) -> dict[str, int]:
    """See that a model fits samples, whose vocabularies may have been extended since it was trained.

    Args:
        servable: The model.
        contract: The contract of the samples.
        samples: The folder of the samples.

    Returns:
        By column whose vocabulary was extended, how many ids the model knows.

    Raises:
        ContractError: The model was trained on other fields or vocabularies.
    """
    extended = extended_vocabularies(servable.contract, servable.vocabularies, contract, samples)
    known = tuple(servable.contract.vocabulary(v.name) if v.name in extended else v for v in contract.vocabularies)
    differences = list(servable.contract.differences(contract.model_copy(update={"vocabularies": known})))
    if differences:
        raise ContractError(
            f"the model was not trained on what {samples} holds: {'; '.join(differences[:5])}; "
            "train on these samples, or evaluate on those it was trained on"
        )
    return {
        field.column: servable.contract.vocabulary(field.vocabulary).size
        for field in contract.fields
        if field.vocabulary is not None and field.vocabulary in extended
    }


def extended_vocabularies(own: Contract, values_of: Mapping[str, pa.Array], contract: Contract, samples: str) -> set[str]:
    """Find the vocabularies of samples that begin with all values of the model's vocabulary of that name, and have more behind them.

    Args:
        own: The contract that the model was trained on.
        values_of: By name of the vocabulary, the model's values in the order of their ids, as far as they are known.
        contract: The contract of the samples.
        samples: The folder of the samples.

    Returns:
        Names of vocabularies. One whose file is missing or damaged is not among them.
    """
    mine = {v.name: v.sha256 for v in own.vocabularies}
    others = tuple(v for v in contract.vocabularies if v.kind == "table" and v.sha256 != mine.get(v.name))
    found = set()
    for vocabulary in others:
        with contextlib.suppress(ServableError):  # one that is not there has other contents
            contents = read_vocabularies(contract.model_copy(update={"vocabularies": (vocabulary,)}), samples)
            values = vocabulary_values(io.BytesIO(contents[vocabulary.name]))
            known = values_of.get(vocabulary.name)
            if known is not None and values.slice(0, len(known)).equals(known):
                found.add(vocabulary.name)
    return found


def score(
    model: ClickModel,
    stream: SampleStream,
    sizes: Mapping[str, int] | None = None,
    stand_ins: Mapping[str, int | float] | None = None,
) -> Scores:
    """Score all rows of a stream and keep the result in memory.

    Args:
        model: The model.
        stream: The split, of N rows.
        sizes: By column, how many ids the model knows; larger ids are replaced by that of an unknown value. Columns that are not named
            are taken as they are.
        stand_ins: By column, what is read in the place of all its values.

    Returns:
        Labels, probabilities and users, each ``(N,)``, in the order of the stream.

    Raises:
        StreamError: Samples cannot be read.
    """

    def known(batch: Tensors) -> Tensors:
        changed = {name: batch[name].masked_fill(batch[name] >= size, UNKNOWN_ID) for name, size in (sizes or {}).items()}
        replaced = {name: torch.full_like(batch[name], value) for name, value in (stand_ins or {}).items()}
        return {**batch, **changed, **replaced}

    # copies: as views, they would keep the whole samples in memory
    batches = [[column.copy() for column in batch] for batch in scores(model, stream, change=known)]
    return Scores(*map(np.concatenate, zip(*batches, strict=True)))


def baseline_scores(name: BaselineName, contract: Contract, samples: str, train: str, split: str) -> npt.NDArray[np.float64]:
    """Fit a baseline on the training split and score another split with it.

    Args:
        name: Which baseline.
        contract: The contract of the samples.
        samples: The folder of the samples; a local path or any URL that fsspec opens.
        train: The split to fit on.
        split: The split to score, of N rows.

    Returns:
        Probabilities of label 1, ``(N,)``, in the order of :func:`score_split`.

    Raises:
        BaselineError: All rows of the training split have one label.
        ContractError: The samples lack a field that the baseline needs; or see :func:`read_columns`.
        StreamError: Samples cannot be read.
    """
    baseline = PopularityBaseline(contract) if name == "popularity" else LogisticRegressionBaseline(contract)
    columns = read_columns(contract, samples, train)
    try:
        baseline.fit(columns, columns[LABEL_COLUMN])
    except BaselineError as error:
        raise BaselineError(f"{name}, fitted on split {train!r} of {samples}: {error}; name a split that has both") from error
    return baseline.predict_proba(read_columns(contract, samples, split))


def compare(scored: Scores, others: Mapping[str, npt.NDArray[np.float64]]) -> pd.DataFrame:
    """Metrics of several probabilities for the same rows.

    Args:
        scored: labels and users of the rows, and the model's probabilities.
        others: probabilities by name; :data:`ATTAINABLE` among them where they are known.

    Returns:
        One row for each name, :data:`MODEL` first, with the metrics of :func:`mian.metrics.evaluate`. If ``others`` has
        :data:`ATTAINABLE`, the column ``share`` is ``(AUC - 0.5) / (AUC of ATTAINABLE - 0.5)``, and NaN where that AUC is not above 0.5.
        If it has :data:`ISOTONIC`, the column :data:`DISTINCT` is the number of distinct probabilities.

    Raises:
        MetricError: A probability is NaN or outside [0, 1], or the arrays differ in length.
    """
    everything: dict[str, npt.ArrayLike] = {MODEL: scored.probabilities, **others}
    table = pd.DataFrame({name: evaluate(scored.labels, p, scored.users) for name, p in everything.items()}).T
    if ATTAINABLE in table.index:
        ceiling = table.loc[ATTAINABLE, "auc"] - 0.5
        table["share"] = (table["auc"] - 0.5) / ceiling if ceiling > 0 else math.nan
    if ISOTONIC in table.index:
        table[DISTINCT] = [float(len(np.unique(np.asarray(p)))) for p in everything.values()]
    return table


def metric_texts(table: pd.DataFrame) -> pd.DataFrame:
    """Format the table of :func:`compare` for people: as text, each metric with the number of digits in :data:`FORMATS`."""
    return table.apply(lambda column: column.map(FORMATS[column.name], na_action="ignore").fillna("NaN"))
