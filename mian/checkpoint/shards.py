"""Tensors whose rows are sharded over the ranks: brought together on the first, and handed out again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from mian.checkpoint.store import CheckpointError
from mian.distributed.collectives import Ranks
from mian.layers import Placement

_PIECE = 1 << 18  # rows of each rank that travel at a time


class Shards:
    """Moves sharded tensors in pieces, so that no rank needs room for a whole one.

    Args:
        ranks: who takes part.
        rows: by name, how many rows a sharded tensor has over all ranks.
        folder: where the first rank keeps whole ones: in files without a name, which go with the tensors or the process.
    """

    def __init__(self, ranks: Ranks, rows: Mapping[str, int], folder: Path) -> None:
        self._ranks = ranks
        self._rows = rows
        self._folder = folder

    def replicated(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What of a state is the same on all ranks."""
        return {name: tensor for name, tensor in state.items() if name not in self._rows}

    def shapes(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
        """The shapes that a state's tensors have, or would have if they were whole."""
        return {
            name: torch.Size((self._rows[name], *tensor.shape[1:])) if name in self._rows else tensor.shape
            for name, tensor in state.items()
        }

    def gather(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state with its sharded tensors whole, on the first rank; without them on the others. Every rank must call it.

        Raises:
            CheckpointError: the folder has no room for one; on the first rank, after the others are done.
        """
        found = self.replicated(state)
        errors = []
        for name in sorted(state.keys() & self._rows):
            into = None
            if self._ranks.is_first:
                try:
                    into = found[name] = self._file(self.shapes(state)[name], state[name].dtype)
                except OSError as error:
                    errors.append(f"{self._folder}: cannot hold {name} whole ({error})")
            self._collect(state[name], into, name)
        if errors:
            raise CheckpointError(errors[0])
        return found

    def hand_out(self, saved: Mapping[str, torch.Tensor] | None, into: Mapping[str, torch.Tensor]) -> None:
        """Give each rank its rows of what the first has whole. Every rank must call it, with the same names.

        Args:
            saved: whole tensors by name, on the first rank; not looked at on others.
            into: the ranks' own; those that are not sharded are left out.
        """
        for name in sorted(into.keys() & self._rows):
            whole = None if saved is None or not self._ranks.is_first else saved[name]
            self._distribute(whole, into[name], name)

    def _collect(self, mine: torch.Tensor, whole: torch.Tensor | None, name: str) -> None:
        for start in range(0, self._most(name), _PIECE):
            piece = mine[start : start + _PIECE]
            counts = torch.zeros(self._ranks.size, dtype=torch.int64)
            counts[0] = len(piece)
            pieces, counts = self._ranks.all_to_all(piece, counts, "collect")
            if whole is not None:
                for rank, part in enumerate(torch.split(pieces, counts.tolist())):
                    whole[self._places(rank, start, len(part))] = part

    def _distribute(self, whole: torch.Tensor | None, mine: torch.Tensor, name: str) -> None:
        for start in range(0, self._most(name), _PIECE):
            parts = [mine[:0]] * self._ranks.size
            if whole is not None:
                here = [Placement(rank, self._ranks.size).count(self._rows[name]) for rank in range(self._ranks.size)]
                parts = [whole[self._places(rank, start, min(_PIECE, max(0, n - start)))] for rank, n in enumerate(here)]
            counts = torch.tensor([len(part) for part in parts])
            received, _ = self._ranks.all_to_all(torch.cat(parts).to(mine.device), counts, "distribute")
            mine[start : start + len(received)] = received

    def _most(self, name: str) -> int:
        """Rows on the first rank; no other has more."""
        return Placement(0, self._ranks.size).count(self._rows[name])

    def _places(self, rank: int, start: int, count: int) -> slice:
        """Where a rank's rows from ``start`` on lie in the whole."""
        first = start * self._ranks.size + rank
        return slice(first, first + count * self._ranks.size, self._ranks.size)

    def _file(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(prefix=".whole-", dir=self._folder)
        try:
            os.posix_fallocate(descriptor, 0, shape.numel() * dtype.itemsize)  # a full disk is an error here, a signal later
            return torch.from_file(path, shared=True, size=shape.numel(), dtype=dtype).view(shape)
        finally:
            os.close(descriptor)
            Path(path).unlink()
