"""The true probabilities of a simulated world: what no model can beat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds

UPPER_BOUND = "upper bound"
"""The true probabilities of a simulated world, given all that decides a click; also what no sample holds."""
ATTAINABLE = "attainable"
"""The probabilities given the simulator's coefficients and what samples hold; shares are of its AUC."""
TRUTH_COLUMNS = {ATTAINABLE: "attainable", UPPER_BOUND: "probability"}
"""By predictor, its column beside ``impression_id`` in the table of true probabilities."""


class TruthError(ValueError):
    """The table of true probabilities does not fit the samples."""


def open_truth(path: str) -> ds.Dataset:
    """Open the table of true probabilities of a simulated world; no row is read yet.

    Args:
        path: A folder of Parquet files with ``impression_id`` and the columns of :data:`TRUTH_COLUMNS`.

    Raises:
        TruthError: there is no such folder, or it is no such table.
    """
    try:
        dataset = ds.dataset(path, format="parquet", partitioning="hive")
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise TruthError(f"{path}: no table of true probabilities: {error}") from error
    missing = [name for name in ("impression_id", *TRUTH_COLUMNS.values()) if name not in dataset.schema.names]
    if missing:
        raise TruthError(
            f"{path}: no table of true probabilities: it has no column {missing[0]}; "
            "logs of an older simulator are made again by jobs/simulate_logs.py --overwrite"
        )
    return dataset


def true_probabilities(path: str, ids: npt.NDArray[np.object_]) -> dict[str, npt.NDArray[np.float64]]:
    """The probabilities of label 1 that a simulated world knows, for each impression.

    Args:
        path: folder of Parquet files with ``impression_id`` and the columns of :data:`TRUTH_COLUMNS`.
        ids: impression ids, shape ``(N,)``.

    Returns:
        An array of shape ``(N,)`` for each predictor: :data:`ATTAINABLE` and :data:`UPPER_BOUND`.

    Raises:
        TruthError: there is no such folder, or an impression has no probability there.
    """
    wanted = ds.field("impression_id").isin(list(ids))
    table = open_truth(path).to_table(columns=["impression_id", *TRUTH_COLUMNS.values()], filter=wanted)
    known = table.to_pandas().drop_duplicates("impression_id").set_index("impression_id").reindex(ids)
    unknown = known.isna().any(axis=1).to_numpy()
    if unknown.any():
        first = ids[unknown][0]
        raise TruthError(f"{path}: {unknown.sum()} of {len(ids)} impressions have no true probability, the first {first!r}")
    return {name: known[column].to_numpy(np.float64) for name, column in TRUTH_COLUMNS.items()}
