"""The rows of a window, put together from its pieces of row groups."""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mian.stream.read_plan import WindowSlice
from mian.stream.schema import Arrays, Tensors
from mian.stream.sharding import Span

_LARGE_PAGE = 1 << 21  # bytes


class WindowRows:
    """The rows that a rank takes of one window, in their permuted order.

    Whoever has rows of the window's pieces puts them in, from any thread and in any order: they go straight to their places, the
    one copy that there is. Memory for the whole of it is taken with the first rows that come.

    numpy does it, not torch: on this thread alone, and with a row taken as one value, which takes half the time.

    Args:
        read: which rows of which window.
    """

    def __init__(self, read: WindowSlice) -> None:
        self.read = read
        self._lock = threading.Lock()
        self._arrays: Arrays = {}
        self._places: npt.NDArray[np.int64] | None = None

    def put(self, number: int, first: int, arrays: Arrays) -> None:
        """Take what is wanted of some rows of a piece.

        Args:
            number: which of the window's pieces it is, from 0.
            first: where in the piece the rows begin.
            arrays: neighboring rows, contiguous, shape ``(rows, ...)``.
        """
        places = self._all_places(arrays)
        begin = sum(piece.rows for piece in self.read.window.pieces[:number]) + first
        places = places[begin : begin + number_of_rows(arrays)]
        if self.read.rows == self.read.window.rows:
            for name, array in arrays.items():
                _as_values(self._arrays[name])[places] = _as_values(array)
            return
        wanted = np.flatnonzero(places >= 0)
        places = places[wanted]
        for name, array in arrays.items():
            _as_values(self._arrays[name])[places] = _as_values(array)[wanted]

    def take(self) -> Tensors:
        """The rows, once all are in; shape ``(read.rows, ...)``. They are held here no longer."""
        arrays, self._arrays, self._places = self._arrays, {}, None
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _all_places(self, like: Arrays) -> npt.NDArray[np.int64]:
        """The place of each of the window's rows among those that are taken, -1 where it is not."""
        with self._lock:
            if self._places is None:
                window = self.read.window
                if window.seed is None:
                    order = torch.arange(window.rows)
                else:
                    order = torch.randperm(window.rows, generator=torch.Generator().manual_seed(window.seed))
                places = np.full(window.rows, -1, np.int64)
                places[_spans(order, self.read.spans).numpy()] = np.arange(self.read.rows)
                self._arrays = {name: _mapped((self.read.rows, *array.shape[1:]), array.dtype) for name, array in like.items()}
                self._places = places
            return self._places


def number_of_rows(columns: Mapping[str, Sized]) -> int:
    """The rows of a batch, a window or a part of it."""
    return len(next(iter(columns.values())))


def _spans(tensor: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    return torch.cat([tensor[start:stop] for start, stop in spans])


def _mapped(shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Memory in a mapping of its own, which goes back to the system with the last view of it.

    From the heap, where one thread takes it and another gives it back, holes would be left.
    """
    size = math.prod(shape) * dtype.itemsize
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE") and size >= _LARGE_PAGE:  # else each 4 KiB of it are a page fault
        mapping.madvise(mmap.MADV_HUGEPAGE)
    array: npt.NDArray[Any] = np.frombuffer(mapping, dtype).reshape(shape)
    return array


def _as_values(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view of shape ``(rows,)``: a row of a matrix as one value of so many bytes."""
    if array.ndim == 1:
        return array
    values: npt.NDArray[Any] = array.view(np.dtype((np.void, array.shape[1] * array.itemsize))).reshape(-1)
    return values
