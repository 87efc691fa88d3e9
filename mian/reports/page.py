"""The page of a report: one file of HTML that asks for no other, from this machine or the network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources

import jinja2

from mian.reports import palette
from mian.reports.pictures import Picture

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Table:
    """Texts in rows and columns; the first column names the row.

    Attributes:
        columns: The heads.
        rows: As many texts each as there are columns.
        folded: What a reader opens to see it, below the section's pictures; it stands open above them where this is empty.
        texts: How many columns, from the left, hold words; the others hold numbers.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: str = ""
    texts: int = 1


@dataclass
class Section:
    """A part of the report: tables, and pictures below them."""

    title: str
    text: str
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def render_page(
    title: str, intro: str, sections: Iterable[Section], facts: Sequence[tuple[str, str]] = (), footer: str = ""
) -> str:
    """The page as HTML text; what it is given appears as text, whatever letters it holds.

    Args:
        title: Of the page.
        intro: Some sentences below it.
        sections: In the order of the page.
        facts: Figures that stand out at the top: a value and what it is of.
        footer: A sentence below everything.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        title=title, intro=intro, sections=list(sections), facts=list(facts), footer=footer, accent=palette.BLUE
    )
