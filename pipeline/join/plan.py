"""What the workers of the join have to know."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mian.contract import History, Split
from mian.contract.document import Group
from pipeline.config import DataConfig
from pipeline.days import DAY_MICROSECONDS, ONE_DAY, Calendar, day_number, microseconds
from pipeline.join.rows import Rows
from pipeline.logs.reach import impressions_back

RawKind = Literal["text", "number", "time_gap"]

#: About so many samples of the training days show how values are spread there.
SAMPLED_ROWS = 100_000


@dataclass(frozen=True)
class RawField:
    """A field of samples before it is encoded, and how it counts for its vocabulary."""

    column: str
    group: Group
    kind: RawKind
    vocabulary: str | None
    """Whose values are counted."""
    counts_negatives: bool
    """Whether a drawn negative counts as an occurrence of its value, see :attr:`pipeline.join.rows.Rows.own_draws`."""
    log: bool
    """Whether a number is standardized after a logarithm."""


@dataclass(frozen=True)
class FitPlan:
    """From which rows vocabularies and transforms are made: impressions of some days, and what was known by their end.

    Days count from 1970-01-01; behaviors from ``first_moment`` to before ``end_moment``, microseconds, but for those of ``left_out``, the
    spans of days before these that have samples too: their impressions are not counted, and a click is to count no more than an
    impression without one.
    """

    first_day: int
    last_day: int
    first_moment: int
    end_moment: int
    left_out: tuple[tuple[int, int], ...]
    sample_rate: float


@dataclass(frozen=True)
class JoinPlan:
    """What becomes of each row of :class:`pipeline.join.rows.Rows`."""

    fields: tuple[RawField, ...]
    history: History
    calendar: Calendar
    attribution: int | None
    """Microseconds; None where the log has labels."""
    by_item: bool
    files_of: Mapping[int, int]
    """For each day that is wanted, counted from 1970-01-01, its number of files."""
    kept: Mapping[int, float]
    """For each such day the share of its negatives that is kept."""
    profile_columns: tuple[str, ...]
    places: Mapping[str, str]
    max_profile_age: int | None
    quarantine: tuple[str, ...]
    """``items``, ``users``: impressions of which nothing is known are left out."""
    samples: bool
    """Whether to make samples, or only what vocabularies are made from."""
    fit: FitPlan | None
    drawn_negatives: bool
    """Whether impressions with label 0 are drawn ones."""
    impressions_from: int
    """From which moment on impressions were read, microseconds."""
    has_users: bool
    behaviors_need_items: bool
    """Whether a field of behaviors is made of what ``items`` says."""
    lookups: int
    for_scoring: bool = False
    """Whether candidates are joined that are to be scored: those of a user and moment share a file, and keep the ids of user and item."""


def join_plan(
    config: DataConfig,
    rows: Mapping[dt.date, int],
    days: Sequence[dt.date],
    table: Rows,
    *,
    fit_days: Split | None = None,
    samples: bool = True,
    for_scoring: bool = False,
) -> JoinPlan:
    """What to do for some days.

    Args:
        config: the data set.
        rows: about how many samples each day has.
        days: those that are wanted.
        table: what is to be joined.
        fit_days: the days that vocabularies are made from; None where there are some already.
        samples: whether to make samples.
        for_scoring: see :class:`JoinPlan`.
    """
    users, log = config.users, config.log
    missing = {"items": config.items, "users": users}
    return JoinPlan(
        fields=raw_fields(config, table.own_draws),
        history=config.history_rules,
        calendar=config.calendar,
        attribution=microseconds(log.attribution) if log.clicks is not None else None,
        by_item=log.attribution_by == "user_and_item",
        files_of={day_number(day): files_of(config, rows, day) for day in days},
        kept={day_number(day): config.sampled(day) for day in days},
        profile_columns=table.profile_columns,
        places=table.places,
        max_profile_age=round(users.max_age_days * DAY_MICROSECONDS) if users is not None and users.max_age_days else None,
        quarantine=tuple(name for name, source in missing.items() if source is not None and source.missing == "quarantine"),
        samples=samples,
        fit=None if fit_days is None else _fit_plan(config, fit_days, rows),
        drawn_negatives=log.kind == "positives_only",
        impressions_from=config.calendar.start(days[0] - impressions_back(config)),
        has_users=users is not None,
        behaviors_need_items=table.behaviors_need_items,
        lookups=len(config.lookups),
        for_scoring=for_scoring,
    )


def files_of(config: DataConfig, rows: Mapping[dt.date, int], day: dt.date) -> int:
    """How many files a day's samples are spread over."""
    return max(1, -(-rows.get(day, 0) // config.rows_per_file))


def _fit_plan(config: DataConfig, days: Split, rows: Mapping[dt.date, int]) -> FitPlan:
    return FitPlan(
        first_day=day_number(days.first),
        last_day=day_number(days.last),
        first_moment=config.calendar.start(days.first) - microseconds(config.history.reach),
        end_moment=config.calendar.start(days.last + ONE_DAY),
        left_out=tuple(
            (config.calendar.start(span.first), config.calendar.start(span.last + ONE_DAY))
            for span in sampled_before(config.splits.values(), days.first)
        ),
        # the rows are those after thinning, and the sample is drawn before it
        sample_rate=min(1.0, SAMPLED_ROWS / max(1.0, sum(n / config.sampled(day) for day, n in rows.items() if day in days))),
    )


def sampled_before(splits: Iterable[Split], day: dt.date) -> list[Split]:
    """The days of splits that lie before a day, as spans."""
    return [Split(first=split.first, last=min(split.last, day - ONE_DAY)) for split in splits if split.first < day]


def raw_fields(config: DataConfig, own_draws: Collection[str]) -> tuple[RawField, ...]:
    """The fields of a data set before encoding.

    Args:
        config: the data set.
        own_draws: columns whose values a drawn negative draws anew, see :class:`pipeline.join.rows.Rows`.
    """
    kinds: dict[str, RawKind] = {"categorical": "text", "numeric": "number", "time_gap": "time_gap"}
    return tuple(
        RawField(
            column,
            group,  # type: ignore[arg-type]
            kinds[field.kind],
            (field.vocabulary or column.split("_", 1)[1]) if field.kind == "categorical" else None,
            column in own_draws,
            field.transform == "log",
        )
        for column, group, field in config.columns()
    )
