"""Gated recurrent units over packed histories, from the oldest behavior to the most recent."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from mian.kernels import DenseLayout, JaggedLayout, fits_recurrence, recurrence


class ReadingOrder(Protocol):
    """The order in which a recurrent network is given the behaviors of a batch."""

    def arrange(self, packed: torch.Tensor) -> torch.Tensor:
        """From the packed order to this one, ``(P, ...)``."""

    def restore(self, arranged: torch.Tensor) -> torch.Tensor:
        """Back to the packed order, ``(P, ...)``."""

    def read(self, x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
        """All steps of :class:`GRU`, from the products of its inputs, ``(P, 3 H)``, in this order."""


def reading_order(layout: JaggedLayout, vectors: torch.Tensor, hidden: int) -> ReadingOrder:
    """How recurrent networks with states of this width read behaviors where these vectors are."""
    if isinstance(layout, DenseLayout):
        return AllPositions(layout)
    return AsPacked(layout) if fits_recurrence(vectors, hidden) else OldestFirst(layout)


class AsPacked:
    """The packed order itself: one operator reads each history from its end, all of it.

    Args:
        layout: in which a history's most recent behavior is the first.
    """

    def __init__(self, layout: JaggedLayout) -> None:
        self._offsets = layout.offsets

    def arrange(self, packed: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        return packed

    def restore(self, arranged: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        return arranged

    def read(self, x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        return recurrence(x, attention, recurrent, self._offsets)


class OldestFirst:
    """Every history's oldest behavior, then every second oldest: what is one step of the network lies side by side.

    Longer histories come first, so that the histories that still go on at a step are the first of those of the step before.

    Args:
        layout: in which a history's most recent behavior is the first.

    Attributes:
        places: int64 ``(P,)``, where the behaviors in this order lie among the packed ones.
        back: int64 ``(P,)``, where the packed ones lie in this order.
        counts: how many histories have a first, a second, ... behavior.
    """

    def __init__(self, layout: JaggedLayout) -> None:
        lengths, samples = layout.lengths.sort(descending=True, stable=True)
        steps = torch.arange(int(lengths.max()) if len(lengths) else 0, device=lengths.device)[:, None]
        goes_on = steps < lengths  # (steps, B)
        oldest = layout.offsets[1:].index_select(0, samples) - 1
        self.places = (oldest - steps)[goes_on]
        self.back = torch.empty_like(self.places)
        self.back[self.places] = torch.arange(len(self.places), device=self.places.device)
        self.counts: list[int] = goes_on.sum(dim=1).tolist()

    def arrange(self, packed: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        return packed.index_select(0, self.places)

    def restore(self, arranged: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        return arranged.index_select(0, self.back)

    def read(self, x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        states: torch.Tensor = _Recurrence.apply(x, attention, recurrent, self.counts)  # type: ignore[no-untyped-call]
        return states


class AllPositions:
    """The order of a dense layout: every history is read through all T positions, and those that are not real leave its state at 0.

    Args:
        layout: in which a history's most recent behavior is the first, so that positions that are not real are read before all others.
    """

    def __init__(self, layout: DenseLayout) -> None:
        self._layout = layout

    def arrange(self, packed: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        return packed

    def restore(self, arranged: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        return arranged

    def read(self, x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
        """See :class:`ReadingOrder`."""
        hidden = recurrent.shape[1]
        inputs, a = x.view(*self._layout.shape, -1), attention.view(*self._layout.shape, 1)
        h = x.new_zeros(self._layout.shape[0], hidden)
        states = []
        for step in reversed(range(self._layout.shape[1])):
            r_u = torch.sigmoid(inputs[:, step, : 2 * hidden] + h @ recurrent[: 2 * hidden].t())
            r, u = r_u[:, :hidden], r_u[:, hidden:]
            c = torch.tanh(inputs[:, step, 2 * hidden :] + r * (h @ recurrent[2 * hidden :].t()))
            h = torch.where(self._layout.mask[:, step, None], torch.lerp(h, c, u * a[:, step]), h)
            states.append(h)
        return torch.stack(states[::-1], dim=1).flatten(0, 1)


class GRU(nn.Module):
    """A gated recurrent unit, with or without attention in its update gate (AUGRU).

    Zhou et al. 2019, Eqs. 2-5, and with ``a`` its AUGRU (``u`` is ``1 - z`` of :class:`torch.nn.GRU`, which also has a bias more,
    inside of the product with ``r``)::

        u = sigmoid(W_u i + U_u h + b_u)    r = sigmoid(W_r i + U_r h + b_r)    c = tanh(W_h i + r * U_h h + b_h)
        h' = (1 - a u) * h + a u * c

    The first ``h`` is 0.

    Args:
        width: of what it reads.
        hidden: H, of its state.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.inputs = nn.Linear(width, 3 * hidden)  # W_r, W_u, W_h, one under the other, and their b
        self.recurrent = nn.Parameter(torch.zeros(3 * hidden, hidden))  # U_r, U_u, U_h

    def forward(self, vectors: torch.Tensor, order: ReadingOrder, attention: torch.Tensor | None = None) -> torch.Tensor:
        """Read histories.

        Args:
            vectors: ``i``, float ``(P, width)``, in that order.
            order: of the behaviors.
            attention: ``a``, float ``(P,)``, in this order; 1 where it is None.

        Returns:
            The state after each, float ``(P, H)``, in this order.
        """
        x = self.inputs(vectors)  # of all steps at once; what is left for each step is U h
        dtype = self.recurrent.dtype
        weights = vectors.new_ones(vectors.shape[0]) if attention is None else attention
        with torch.autocast(x.device.type, enabled=False):
            return order.read(x.to(dtype), weights.to(dtype), self.recurrent)


class _Recurrence(torch.autograd.Function):
    """All steps forward and backward, with as few operators a step as possible.

    Let ``g`` be the gradient of a step's state ``h'``, ``m = a u`` the share of the way from ``h`` to ``c``, and ``s = U_h h``. Then::

        dL/d(x_c) = g m (1 - c^2)                 x_c: what tanh gets besides r s
        dL/ds     = g m (1 - c^2) r
        dL/d(x_r) = g m (1 - c^2) s r (1 - r)     x_r, x_u: what the sigmoids get
        dL/d(x_u) = g (c - h) a u (1 - u)
        dL/da     = g . (c - h) u
        dL/dh     = g (1 - m) + U_r^T dL/d(x_r) + U_u^T dL/d(x_u) + U_h^T dL/ds

    All are linear in ``g``, and their factors do not depend on it. So the factors of all steps are computed at once, as is the gradient
    of U; what is left for each step is one product with U, for the step before it.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor, counts: list[int]) -> torch.Tensor:
        hidden = recurrent.shape[1]
        before, states, state_products, candidate = (x.new_empty(len(x), hidden) for _ in range(4))
        gates = x.new_empty(len(x), 2 * hidden)
        x_gates, x_candidate = x[:, : 2 * hidden], x[:, 2 * hidden :]
        a = attention[:, None]
        transposed = recurrent.t()
        h = x.new_zeros(counts[0] if counts else 0, hidden)
        end = 0
        for count in counts:
            step = slice(end, end := end + count)
            before[step] = h[:count]
            product = before[step] @ transposed  # (count, 3 H)
            torch.add(product[:, : 2 * hidden], x_gates[step], out=gates[step])
            r, u = gates[step].sigmoid_().chunk(2, dim=1)
            state_products[step] = product[:, 2 * hidden :]  # U_h h
            c = torch.addcmul(x_candidate[step], r, state_products[step], out=candidate[step]).tanh_()
            h = torch.lerp(before[step], c, u * a[step], out=states[step])
        ctx.save_for_backward(attention, recurrent, before, gates, state_products, candidate)
        ctx.counts = counts
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        attention, recurrent, before, gates, state_products, c = ctx.saved_tensors
        r, u = gates.chunk(2, dim=1)
        a = attention[:, None]
        moved = u * a  # the share of the way from h to c
        stays = 1 - moved
        way = c - before
        grad_candidate = moved * (1 - c * c)  # what a state's gradient becomes before the tanh
        # and before the sigmoids of r and u, and at U_h h: what goes through U
        factors = torch.stack(
            [grad_candidate * state_products * r * (1 - r), way * a * u * (1 - u), grad_candidate * r], dim=1
        )  # (P, 3, H)
        through = torch.empty_like(factors)
        grads = grad_states.clone()  # of each step's state, what comes from later steps added on the way
        end, later = len(grads), None
        for count in reversed(ctx.counts):
            step = slice(end := end - count, end + count)
            if later is not None:
                grads[step][: len(later)] += later
            torch.mul(factors[step], grads[step][:, None], out=through[step])
            later = torch.addmm(grads[step] * stays[step], through[step].flatten(1), recurrent)
        flat = through.flatten(1)  # (P, 3 H)
        grad_x = torch.cat([flat[:, : 2 * before.shape[1]], grads * grad_candidate], dim=1)
        return grad_x, (grads * way * u).sum(dim=1), flat.t() @ before, None
