"""The measured figures under ``benchmarks/results``: what a file holds, and how figures of one case are combined.

A file is a benchmark: its columns, and one record for each run of its program. A record says which commit, processor and command
it is of, and has one measurement for each case, such as a batch size.
"""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

NOT_RECORDED = "not recorded"
"""A command or processor that neither the documentation nor the git history names."""


class RecordError(ValueError):
    """A file of records cannot be used; the message names the file and the field."""


class Strict(BaseModel):
    """A part of a file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Spread(Strict):
    """A figure that varies.

    Attributes:
        value: The median or mean; None where only the range is known.
        low: The smallest of several runs.
        high: The largest of several runs.
        deviation: The standard deviation, in the place of ``low`` and ``high``.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    deviation: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _is_a_range_or_a_deviation(self) -> Spread:
        if self.deviation is not None:
            if self.value is None or self.low is not None or self.high is not None:
                raise ValueError("a deviation needs a value, and neither low nor high")
        elif self.low is None or self.high is None:
            raise ValueError("a spread needs a deviation, or low and high")
        elif not self.low <= (self.low if self.value is None else self.value) <= self.high:
            raise ValueError("the value of a spread lies between low and high")
        return self


Figure = int | float | Spread


class Column(Strict):
    """A column of figures.

    Attributes:
        label: The head of the column.
        unit: The unit of all its figures; empty for a ratio or a metric.
        digits: Decimal places; None prints a figure as the file has it.
    """

    label: str
    unit: str = ""
    digits: int | None = Field(None, ge=0)


class Commit(Strict):
    """A commit, and what it is to the figures.

    Attributes:
        hash: The abbreviated or full hash.
        role: ``documented``: it added the figures to the documentation. ``measured``: the program ran on it.
    """

    hash: str = Field(pattern="^[0-9a-f]{7,40}$")
    role: Literal["documented", "measured"]


class Measurement(Strict):
    """The figures of one case.

    Attributes:
        case: One value for each case column of the benchmark.
        figures: Figures by the name of their column. A figure that was not measured is left out.
    """

    case: dict[str, int | float | str]
    figures: dict[str, Figure] = Field(min_length=1)


class Record(Strict):
    """One run of a benchmark.

    Attributes:
        commit: The commit that the figures belong to.
        date: The date of that commit.
        processor: The processor or device with its number of cores, and its load where that is known.
        command: The command that printed the figures, or :data:`NOT_RECORDED`.
        command_inferred: Whether the command follows from the documentation without being in it.
        rounds: The number of rounds of which the figures are medians.
        note: One sentence on how it was measured.
        measurements: The figures. A case may come several times: these are repetitions.
    """

    commit: Commit
    date: dt.date
    processor: str = Field(min_length=1)
    command: str = Field(min_length=1)
    command_inferred: bool = False
    rounds: int | None = Field(None, ge=1)
    note: str = Field(pattern=r"\.$")
    measurements: list[Measurement] = Field(min_length=1)


class Benchmark(Strict):
    """A file of records: one table.

    Attributes:
        title: The heading of the table.
        section: The heading above it, shared by several files.
        order: The place on the page, ascending.
        measures: One sentence: what is measured.
        compared_with: One sentence: what the figures are compared with.
        case_columns: Heads of the columns that tell cases apart, by name.
        columns: The columns of figures, by name.
        records: The runs.
    """

    title: str = Field(pattern="^[A-Za-z0-9 -]+$")
    section: str
    order: int
    measures: str = Field(pattern=r"\.$")
    compared_with: str = Field(pattern=r"\.$")
    case_columns: dict[str, str] = Field(min_length=1)
    columns: dict[str, Column] = Field(min_length=1)
    records: list[Record] = Field(min_length=1)

    @model_validator(mode="after")
    def _columns_are_known(self) -> Benchmark:
        for number, measurement in self._measurements():
            if measurement.case.keys() != self.case_columns.keys():
                raise ValueError(f"records.{number}: a case has the keys {[*measurement.case]}, not {[*self.case_columns]}")
            if unknown := measurement.figures.keys() - self.columns.keys():
                raise ValueError(f"records.{number}: no column is named {sorted(unknown)[0]!r}")
        return self

    @model_validator(mode="after")
    def _repetitions_are_of_one_processor(self) -> Benchmark:
        seen: dict[tuple[object, ...], int] = {}
        for number, measurement in self._measurements():
            for name, figure in measurement.figures.items():
                first = seen.setdefault((*measurement.case.values(), name), number)
                if self.records[first].processor != self.records[number].processor:
                    raise ValueError(
                        f"records.{first} and records.{number} have {name!r} of one case on different processors; "
                        "add the processor to the case columns"
                    )
                if isinstance(figure, Spread) and figure.deviation is not None and first != number:
                    raise ValueError(f"records.{first} and records.{number}: a figure with a deviation cannot be combined")
        return self

    def _measurements(self) -> Iterator[tuple[int, Measurement]]:
        for number, record in enumerate(self.records):
            for measurement in record.measurements:
                yield number, measurement


def read_benchmarks(folder: Path) -> dict[str, Benchmark]:
    """Read all files of records.

    Args:
        folder: The folder of the JSON files.

    Returns:
        The benchmarks by file name without its extension, in the order of the page.

    Raises:
        RecordError: A file is no JSON, lacks a field, or has a value that is not allowed; or its title or place is taken.
    """
    found: dict[str, Benchmark] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            found[path.stem] = Benchmark.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise RecordError("\n".join(f"{path}: {_error_line(each)}" for each in error.errors())) from None
    for attribute in ("title", "order"):
        owners: dict[object, str] = {benchmark.section: "a section of the page" for benchmark in found.values()}
        for name, benchmark in found.items():
            value = getattr(benchmark, attribute)
            if (other := owners.setdefault(value, name)) != name:
                raise RecordError(f"{folder / name}.json: {attribute}: {value!r} is that of {other} as well")
    return dict(sorted(found.items(), key=lambda item: item[1].order))


def _error_line(error: Mapping[str, object]) -> str:
    """A line for one error: the field, and what is wrong with it."""
    place = error["loc"]
    field = ".".join(map(str, place)) if isinstance(place, tuple) else ""
    return f"{field}: {error['msg']}" if field else str(error["msg"]).removeprefix("Value error, ")


def combine(figures: Sequence[Figure]) -> Figure:
    """Combine repetitions of one figure.

    Args:
        figures: The same figure of one case, of several runs.

    Returns:
        The figure itself where there is one; else the smallest and the largest, with the median where at least three have a value.
    """
    if len(figures) == 1:
        return figures[0]
    spreads = [figure if isinstance(figure, Spread) else Spread(value=figure, low=figure, high=figure) for figure in figures]
    values = [spread.value for spread in spreads if spread.value is not None]
    low = min(spread.low for spread in spreads if spread.low is not None)
    high = max(spread.high for spread in spreads if spread.high is not None)
    if low == high:
        return low
    middle = round(statistics.median(values), max(map(_decimals, values))) if len(values) > 2 else None
    return Spread(value=middle, low=low, high=high)


def _decimals(value: float) -> int:
    """How many decimal places a number is written with."""
    text = repr(value)
    return 0 if "e" in text or text.endswith(".0") else len(text.partition(".")[2])
