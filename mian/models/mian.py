"""The Multi-Interactive Attention Network, equation by equation.

Source: Zhang, Qian, Cui, Liu, Li, Zhou, Ma, Chen: Multi-Interactive Attention Network for Fine-grained Feature Learning in CTR
Prediction, WSDM 2021. Equation numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict
from pydantic import Field as Option
from torch import nn

from mian.layers import (
    MLP,
    ConcatenatedGlobalInteraction,
    FieldEmbedding,
    InteractionAttention,
    PreLNTransformer,
    ProjectedGlobalInteraction,
    ScoreActivation,
    by_length,
    initialize,
)
from mian.models.click_model import ClickModel
from pipeline.contract import Contract, ContractError
from pipeline.contract.document import LENGTH_COLUMN

#: What Eq. 14 concatenates, in its order.
PARTS = ("e_i", "e_c", "e_b", "e_u", "R_ibim", "R_iuim", "R_icim")

Count = Annotated[int, Option(gt=0)]


class MianConfig(BaseModel):
    """Options of :class:`Mian`. The defaults are the paper's settings, or, where it has none, what the option's docstring says."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    embedding_dim: Count = 16
    """``d``, the width of every field's vector. The paper does not give it."""
    heads: Count = 8
    """Heads of the self-attention, Eq. 4."""
    head_dim: Count | None = None
    """Width of a head. The paper does not give it; None: the behaviors' width divided by ``heads``, rounded up."""
    ffn_multiplier: Count = 4
    """Hidden width of Eq. 5 over the behaviors' width. The paper does not give it; 4 is that of the Transformer it refers to."""
    positions: Literal["learned", "none"] = "learned"
    """What tells the order of behaviors. Eqs. 3-9 show nothing that does, so that with ``none`` any order gives the same score.
    ``learned``: a vector for each position, counted from the most recent behavior, is added before the transformer.
    Gaps in time need no option: a contract that has them has them as a numeric field of the behaviors."""
    max_positions: Count | None = None
    """Positions with a vector of their own; older behaviors share the last one. None: the contract's history length."""
    score_activation: ScoreActivation = "tanh"
    """Of every attention score but the transformer's, see :class:`mian.layers.score.Score`. ``none`` makes the weights of behaviors
    independent of the candidate, see :class:`mian.layers.attention.InteractionAttention`."""
    global_fusion: Literal["project", "weighted_concat"] = "project"
    """How Eq. 15 adds up parts of different widths, which the paper does not say. ``project``: each is projected to ``global_dim`` first.
    ``weighted_concat``: each is scaled by its weight, and they are concatenated."""
    global_dim: Count = 64
    """Width of Eq. 15's parts with ``project``. The paper does not give it."""
    mlp: tuple[Count, ...] = (32, 8)
    """Widths of the hidden layers of Eq. 16."""
    dropout: float = Option(default=0.2, ge=0.0, lt=1.0)
    """Probability of dropout. The paper does not say where: it is on both outputs inside the transformer and on the layers of Eq. 16."""
    init_std: float = Option(default=0.02, gt=0.0)
    """Deviation of the truncated normal that every weight but biases starts from."""
    sparse: bool = True
    """Whether the embedding tables' gradients are sparse tensors. It changes no score."""


class Mian(ClickModel):
    """MIAN over the fields of a contract.

    The paper has four groups of fields; a contract may lack some. Without behaviors there is no IBIM, without user fields no IUIM,
    without context fields no ICIM, and the group's two parts are left out of Eq. 14, the others keeping their order.

    Args:
        contract: says which fields each group has; nothing else about a data set is known here.
        config: the options.

    Raises:
        ContractError: the contract has no candidate field.
    """

    def __init__(self, contract: Contract, config: MianConfig) -> None:
        super().__init__()
        self.config = config
        self.candidate_columns = _columns(contract, "candidate")
        self.behavior_columns = _columns(contract, "behaviors")
        self.user_columns = _columns(contract, "user")
        self.context_columns = _columns(contract, "context")
        if not self.candidate_columns:
            raise ContractError(
                f"contract {contract.name!r} has no candidate field, and MIAN has nothing to score without one; "
                "add candidate fields to the data set's configuration and build the samples again"
            )
        d = config.embedding_dim
        d_i = d * len(self.candidate_columns)
        widths = {"e_i": d_i}  # of Eq. 14's parts

        self.embedding = FieldEmbedding(contract, d, config.sparse)
        if self.behavior_columns:
            d_b = d * len(self.behavior_columns)
            widths |= {"e_b": d_b, "R_ibim": d_i + d_b}
            if config.positions == "learned":
                self.positions = nn.Parameter(torch.zeros(config.max_positions or contract.history.length, d_b))
            head_dim = config.head_dim or -(-d_b // config.heads)
            self.transformer = PreLNTransformer(d_b, config.heads, head_dim, config.ffn_multiplier * d_b, config.dropout)
            self.item_behaviors = InteractionAttention(d_i, d_b, None, config.score_activation)
        if self.user_columns:
            widths |= {"e_u": d * len(self.user_columns), "R_iuim": d_i + d}
            self.item_user = InteractionAttention(d_i, d, len(self.user_columns), config.score_activation)
        if self.context_columns:
            widths |= {"e_c": d * len(self.context_columns), "R_icim": d_i + d}
            self.item_context = InteractionAttention(d_i, d, len(self.context_columns), config.score_activation)

        self.part_names = tuple(name for name in PARTS if name in widths)
        part_widths = [widths[name] for name in self.part_names]
        self.global_interaction: ProjectedGlobalInteraction | ConcatenatedGlobalInteraction
        if config.global_fusion == "project":
            self.global_interaction = ProjectedGlobalInteraction(part_widths, config.global_dim, config.score_activation)
        else:
            self.global_interaction = ConcatenatedGlobalInteraction(part_widths, config.score_activation)
        self.mlp = MLP(self.global_interaction.output_width, config.mlp, config.dropout)
        self.logit = nn.Linear(self.mlp.output_width, 1)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Score a batch.

        Args:
            batch: columns by name: int32 ids or float32 numbers ``(B,)``, those of the behaviors ``(B, T)`` with the most recent first,
                and ``behavior_length``, int32 ``(B,)``, how many of the T are real. What stands at the others changes nothing.

        Returns:
            Logits, float32 ``(B,)``.

        Raises:
            KeyError: the batch lacks a column.
            IndexError: an id is not in its vocabulary.
        """
        return self._run(batch)[0]

    def explain(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The attention weights behind the logits of a batch; call ``eval()`` first, or dropout has its say.

        Args:
            batch: as for :meth:`forward`.

        Returns:
            Float32: ``behaviors (B, T)``, Eq. 7, all 0 for an empty history; ``user (B, J)``, Eq. 10, and ``context (B, K)``, Eq. 13, in
            the order of ``user_columns`` and ``context_columns``; ``global (B, L)``, Eq. 15, in the order of ``part_names``. Groups that
            the contract lacks are left out.
        """
        return self._run(batch)[1]

    def _run(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        embedded = self.embedding(batch)  # Eqs. 1, 2
        weights: dict[str, torch.Tensor] = {}

        e_i = torch.cat([embedded[column] for column in self.candidate_columns], dim=-1)  # (B, d_i)
        parts = {"e_i": e_i}

        if self.behavior_columns:
            e_b = torch.cat([embedded[column] for column in self.behavior_columns], dim=-1)  # (B, T, d_b)
            lengths = batch[LENGTH_COLUMN]
            t = torch.arange(e_b.shape[1], device=e_b.device)  # 0 is the most recent
            real = t < lengths[:, None]  # (B, T)
            placed = e_b
            if self.config.positions == "learned":
                placed = e_b + self.positions[t.clamp(max=len(self.positions) - 1)]  # (B, T, d_b) + (T, d_b)
            h_b = by_length(self.transformer, placed, lengths)  # Eqs. 3-5
            parts["R_ibim"], weights["behaviors"] = self.item_behaviors(e_i, h_b, real)  # Eqs. 6-9
            # Eq. 14 has all of e_b, whose width depends on T: its mean over the real behaviors stands for it.
            count = real.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
            parts["e_b"] = (e_b * real[:, :, None]).sum(dim=1) / count  # (B, T, d_b) -> (B, d_b)

        if self.user_columns:
            e_u = torch.stack([embedded[column] for column in self.user_columns], dim=1)  # (B, J, d)
            parts["R_iuim"], weights["user"] = self.item_user(e_i, e_u)  # Eqs. 10, 11
            parts["e_u"] = e_u.flatten(1)  # (B, J, d) -> (B, J * d)

        if self.context_columns:
            e_c = torch.stack([embedded[column] for column in self.context_columns], dim=1)  # (B, K, d)
            parts["R_icim"], weights["context"] = self.item_context(e_i, e_c)  # Eqs. 12, 13
            parts["e_c"] = e_c.flatten(1)  # (B, K, d) -> (B, K * d)

        r = [parts[name] for name in self.part_names]  # Eq. 14
        r_g, weights["global"] = self.global_interaction(r)  # Eq. 15
        # Eq. 17 is a softmax over two classes; the sigmoid of one logit, the difference of its two, is the same function.
        logits = self.logit(self.mlp(r_g)).squeeze(-1)  # Eqs. 16, 17: (B, d_g) -> (B, 1) -> (B,)
        return logits, weights


def _columns(contract: Contract, group: Literal["candidate", "behaviors", "user", "context"]) -> tuple[str, ...]:
    return tuple(field.column for field in contract.group(group))
