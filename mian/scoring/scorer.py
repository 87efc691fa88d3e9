"""What scores encoded candidates, whichever engine does it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from mian.scoring.one_user_encoder import Columns


class CandidateScorer(Protocol):
    """A model that scores N candidates of one user: :class:`mian.serving.OneUser`, or :class:`mian.scoring.onnx_scorer.OnnxScorer`."""

    def score(self, user: Columns, candidates: Columns) -> npt.NDArray[np.float64]:
        """Probabilities of a click, ``(N,)``.

        Args:
            user: what :meth:`mian.scoring.one_user_encoder.OneUserEncoder.user` gives.
            candidates: what :meth:`mian.scoring.one_user_encoder.OneUserEncoder.candidates` gives.
        """
