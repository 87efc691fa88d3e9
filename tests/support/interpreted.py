"""The operators of a GPU, interpreted on the CPU, beside torch's own; needs TRITON_INTERPRET=1.

Prints the differences, in shares of what rounding explains.
"""

import json
from collections.abc import Callable

import torch
import torch.nn.functional as F

from mian.kernels import JaggedLayout, gpu
from mian.layers import OldestFirst
from tests.support.arithmetic import Tensors, rounding_bounds

LENGTHS = torch.tensor([0, 1, 30, 32, 33, 70, 5, 0, *[3] * 12])
LAYOUT = JaggedLayout(LENGTHS, 70)
OFFSETS, P = LAYOUT.offsets, LAYOUT.real
LONGEST = 70
ELEMENTARY = 8  #: roundings in an exponential, a sigmoid or a division, and in what is made of it at once


def histories(packed: torch.Tensor) -> list[torch.Tensor]:
    return list(packed.split(LENGTHS.tolist()))


def attended(query_key_value: torch.Tensor, heads: int) -> torch.Tensor:
    width = query_key_value.shape[1] // 3
    found = []
    for history in histories(query_key_value):
        query, key, value = history.view(len(history), 3, heads, width // heads).permute(1, 2, 0, 3)
        found.append(F.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(len(history), width))
    return torch.cat(found)


def share_of_bound(run: Callable[..., Tensors], inputs: Tensors, found: Tensors, terms: int) -> float:
    """The largest difference of the GPU's results from torch's in float64, in shares of what rounding explains."""
    exact = rounding_bounds(run, inputs, terms)
    return max(float((got.double() - value).abs().max()) / bound for got, (value, bound) in zip(found, exact, strict=True))


def with_gradients(run: Callable[..., Tensors], came: torch.Tensor) -> Callable[..., Tensors]:
    """A function's results, then the gradients of its inputs where ``came`` is that of its last result."""

    def results(*inputs: torch.Tensor) -> Tensors:
        tensors = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        outputs = run(*tensors)
        outputs[-1].backward(came.to(tensors[0].dtype))
        return [*outputs, *(tensor.grad for tensor in tensors if tensor.grad is not None)]

    return results


def softmaxes(scores: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.softmax(history, 0) for history in histories(scores)])


def pooled(scores: torch.Tensor, vectors: torch.Tensor) -> Tensors:
    weights = softmaxes(scores)
    return [weights, torch.stack([history.sum(dim=0) for history in histories(weights[:, None] * vectors)])]


def read(x: torch.Tensor, attention: torch.Tensor, recurrent: torch.Tensor) -> Tensors:
    order = OldestFirst(LAYOUT)
    return [order.restore(order.read(order.arrange(x), order.arrange(attention), recurrent))]


def main() -> None:
    torch.manual_seed(0)
    found = {}
    for heads, width in ((2, 4), (3, 17)):
        x, came = torch.randn(P, 3 * heads * width), torch.randn(P, heads * width)
        output, *kept = gpu.attention(x, OFFSETS, heads)
        grad = gpu.attention_backward(came, x, OFFSETS, output, *kept, heads)
        run = with_gradients(lambda x, heads=heads: [attended(x, heads)], came)
        found[f"attention {heads} {width}"] = share_of_bound(run, [x], [output, grad], 2 * (width + 2 * LONGEST + ELEMENTARY))
    scores, came = torch.randn(P), torch.randn(P)
    weights = gpu.softmax(scores, OFFSETS)
    run = with_gradients(lambda scores: [softmaxes(scores)], came)
    grad = gpu.softmax_backward(came, weights, OFFSETS)
    found["softmax"] = share_of_bound(run, [scores], [weights, grad], 2 * (LONGEST + ELEMENTARY))
    for width in (7, 100):
        scores, vectors, came = torch.randn(P), torch.randn(P, width), torch.randn(len(LENGTHS), width)
        weights, sums = gpu.pool(scores, vectors, OFFSETS)
        grads = gpu.pool_backward(came, weights, vectors, OFFSETS)
        run = with_gradients(pooled, came)
        found[f"pool {width}"] = share_of_bound(
            run, [scores, vectors], [weights, sums, *grads], 2 * (width + 2 * LONGEST + ELEMENTARY)
        )
    for hidden in (5, 64):
        operands = torch.randn(P, 3 * hidden), torch.rand(P), torch.randn(3 * hidden, hidden) * 0.3
        came = torch.randn(P, hidden)
        states = gpu.recurrence(*operands, OFFSETS)
        grad_x, grad_attention, through, before = gpu.recurrence_backward(came, *operands, OFFSETS, states)
        results = [states, grad_x, grad_attention, through.t() @ before]
        terms = 2 * LONGEST * (hidden + 2 * ELEMENTARY) + P
        found[f"recurrence {hidden}"] = share_of_bound(with_gradients(read, came), operands, results, terms)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
