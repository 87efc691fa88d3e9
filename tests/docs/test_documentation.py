"""The hook and the extension of mkdocs.yml."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import griffe
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def documentation() -> ModuleType:
    path = ROOT / "scripts" / "documentation.py"
    spec = importlib.util.spec_from_file_location("documentation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("docstring", "markdown"),
    [
        ("A :class:`Contract`.", "A `Contract`."),
        ("See :meth:`~mian.models.ClickModel.logits`.", "See `logits`."),
        ("See :func:`mian.models.build()`.", "See `mian.models.build`."),
        ("The column ``item_id``.", "The column `item_id`."),
        ("Side by side::\n\n    a b", "Side by side:\n\n    a b"),
        ("From 10:30 to `b`:c:", "From 10:30 to `b`:c:"),
    ],
)
def test_a_docstring_becomes_markdown(documentation: ModuleType, docstring: str, markdown: str) -> None:
    assert documentation.without_roles(docstring) == markdown


def test_a_role_links_to_the_object_that_its_name_means_there(documentation: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "mian"
    package.mkdir()
    (package / "__init__.py").write_text("from mian.a import build\nfrom mian.b import b\n")
    (package / "a.py").write_text(
        'from mian.b import Other\ndef build():\n    """:class:`Other`, :meth:`Other.run`, :func:`mian.b`, :class:`list`."""\n'
    )
    (package / "b.py").write_text("class Other: ...\ndef b(): ...\n")
    extensions = griffe.load_extensions(documentation.ReadableDocstrings)
    loaded = griffe.load("mian", search_paths=[tmp_path], extensions=extensions, allow_inspection=False, try_relative_path=False)
    docstring = loaded["a.build"].docstring
    assert docstring is not None
    assert docstring.value == (
        '<autoref optional identifier="mian.b.Other">`Other`</autoref>, '
        '<autoref optional identifier="mian.b.Other.run">`Other.run`</autoref>, '
        '<autoref optional identifier="mian.b.b">`mian.b`</autoref>, '
        '<autoref optional identifier="list">`list`</autoref>.'
    )


def test_words_before_a_colon_are_no_type_of_what_is_returned(documentation: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        'def f() -> list[int]:\n    """Count.\n\n    Returns:\n        Shape (N,): counts.\n    """\n'
    )
    extensions = griffe.load_extensions(documentation.ReadableDocstrings)
    loaded = griffe.load("one", search_paths=[tmp_path], extensions=extensions, allow_inspection=False, try_relative_path=False)
    docstring = loaded["f"].docstring
    assert docstring is not None
    section = docstring.parse("google", returns_multiple_items=False, returns_named_value=False)[1]
    assert isinstance(section, griffe.DocstringSectionReturns)
    assert [(str(value.annotation), value.description) for value in section.value] == [("list[int]", "Shape (N,): counts.")]


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("See [the demo](../../conf/demo.yaml#top).", "See the demo."),
        ("See [the folder](../../conf/).", "See the folder."),
        ("See [another page](../other.md).", "See [another page](../other.md)."),
        ("See [nothing](../../conf/missing.yaml).", "See [nothing](../../conf/missing.yaml)."),
        ("See [a site](https://example.org/conf).", "See [a site](https://example.org/conf)."),
        ("See ![a picture](../../conf/demo.yaml).", "See ![a picture](../../conf/demo.yaml)."),
    ],
)
def test_a_link_to_a_file_that_the_site_lacks_is_text(
    documentation: ModuleType, tmp_path: Path, markdown: str, shown: str
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "demo.yaml").touch()
    page = SimpleNamespace(file=SimpleNamespace(src_uri="concepts/samples.md"))
    config = SimpleNamespace(docs_dir=str(tmp_path / "docs"))
    assert documentation.on_page_markdown(markdown, page=page, config=config) == shown
