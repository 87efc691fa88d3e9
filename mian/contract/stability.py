"""How far two distributions over the same bins lie from each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

#: A share below this counts as this, or a bin that was empty once would make the index infinite.
SMALLEST_SHARE = 1e-4


def stability_index(expected: Sequence[float], actual: Sequence[float]) -> float:
    """The population stability index, sum of ``(a - e) ln(a / e)`` over bins; each share counts as at least :data:`SMALLEST_SHARE`.

    Commonly below 0.1 is called stable, above 0.25 a shift. 0 where either has no rows at all. Bins that one lacks are empty: a
    vocabulary that was extended may have more of them than when the other was counted.
    """
    if not sum(expected) or not sum(actual):
        return 0.0
    pairs = [(max(e, SMALLEST_SHARE), max(a, SMALLEST_SHARE)) for e, a in itertools.zip_longest(expected, actual, fillvalue=0.0)]
    return round(sum((a - e) * math.log(a / e) for e, a in pairs), 6)
