"""N candidates beside one user, of whom everything that no candidate changes is encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import torch
from torch import nn

from mian.contract.document import Group
from mian.layers.embedding import Embedded, FieldEmbedding

#: The groups of fields that a request has once. The context may also be given per candidate.
USER_GROUPS: Final[tuple[Group, ...]] = ("behaviors", "user", "context")

#: What was encoded of a user, by the module that encoded it and will read it.
UserEncoding = dict[nn.Module, Any]


class BesideUser(dict[str, torch.Tensor]):
    """The columns of N candidates, with what was encoded of their user.

    Args:
        columns: of the candidates, ``(N,)`` each; all context columns too where the context differs by candidate.
        user: what :meth:`mian.models.ClickModel.encode_user` gave.
        context: the context's columns; those of the user's own row are taken where ``columns`` has none of them.

    Raises:
        KeyError: ``columns`` has some of the context's columns and lacks others.
        ValueError: there is no column.

    Attributes:
        user: see above.
        has_context: whether the candidates bring a context of their own.
        count: N.
    """

    def __init__(self, columns: Mapping[str, torch.Tensor], user: UserEncoding, context: tuple[str, ...]) -> None:
        super().__init__(columns)
        self.user = user
        missing = [name for name in context if name not in columns]
        self.has_context = bool(context) and len(missing) < len(context)
        if self.has_context and missing:
            raise KeyError(f"the candidates have context columns, but not {', '.join(missing)}; give all of them or none")
        if not columns:
            raise ValueError("the candidates have no columns; give at least one")
        self.count = next(iter(columns.values())).shape[0]  # len() would make a constant of it in an exported graph


def embed_candidates(embedding: FieldEmbedding, candidates: BesideUser, user: Embedded) -> Embedded:
    """N candidates beside their user: ``candidate`` has N rows, the user's groups have the one that they had.

    Args:
        embedding: embeds the candidates, and their context, of N rows too, where they bring one.
        candidates: their columns.
        user: the user's groups, embedded or encoded further.
    """
    own = embedding(candidates, ("candidate", "context") if candidates.has_context else ("candidate",))
    return replace(user, candidate=own.candidate, context=own.context if candidates.has_context else user.context)


def repeat_user(embedded: Embedded, count: int) -> Embedded:
    """The same with the user's groups repeated for each of so many candidates: a batch, as the embedding would give it.

    Args:
        embedded: what :func:`embed_candidates` gives, behaviors packed and with their layout.
        count: N.
    """
    behaviors, layout = embedded.behaviors, embedded.layout
    if behaviors is not None and layout is not None:
        behaviors, layout = behaviors.repeat(count, 1, 1), layout.repeat(count)
    user, context = (group if group is None else group.expand(count, -1, -1) for group in (embedded.user, embedded.context))
    return Embedded(embedded.candidate, behaviors, user, context, layout)
