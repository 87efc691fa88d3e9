"""MIAN-plus: ours, and no paper's. What was added to MIAN, and what each part is worth, stands in ``docs/models.md``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from mian.kernels import Packing, pool
from mian.layers import ActivationUnit, LinearPart, initialize, pairwise, shared_fields
from mian.models.mian import Mian, MianConfig
from mian.models.options import Count, Deviation
from pipeline.contract import Contract


class MianPlusConfig(MianConfig):
    """Options of :class:`MianPlus`: those of MIAN, some with other defaults, and more."""

    target_attention: bool = True
    """Whether IBIM scores behaviors by DIN's activation unit, which sees products of candidate and behavior, in the place of Eq. 8, whose
    sum of a part of each does not; and adds them up by these scores as they are, so that it shows how strong an interest is."""
    unit: tuple[Count, ...] = (64,)
    """Widths of that unit's hidden layers."""
    factorization: bool = True
    """Whether a factorization machine over the same vectors is added to the logit, as in DeepFM."""
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

    def forward(self, candidate: torch.Tensor, vectors: torch.Tensor, packing: Packing) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend; see :meth:`mian.layers.BehaviorAttention.forward`. Weights do not add up to 1, and may be negative."""
        scores = self.unit(candidate, vectors, packing)  # (P,)
        interest = packing.sum(scores[:, None] * vectors)  # (P, d_b) -> (B, d_b)
        beside = candidate * (packing.lengths > 0)[:, None]
        return torch.cat([beside, interest], dim=-1), scores.detach()


class MianPlus(Mian):
    """MIAN with target attention, and with a factorization machine beside it.

    Args:
        contract: says which fields each group has.
        config: the options.

    Raises:
        ContractError: the contract has no candidate field.
    """

    config: MianPlusConfig

    def __init__(self, contract: Contract, config: MianPlusConfig) -> None:
        super().__init__(contract, config)
        if config.factorization:
            self.linear = LinearPart(contract)
            initialize(self.linear, config.init_std)

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
        if not self.config.factorization:
            return logits
        groups = [embedded.candidate, embedded.user, embedded.context]
        if embedded.behaviors is not None and embedded.packing is not None:
            flat = embedded.behaviors.flatten(1)  # (P, F, d) -> (P, F * d)
            means, _ = pool(flat.new_zeros(len(flat)), flat, embedded.packing)
            groups.append(means.view(-1, *embedded.behaviors.shape[1:]))  # (B, F, d)
        fields = torch.cat([vectors for vectors in groups if vectors is not None], dim=1)
        total: torch.Tensor = logits + self.linear(batch) + pairwise(fields)
        return total
