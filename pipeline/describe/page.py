"""The page: figures and tables put into one HTML file that needs no other."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import jinja2

from mian.contract.encoder import FIRST_ID
from pipeline.describe import formatting
from pipeline.describe.charts import Chart, style
from pipeline.describe.dataset_summary import ColumnFacts, DatasetSummary, DayFacts
from pipeline.describe.day_charts import broken_chart, days_chart, drift_chart, unknown_chart
from pipeline.describe.drift import SHIFT
from pipeline.describe.formatting import DASH
from pipeline.describe.paper_charts import age_chart, attributes_chart, length_chart, seen_chart
from pipeline.describe.sample_folder import DescribeError
from pipeline.describe.value_charts import value_charts
from pipeline.describe.warnings import CHECKED, find_warnings
from pipeline.io.files import LocalFiles

TEMPLATE = "template.html.j2"


@dataclass(frozen=True)
class ColumnRow:
    """A line of the table of columns: texts by split."""

    name: str
    ids: str
    unknown: list[str]
    drift: list[str]
    shifted: list[bool]
    days: list[str]


@dataclass(frozen=True)
class VocabularyRow:
    """A line of the table of vocabularies."""

    name: str
    kind: str
    ids: int
    columns: str
    seen: str


@dataclass(frozen=True)
class RuleRow:
    """A line of the table of broken rules."""

    rule: str
    rows: int
    share: str
    days: int
    worst: str


def render(description: DatasetSummary) -> str:
    """The page as HTML text.

    Args:
        description: the figures; the same ones give the same text.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=formatting.number, percent=formatting.percent, spans=formatting.spans)
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    with style():
        positions, values = value_charts(description)
        charts = {
            "days": days_chart(description),
            "paper": _some(
                seen_chart(description), length_chart(description), age_chart(description), attributes_chart(description)
            ),
            "positions": positions,
            "by_value": values,
            "unknown": unknown_chart(description),
            "drift": drift_chart(description),
            "broken": broken_chart(description),
        }
    return template.render(
        d=description,
        contract=description.contract,
        charts=charts,
        warnings=find_warnings(description),
        checked=CHECKED,
        shift=SHIFT,
        rules=list(formatting.rules(description.contract)),
        columns=[_column(description, column) for column in description.columns],
        vocabularies=list(_vocabularies(description)),
        broken=list(_broken(description)),
    )


def write_page(description: DatasetSummary, output: str) -> None:
    """Write the page so that a reader sees the old one or the new one, never a part.

    Args:
        description: the figures.
        output: a local file; its folder is made.

    Raises:
        DescribeError: it cannot be written there.
    """
    text = render(description)
    try:
        LocalFiles().write(output, text.encode())
    except OSError as error:
        raise DescribeError(f"{output}: cannot be written: {error}") from error


def _some(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart is not None]


def _column(description: DatasetSummary, column: ColumnFacts) -> ColumnRow:
    names = [split.name for split in description.splits]
    drift = column.drift.splits if column.drift is not None else {}
    daily: dict[str | None, list[float]] = defaultdict(list)
    for day in description.days:
        if day.day.quality is not None and column.field.column in day.day.quality.drift:
            daily[day.split].append(day.day.quality.drift[column.field.column])
    return ColumnRow(
        column.field.column,
        formatting.number(column.size) if column.size is not None else "number",
        [formatting.percent(column.unknown.get(name)) for name in names],
        [f"{drift[name]:.3f}" if name in drift else DASH for name in names],
        [column.drift is not None and name in drift and column.drift.is_shift(name) for name in names],
        [f"{statistics.median(daily[name]):.3f}" if daily.get(name) else DASH for name in names],
    )


def _vocabularies(description: DatasetSummary) -> Iterator[VocabularyRow]:
    contract = description.contract
    for vocabulary in contract.vocabularies:
        columns = [field.column for field in contract.fields if field.vocabulary == vocabulary.name]
        known = vocabulary.size - FIRST_ID
        seen = [f"{number:,} of {known:,}" for column, number in description.candidates_seen.items() if column in columns]
        yield VocabularyRow(vocabulary.name, vocabulary.kind, vocabulary.size, ", ".join(columns), seen[0] if seen else "")


def _broken(description: DatasetSummary) -> Iterator[RuleRow]:
    days: dict[str, list[tuple[int, DayFacts]]] = defaultdict(list)
    of: dict[str, int] = defaultdict(int)
    for day in description.days:
        if day.day.quality is not None:
            of["log.impressions"] += day.day.quality.log_rows
            of["log.clicks"] += day.day.quality.clicks or 0
            for rule, count in day.day.quality.quarantined.items():
                days[rule].append((count, day))
    for rule, found in sorted(days.items(), key=lambda item: (-sum(count for count, _ in item[1]), item[0])):
        rows = sum(count for count, _ in found)
        most, worst = max(found, key=lambda pair: pair[0])
        log = of.get(rule.partition(":")[0], 0)
        yield RuleRow(rule, rows, formatting.percent(rows / log, 2) if log else DASH, len(found), f"{worst.day.day}: {most:,}")
