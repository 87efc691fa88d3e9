"""From one user's raw values and those of N candidates to the columns that a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mian.contract import Contract, Field
from mian.contract.document import LENGTH_COLUMN, Group
from mian.scoring.raw_values import ServingInputError
from mian.scoring.value_encoder import Column, ValueEncoder

Columns = dict[str, Column]
Values = Mapping[str, Any]
Lists = Mapping[str, Sequence[Any]]


class OneUserEncoder:
    """Encodes a request as the samples were: one user, and N candidates.

    Values are named by their field, in a mapping for each group. Ids are text, numbers or booleans, numbers are numbers, and None is an
    unknown id or the training mean, as for :class:`mian.serving.request_encoder.RowEncoder`. Every field of a group is needed, but for
    those of the context that have a stand-in. A name that the contract lacks is refused.

    Args:
        contract: what the samples are.
        vocabularies: for each vocabulary that is a table its values in the order of their ids.
        stand_ins: by column of the context what is read where a request leaves the field out, see
            :func:`mian.scoring.stand_ins.serving_stand_ins`.
    """

    def __init__(self, contract: Contract, vocabularies: Mapping[str, pa.Array], stand_ins: Mapping[str, int | float]) -> None:
        self.contract = contract
        self.stand_ins = dict(stand_ins)
        self._fields = {group: {field.name: field for field in contract.group(group)} for group in _GROUPS}
        self._encoder = ValueEncoder(contract, vocabularies)

    def user(self, user: Values, context: Values, behaviors: Lists) -> Columns:
        """Encode what all candidates of a request share.

        Args:
            user: a value a field of the user.
            context: a value a field of the context.
            behaviors: a list a field of the behaviors, the most recent first, all of one length; those beyond the history's length are
                left out. Without any list the history is empty.

        Returns:
            The columns of one row but for those of the candidate: ``(1,)``, those of behaviors ``(1, T)``, and ``behavior_length``.

        Raises:
            ServingInputError: a field is missing or unknown, a value is of a wrong type, or the lists differ in length.
        """
        columns: Columns = {}
        self._check_names("user", user)
        self._check_names("context", context, optional=self.stand_ins)
        for name, field in self._fields["user"].items():
            columns[field.column] = self._encode(field, [user[name]])
        for name, field in self._fields["context"].items():
            if name in context:
                columns[field.column] = self._encode(field, [context[name]])
            else:
                columns[field.column] = filled(field, 1, self.stand_ins[field.column])
        if self._fields["behaviors"]:
            columns |= self._history(behaviors)
        elif behaviors:
            self._check_names("behaviors", behaviors)
        return columns

    def candidates(self, user: Mapping[str, Column], candidates: Lists, context: Lists | None = None) -> Columns:
        """Encode N candidates.

        Args:
            user: what :meth:`user` gave.
            candidates: a list of N values a field of the candidate.
            context: for fields of the context that differ by candidate a list of N values; they take the place of the user's.

        Returns:
            Columns ``(N,)``: those of the candidate and, where ``context`` has any field, all of the context.

        Raises:
            ServingInputError: a field is missing or unknown, a value is of a wrong type, the lists differ in length, or there is no
                candidate.
        """
        self._check_names("candidate", candidates)
        candidates, context = _lists("candidates", candidates), _lists("candidate_context", context or {})
        lengths = {f"candidates.{name}": len(values) for name, values in candidates.items()}
        lengths |= {f"candidate_context.{name}": len(values) for name, values in context.items()}
        count = _one_length(lengths, "candidates")
        if not count:
            raise ServingInputError("candidates: there is none; give at least one", "candidates")
        columns = {field.column: self._encode(field, candidates[name]) for name, field in self._fields["candidate"].items()}
        if context:
            fields = self._fields["context"]
            self._check_names("context", context, optional=[field.column for field in fields.values()], where="candidate_context")
            for name, field in fields.items():
                values = context.get(name)
                repeated = user[field.column].repeat(count) if values is None else self._encode(field, values)
                columns[field.column] = repeated
        return columns

    def _history(self, behaviors: Lists) -> Columns:
        fields = self._fields["behaviors"]
        longest = self.contract.history.length
        length = 0
        if behaviors:
            self._check_names("behaviors", behaviors)
            behaviors = _lists("behaviors", behaviors)
            length = _one_length({f"behaviors.{name}": len(values) for name, values in behaviors.items()}, "behaviors")
        real = min(length, longest)
        columns: Columns = {LENGTH_COLUMN: np.full(1, real, np.int32)}
        for name, field in fields.items():
            column = filled(field, longest, 0)
            if real:
                column[:real] = self._encode(field, behaviors[name][:real])
            columns[field.column] = column[np.newaxis]
        return columns

    def _encode(self, field: Field, values: Sequence[Any]) -> Column:
        try:
            return self._encoder.encode(field, values)
        except ServingInputError as error:
            where = f"{_NAMES[field.group]}.{field.name}"
            place = f"{where}[{error.row}]" if field.group in ("candidate", "behaviors") else where
            raise ServingInputError(f"{place}: {error.reason}", where) from error

    def _check_names(self, group: Group, values: Mapping[str, Any], optional: Any = (), where: str | None = None) -> None:
        where = where or _NAMES[group]
        fields = self._fields[group]
        missing = [name for name, field in fields.items() if name not in values and field.column not in optional]
        if missing:
            raise ServingInputError(
                f"{where}: {', '.join(missing)} missing; give every field of the group a value, null where nothing is known",
                f"{where}.{missing[0]}",
            )
        unknown = [name for name in values if name not in fields]
        if unknown:
            known = f"it has {', '.join(fields)}" if fields else "it has none"
            raise ServingInputError(f"{where}: the model has no field {unknown[0]!r} there; {known}", f"{where}.{unknown[0]}")


_GROUPS: tuple[Group, ...] = ("candidate", "behaviors", "user", "context")
#: What a request calls a group.
_NAMES: dict[Group, str] = {"candidate": "candidates", "behaviors": "behaviors", "user": "user", "context": "context"}


def filled(field: Field, count: int, value: int | float) -> Column:
    """A column of one encoded value, ``(count,)``."""
    return np.full(count, value, np.int32) if field.is_categorical else np.full(count, value, np.float32)


def _lists(where: str, values_by_name: Lists) -> dict[str, list[Any]]:
    """Lists of whatever has values in an order: NumPy's arrays, a pandas column whatever its index.

    Raises:
        ServingInputError: a single value stands in the place of a list.
    """
    lists: dict[str, list[Any]] = {}
    for name, values in values_by_name.items():
        if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
            raise ServingInputError(f"{where}.{name}: a list is needed, got {type(values).__name__}", f"{where}.{name}")
        lists[name] = values if isinstance(values, list) else list(values)
    return lists


def _one_length(lengths: Mapping[str, int], where: str) -> int:
    """The length that all lists have; 0 where there are none.

    Raises:
        ServingInputError: they differ.
    """
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ServingInputError(f"{where}: the lists must be of one length, got {found}", where)
    return next(iter(lengths.values()), 0)
