"""How many threads compute: few for small batches."""

from typing import Any

import pytest
import torch

from mian.trainer.threads import default_threads, threads


@pytest.mark.parametrize(
    ("rows", "cores", "expected"),
    [(1, 8, 1), (128, 8, 1), (1023, 8, 1), (1024, 8, 2), (4096, 8, 8), (4096, 2, 2), (10**6, 64, 64)],
)
def test_a_thread_for_512_rows_and_no_more_than_there_are_cores(rows: int, cores: int, expected: int) -> None:
    assert default_threads(rows, cores) == expected


def test_the_threads_are_as_before_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("given", "of_steps", "of_evaluation"), [(None, 1, 2), (3, 3, 3)])
def test_a_training_scores_with_the_threads_of_its_larger_batches(
    samples: Any, monkeypatch: pytest.MonkeyPatch, given: int | None, of_steps: int, of_evaluation: int
) -> None:
    used = []
    monkeypatch.setattr("mian.trainer.trainer.evaluate_split", lambda *_: used.append(torch.get_num_threads()))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    before = torch.get_num_threads()
    try:
        trainer = samples.trainer(threads=given, evaluation_batch_size=2048)
        assert torch.get_num_threads() == of_steps
        with pytest.raises(AttributeError):  # the scores that were not made
            trainer.run()
        assert used == [of_evaluation]
    finally:
        torch.set_num_threads(before)
