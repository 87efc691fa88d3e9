"""What scores: a model's folder, and a function that loads it in a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

#: Encoded columns by name: ``(B,)``, those of behaviors ``(B, T)``, and ``behavior_length``.
Columns = dict[str, npt.NDArray[Any]]


class Scorer(Protocol):
    """A loaded model."""

    def rows(self, columns: Columns) -> npt.NDArray[np.float64]:
        """The probabilities of a click of B whole rows, ``(B,)``."""

    def candidates(self, user: Columns, candidates: Columns) -> npt.NDArray[np.float64]:
        """The probabilities of a click of N candidates of one user, ``(N,)``.

        Args:
            user: one row of the columns of user, context and behaviors.
            candidates: the columns of candidate and context, ``(N,)`` each.
        """


#: Loads the model of a local folder; it travels to the workers by its name.
ScorerFactory = Callable[[str], Scorer]


@dataclass(frozen=True)
class ScoringModel:
    """The model of a scoring run."""

    folder: str
    """A local folder of the driver with the model's contract, its vocabularies and whatever the factory reads."""
    files: tuple[str, ...]
    """The files of the folder that workers are given, relative to it."""
    version: str
    """What the column ``model_version`` says."""
    digest: str
    """SHA-256 of these files."""
    factory: ScorerFactory
