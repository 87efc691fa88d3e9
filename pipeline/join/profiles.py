"""What was known of a user at the time of an impression; the same rule that :mod:`pipeline.logs.attributes` gives to Spark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import IntArray
from pipeline.timelines import Timelines

#: Before and after all times.
ALWAYS, NEVER = -(1 << 62), 1 << 62


def find_profiles(
    users: IntArray, times: IntArray, profile_users: IntArray, profiles: pa.Table, attributes: Sequence[str], max_age: int | None
) -> IntArray:
    """For each impression the row of its user's profile, -1 where nothing is known.

    Of the rows with ``valid_from < time`` and ``arrived < time`` the one with the greatest ``valid_from`` (then the latest ``arrived``,
    then the greatest attributes, then the greatest ``valid_to``, null being the least) counts, if ``time < valid_to`` and it is not
    older than ``max_age``.

    Example, for one user and a ``max_age`` of 50:

    ===== ========== ======== ======= ======================================
    row   valid_from valid_to arrived counts for impressions at
    ===== ========== ======== ======= ======================================
    0     10                  10      11 to 20
    1     20         34       20      21 to 33
    2     30                  35      36 to 60
    3     30                  60      61 to 80
    4     90                  90      91 to 140
    ===== ========== ======== ======= ======================================

    At 20 row 1 is not known yet: events of one moment have no order. At 34 and 35 nothing is known: row 1 has ended, row 2 has not
    arrived, and row 0 does not come back. Row 3 replaces row 2 as the later arrival. From 81 to 90 row 3 is too old.

    Args:
        users: the impressions' users, shape ``(N,)``.
        times: the impressions' times, shape ``(N,)``, microseconds.
        profile_users: the profiles' users, shape ``(M,)``.
        profiles: M rows; ``valid_from``, ``valid_to``, ``arrived`` (microseconds) where the log has them, and the attributes.
        attributes: columns that order rows of one ``valid_from``.
        max_age: microseconds.
    """
    begin, end = _moment(profiles, "valid_from", ALWAYS), _moment(profiles, "valid_to", NEVER)
    arrived = _moment(profiles, "arrived", ALWAYS)
    effective = np.maximum(begin, arrived)
    last = ["valid_to"] if "valid_to" in profiles.column_names else []
    keys = pa.table(
        {"_user": profile_users, "_from": begin, "_arrived": arrived, **{c: profiles.column(c) for c in [*attributes, *last]}}
    )
    by = [(name, "ascending") for name in keys.column_names]
    ranked: IntArray = pc.sort_indices(keys, sort_keys=by, null_placement="at_start").to_numpy().astype(np.int64)
    rank = np.empty(len(ranked), np.int64)
    rank[ranked] = np.arange(len(ranked))
    timelines = Timelines(profile_users, effective)
    # ranks rise with the user, so that the best row so far never is an earlier user's
    best = np.maximum.accumulate(rank[timelines.order])
    place = timelines.before(users, times)
    known = place > timelines.start(users)
    row = np.full(len(users), -1, np.int64)
    row[known] = ranked[best[place[known] - 1]]
    counts = known & (times < end[row] if len(end) else known)
    if max_age is not None:
        counts &= times <= begin[row] + max_age if len(begin) else known
    return np.where(counts, row, -1)


def _moment(profiles: pa.Table, name: str, missing: int) -> IntArray:
    if name not in profiles.column_names:
        return np.full(profiles.num_rows, missing, np.int64)
    values: IntArray = pc.fill_null(profiles.column(name), missing).to_numpy()
    return values
