"""Seeds that are made of others fit, and differ."""

import itertools

from mian.seeds import LARGEST_SEED, mixed_seed


def test_seeds_of_any_size_give_seeds_of_63_bits_that_all_differ() -> None:
    seeds = (0, 1, 20261129, LARGEST_SEED, LARGEST_SEED - 1)
    mixed = [mixed_seed("dropout", *values) for values in itertools.product(seeds, range(4), range(50))]
    assert all(0 <= seed <= LARGEST_SEED for seed in mixed)
    assert len(set(mixed)) == len(mixed)


def test_a_mixed_seed_is_the_same_in_every_release() -> None:
    assert mixed_seed("dropout", 1, 0) == 8_316_645_296_126_653_356
