"""Labels: which impressions were clicked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import BoolArray, IntArray
from pipeline.timelines import Timelines


@dataclass(frozen=True)
class Clicked:
    """What was found of N impressions and M clicks.

    ``labels``: whether a click belongs to the impression, shape ``(N,)``. ``matched``: whether the click has an impression at or before
    it, ``early``: whether it only has later ones, both of shape ``(M,)``.
    """

    labels: BoolArray
    matched: BoolArray
    early: BoolArray


def find_clicked(
    keys: IntArray,
    times: IntArray,
    ties: Callable[[IntArray], IntArray],
    click_keys: IntArray,
    click_times: IntArray,
    window: int,
) -> Clicked:
    """Bring clicks to their impressions.

    Each click belongs to one: the latest of its key at or before it, if that is less than ``window`` ago.

    Args:
        keys: of the impressions, shape ``(N,)``: numbers that are equal where user and impression id, or user and item, are.
        times: of the impressions, shape ``(N,)``, microseconds.
        ties: numbers for some of the impressions that order those of one key and time; the greatest is the latest.
        click_keys: the same of the clicks, shape ``(M,)``.
        click_times: shape ``(M,)``.
        window: microseconds.
    """
    deliveries = Timelines(keys, times, ties)
    place = deliveries.before(click_keys, click_times, at=True)
    matched = place > deliveries.start(click_keys)
    early = ~matched & (deliveries.start(click_keys + 1) > place)
    latest = deliveries.order[place[matched] - 1]
    labels = np.zeros(len(keys), np.bool_)
    labels[latest[click_times[matched] < times[latest] + window]] = True
    return Clicked(labels, matched, early)
