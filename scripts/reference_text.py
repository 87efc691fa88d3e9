"""Markdown for the pages that scripts/reference.py writes."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from documentation import without_roles

#: A bar inside of a cell of a table.
BAR = "\\|"


def paragraphs(text: str) -> str:
    """Text as Markdown, wrapped but for its code spans; an indented paragraph is a block of code, a page that it names a link."""
    text = re.sub(r"\bdocs/([\w/-]+\.md)\b", r"[\g<0>](../\1)", without_roles(text).strip("\n"))
    blocks = []
    for block in re.split(r"\n\s*\n", text):
        lines = block.splitlines()
        if lines and all(line.startswith(" ") for line in lines):
            blocks.append(f"```text\n{textwrap.dedent(block)}\n```\n")
        else:
            whole = re.sub("`[^`]+`", lambda span: span[0].replace(" ", "\0"), " ".join(block.split()))
            lines = textwrap.wrap(whole, 100, break_long_words=False, break_on_hyphens=False)
            blocks.append("\n".join(lines).replace("\0", " ") + "\n")
    return "\n".join(blocks)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; bars inside of its cells are escaped."""
    lines = [f"| {' | '.join(cell.replace('|', BAR) for cell in row)} |\n".replace("  ", " ") for row in (head, *rows)]
    return "".join([lines[0], "|---" * len(head), "|\n", *lines[1:]])


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
