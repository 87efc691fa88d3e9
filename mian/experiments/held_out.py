"""What the chosen models of an experiment say of the test split, and what its rows are."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mian.atomic_write import write_atomically
from mian.contract import Contract
from mian.contract.document import LABEL_COLUMN, LENGTH_COLUMN, USER_COLUMN
from mian.contract.encoder import FIRST_ID
from mian.evaluation.offline import score_split
from mian.evaluation.split_columns import impression_ids, read_columns
from mian.evaluation.truth import true_probabilities
from mian.experiments.trials import Experiment, ExperimentError, Trial
from mian.metrics import evaluate
from mian.serving import load_servable

log = logging.getLogger(__name__)

SCORES = "test.npy"
SPLIT = "test"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class HeldOutRows:
    """The rows of the test split, in the contract's order.

    Attributes:
        labels: 0 or 1, shape ``(N,)``.
        users: their keys.
        lengths: how many behaviors each has; None where the contract has no behaviors.
        seen: whether the candidate is among them; None where candidate and behaviors share no vocabulary.
        known: whether the vocabulary has the candidate, so that it can be seen; None as ``seen`` is.
        gaps: seconds since the latest behavior, rounded down to a bucket's edge, NaN where there is none; None where no field tells.
        truth: the probabilities that a simulated world knows, by predictor, see :func:`mian.evaluation.truth.true_probabilities`.
    """

    labels: npt.NDArray[np.int32]
    users: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32] | None
    seen: npt.NDArray[np.bool_] | None
    known: npt.NDArray[np.bool_] | None
    gaps: Floats | None
    truth: dict[str, Floats] | None


def read_held_out_rows(experiment: Experiment) -> HeldOutRows:
    """Read what slices are made of.

    Raises:
        ContractError: there is no test split.
        StreamError: samples cannot be read.
        TruthError: the true probabilities are not there.
    """
    contract, samples = experiment.contract, experiment.config.samples
    columns = read_columns(contract, samples, SPLIT)
    truth = None
    if experiment.config.truth is not None:
        truth = true_probabilities(experiment.config.truth, impression_ids(contract, samples, SPLIT))
    lengths = columns.get(LENGTH_COLUMN)
    items = _item_columns(contract)
    seen = known = None
    if items is not None and lengths is not None:
        candidate, behaviors = (columns[name] for name in items)
        known = np.asarray(candidate, np.int64) >= FIRST_ID
        seen = np.asarray((behaviors == candidate[:, None]).any(axis=1)) & known
    return HeldOutRows(
        np.asarray(columns[LABEL_COLUMN], np.int32),
        np.asarray(columns[USER_COLUMN], np.int64),
        None if lengths is None else np.asarray(lengths, np.int32),
        seen,
        known,
        _gaps(contract, columns, lengths),
        truth,
    )


def _item_columns(contract: Contract) -> tuple[str, str] | None:
    """The candidate's and the behaviors' column of the largest vocabulary that they share: the item's."""
    pairs = [
        (contract.vocabulary(candidate.vocabulary).size, candidate.column, behavior.column)
        for candidate in contract.group("candidate")
        for behavior in contract.group("behaviors")
        if candidate.vocabulary is not None and candidate.vocabulary == behavior.vocabulary
    ]
    return max(pairs)[1:] if pairs else None


def _gaps(contract: Contract, columns: dict[str, Any], lengths: Any) -> Floats | None:
    fields = [field for field in contract.group("behaviors") if field.kind == "time_gap" and field.vocabulary is not None]
    if not fields or lengths is None:
        return None
    edges = contract.vocabulary(str(fields[0].vocabulary)).edges or ()
    newest = np.asarray(columns[fields[0].column][:, 0], np.int64) - FIRST_ID  # how many edges are not greater
    return np.where(lengths > 0, np.array([0.0, *edges])[np.maximum(newest, 0)], np.nan)


def scores(experiment: Experiment, trial: Trial) -> npt.NDArray[np.float32]:
    """The probabilities that a trained model gives to the test split; kept in a file of the trial's folder once they are computed.

    Args:
        experiment: The experiment, with the contract and the folder of its samples.
        trial: The training whose model scores the split.

    Returns:
        Probabilities of label 1, float32 ``(N,)``, in the order of :class:`HeldOutRows`.

    Raises:
        ContractError: The model was trained on other fields or vocabularies, or there is no test split.
        ExperimentError: the file that keeps them is damaged.
        ServableError: the model is not there, or is damaged.
        StreamError: Samples cannot be read.
    """
    path = trial.folder / SCORES
    if not path.exists():
        log.info("%s seed=%d: scoring the test split", trial.variant, trial.seed)
        found = score_split(load_servable(trial.model), experiment.contract, experiment.config.samples, SPLIT)
        content = io.BytesIO()
        np.save(content, found.probabilities, allow_pickle=False)
        write_atomically(path, content.getvalue())
    try:
        kept: npt.NDArray[np.float32] = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise ExperimentError(f"{path} is damaged ({error}); delete it, and the split is scored again") from error
    return kept


def test_metrics(rows: HeldOutRows, probabilities: npt.ArrayLike) -> dict[str, float]:
    """Compute the metrics of :func:`mian.metrics.evaluate` over the test split.

    Args:
        rows: The N rows of the split.
        probabilities: Of label 1, shape ``(N,)``.

    Returns:
        By name, ``auc``, ``logloss`` (nats), ``gauc`` and ``calibration``, and the counts ``rows`` and ``positives``. A metric that is
        undefined for these rows is NaN.

    Raises:
        MetricError: A probability is NaN or outside [0, 1], or there are not N of them.
    """
    return evaluate(rows.labels, np.asarray(probabilities), rows.users)
