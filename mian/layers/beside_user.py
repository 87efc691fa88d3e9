"""N candidates beside one user, of whom everything that no candidate changes is encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from mian.contract.document import Group

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
        self.count = len(next(iter(columns.values())))
