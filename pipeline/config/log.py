"""What was shown, what was clicked, what else was done."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from pipeline.config.sources import LONGEST_HOURS, RECORDED, Source, Strict

LogKind = Literal["impressions_and_clicks", "labeled", "positives_only"]


class Negatives(Strict):
    """How many negatives are drawn for a positive, among the items with an event in the ``window_hours`` before it."""

    uniform: int = Field(0, ge=0)
    """Each such item with the same chance."""
    popularity: int = Field(0, ge=0)
    """Each with a chance in proportion to its events in those hours."""
    window_hours: float = Field(168.0, ge=1, le=8760)
    """How long after an event an item counts as alive. Where items live for hours, as news does, a week is too long: most negatives
    are then items that nobody is shown any more, and a model learns to tell old from new. Give about the age at which an item has had
    nine tenths of its events."""

    @model_validator(mode="after")
    def _some(self) -> Negatives:
        if self.uniform + self.popularity == 0:
            raise ValueError("say how many: uniform, popularity or both")
        return self

    @property
    def window(self) -> dt.timedelta:
        """How long after an event an item counts as alive."""
        return dt.timedelta(hours=self.window_hours)


class RecordedHistory(Strict):
    """Histories that the impression log brings along: lists in each row of what its user had done, as recorded when it was shown.

    Written as ``behaviors: {from: impressions, items: ..., most_recent: last}``. No behaviors are joined then, and what the log recorded is
    taken as known at the impression. The most recent ``history.length`` entries count. Entries without an item are left out, and so
    are, where there are ``times``, entries without a time, those that are not from before the impression, and those that are older
    than ``history.days``. All lists of a row have one length. Attributes of ``items`` are those at the impression's time.
    """

    items: str
    """A Spark SQL expression over the impression log's own columns: an array of item ids. A null is an empty history."""
    most_recent: Literal["first", "last"]
    """At which end of the lists the most recent behavior is."""
    times: str | None = None
    """An array of timestamps: when each behavior happened. Only then can a field be a ``time_gap``."""
    columns: dict[str, str] = Field({})
    """Other arrays, by the name that fields of ``behaviors`` use for an element; the field ``action`` is ``click`` unless it is here."""

    @model_validator(mode="after")
    def _names(self) -> RecordedHistory:
        for name in ("impression_id", "user_id", "item_id", "time", "arrived"):
            if name in self.columns:
                raise ValueError(f"columns has {name!r}, which is not an element's: give it another name")
        return self


class Log(Strict):
    """The logs of events. Each may have a column ``arrived``: when the row was there to be read, a timestamp."""

    kind: LogKind
    """``impressions_and_clicks``: a log of what was shown and one of what was clicked. ``labeled``: a log of impressions with a label.
    ``positives_only``: a log of what was clicked or bought; negatives are drawn, see ``negatives``."""
    impressions: Source
    """Columns ``impression_id``, ``user_id``, ``item_id``, ``time`` and any others; ``label`` (0 or 1) too where the kind is
    ``labeled``, and ``label_time``, a timestamp: when the label became known. Where the kind is ``positives_only`` a row is a click or
    a purchase."""
    clicks: Source | None = None
    """Columns ``impression_id`` (where clicks are attributed by it), ``user_id``, ``item_id``, ``time`` (of the click) and any
    others."""
    attribution_hours: float = Field(24.0, gt=0, le=LONGEST_HOURS)
    """A click within so many hours after its impression makes its label 1."""
    attribution_by: Literal["impression_id", "user_and_item"] = "impression_id"
    """A click belongs to the impression of its id (and user), or to the latest one of its user and item within the window."""
    behaviors: dict[str, Source] = Field({})
    """Logs of what users did, by action (``click``, ``cart`` ...): columns ``user_id``, ``item_id``, ``time`` and any others; the
    field ``action`` is the key here. Where there are none, behaviors are the clicks (action ``click``); of a labeled log the impressions
    with label 1, each from when its label was known. Instead of logs,
    ``{from: impressions, ...}``: the histories that the impressions bring along, see :class:`RecordedHistory`."""
    recorded_history: RecordedHistory | None = None
    """What ``behaviors: {from: impressions, ...}`` says."""
    label_ties: Literal["max", "refuse"] = "max"
    """Of a labeled log that holds an impression of a day twice, with label 0 and with label 1: ``max`` takes the 1, ``refuse`` stops."""
    label_delay_hours: float | None = Field(None, ge=0, le=LONGEST_HOURS)
    """Of a labeled log whose positives are the behaviors: how long after an impression its label was known, at most. 0 says that it was
    known at once, as of a rating. Where rows say so themselves, they have a column ``label_time`` instead."""
    negatives: Negatives | None = None
    empty_days: list[dt.date] | Literal["any"] = Field([])
    """Days that are known to have no impressions, such as holidays; any other empty day is an error. ``any``: no empty day is
    one, which is for small logs that have a row now and then."""
    complete_to: dt.date | None = None
    """The last day that the click log is known to be whole for. If it is not given, a day's labels are final once there is a click
    at or after the end of its attribution window. It marks days final, and builds nothing."""

    @model_validator(mode="before")
    @classmethod
    def _recorded(cls, values: Any) -> Any:
        behaviors = values.get("behaviors") if isinstance(values, Mapping) else None
        if not isinstance(behaviors, Mapping) or not isinstance(behaviors.get("from"), str):
            return values
        if behaviors["from"] != "impressions":
            raise ValueError(f"behaviors.from is {behaviors['from']!r}; histories can only be taken from the impressions")
        recorded = {key: value for key, value in behaviors.items() if key != "from"}
        return {**{key: value for key, value in values.items() if key != "behaviors"}, "recorded_history": recorded}

    @model_validator(mode="after")
    def _parts(self) -> Log:
        if self.behaviors and self.recorded_history is not None:
            raise ValueError("behaviors are either joined from logs or taken from the impressions")
        if (self.kind == "impressions_and_clicks") != (self.clicks is not None):
            raise ValueError("clicks are given where kind is impressions_and_clicks, and only there")
        if (self.kind == "positives_only") != (self.negatives is not None):
            raise ValueError("negatives are given where kind is positives_only, and only there")
        for name in ("attribution_hours", "attribution_by", "complete_to"):
            if self.clicks is None and name in self.model_fields_set:
                raise ValueError(f"{name} is of clicks, and there are none")
        self._check_labels()
        return self

    def _check_labels(self) -> None:
        given = self.label_delay_hours is not None
        if self.kind != "labeled":
            for name in ("label_ties", "label_delay_hours"):
                if name in self.model_fields_set:
                    raise ValueError(f"{name} is of logs with labels: kind is {self.kind}, not labeled")
            return
        timed = "label_time" in self.impressions.columns
        if self.has_behaviors and (given or timed):
            name = "label_delay_hours" if given else "impressions.columns.label_time"
            raise ValueError(
                f"{name} says when positives become behaviors, and here behaviors are those of log.behaviors: leave it out"
            )
        if not self.has_behaviors and given == timed:
            raise ValueError(
                "the behaviors of a labeled log are its positives, which count from when their labels were known: say when with a column "
                "impressions.columns.label_time, or how many hours after the impression at most with label_delay_hours (0: at once, as of "
                f"a rating){'; give one of the two' if given else ''}"
            )

    @property
    def has_behaviors(self) -> bool:
        """Whether behaviors are said; else they are the clicks, or the positives."""
        return bool(self.behaviors) or self.recorded_history is not None

    @property
    def impression_source(self) -> Source:
        """The impressions, with the lists of the recorded history as columns, where there is one."""
        recorded = self.recorded_history
        if recorded is None:
            return self.impressions
        lists = {"item_id": recorded.items, "time": recorded.times, **recorded.columns}
        columns = {f"{RECORDED}{name}": text for name, text in lists.items() if text is not None}
        return self.impressions.model_copy(update={"columns": self.impressions.columns | columns})

    def may_be_empty(self, day: dt.date) -> bool:
        """Whether the log need not have impressions on a day."""
        return self.empty_days == "any" or day in self.empty_days

    @property
    def attribution(self) -> dt.timedelta:
        """How long after its impression a click still counts."""
        return dt.timedelta(hours=self.attribution_hours)

    @property
    def label_delay(self) -> dt.timedelta:
        """How long after its impression a label was known, where the rows do not say it."""
        return dt.timedelta(hours=self.label_delay_hours or 0.0)
