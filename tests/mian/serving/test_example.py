"""Raw rows that show what a model takes."""

from pathlib import Path

import pytest

from mian.contract import ContractError
from mian.serving import input_example
from tests.factories import write_samples

ROWS = ((40,),)


def test_an_example_is_of_the_last_day_that_kept_some(tmp_path: Path) -> None:
    contract = write_samples(tmp_path, ROWS, ROWS, ROWS)
    found = input_example(contract, str(tmp_path), rows=3)
    assert list(found.columns) == [field.column for field in contract.fields]
    assert len(found) == 3


def test_a_file_of_examples_that_is_gone_is_named(tmp_path: Path) -> None:
    contract = write_samples(tmp_path, ROWS, ROWS, ROWS)
    kept = contract.days[-1].examples
    assert kept is not None
    (tmp_path / kept.path).unlink()
    with pytest.raises(ContractError, match=f"{kept.path}: no such file; the contract names it: build again with --verify"):
        input_example(contract, str(tmp_path))
