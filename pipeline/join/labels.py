"""Labels: which impressions were clicked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pipeline.join.timelines import BoolArray, IntArray, Timelines


def clicked_by_id(ids: IntArray, times: IntArray, click_ids: IntArray, click_times: IntArray, window: int) -> BoolArray:
    """Whether a click of the impression's id came at its time or less than ``window`` after it.

    Args:
        ids: of the impressions, shape ``(N,)``: numbers that are equal where user and impression id are.
        times: of the impressions, shape ``(N,)``, microseconds.
        click_ids: the same of the clicks, shape ``(M,)``.
        click_times: shape ``(M,)``.
        window: microseconds.
    """
    clicks = Timelines(click_ids, click_times)
    return clicks.before(ids, times + window) > clicks.before(ids, times)


def clicked_last(
    items: IntArray,
    times: IntArray,
    ties: Callable[[IntArray], IntArray],
    click_items: IntArray,
    click_times: IntArray,
    window: int,
) -> BoolArray:
    """Whether a click belongs to the impression.

    Each click belongs to one: the latest of its user and item at or before it, if that is less than ``window`` ago.

    Args:
        items: of the impressions, shape ``(N,)``: numbers that are equal where user and item are.
        times: of the impressions, shape ``(N,)``, microseconds.
        ties: numbers for some of the impressions that order those of one user, item and time; the greatest is the latest.
        click_items: the same of the clicks, shape ``(M,)``.
        click_times: shape ``(M,)``.
        window: microseconds.
    """
    shown = Timelines(items, times, ties)
    place = shown.before(click_items, click_times, at=True)
    there = place > shown.start(click_items)
    latest = shown.order[place[there] - 1]
    clicked = np.zeros(len(items), np.bool_)
    clicked[latest[click_times[there] < times[latest] + window]] = True
    return clicked
