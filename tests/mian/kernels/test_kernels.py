"""The compiled operators against torch's own, which take their place in float64."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from mian.kernels import (
    Dropout,
    JaggedLayout,
    attention,
    distinct,
    field_rows,
    fits_recurrence,
    is_compiled,
    lazy_adam_,
    load,
    pool,
    recurrence,
    rowwise_adagrad_,
    shapes,
    softmax,
    sum_by_place,
)
from mian.layers import OldestFirst, reading_order
from mian.layers.gru import AsPacked
from tests.support.arithmetic import UNIT, assert_float32

LENGTHS = {"one": [1], "mixed": [0, 3, 20, 8, 16, 17, 1, 0, 33], "all empty": [0, 0], "full": [33] * 40}


@pytest.fixture(autouse=True)
def compiled():
    assert is_compiled(), "scripts/setup.sh builds them"
    torch.manual_seed(0)


def assert_as_torchs_own(run, inputs, terms):
    """What a function gives and its gradients: compiled in float32, torch's own in float64, no further apart than rounding explains.

    Args:
        run: gives one tensor.
        inputs: of float32.
        terms: of the longest chain of roundings, forward or backward; where a sum is split over several operators, of all of them.
    """

    def results(*inputs):
        tensors = [tensor.detach().clone().requires_grad_() for tensor in inputs]
        output = run(*tensors)
        (output * torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)).sum().backward()
        return [output, *(tensor.grad for tensor in tensors)]

    assert_float32(results, inputs, terms)


LONGEST = 33
ELEMENTARY = 8  #: roundings in an exponential, a sigmoid or a division, and in what is made of it at once


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("heads", "width"), [(8, 4), (1, 1), (3, 5), (2, 16), (8, 2), (4, 6), (8, 8), (8, 10)])
def test_attention_and_its_gradient(lengths, heads, width):
    layout = JaggedLayout(torch.tensor(lengths), LONGEST)
    query_key_value = 2 * torch.randn(sum(lengths), 3 * heads * width)
    # a score is a sum over the width; its exponential, their sum and the weighted sum follow; the way back has the same sums
    terms = 2 * (width + 2 * LONGEST + ELEMENTARY)
    assert_as_torchs_own(lambda x: attention(x, layout, heads), [query_key_value], terms)


def test_attention_over_scores_far_apart_is_neither_nan_nor_off():
    layout = JaggedLayout(torch.tensor([4]), 4)
    query_key_value = torch.tensor([[100.0, 100.0, 1.0], [-100.0, -100.0, 2.0], [0.0, 50.0, 3.0], [1.0, 0.0, 4.0]])
    assert_as_torchs_own(lambda x: attention(x, layout, 1), [query_key_value], terms=2 * (1 + 2 * 4 + ELEMENTARY))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_a_softmax_and_its_gradient(lengths):
    layout = JaggedLayout(torch.tensor(lengths), LONGEST)
    scores = 3 * torch.randn(sum(lengths))
    assert_as_torchs_own(lambda scores: softmax(scores, layout), [scores], terms=2 * (LONGEST + ELEMENTARY))


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("width", [1, 7, 32])
def test_pooling_and_its_gradients(lengths, width):
    layout = JaggedLayout(torch.tensor(lengths), LONGEST)
    scores, vectors = 3 * torch.randn(sum(lengths)), torch.randn(sum(lengths), width)
    terms = 2 * (width + 2 * LONGEST + ELEMENTARY)
    assert_as_torchs_own(lambda s, v: pool(s, v, layout)[0], [scores, vectors], terms)
    assert_float32(lambda s, v: [pool(s, v, layout)[1]], [scores, vectors], terms=LONGEST + ELEMENTARY)
    total = layout.sum(pool(scores, vectors, layout)[1]).double()
    assert ((total - (layout.lengths > 0).double()).abs() <= (2 * LONGEST + ELEMENTARY) * UNIT).all()


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("hidden", [1, 5, 32, 40, 128])
def test_a_gated_recurrent_unit_and_its_gradients(lengths, hidden):
    layout = JaggedLayout(torch.tensor(lengths), LONGEST)

    def read(x, attention, recurrent):
        order = reading_order(layout, x, hidden)
        assert isinstance(order, AsPacked if x.dtype == torch.float32 else OldestFirst)
        return order.restore(order.read(order.arrange(x), order.arrange(attention), recurrent))

    P = sum(lengths)
    inputs = torch.randn(P, 3 * hidden), torch.rand(P), torch.randn(3 * hidden, hidden) / hidden**0.5
    # A step adds up its state's width and rounds its gates, and steps follow each other; the gradient of U is a sum over all positions.
    steps = max(lengths)
    terms = 2 * steps * (hidden + 2 * ELEMENTARY) + P
    assert_as_torchs_own(read, inputs, terms)


def test_a_gated_recurrent_unit_does_not_lose_a_gate_that_is_wide_open_or_shut_nor_a_nan():
    layout = JaggedLayout(torch.tensor([4]), 4)
    x = torch.tensor([[0.0, -200.0, 9.0], [200.0, 200.0, 200.0], [200.0, 200.0, -200.0], [-200.0, 0.0, 0.0]])
    states = recurrence(x, torch.ones(4), torch.ones(3, 1), layout.offsets)
    torch.testing.assert_close(states, torch.tensor([[1.0], [1.0], [-1.0], [0.0]]))
    x[2, 0] = torch.nan
    states = recurrence(x, torch.ones(4), torch.ones(3, 1), layout.offsets)
    assert states.isnan().squeeze(1).tolist() == [True, True, True, False]


def test_states_that_are_very_wide_are_read_a_step_at_a_time():
    assert fits_recurrence(torch.zeros(1), 128)
    assert not fits_recurrence(torch.zeros(1), 129)
    assert isinstance(reading_order(JaggedLayout(torch.tensor([1]), 1), torch.zeros(1), 129), OldestFirst)


def test_operators_of_another_version_are_not_used(monkeypatch, caplog):
    monkeypatch.setattr(shapes, "LIKE", {**shapes.LIKE, "to_come": shapes.LIKE["pool"]})
    monkeypatch.setattr(load, "_found", None)
    assert not is_compiled()
    assert "have no to_come; torch's own do, slower: run scripts/setup.sh" in caplog.text


def test_the_number_of_threads_changes_nothing():
    layout = JaggedLayout(torch.randint(0, 31, (500,)), 30)
    query_key_value = torch.randn(int(layout.lengths.sum()), 96)
    before = torch.get_num_threads()
    outputs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        attended = attention(query_key_value, layout, 8)
        outputs.append(torch.cat([attended.flatten(), Dropout(0.3)(attended).flatten()]))
    torch.set_num_threads(before)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("probability", [0.1, 0.2, 0.5])
def test_dropout_drops_its_share_and_scales_up_the_rest(probability):
    x = torch.randn(1000, 1000) + 10
    kept = Dropout(probability)(x)
    share = (kept == 0).float()
    assert share.mean().item() == pytest.approx(probability, abs=3e-3)
    assert share.mean(dim=0).std().item() == pytest.approx((probability * (1 - probability) / 1000) ** 0.5, rel=0.1)
    assert share.mean(dim=1).std().item() == pytest.approx((probability * (1 - probability) / 1000) ** 0.5, rel=0.1)
    torch.testing.assert_close(kept[kept != 0], x[kept != 0] / (1 - probability))


def test_dropout_draws_anew_each_time_from_torchs_generator():
    layer, x = Dropout(0.5), torch.ones(100_000)
    torch.manual_seed(5)
    first, second = layer(x), layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)
    assert ((first == 0) & (second == 0)).float().mean().item() == pytest.approx(0.25, abs=0.01)
    for shift in (1, 2, 16, 1024):  # neighbors, and the places whose numbers differ in one bit
        assert ((first == 0)[shift:] & (second == 0)[:-shift]).float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert ((first == 0)[shift:] & (first == 0)[:-shift]).float().mean().item() == pytest.approx(0.25, abs=0.01)


def test_dropout_lets_the_gradients_of_what_it_kept_through():
    x = torch.randn(50, 7, requires_grad=True)
    kept = Dropout(0.4)(x)
    kept.sum().backward()
    torch.testing.assert_close(x.grad, (kept != 0).float() / 0.6)


@pytest.mark.parametrize("layer", [Dropout(0.5).eval(), Dropout(0.0)], ids=["evaluating", "of nothing"])
def test_dropout_that_drops_nothing_is_the_identity(layer):
    x = torch.randn(5, 3)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("rows", [[], [7], [5, 3, 5, 5, 0, 3], torch.randint(0, 40, (1000,)).tolist(), [2**31 - 1, 0]], ids=len)
def test_distinct_rows_are_there_once_and_each_has_its_place(rows, dtype):
    given = torch.tensor(rows, dtype=dtype)
    found, places = distinct(given)
    assert (found.dtype, len(found)) == (dtype, len(set(rows)))
    assert sorted(found.tolist()) == sorted(set(rows))
    assert torch.equal(found.index_select(0, places), given)


@pytest.mark.parametrize("ids", [torch.int32, torch.int64])
@pytest.mark.parametrize("past", [0, 2**31])
def test_ids_of_fields_become_rows_of_one_table(ids, past):
    columns = [torch.tensor([[0, 2, 7], [1, 0, 9]], dtype=ids), torch.tensor([[3, 0, 7], [2, 2, 9]], dtype=ids)]
    slices, layout = [slice(past, past + 3), slice(past + 3, past + 7)], JaggedLayout(torch.tensor([2, 1]), 3)
    rows, wrong = field_rows(columns, slices, layout)
    assert (rows.tolist(), wrong) == ([[past, past + 6], [past + 2, past + 3], [past + 1, past + 5]], -1)
    assert rows.dtype == (torch.int64 if past else torch.int32)
    assert field_rows([column.flatten() for column in columns], slices)[1] == 0, "7 and 9 are past the first field's 3 ids"
    assert field_rows([columns[0].clamp(max=2).flatten(), -columns[1].flatten()], slices)[1] == 1
    with pytest.raises(ValueError, match="6 and 5 ids"):
        field_rows([columns[0].flatten(), columns[1].flatten()[1:]], slices)


def test_vectors_are_added_up_by_place():
    places, vectors = torch.randint(0, 9, (200,)), torch.randn(200, 5)
    expected, sizes = (torch.zeros(9, 5).double().index_add_(0, places, of.double()) for of in (vectors, vectors.abs()))
    torch.testing.assert_close(sum_by_place(vectors.double(), places, 9), expected, atol=1e-12, rtol=0)
    error = (sum_by_place(vectors, places.int(), 9).double() - expected).abs()
    assert (error <= len(places) * UNIT * sizes).all(), "a sum of n terms rounds n times, each time by a unit of their sizes' sum"


def test_lazy_adam_is_torchs_sparse_adam():
    steps = [(torch.randperm(30)[:11], torch.randn(11, 4)) for _ in range(5)]

    def updated(table, *gradients):
        table = table.clone()
        mean, square = torch.zeros_like(table), torch.zeros_like(table)
        for step, ((rows, _), gradient) in enumerate(zip(steps, gradients, strict=True), start=1):
            lazy_adam_(table, mean, square, rows, gradient, 0.1, (0.8, 0.9), 1e-16, step)
        return [table]

    inputs = [torch.randn(30, 4), *(gradient for _, gradient in steps)]
    expected = nn.Parameter(inputs[0].double())
    adam = torch.optim.SparseAdam([expected], lr=0.1, betas=(0.8, 0.9), eps=1e-16)
    for rows, gradient in steps:
        expected.grad = torch.sparse_coo_tensor(rows[None], gradient.double(), (30, 4), check_invariants=True).coalesce()
        adam.step()
    torch.testing.assert_close(updated(*(tensor.double() for tensor in inputs))[0], expected.detach(), atol=1e-12, rtol=0)
    assert_float32(updated, inputs, terms=5 * 2 * ELEMENTARY)  # two averages, a root and a division at each of five steps


def test_rowwise_adagrad_is_adagrad_with_the_mean_of_a_rows_squares():
    steps = [(torch.randperm(30)[:17], torch.randn(17, 4)) for _ in range(5)]

    def updated(table, *gradients):
        table, squares = table.clone(), table.new_zeros(30)
        for (rows, _), gradient in zip(steps, gradients, strict=True):
            rowwise_adagrad_(table, squares, rows, gradient, 0.1, 1e-6)
        return [table, squares]

    inputs = [torch.randn(30, 4), *(gradient for _, gradient in steps)]
    expected, sums = inputs[0].double().tolist(), [0.0] * 30
    for rows, gradients in steps:
        for row, gradient in zip(rows.tolist(), gradients.double().tolist(), strict=True):
            sums[row] += sum(g * g for g in gradient) / 4
            expected[row] = [w - 0.1 * g / (sums[row] ** 0.5 + 1e-6) for w, g in zip(expected[row], gradient, strict=True)]
    table, squares = updated(*(tensor.double() for tensor in inputs))
    torch.testing.assert_close(table, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(squares, torch.tensor(sums, dtype=torch.float64), atol=1e-12, rtol=0)
    assert_float32(updated, inputs, terms=5 * (4 + ELEMENTARY))  # a row's squares, a root and a division at each of five steps


def test_packing_leaves_padding_out_and_padding_puts_it_back():
    layout = JaggedLayout(torch.tensor([2, 0, 9], dtype=torch.int32), 3)
    assert layout.lengths.tolist() == [2, 0, 3], "a length past the end means all positions"
    assert layout.offsets.tolist() == [0, 2, 2, 5]
    padded = torch.arange(18.0).view(3, 3, 2)
    packed = layout.pack(padded)
    assert packed[:, 0].tolist() == [0, 2, 12, 14, 16]
    assert layout.samples.tolist() == [0, 0, 2, 2, 2]
    assert layout.steps.tolist() == [0, 1, 0, 1, 2]
    torch.testing.assert_close(layout.pad(packed), padded * layout.mask[:, :, None])
    assert layout.sum(packed)[:, 0].tolist() == [2, 0, 42]


def test_other_kinds_of_numbers_go_through_torchs_own():
    layout = JaggedLayout(torch.tensor([2, 3]), 3)
    assert attention(torch.randn(5, 6).bfloat16(), layout, 1).dtype == torch.bfloat16
    assert isinstance(Dropout(0.5), nn.Dropout)


def test_every_header_that_is_included_is_there() -> None:
    root = Path(__file__).resolve().parents[3]
    sources = [*(root / "mian" / "kernels").glob("*.cpp"), *(root / "mian" / "kernels").glob("*.h")]
    included = {name for source in sources for name in re.findall(r'#include "([^"]+)"', source.read_text(encoding="utf-8"))}
    assert included
    assert [name for name in sorted(included) if not (root / name).is_file()] == []
