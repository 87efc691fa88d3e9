"""Encoded columns in, the scores of the served model out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mian.serving import ServableError, load_servable
from mian.serving.batch_scorer import load_batch_scorer
from mian.serving.request_encoder import RowEncoder
from mian.serving.servable import servable_digest, servable_files
from tests.mian.serving.conftest import Trained


@pytest.fixture
def one_thread() -> None:
    """The threads of this process, as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_scores_are_those_of_the_servable(trained: Trained, raw: pd.DataFrame, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    torch.set_num_threads(2)
    scorer = load_batch_scorer(str(tmp_path / "model"))
    assert torch.get_num_threads() == 1
    servable = load_servable(tmp_path / "model")
    (columns,) = RowEncoder(servable.contract, servable.vocabularies).batches(raw, len(raw))
    expected = servable.predict_proba(raw)
    found = scorer.rows(columns)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)

    shared = {field.column for field in servable.contract.fields if field.group in ("user", "behaviors")} | {"behavior_length"}
    user = {name: column[:1] for name, column in columns.items()}
    page = {name: column for name, column in columns.items() if name not in shared}
    repeated = {name: np.repeat(user[name], len(raw), axis=0) if name in shared else page[name] for name in columns}
    np.testing.assert_allclose(scorer.candidates(user, page), scorer.rows(repeated), rtol=0, atol=1e-6)


def test_the_digest_is_of_the_model_and_not_of_what_lies_beside(trained: Trained, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    digest = servable_digest(tmp_path / "model")
    (tmp_path / "model" / "training.json").write_text("{}")
    assert servable_digest(tmp_path / "model") == digest
    trained.with_other_weights().save(tmp_path / "other")
    assert servable_digest(tmp_path / "other") != digest
    files = servable_files(tmp_path / "model")
    assert {"contract.json", "model.json", "weights.pt"} < set(files)
    assert len(files) == 3 + len(list((tmp_path / "model" / "vocabularies").iterdir()))
    (tmp_path / "model" / files[-1]).unlink()
    with pytest.raises(ServableError, match="no such file; the model is damaged"):
        servable_digest(tmp_path / "model")
