"""What gradients are after their way in 16 bits."""

import pytest
import torch

from mian.distributed.compression import BFloat16, GradientCodec, ScaledFloat16, blocks, from_blocks, gradient_codec

CODECS = [(ScaledFloat16(), 11), (BFloat16(), 8)]  # with the bits of a number that are kept, the first one included


def there_and_back(codec: GradientCodec, vectors: torch.Tensor) -> torch.Tensor:
    return codec.decompress(codec.compress(vectors))


def test_an_option_names_each() -> None:
    assert gradient_codec("none") is None
    assert isinstance(gradient_codec("fp16"), ScaledFloat16)
    assert isinstance(gradient_codec("bf16"), BFloat16)


@pytest.mark.parametrize(("codec", "bits"), CODECS)
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-4, 1.0, 7e4, 1e20, 3e37])
def test_numbers_of_any_size_keep_their_bits(codec: GradientCodec, bits: int, scale: float) -> None:
    """float16 alone would make all under 3e-8 zero, and all from 65,520 on infinite."""
    vectors = torch.randn(200, 16, generator=torch.Generator().manual_seed(1)) * scale
    errors = (there_and_back(codec, vectors) - vectors).abs() / vectors.abs()
    assert errors.max() <= 2.0**-bits
    assert errors.max() > 2.0 ** -(bits + 1), "it is rounded, or this says little"


@pytest.mark.parametrize(("codec", "bits"), CODECS)
def test_small_numbers_beside_large_ones_keep_theirs(codec: GradientCodec, bits: int) -> None:
    vectors = torch.tensor([[30_000.0, 1e-4], [1.0, 3e-9], [0.0, 1e-38]])
    assert ((there_and_back(codec, vectors) - vectors).abs() <= 2.0**-bits * vectors.abs()).all()


@pytest.mark.parametrize(("codec", "_"), CODECS)
def test_the_largest_float32_and_its_sum_stay_finite_and_nothing_stays_nothing(codec: GradientCodec, _: int) -> None:
    large = torch.tensor([[3.38e38, -3.38e38, 0.0, -0.0]])
    assert there_and_back(codec, large).isfinite().all()
    assert there_and_back(codec, torch.zeros(3, 4)).count_nonzero() == 0


@pytest.mark.parametrize(("codec", "_"), CODECS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_stays_none_and_other_vectors_are_as_they_were(codec: GradientCodec, _: int, wrong: float) -> None:
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    expected = there_and_back(codec, vectors)
    vectors[1, 2] = wrong
    found = there_and_back(codec, vectors)
    assert not found[1, 2].isfinite()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize(("codec", "_"), CODECS)
def test_what_was_rounded_is_rounded_no_further(codec: GradientCodec, _: int) -> None:
    once = there_and_back(codec, torch.randn(50, 8))
    assert torch.equal(there_and_back(codec, once), once)


def test_a_number_takes_two_bytes_and_a_scale_two_a_vector() -> None:
    vectors = torch.randn(10, 16)
    assert BFloat16().compress(vectors).shape == (10, 32)
    assert ScaledFloat16().compress(vectors).shape == (10, 34)
    for codec, _ in CODECS:
        assert codec.compress(vectors).dtype == torch.uint8
        assert there_and_back(codec, vectors[:0]).shape == (0, 16)


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("numbers", [1, 2, 127, 128, 129, 130, 256, 257, 1000])
def test_a_dense_gradient_is_cut_into_vectors_and_put_together_again(ranks: int, numbers: int) -> None:
    dense = torch.arange(1.0, numbers + 1)
    vectors = blocks(dense, ranks)
    assert len(vectors) % ranks == 0
    assert vectors.sum() == dense.sum()
    found = torch.zeros(numbers)
    from_blocks(found, vectors)
    assert torch.equal(found, dense)


@pytest.mark.parametrize("numbers", [2, 128, 129, 130, 1000])
def test_the_last_number_changes_no_other(numbers: int) -> None:
    """Whether a rank is to stop must not change what the weights become."""
    dense = torch.randn(numbers) * 1e-7
    found = []
    for last in (0.0, 1.0, float("nan")):
        dense[-1] = last
        result = torch.zeros(numbers)
        from_blocks(result, there_and_back(ScaledFloat16(), blocks(dense, 2)))
        found.append(result)
        assert torch.equal(result[-1:], dense[-1:]) or result[-1].isnan()
    assert torch.equal(found[0][:-1], found[1][:-1])
    assert torch.equal(found[0][:-1], found[2][:-1])
