"""From windows to batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from mian.stream.schema import Tensors
from mian.stream.windows import number_of_rows


def cut_batches(windows: Iterable[Tensors], batch_size: int) -> Iterator[Tensors]:
    """Cut a run of windows into batches.

    Args:
        windows: dicts of the same columns; tensors of shape ``(rows, ...)``.
        batch_size: rows of each batch but the last.

    Yields:
        Batches of shape ``(batch_size, ...)``, the last one with what is left. A batch that lies in one window is a view of
        it; one that spans several is one concatenation.
    """
    parts: list[Tensors] = []
    held = 0
    for window in windows:
        rows = number_of_rows(window)
        start = 0
        while start < rows:
            stop = min(start + batch_size - held, rows)
            parts.append({name: tensor[start:stop] for name, tensor in window.items()})
            held += stop - start
            start = stop
            if held == batch_size:
                yield _joined(parts)
                parts, held = [], 0
    if parts:
        yield _joined(parts)


def _joined(parts: list[Tensors]) -> Tensors:
    if len(parts) == 1:
        return parts[0]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
