"""One user and N candidates, of raw values, on torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mian.layers import UserEncoding
from mian.scoring.one_user_encoder import Columns, Lists, OneUserEncoder, Values
from mian.serving.servable import Servable
from mian.serving.tensors import probabilities, tensors


@dataclass(frozen=True)
class EncodedUser:
    """A user, encoded once for all candidates.

    Attributes:
        columns: what the model read of the user: ``(1,)``, ``(1, T)``.
        encoding: what the model made of it.
    """

    columns: Columns
    encoding: UserEncoding


class OneUser:
    """Scores N candidates of one user; the user's part of the model runs once.

    Every model of the registry has this promise, see :meth:`mian.models.ClickModel.encode_user`.

    Args:
        servable: the model.
    """

    def __init__(self, servable: Servable) -> None:
        self._model = servable.model
        self.encoder = OneUserEncoder(servable.contract, servable.vocabularies, servable.stand_ins)

    def user(self, user: Values, context: Values, behaviors: Lists) -> EncodedUser:
        """Encode what all candidates share; arguments and errors are those of :meth:`OneUserEncoder.user`."""
        return self.encode_user(self.encoder.user(user, context, behaviors))

    def candidates(self, user: EncodedUser, candidates: Lists, context: Lists | None = None) -> npt.NDArray[np.float64]:
        """Score N candidates.

        Args:
            user: what :meth:`user` gave.
            candidates: see :meth:`OneUserEncoder.candidates`, likewise ``context`` and the errors.
            context: fields of the context that differ by candidate.

        Returns:
            Probabilities of a click, ``(N,)``.
        """
        return self.score_candidates(user, self.encoder.candidates(user.columns, candidates, context))

    def encode_user(self, columns: Columns) -> EncodedUser:
        """The same as :meth:`user`, of columns that are encoded already."""
        with torch.inference_mode():
            return EncodedUser(columns, self._model.encode_user(tensors(columns)))

    def score_candidates(self, user: EncodedUser, columns: Columns) -> npt.NDArray[np.float64]:
        """The same as :meth:`candidates`, of columns that are encoded already."""
        with torch.inference_mode():
            return probabilities(self._model.score_candidates(user.encoding, tensors(columns)))

    def score(self, user: Columns, candidates: Columns) -> npt.NDArray[np.float64]:
        """Both at once; see :class:`mian.scoring.scorer.CandidateScorer`."""
        return self.score_candidates(self.encode_user(user), candidates)
