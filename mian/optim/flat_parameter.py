"""Many small parameters as one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn


class FlatParameter:
    """Parameters moved into one piece of memory, and their gradients into another.

    The parameters stay what they were to their modules: views. Gradients are added to theirs, so ``gradient`` is to be set to 0 before
    each step, never the parameters' ``grad`` to None.

    Args:
        parameters: dense, of one dtype and device.
        statistics: tensors of S entries together, of the same dtype and device, moved behind the gradients.

    Attributes:
        weight: all weights, ``(N,)``; its ``grad`` is ``gradient``.
        gradient: all gradients, ``(N,)``.
        flag: A number that travels with the gradients, ``(1,)``; see :meth:`mian.optim.optimizer.Optimizer.step`.
        exchanged: the gradients, the statistics and, last, the flag, ``(N + S + 1,)``, for one exchange.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], statistics: Sequence[torch.Tensor] = ()) -> None:
        self._parameters = list(parameters)
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in self._parameters])
        self.weight = nn.Parameter(flat)
        self.exchanged = flat.new_zeros(len(flat) + 1 + sum(tensor.numel() for tensor in statistics))
        self.gradient, self.flag = self.exchanged[: len(flat)], self.exchanged[-1:]
        end = len(flat)
        for tensor in statistics:
            start, end = end, end + tensor.numel()
            tensor.data = self.exchanged[start:end].view_as(tensor).copy_(tensor)
        self.weight.grad = self.gradient
        end = 0
        for parameter in self._parameters:
            start, end = end, end + parameter.numel()
            parameter.data = flat[start:end].view_as(parameter)
            parameter.grad = self.gradient[start:end].view_as(parameter)

    def mask(self, chosen: Callable[[nn.Parameter], bool]) -> torch.Tensor:
        """1 where a weight is of a parameter that is chosen, else 0, ``(N,)``."""
        parts = [torch.full((parameter.numel(),), float(chosen(parameter))) for parameter in self._parameters]
        return torch.cat(parts).to(self.weight)
