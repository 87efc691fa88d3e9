"""Rows of embedding tables: which of them a batch holds, the sums of their gradients, and their update."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mian.kernels.jagged import JaggedLayout
from mian.kernels.load import fits, fits_devices

_LAST_INT32 = 2**31 - 1


def field_rows(
    columns: Sequence[torch.Tensor], slices: Sequence[slice], layout: JaggedLayout | None = None
) -> tuple[torch.Tensor, int]:
    """Ids of several fields as rows of the one table that has all vocabularies.

    Args:
        columns: the fields' ids, at least one field, each int32 or int64 ``(R,)``; with a layout padded, ``(B, T)``.
        slices: where the rows of each field's vocabulary lie.
        layout: R of the B * T positions are real.

    Returns:
        Rows, int32 or int64 ``(R, fields)``; and the number of a field with an id outside of its vocabulary, -1 where there is none. On
        other devices than the CPU, which such a look would hold up, and while a model is exported it is always -1.
    """
    is_long = any(field_rows_.stop - 1 > _LAST_INT32 for field_rows_ in slices)
    starts = [field_rows_.start for field_rows_ in slices]
    sizes = [field_rows_.stop - field_rows_.start for field_rows_ in slices]
    if fits_devices(*columns):
        places = None if layout is None else layout.places
        rows, wrong = torch.ops.mian.field_rows(columns, places, starts, sizes, is_long)
        return rows, wrong
    ids = torch.stack([column if layout is None else layout.pack(column) for column in columns], dim=1)
    wrong = -1
    if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_exporting():
        limits = torch.tensor(sizes)
        outside = ((ids < 0) | (ids >= limits)).any(dim=0).tolist()
        wrong = outside.index(True) if True in outside else -1
    return ids + torch.tensor(starts, dtype=torch.int64 if is_long else torch.int32, device=ids.device), wrong


def distinct(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each distinct row once, in an order that the rows decide; and for each row its place among them.

    Args:
        rows: int32 or int64 ``(N,)``.

    Returns:
        The distinct ones, of the same type, and int32 or int64 ``(N,)``.
    """
    if fits_devices(rows):
        found, places = torch.ops.mian.distinct(rows.contiguous())
        return found, places
    unique: tuple[torch.Tensor, torch.Tensor] = torch.unique(rows, return_inverse=True)
    return unique


def sum_by_place(vectors: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
    """Add up vectors ``(N, width)`` by their places, int ``(N,)``, among ``count``: ``(count, width)``."""
    if fits(vectors) and places.dtype == torch.int32:
        sums: torch.Tensor = torch.ops.mian.sum_by_place(vectors.contiguous(), places, count)
        return sums
    return vectors.new_zeros(count, vectors.shape[1]).index_add_(0, places, vectors)


def lazy_adam_(
    table: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    rows: torch.Tensor,
    gradients: torch.Tensor,
    rate: float,
    betas: tuple[float, float],
    eps: float,
    step: int,
) -> None:
    """Adam's step (Kingma and Ba 2015, Algorithm 1) on some rows of a table, in place.

    Args:
        table: Float32 ``(R, width)``.
        mean: Its first moments, ``(R, width)``.
        square: Its second moments, ``(R, width)``.
        rows: int64 ``(N,)``, each once.
        gradients: ``(N, width)``, of these rows.
        rate: the learning rate.
        betas: what is left of the moments after a step.
        eps: added to the root of the second moment.
        step: from 1, by which the bias of the moments is corrected.
    """
    beta1, beta2 = betas
    unbiased = rate / (1 - beta1**step), (1 - beta2**step) ** -0.5
    if fits(table, gradients):
        torch.ops.mian.lazy_adam(table, mean, square, rows, gradients.contiguous(), beta1, beta2, eps, *unbiased)
        return
    means = mean.index_select(0, rows).lerp_(gradients, 1 - beta1)
    squares = square.index_select(0, rows).mul_(beta2).addcmul_(gradients, gradients, value=1 - beta2)
    mean.index_copy_(0, rows, means)
    square.index_copy_(0, rows, squares)
    update = means.div_(squares.sqrt_().mul_(unbiased[1]).add_(eps)).mul_(-unbiased[0])
    table.index_copy_(0, rows, update.add_(table.index_select(0, rows)))


def rowwise_adagrad_(
    table: torch.Tensor, squares: torch.Tensor, rows: torch.Tensor, gradients: torch.Tensor, rate: float, eps: float
) -> None:
    """Row-wise Adagrad's step on some rows of a table, in place.

    Args:
        table: ``(R, width)``.
        squares: ``(R,)``, of each row the sum of its gradients' mean squares.
        rows: int64 ``(N,)``, each once.
        gradients: ``(N, width)``, of these rows.
        rate: the learning rate.
        eps: added to the root of the sum.
    """
    if fits(table, gradients):
        torch.ops.mian.rowwise_adagrad(table, squares, rows, gradients.contiguous(), rate, eps)
        return
    sums = squares.index_select(0, rows).add_(gradients.square().mean(dim=1))
    squares.index_copy_(0, rows, sums)
    table.index_add_(0, rows, gradients / sums.sqrt().add_(eps)[:, None], alpha=-rate)
