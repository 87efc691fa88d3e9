from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mian.contract import UNKNOWN_ID
from mian.experiments import Experiment, held_out


def test_an_unknown_candidate_is_not_taken_for_an_unknown_behavior(
    make_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_columns, columns = held_out.read_columns, {}

    def read_with_unknown_items(*args: Any) -> dict[str, Any]:
        columns.update({name: np.array(values) for name, values in read_columns(*args).items()})
        columns["candidate_item_id"][::7] = UNKNOWN_ID
        columns["behavior_item_id"][columns["behavior_length"] > 0, 0] = UNKNOWN_ID
        return columns

    monkeypatch.setattr(held_out, "read_columns", read_with_unknown_items)
    rows = held_out.read_held_out_rows(make_experiment())
    assert rows.seen is not None and rows.known is not None
    candidates = columns["candidate_item_id"].tolist()
    histories = [b[:length] for b, length in zip(columns["behavior_item_id"].tolist(), columns["behavior_length"], strict=True)]
    expected = [c != UNKNOWN_ID and c in history for c, history in zip(candidates, histories, strict=True)]
    assert rows.seen.tolist() == expected
    assert 0 < sum(expected) < len(expected) / 2
    assert not rows.known[::7].any() and rows.known.sum() == len(expected) - len(expected[::7])
