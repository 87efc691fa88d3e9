from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.join.occurrences import Occurrences

#: Rows of a table: two impressions of user 0, one of user 1, then behaviors of users 0, 0, 1 and 2.
USERS = np.array([0, 0, 1, 0, 0, 1, 2])
SHOWN, DONE = np.array([0, 1, 2]), np.array([3, 4, 5, 6])


def column(*values: str | None) -> tuple[np.ndarray, pa.Array]:  # type: ignore[type-arg]
    encoded = pa.array(values, pa.string()).dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), encoded.dictionary


def counts(made: Occurrences) -> dict[str, int]:
    table = made.counts()
    return dict(zip(table["value"].to_pylist(), table["count"].to_pylist(), strict=True))


def test_an_impression_counts_once_whether_it_was_clicked_or_not() -> None:
    made = Occurrences()
    made.add(column("a", "a", "b"), SHOWN, USERS[SHOWN], SHOWN)
    without = counts(made)
    made.add(column(*[None] * 3, "a", "a", "b", None), DONE, USERS[DONE], None)
    assert counts(made) == without == {"a": 2, "b": 1}


def test_a_behavior_without_an_impression_of_its_value_counts_once_a_user() -> None:
    made = Occurrences()
    made.add(column("a", "a", "b"), SHOWN, USERS[SHOWN], SHOWN)
    made.add(column(*[None] * 3, "c", "c", "c", "a"), DONE, USERS[DONE], None)
    assert counts(made) == {"a": 3, "b": 1, "c": 2}


def test_an_impression_with_a_value_in_two_fields_counts_once() -> None:
    made = Occurrences()
    made.add(column("a", "b", "b"), SHOWN, USERS[SHOWN], SHOWN)
    made.add(column("a", "a", None), SHOWN, USERS[SHOWN], SHOWN)
    assert counts(made) == {"a": 2, "b": 2}


def test_what_is_not_known_is_no_value() -> None:
    made = Occurrences()
    assert counts(made) == {}
    made.add(column("a"), np.array([-1, 0]), np.array([0, 1]), np.array([0, 1]))
    made.add(column(), np.array([-1, -1]), np.array([0, 1]), None)
    assert counts(made) == {"a": 1}
