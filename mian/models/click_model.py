"""What every model promises to the trainer, the scorer and the served model."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import nn

from mian.contract import Contract
from mian.contract.document import LENGTH_COLUMN
from mian.layers import BesideUser, EmbeddingTable, FieldEmbedding, FieldVectors, UserEncoding

UNCALIBRATED: Final = {"calibration_scale": 1.0, "calibration_offset": 0.0}
"""The buffers of a calibration, and the values with which it changes nothing."""


def with_calibration(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a model, by name, with the numbers of :data:`UNCALIBRATED` where an earlier release kept none."""
    return {**{name: torch.tensor(value) for name, value in UNCALIBRATED.items()}, **weights}


class ClickModel(nn.Module, ABC):
    """A model of clicks, built from a contract and its options.

    Call it on a batch: columns by name as the contract has them. It gives logits, float32 ``(B,)``; the probability of a click is their
    sigmoid. Columns that it does not know are ignored.
    """

    weights_version: ClassVar[int] = 1
    """Raised by hand where a change of a model's code, or of the layers that it is made of, makes other weights of the same settings and
    samples: checkpoints and trials of before are then not gone on from."""

    def __init__(self) -> None:
        """Start with samples that were not thinned, and uncalibrated."""
        super().__init__()
        self.sampling_logit_correction: torch.Tensor
        self.register_buffer("sampling_logit_correction", torch.zeros(()))
        self.calibration_scale: torch.Tensor
        self.calibration_offset: torch.Tensor
        for name, value in UNCALIBRATED.items():
            self.register_buffer(name, torch.tensor(value))

    @classmethod
    def columns(cls, contract: Contract, config: BaseModel) -> tuple[str, ...]:
        """The columns of a batch that a model of this contract and these options reads: all fields', unless it says otherwise.

        Args:
            contract: what the samples are.
            config: the model's options.
        """
        lengths = (LENGTH_COLUMN,) if contract.group("behaviors") else ()
        return (*(field.column for field in contract.fields), *lengths)

    @property
    def supports_cuda_graphs(self) -> bool:
        """Whether the shapes of a batch and of its lookups alone decide which operators a training step runs.

        Steps of such a model are recorded as CUDA graphs, one per shape; see :meth:`mian.kernels.JaggedLayout.pad_to_multiple`. Override
        this with False in a model that reads values of its tensors (``item()``, ``tolist()``, a loop over a batch's contents), or that
        sums over positions other than through :class:`mian.kernels.JaggedLayout`.
        """
        return True

    def set_negative_sampling_rate(self, negatives_kept: float) -> None:
        """Correct the model's probabilities for training samples of which only a fraction of the negatives was kept.

        Keeping a fraction of the negatives multiplies the odds of a click by 1 / fraction. Outside of training mode the model adds the
        logarithm of the fraction to its logits (King and Zeng 2001, section 4.1; He et al. 2014, section 6.3).

        Args:
            negatives_kept: The fraction, greater than 0 and at most 1.
        """
        self.sampling_logit_correction.fill_(math.log(negatives_kept))

    @property
    def calibration(self) -> tuple[float, float]:
        """The scale and the offset of :meth:`set_calibration`; 1 and 0 where the model is not calibrated."""
        return self.calibration_scale.item(), self.calibration_offset.item()

    def set_calibration(self, scale: float, offset: float) -> None:
        """Scale the model's logits wherever it does not learn: ``scale * logit + offset`` (Platt 1999), after the sampling correction.

        Args:
            scale: Greater than 0, so that the order of scores stays.
            offset: Any number.

        Raises:
            ValueError: The scale is not greater than 0, or a number is not finite.
        """
        if not (scale > 0 and math.isfinite(scale) and math.isfinite(offset)):
            raise ValueError(f"a calibration has a scale greater than 0 and finite numbers: {scale}, {offset}")
        self.calibration_scale.fill_(scale)
        self.calibration_offset.fill_(offset)

    @contextmanager
    def calibrated_by(self, scale: float, offset: float) -> Iterator[None]:
        """Within, the model has another calibration; arguments as for :meth:`set_calibration`."""
        before = self.calibration
        self.set_calibration(scale, offset)
        try:
            yield
        finally:
            self.set_calibration(*before)

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits, float ``(B,)``, of a batch of samples; corrected and calibrated unless in training mode."""
        logits = self.logits(batch)
        return logits if self.training else self._calibrated(logits)

    def encode_user(self, batch: Mapping[str, torch.Tensor]) -> UserEncoding:
        """Encode once what all candidates of a request share: history, profile and context.

        Args:
            batch: the columns of one row, as for :meth:`forward`; those of the candidate are not read.

        Returns:
            What :meth:`score_candidates` takes; of no use to another model.

        Raises:
            KeyError: the batch lacks a column.
            IndexError: an id is not in its vocabulary.
        """
        fields = [module for module in self.modules() if isinstance(module, FieldVectors)]
        if fields and {module.embedding for module in fields} == set(self._embeddings()):
            return {module: module.encode_user(batch) for module in fields}
        return {self: dict(batch)}  # nothing is known of how it reads a batch

    def score_candidates(self, user: UserEncoding, candidates: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits of N candidates of one user: what :meth:`forward` gives, in evaluation mode, for N rows that repeat the user's.

        Args:
            user: what :meth:`encode_user` gave.
            candidates: the candidate's columns, ``(N,)`` each; all columns of the context too where it differs by candidate.

        Returns:
            Float ``(N,)``.

        Raises:
            KeyError: a column is missing.
            IndexError: an id is not in its vocabulary.
            ValueError: there is no column.
        """
        context = next((embedding.columns["context"] for embedding in self._embeddings()), ())
        logits = self.candidate_logits(BesideUser(candidates, user, context))
        return logits if self.training else self._calibrated(logits)

    def candidate_logits(self, candidates: BesideUser) -> torch.Tensor:
        """As :meth:`logits`, of candidates beside their user. A model that overrides :meth:`encode_user` overrides this too.

        Args:
            candidates: the candidates' columns, ``(N,)`` each, and what :meth:`encode_user` gave.

        Returns:
            Float ``(N,)``.
        """
        if self not in candidates.user:
            return self.logits(candidates)
        repeated = {name: column.expand(candidates.count, *column.shape[1:]) for name, column in candidates.user[self].items()}
        return self.logits({**repeated, **candidates})

    def _calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        return self.calibration_scale * (logits + self.sampling_logit_correction) + self.calibration_offset

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Weights of before calibrations are those of a model without one."""
        for name, value in with_calibration({}).items():
            state_dict.setdefault(prefix + name, value)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _embeddings(self) -> list[FieldEmbedding]:
        return [module for module in self.modules() if isinstance(module, FieldEmbedding)]

    @abstractmethod
    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Logits, float ``(B,)``, as the samples of the training would have them."""

    def losses(self, batch: Mapping[str, torch.Tensor], labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a step of the training shows, and what it makes smaller: the logloss, unless a model has another loss beside it.

        Args:
            batch: as for :meth:`forward`.
            labels: int or float ``(B,)``, 1 for a click.

        Returns:
            The batch's mean logloss (Zhang et al. 2021, Eq. 18), and what is to be minimized; scalars.
        """
        logloss = F.binary_cross_entropy_with_logits(
            self(batch).float(), labels.float()
        )  # of logits that autocast has rounded, too
        return logloss, logloss

    def auxiliary_terms(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """How many terms an auxiliary loss of :meth:`losses` is the mean of, a scalar; None where each sample counts alike.

        A model that says so is told before each step of which mean its part of the batch is a part, see :meth:`use_auxiliary_terms`.

        Args:
            batch: as for :meth:`forward`.
        """
        return None

    def use_auxiliary_terms(self, terms: torch.Tensor) -> None:
        """Divide the sum of the auxiliary loss by this number of terms, in the place of the batch's own, wherever the model learns.

        Args:
            terms: scalar, the mean number over the parts that a step's batch is cut into, on all ranks; 0 for the batch's own again. The
                mean over all parts is then that of the whole batch.
        """

    def explain(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Attention weights by name, each with B rows; nothing where a model has none."""
        return {}

    def explained(self) -> dict[str, tuple[str, ...]]:
        """What the columns of :meth:`explain`'s weights are of: columns of the samples, or parts. Of ``behaviors`` they are places."""
        return {}

    def tables(self) -> dict[str, EmbeddingTable]:
        """The embedding tables, by the name of their weight in ``state_dict``."""
        return {f"{name}.weight": module for name, module in self.named_modules() if isinstance(module, EmbeddingTable)}

    def dense_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters but the tables, by name."""
        tables = self.tables()
        return {name: parameter for name, parameter in self.named_parameters() if name not in tables}

    @property
    def is_sharded(self) -> bool:
        """Whether rows of its tables lie on other ranks, which must take part whenever it is called."""
        return any(table.is_sharded for table in self.tables().values())

    def join_lookup(self) -> None:
        """Give the other ranks the vectors that they look up, where this rank has nothing to score while they have.

        A model of several tables looks up in them in the order in which its constructor makes them.
        """
        for table in self.tables().values():
            table(torch.empty(0, dtype=torch.int64, device=table.weight.device))
