"""Write ``docs/benchmarks.md`` from the records under ``benchmarks/results``.

    python -m benchmarks.render
    python -m benchmarks.render --check

Each file of records becomes a table: a row for each case, and a list of its records. Repetitions of a case become one row
with a spread. The page also has the sections of ``benchmarks/results/choosing-settings.md``. ``--check`` writes nothing, and exits
with 1 where the page is stale.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent))

from records import NOT_RECORDED, Benchmark, Column, Figure, Record, RecordError, Spread, combine, read_benchmarks

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
SETTINGS = "choosing-settings.md"
PAGE = ROOT / "docs" / "benchmarks.md"
COMMAND = "python -m benchmarks.render"
WIDTH = 100
INTRODUCTION = (
    "This page is generated from `benchmarks/results/*.json`. To add a figure, add a record to a file there and run "
    f"`{COMMAND}`. The programs are under `benchmarks/`. Those that compare with DeepCTR-Torch need "
    "`python -m pip install --no-build-isolation -c constraints.txt -e '.[benchmark]'`, those that compare with DuckDB `'.[test]'`.",
    "The figures of a row were measured in turn in one run, unless the row names several records. The speed of a shared machine changes "
    "by about a fifth within an hour: compare figures within a row, and not figures of different runs.",
    "`4.1 (3.9 to 4.3)` is the median of several runs with the smallest and the largest, `3.9 to 4.3` their range. `0.70 ± 0.01` is a "
    "mean with its standard deviation. `-` means that a figure was not measured. *Record* names the entry of the list below the table. "
    "*documented* marks the commit that added the figures to the documentation, *measured* the commit of the code that ran. The date "
    "is that of the commit. A command that is *inferred* follows from the documentation without being in it.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the page.

    Args:
        arguments: The command line without the program's name.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description="Write docs/benchmarks.md from benchmarks/results/*.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the page is stale")
    options = parser.parse_args(arguments)
    try:
        text = render_page(RESULTS)
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print(f"error: {PAGE} is not what the records give: run {COMMAND}", file=sys.stderr)
        return 1
    return 0


def render_page(results: Path) -> str:
    """Render the page.

    Args:
        results: The folder of the records and of the page on settings.

    Returns:
        The Markdown text.

    Raises:
        RecordError: See :func:`records.read_benchmarks`.
    """
    benchmarks = read_benchmarks(results)
    parts = ["# Benchmarks", *map(_wrapped, INTRODUCTION), *_contents(benchmarks.values())]
    parts.append((results / SETTINGS).read_text(encoding="utf-8").strip())
    for section, members in itertools.groupby(benchmarks.items(), key=lambda item: item[1].section):
        parts.append(f"## {section}")
        for name, benchmark in members:
            parts += _benchmark(name, benchmark)
    return "\n\n".join(parts) + "\n"


def _contents(benchmarks: Iterable[Benchmark]) -> Iterator[str]:
    """A list of the sections with links to their tables."""
    lines = []
    for section, members in itertools.groupby(benchmarks, key=lambda each: each.section):
        links = [f"[{each.title}](#{each.title.lower().replace(' ', '-')})" for each in members]
        lines.append(_wrapped(f"{section}: {', '.join(links)}", first="- "))
    yield "\n".join(lines)


def _benchmark(name: str, benchmark: Benchmark) -> Iterator[str]:
    """The parts of one benchmark."""
    yield f"### {benchmark.title}"
    yield _wrapped(f"{benchmark.measures} {benchmark.compared_with}")
    commands = {record.command for record in benchmark.records} - {NOT_RECORDED}
    if len(commands) == 1:
        yield textwrap.indent(commands.pop(), " " * 4)
    head = [*benchmark.case_columns.values(), *map(_head, benchmark.columns.values())]
    yield _table([*head, "record"], _rows(benchmark))
    shown = len({record.command for record in benchmark.records}) > 1
    yield "\n".join(_provenance(number, record, shown) for number, record in enumerate(benchmark.records, start=1))
    yield f"File: `benchmarks/results/{name}.json`"


def _rows(benchmark: Benchmark) -> Iterator[list[str]]:
    """The rows of a table, one for each case, in the order of the file."""
    figures: dict[tuple[str, ...], dict[str, list[Figure]]] = {}
    numbers: dict[tuple[str, ...], list[int]] = {}
    for number, record in enumerate(benchmark.records, start=1):
        for measurement in record.measurements:
            case = tuple(_cell(measurement.case[name]) for name in benchmark.case_columns)
            for name, figure in measurement.figures.items():
                figures.setdefault(case, {}).setdefault(name, []).append(figure)
            numbers.setdefault(case, []).append(number)
    for case, by_name in figures.items():
        cells = [_shown(by_name.get(name), column) for name, column in benchmark.columns.items()]
        yield [*case, *cells, ", ".join(map(str, dict.fromkeys(numbers[case])))]


def _provenance(number: int, record: Record, with_command: bool) -> str:
    """An entry of the list of records."""
    processor = f"processor {NOT_RECORDED}" if record.processor == NOT_RECORDED else record.processor
    what = [f"{record.date}, `{record.commit.hash}` ({record.commit.role})", processor]
    if record.rounds is not None:
        what.append(f"{record.rounds} round{'s' if record.rounds > 1 else ''}")
    if record.command == NOT_RECORDED:
        what.append(f"command {NOT_RECORDED}")
    elif with_command or record.command_inferred:
        what.append(f"`{record.command}`{' (inferred)' if record.command_inferred else ''}")
    return _wrapped(f"{'; '.join(what)}. {record.note}", first=f"{number}. ")


def _head(column: Column) -> str:
    return f"{column.label} ({column.unit})" if column.unit else column.label


def _shown(figures: Sequence[Figure] | None, column: Column) -> str:
    """A cell: the figures of one column and case as text."""
    if not figures:
        return "-"
    figure = combine(figures)
    if not isinstance(figure, Spread):
        return _number(figure, column.digits)
    if figure.deviation is not None and figure.value is not None:
        return f"{_number(figure.value, column.digits)} ± {_number(figure.deviation, column.digits)}"
    low, high = (_number(end, column.digits) for end in (figure.low, figure.high) if end is not None)
    return f"{low} to {high}" if figure.value is None else f"{_number(figure.value, column.digits)} ({low} to {high})"


def _number(value: float, digits: int | None) -> str:
    """A number with separators of thousands, and without those zeros that it was not written with."""
    if digits is not None:
        return f"{value:,.{digits}f}"
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:,}".removesuffix(".0")


def _cell(value: int | float | str) -> str:
    return value if isinstance(value, str) else _number(value, None)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _wrapped(text: str, first: str = "") -> str:
    """A paragraph in lines of at most :data:`WIDTH` characters; ``first`` is before its first line, and others are indented by as much."""
    return textwrap.fill(
        text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False, break_on_hyphens=False
    )


if __name__ == "__main__":
    sys.exit(main())
