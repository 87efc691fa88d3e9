"""What the treatment of an experiment looks at: the weights of its global attention over the test split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mian.evaluation.split_columns import read_columns
from mian.experiments.held_out import SPLIT
from mian.experiments.trials import Experiment, Trial
from mian.models import Mian
from mian.serving import load_servable

BATCH_SIZE = 4096
#: The names of Eq. 14's parts in the paper's order ``r_1`` to ``r_7``.
SHOWN = {"R_ibim": "R_IBIM", "R_iuim": "R_IUIM", "R_icim": "R_ICIM"}


@dataclass(frozen=True)
class GlobalWeights:
    """Weights of Eq. 15.

    Attributes:
        parts: names of the parts.
        cases: of the drawn samples, shape ``(cases, L)``.
        mean: over the test split, shape ``(L,)``.
        deviation: over the test split, shape ``(L,)``.
        rows: of the test split that were drawn.
    """

    parts: tuple[str, ...]
    cases: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]


def global_weights(experiment: Experiment, trial: Trial) -> GlobalWeights | None:
    """The weights of a trained MIAN; None where it has no global attention.

    The cases are drawn evenly from the rows of the test split, with the experiment's first seed.
    """
    model = load_servable(trial.model).model
    if not isinstance(model, Mian) or model.global_interaction is None:
        return None
    columns = read_columns(experiment.contract, experiment.config.samples, SPLIT)
    with torch.inference_mode():
        weights = np.concatenate([model.explain(batch)["global"].double().numpy() for batch in _batches(columns)])
    generator = np.random.default_rng(experiment.config.seeds[0])
    rows = np.sort(generator.choice(len(weights), min(experiment.config.cases, len(weights)), replace=False))
    names = tuple(SHOWN.get(name, name) for name in model.part_names)
    return GlobalWeights(names, weights[rows], weights.mean(axis=0), weights.std(axis=0), rows)


def _batches(columns: Mapping[str, npt.NDArray[np.generic]]) -> Iterator[dict[str, torch.Tensor]]:
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, BATCH_SIZE):
        yield {name: torch.from_numpy(column[start : start + BATCH_SIZE]) for name, column in columns.items()}
