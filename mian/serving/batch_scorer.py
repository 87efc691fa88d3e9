"""A servable model in a worker that is given encoded columns."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mian.models import ClickModel
from mian.scoring.one_user_encoder import Columns
from mian.serving.servable import load_click_model
from mian.serving.tensors import probabilities, tensors


class BatchScorer:
    """Scores encoded columns: whole rows, or candidates beside one user.

    Args:
        model: the model, on the CPU.
    """

    def __init__(self, model: ClickModel) -> None:
        self._model = model.eval()

    def rows(self, columns: Columns) -> npt.NDArray[np.float64]:
        """The probabilities of a click of whole rows.

        Args:
            columns: of B rows: ``(B,)``, those of behaviors ``(B, T)``, and ``behavior_length``.

        Returns:
            Shape ``(B,)``: the sigmoid of the model's float32 logits.
        """
        with torch.inference_mode():
            return probabilities(self._model(tensors(columns)))

    def candidates(self, user: Columns, candidates: Columns) -> npt.NDArray[np.float64]:
        """The probabilities of a click of candidates of one user, whose part is computed once.

        Args:
            user: one row of the columns of behaviors, user and context, and ``behavior_length``.
            candidates: the columns of the candidate, and all of the context, ``(N,)`` each.

        Returns:
            Shape ``(N,)``.
        """
        with torch.inference_mode():
            encoded = self._model.encode_user(tensors(user))
            return probabilities(self._model.score_candidates(encoded, tensors(candidates)))


def load_batch_scorer(folder: str) -> BatchScorer:
    """Load a servable folder to score in this process, which computes with one thread from then on.

    Workers share a machine's cores. Two threads in each of them are slower than one.

    Args:
        folder: what :func:`mian.serving.save_servable` wrote.

    Raises:
        ServableError: a file is missing or damaged.
        ContractError: the contract cannot be read.
    """
    torch.set_num_threads(1)
    return BatchScorer(load_click_model(folder)[1])
