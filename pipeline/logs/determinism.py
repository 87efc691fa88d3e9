"""What an expression may not be made of: chance, the clock, the session, other rows.

A day that is built again, alone or with others, has to come out the same, and a row that came later is not to be known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pyspark.sql import DataFrame

#: Functions that make several rows, or columns, of one.
_GENERATORS = ("explode", "explode_outer", "posexplode", "posexplode_outer", "inline", "inline_outer", "stack", "json_tuple")
#: Texts that Spark takes for a moment of today where a date or a timestamp is expected.
_TODAY = r"\s*(?:now|today|tomorrow|yesterday)\b"
#: ``date 'today'`` is a plain date once it is parsed, so that its text alone says what it was.
_TYPED_TODAY = re.compile(rf"\b(?:date|timestamp(?:_ltz|_ntz)?)\s*['\"]{_TODAY}[^'\"]*['\"]", flags=re.IGNORECASE)
_QUOTED_TODAY = re.compile(rf"['\"]{_TODAY}", flags=re.IGNORECASE)


def changing_part(frame: DataFrame, expression: str = "") -> str | None:
    """What in the plan of a frame differs from run to run; None where nothing does.

    Asked of Spark's analyzed plan, in which names are resolved and no clock has been read yet. It covers subqueries, lambdas, views, and
    functions that are defined in SQL, but not a ``date 'today'`` in the latter. A function of Python or Java counts as what its author
    says of it.

    Args:
        frame: the frame, with the expression among its columns.
        expression: its Spark SQL text, where there is one.

    Returns:
        Spark's name of the function or, for ``date 'today'`` and the like, the text.
    """
    plan = frame._jdf.queryExecution().analyzed()
    session = frame.sparkSession._jvm
    assert session is not None
    clock = session.org.apache.spark.sql.catalyst.trees.TreePattern.CURRENT_LIKE()
    if plan.containsPattern(clock) or not plan.deterministic():
        return next(filter(None, (_changing(node, clock) for node in _expressions(plan))), "a part of it")
    texts = [text for text in (expression, *_view_texts(plan)) if _QUOTED_TODAY.search(text)]
    if texts:
        typed = next(filter(None, map(_TYPED_TODAY.search, texts)), None)
        return typed[0] if typed is not None else next(filter(None, map(_cast_of_today, _expressions(plan))), None)
    return None


def beyond_the_row(frame: DataFrame, expression: str) -> str | None:
    """What in an expression reads other rows or tables, or makes several rows of one; None where nothing does.

    Args:
        frame: of the session that parses it.
        expression: Spark SQL that Spark accepts.
    """
    session: Any = frame.sparkSession
    parsed = session._jsparkSession.sessionState().sqlParser().parseExpression(expression)
    patterns = session._jvm.org.apache.spark.sql.catalyst.trees.TreePattern
    if parsed.containsPattern(patterns.WINDOW_EXPRESSION()) or parsed.containsPattern(patterns.UNRESOLVED_WINDOW_EXPRESSION()):
        return "a window (OVER)"
    if parsed.containsPattern(patterns.PLAN_EXPRESSION()):
        return "a subquery"
    names = (str(node.prettyName()).lower() for node in _nodes(parsed) if node.nodeName() == "UnresolvedFunction")
    return next((name for name in names if name in _GENERATORS), None)


def _changing(node: Any, clock: Any) -> str | None:
    """A node's name where it is itself what changes, and none of the nodes below it."""
    if not _changes(node, clock) or any(_changes(child, clock) for child in _items(node.children())):
        return None
    return str(node.prettyName()).lower()


def _changes(node: Any, clock: Any) -> bool:
    return not node.deterministic() or bool(node.containsPattern(clock))


def _cast_of_today(node: Any) -> str | None:
    if not re.match("date|timestamp", node.dataType().simpleString()) or not re.fullmatch("cast|(try_)?to_.*", node.prettyName()):
        return None
    value = node.children().apply(0)
    text = str(value.toString())
    return repr(text) if value.nodeName() == "Literal" and re.match(_TODAY, text, flags=re.IGNORECASE) else None


def _expressions(plan: Any) -> Iterator[Any]:
    """All nodes of all expressions of a plan."""
    for expression in _items(plan.expressions()):
        yield from _nodes(expression)
    for child in _items(plan.children()):
        yield from _expressions(child)


def _nodes(expression: Any) -> Iterator[Any]:
    yield expression
    for child in _items(expression.children()):
        yield from _nodes(child)


def _view_texts(plan: Any) -> Iterator[str]:
    """The SQL of the views that a plan reads."""
    if plan.nodeName() == "View":
        text = plan.desc().viewText()
        if text.isDefined():
            yield str(text.get())
    for child in _items(plan.children()):
        yield from _view_texts(child)


def _items(sequence: Any) -> list[Any]:
    return [sequence.apply(i) for i in range(sequence.length())]
