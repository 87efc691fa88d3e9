"""MIAN-plus: ours, and no paper's. What was added to MIAN, and what each part is worth, stands in ``docs/concepts/models.md``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field as Option
from torch import nn

from mian.contract import Contract
from mian.kernels import JaggedLayout
from mian.layers import (
    ActivationUnit,
    BesideUser,
    CompressedInteraction,
    LinearPart,
    UserEncoding,
    concat_fields,
    initialize,
    pairwise,
    shared_fields,
)
from mian.models.mian import Mian, MianConfig
from mian.models.options import Count, Deviation


class MianPlusConfig(MianConfig):
    """Options of :class:`MianPlus`: those of MIAN, some with other defaults, and more."""

    target_attention: bool = True
    """Whether IBIM scores behaviors by DIN's activation unit, which sees products of candidate and behavior, in the place of Eq. 8, whose
    sum of a part of each does not; and adds them up by these scores as they are, so that it shows how strong an interest is."""
    unit: tuple[Count, ...] = Option(default=(64,), min_length=1)
    """Widths of that unit's hidden layers."""
    interactions: Literal["cin", "fm", "none"] = "cin"
    """What is added to the logit beside a linear part: products of two fields, of the same vectors. ``fm``: all of them, as in DeepFM.
    ``cin``: weighted sums of them, through ReLU, as in xDeepFM. ``none``: nothing, and no linear part."""
    cin: tuple[Count, ...] = Option(default=(32,), min_length=1)
    """Rows of each layer of that compressed interaction network."""
    global_fusion: Literal["project", "weighted_concat", "scaled_concat"] = "scaled_concat"
    """See :class:`mian.models.MianConfig`."""
    transformer: Literal["pre_ln", "post_ln", "none"] = "none"
    """See :class:`mian.models.MianConfig`."""
    mlp: tuple[Count, ...] = (256, 128)
    """See :class:`mian.models.MianConfig`."""
    init_std: Deviation = 0.05
    """See :class:`mian.models.MianConfig`."""


class TargetAttention(nn.Module):
    """IBIM by DIN's activation unit: Zhou et al. 2018, section 4.3, over what the transformer gives.

    Args:
        unit: scores behaviors.
    """

    def __init__(self, unit: ActivationUnit) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, candidate: torch.Tensor, vectors: torch.Tensor, layout: JaggedLayout) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend; see :meth:`mian.layers.BehaviorAttention.forward`. Weights do not add up to 1, and may be negative."""
        scores = self.unit(candidate, vectors, layout)  # (P,)
        interest = layout.sum(scores[:, None] * vectors)  # (P, d_b) -> (B, d_b)
        beside = candidate * (layout.lengths > 0)[:, None]
        return torch.cat([beside, interest], dim=-1), scores.detach()

    def one_history(self, candidates: torch.Tensor, vectors: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
        """Attend; see :meth:`mian.layers.BehaviorAttention.one_history`."""
        count = candidates.shape[0]
        attended: torch.Tensor = self(candidates, vectors.repeat(count, 1), layout.repeat(count))[0]
        return attended


class MianPlus(Mian):
    """MIAN with target attention, and with products of two fields beside it.

    Args:
        contract: says which fields each group has.
        config: the options.

    Raises:
        ContractError: the contract has no candidate field.
    """

    config: MianPlusConfig

    def __init__(self, contract: Contract, config: MianPlusConfig) -> None:
        super().__init__(contract, config)
        if config.interactions != "none":
            self.linear = LinearPart(contract)
            initialize(self.linear, config.init_std)
        if config.interactions == "cin":
            self.cin = CompressedInteraction(len(contract.fields), config.cin, "relu", split_half=False)
            self.cin_logit = nn.Linear(self.cin.output_width, 1, bias=False)
            for module in (self.cin, self.cin_logit):
                initialize(module, config.init_std)

    def _behavior_attention(self, contract: Contract, d_i: int, d_b: int) -> nn.Module:
        if not self.config.target_attention:
            return super()._behavior_attention(contract, d_i, d_b)
        candidate, behaviors = len(self.candidate_columns), len(self.behavior_columns)
        shared = shared_fields(contract, self.embedding)
        unit = ActivationUnit(self.config.embedding_dim, candidate, behaviors, shared, self.config.unit, "relu")
        return TargetAttention(unit)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        logits, _, embedded = self._run(batch)
        if self.config.interactions == "none":
            return logits
        return self._add_interactions(logits, batch, concat_fields(embedded))

    def encode_user(self, batch: Mapping[str, torch.Tensor]) -> UserEncoding:
        """See :meth:`mian.models.ClickModel.encode_user`."""
        encoding = super().encode_user(batch)
        if self.config.interactions != "none":
            encoding[self.linear.weights] = self.linear.weights.encode_user(batch)
        return encoding

    def candidate_logits(self, candidates: BesideUser) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.candidate_logits`."""
        logits, beside = self._run_candidates(candidates)
        if self.config.interactions == "none":
            return logits
        return self._add_interactions(logits, candidates, concat_fields(beside, candidates.count))

    def _add_interactions(self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor], fields: torch.Tensor) -> torch.Tensor:
        """Add the linear part and the products of two fields, of ``fields``, float ``(B, F, d)``, to logits ``(B,)``."""
        pair_logits = pairwise(fields) if self.config.interactions == "fm" else self.cin_logit(self.cin(fields)).squeeze(1)
        total: torch.Tensor = logits + self.linear(batch) + pair_logits
        return total
