"""The rows of a window, put together from its row groups."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mian.stream.columns import Tensors
from mian.stream.plan import Read
from mian.stream.shares import Span


class WindowRows:
    """The rows that a rank takes of one window, in their permuted order.

    Whoever has a row group of the window puts it in, from any thread and in any order: its rows go straight to their places, one
    copy. Memory for the whole of it is taken with the first row group that comes.

    Args:
        read: which rows of which window.
    """

    def __init__(self, read: Read) -> None:
        self.read = read
        self._lock = threading.Lock()
        self._tensors: Tensors = {}
        self._places: npt.NDArray[np.int64] | None = None

    def put(self, number: int, tensors: Tensors) -> None:
        """Take what is wanted of a row group.

        Args:
            number: which of the window's row groups it is, from 0.
            tensors: the whole row group, contiguous, shape ``(rows, ...)``.
        """
        groups = self.read.window.groups
        if self.read.window.seed is None:  # of one row group alone, whose rows are taken as they lie
            self._tensors = {name: _spans(tensor, self.read.spans) for name, tensor in tensors.items()}
            return
        begin = sum(group.rows for group in groups[:number])
        places = self._places_for(tensors)[begin : begin + groups[number].rows]
        # numpy, not torch: a copy here is on this thread alone, and half as long with a row taken as one value
        if self.read.rows == self.read.window.rows:
            for name, tensor in tensors.items():
                _as_values(self._tensors[name])[places] = _as_values(tensor)
            return
        wanted = np.flatnonzero(places >= 0)
        places = places[wanted]
        for name, tensor in tensors.items():
            _as_values(self._tensors[name])[places] = _as_values(tensor)[wanted]

    def take(self) -> Tensors:
        """The rows, once all row groups are in; shape ``(read.rows, ...)``. They are held here no longer.

        Views where nothing is permuted and the rows are neighbors.
        """
        tensors, self._tensors = self._tensors, {}
        self._places = None
        return tensors

    def _places_for(self, like: Tensors) -> npt.NDArray[np.int64]:
        """The place of each of the window's rows among those that are taken, -1 where it is not."""
        with self._lock:
            if self._places is None:
                read, seed = self.read, self.read.window.seed
                assert seed is not None, "rows as they lie need no places"
                permutation = torch.randperm(read.window.rows, generator=torch.Generator().manual_seed(seed))
                places = np.full(read.window.rows, -1, np.int64)
                places[_spans(permutation, read.spans).numpy()] = np.arange(read.rows)
                self._tensors = {name: tensor.new_empty((read.rows, *tensor.shape[1:])) for name, tensor in like.items()}
                self._places = places
            return self._places


def _spans(tensor: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    parts = [tensor[start:stop] for start, stop in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _as_values(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """A view of shape ``(rows,)``: a row of a matrix as one value of so many bytes."""
    array = tensor.numpy()
    if array.ndim == 1:
        return array
    values: npt.NDArray[Any] = array.view(np.dtype((np.void, array.shape[1] * array.itemsize))).reshape(-1)
    return values
