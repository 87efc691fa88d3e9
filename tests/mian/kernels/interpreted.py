"""The operators of a GPU, interpreted on the CPU, beside torch's own; needs TRITON_INTERPRET=1. Prints the differences."""

import json

import torch
import torch.nn.functional as F

from mian.kernels import Packing, gpu
from mian.layers import OldestFirst

LENGTHS = torch.tensor([0, 1, 30, 32, 33, 70, 5, 0, *[3] * 12])
PACKING = Packing(LENGTHS, 70)
OFFSETS, P = PACKING.offsets, PACKING.real


def histories(packed: torch.Tensor) -> list[torch.Tensor]:
    return list(packed.split(LENGTHS.tolist()))


def attended(query_key_value: torch.Tensor, heads: int) -> torch.Tensor:
    width = query_key_value.shape[1] // 3
    found = []
    for of_sample in histories(query_key_value):
        query, key, value = of_sample.view(len(of_sample), 3, heads, width // heads).permute(1, 2, 0, 3)
        found.append(F.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(len(of_sample), width))
    return torch.cat(found)


def off(pairs: list[tuple[torch.Tensor, torch.Tensor | None]]) -> float:
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs if other is not None)


def main() -> None:
    torch.manual_seed(0)
    found = {}
    for heads, of_head in ((2, 4), (3, 17)):
        x = torch.randn(P, 3 * heads * of_head, requires_grad=True)
        expected, came = attended(x, heads), torch.randn(P, heads * of_head)
        expected.backward(came)
        output, *kept = gpu.attention(x.detach(), OFFSETS, heads)
        grad = gpu.attention_backward(came, x.detach(), OFFSETS, output, *kept, heads)
        found[f"attention {heads} {of_head}"] = off([(output, expected), (grad, x.grad)])
    scores, came = torch.randn(P, requires_grad=True), torch.randn(P)
    weights = torch.cat([torch.softmax(of_sample, 0) for of_sample in histories(scores)])
    weights.backward(came)
    got = gpu.softmax(scores.detach(), OFFSETS)
    found["softmax"] = off([(got, weights), (gpu.softmax_backward(came, got, OFFSETS), scores.grad)])
    for width in (7, 100):
        scores, vectors = torch.randn(P, requires_grad=True), torch.randn(P, width, requires_grad=True)
        weights = torch.cat([torch.softmax(of_sample, 0) for of_sample in histories(scores)])
        sums = torch.stack([of_sample.sum(dim=0) for of_sample in histories(weights[:, None] * vectors)])
        came = torch.randn_like(sums)
        sums.backward(came)
        got_weights, got = gpu.pool(scores.detach(), vectors.detach(), OFFSETS)
        grads = gpu.pool_backward(came, got_weights, vectors.detach(), OFFSETS)
        pairs = [(got_weights, weights), (got, sums), (grads[0], scores.grad), (grads[1], vectors.grad)]
        found[f"pool {width}"] = off(pairs)
    for hidden in (5, 64):
        order = OldestFirst(PACKING)
        x, attention = torch.randn(P, 3 * hidden, requires_grad=True), torch.rand(P, requires_grad=True)
        recurrent = (torch.randn(3 * hidden, hidden) * 0.3).requires_grad_()
        states = order.restore(order.read(order.arrange(x), order.arrange(attention), recurrent))
        came = torch.randn(P, hidden)
        states.backward(came)
        operands = x.detach(), attention.detach(), recurrent.detach(), OFFSETS
        got = gpu.recurrence(*operands)
        grad_x, grad_attention, through, before = gpu.recurrence_backward(came, *operands, got)
        pairs = [(got, states), (grad_x, x.grad), (grad_attention, attention.grad), (through.t() @ before, recurrent.grad)]
        found[f"recurrence {hidden}"] = off(pairs)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
