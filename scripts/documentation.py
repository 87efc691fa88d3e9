"""What the documentation site needs beyond MkDocs: a hook and a Griffe extension, both named in ``mkdocs.yml``.

Docstrings name code by Sphinx roles, which Markdown does not know. The extension turns each role into a code span that links to the
object where the site documents it. It runs inside Griffe because only Griffe knows what a short name means in the scope of its object; a
hook would see finished HTML.

Pages also link to files of the repository, which GitHub shows and the site does not have. The hook leaves the text of such links.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import griffe

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`(~?)([\w.]+)(?:\(\))?`")

#: The packages of this repository: a name that begins with one is a full path.
PACKAGES = ("jobs", "mian", "pipeline", "tests")

#: A Markdown link to a place of this repository, not an image: the text, the path.
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#|/)([^)\s#]+)(?:#[^)\s]*)?\)")


def without_roles(text: str) -> str:
    """A docstring as Markdown, with a code span in the place of each role.

    A ``~`` before a name leaves its last part alone, as in Sphinx. Code in double backticks gets single ones, and the ``::`` before a
    literal block becomes ``:``.
    """
    text = ROLE.sub(lambda role: f"`{_shown(*role.groups())}`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"::$", ":", text, flags=re.MULTILINE)


def with_links(text: str, scope: griffe.Object, modules: griffe.ModulesCollection) -> str:
    """A docstring as Markdown, with a link in the place of each role; a code span where the site does not have the object.

    Args:
        text: The docstring.
        scope: The object whose docstring it is, in whose scope names are looked up.
        modules: All modules that were read.
    """

    def link(role: re.Match[str]) -> str:
        path = role[2]
        if path.partition(".")[0] not in PACKAGES:
            first, *others = path.split(".")
            with contextlib.suppress(griffe.NameResolutionError):  # something of another project
                path = ".".join([scope.resolve(first), *others])
        name = path.rpartition(".")[2]
        with contextlib.suppress(KeyError):
            module = modules.get_member(path)
            if module.is_module and name in module.members:  # `from mian.metrics.auc import auc` hides the module
                path = f"{path}.{name}"
        return f'<autoref optional identifier="{path}">`{_shown(*role.groups())}`</autoref>'

    return without_roles(ROLE.sub(link, text))


def _shown(tilde: str, name: str) -> str:
    return name.rpartition(".")[2] if tilde else name


def with_return_type(text: str, function: griffe.Function) -> str:
    """A docstring that names the annotated type before what is returned; Griffe would take words before a colon for one."""
    return re.sub(r"^Returns:\n +", lambda section: f"{section[0]}{function.returns}: ", text, flags=re.MULTILINE)


class ReadableDocstrings(griffe.Extension):
    """Turns the roles of all docstrings into links, and drops labels that say nothing of a configuration's keys."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Rewrite one object's docstring and labels."""
        obj.labels -= {"class-attribute", "instance-attribute"}
        if obj.docstring is not None:
            text = with_links(obj.docstring.value, obj, loader.modules_collection)
            obj.docstring.value = with_return_type(text, obj) if isinstance(obj, griffe.Function) else text


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **kwargs: Any) -> str:
    """Leave the text alone of links to files of the repository that lie outside of the documentation's folder.

    Links to files that do not exist stay, so that ``mkdocs build --strict`` refuses them.
    """
    pages = Path(config.docs_dir).resolve()

    def text(link: re.Match[str]) -> str:
        target = (pages / page.file.src_uri).parent.joinpath(unquote(link[2])).resolve()
        inside = target.is_relative_to(pages) or not target.is_relative_to(pages.parent)
        return link[0] if inside or not target.exists() else link[1]

    return LINK.sub(text, markdown)
