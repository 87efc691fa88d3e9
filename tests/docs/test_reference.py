"""The documentation follows the code: generated pages are up to date, pages are in the navigation, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))

#: Reports are written by jobs/reproduce.py.
WRITTEN_BY_HAND = [page for page in PAGES if page.name != "report.md"]

FENCE = re.compile(r"^ *(`{3,}).*?^ *\1`*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+).+?\1", re.DOTALL)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


class Loader(yaml.SafeLoader):
    """Reads ``mkdocs.yml``, whose tags name Python objects that no test needs."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def pages_of(entry: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(inner)


def anchors(page: Path) -> set[str]:
    """The anchors of a page: its headings as GitHub and mkdocs.yml turn them into anchors, and those of explicit ids."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE)
    titles = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r'id="([^"]+)"', text))


def broken(page: Path) -> Iterator[str]:
    """The relative links of a page that lead nowhere."""
    text = CODE.sub("`", FENCE.sub("", page.read_text(encoding="utf-8")))
    for link in LINK.findall(text):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{page.relative_to(ROOT)}: there is no {path}"
        elif anchor and target.suffix == ".md" and target.name != "api.md" and anchor not in anchors(target):
            yield f"{page.relative_to(ROOT)}: {path or page.name} has no heading for #{anchor}"


def test_the_pages_that_are_written_from_the_code_are_up_to_date() -> None:
    command = [sys.executable, "scripts/reference.py", "--check"]
    check = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_page_is_in_the_navigation_once() -> None:
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    assert sorted(pages_of(site["nav"])) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("*.md")), *WRITTEN_BY_HAND], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


def test_every_page_that_the_code_names_exists() -> None:
    files = [path for folder in ("conf", "jobs", "mian", "pipeline", "scripts", "tests") for path in (ROOT / folder).rglob("*.*")]
    named = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        if path.suffix in (".py", ".sh", ".yaml", ".j2")
        for name in re.findall(r"\bdocs/[\w./-]+\.md\b", path.read_text(encoding="utf-8"))
        if not (ROOT / name).exists()
    }
    assert named == set()
