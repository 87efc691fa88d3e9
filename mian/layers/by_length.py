"""Run a layer over histories without paying for their padding."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F


def by_length(
    layer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], x: torch.Tensor, lengths: torch.Tensor, step: int = 8
) -> torch.Tensor:
    """Apply a layer to groups of rows of alike length, each group cut after its last real position; the same output for less work.

    Rows are grouped by length in steps: 1 to 8, 9 to 16 and so on. Empty rows skip the layer. A group without rows still goes through it,
    so that its parameters have a gradient in every step, be it 0: ranks that train together must agree on which do. Cutting at multiples
    of 8 helps by itself: the attention kernel of the CPU takes longer over 30 positions than over 32.

    Args:
        layer: takes float ``(R, W, d)`` and a bool mask ``(R, W)``, true where a position is real, with R from 0 up and at least one real
            position a row; gives float ``(R, W, d)``. No real position's output may depend on what stands at one that is not.
        x: float ``(B, T, d)``.
        lengths: int ``(B,)``, how many of the T positions are real; they are the first.
        step: difference in length within a group.

    Returns:
        Float ``(B, T, d)``; what stands at positions that are not real means nothing.
    """
    T = x.shape[1]
    widths = list(range(step, T + step, step))  # of the groups; the last is T or a little more
    longest = widths[-1]
    ordered, order = lengths.clamp(0, T).sort()
    ends: list[int] = torch.searchsorted(ordered, torch.tensor([0, *widths]).to(ordered), right=True).tolist()
    sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    rows = F.pad(x.index_select(0, order), (0, 0, 0, longest - T))  # (B, longest, d), the shortest history first
    empty, *groups = torch.split(rows, sizes)
    outputs = [torch.zeros_like(empty)]
    for group, group_lengths, width in zip(groups, torch.split(ordered, sizes)[1:], widths, strict=True):
        real = torch.arange(width, device=x.device) < group_lengths[:, None]
        outputs.append(F.pad(layer(group[:, :width], real), (0, 0, 0, longest - width)))
    return torch.cat(outputs)[:, :T].index_select(0, order.argsort())
