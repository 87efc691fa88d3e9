"""The Multi-Interactive Attention Network, equation by equation.

Source: Zhang, Qian, Cui, Liu, Li, Zhou, Ma, Chen: Multi-Interactive Attention Network for Fine-grained Feature Learning in CTR
Prediction, WSDM 2021. Equation numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from mian.contract import Contract, ContractError
from mian.kernels import JaggedLayout, pool
from mian.layers import (
    MLP,
    USER_GROUPS,
    BehaviorAttention,
    BesideUser,
    ConcatenatedGlobalInteraction,
    Embedded,
    FieldAttention,
    FieldEmbedding,
    ProjectedGlobalInteraction,
    ScoreActivation,
    Transformer,
    UserEncoding,
    embed_candidates,
    initialize,
    mean_history,
)
from mian.models.click_model import ClickModel
from mian.models.options import Count, Deviation, Options, Share

#: What Eq. 14 concatenates, in its order.
PARTS = ("e_i", "e_c", "e_b", "e_u", "R_ibim", "R_iuim", "R_icim")


class MianConfig(Options):
    """Options of :class:`Mian`. The defaults are the paper's settings, or, where it has none, what the option's docstring says."""

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
    transformer: Literal["pre_ln", "post_ln", "none"] = "pre_ln"
    """What behaviors go through before the candidate meets them. ``post_ln``, the original Transformer, and ``none``, the behaviors
    as they are embedded, are the paper's Table 4."""
    without: tuple[Literal["iuim", "icim", "ibim", "gim"], ...] = ()
    """Modules that are left out, as in the paper's Table 3. Without ``iuim``, ``icim`` or ``ibim`` its interactive part is missing
    from Eq. 14, and the group's original part stays; without ``ibim`` there is no transformer either. Without ``gim`` the parts of
    Eq. 14 go side by side, unweighted, into Eq. 16, which the paper does not say."""
    score_activation: ScoreActivation = "tanh"
    """Of every attention score but the transformer's, see :class:`mian.layers.score.Score`. ``none`` makes the weights of behaviors
    independent of the candidate, see :class:`mian.layers.candidate_attention.BehaviorAttention`."""
    global_fusion: Literal["project", "weighted_concat", "scaled_concat"] = "project"
    """How Eq. 15 adds up parts of different widths, which the paper does not say. ``project``: each is projected to ``global_dim`` first.
    ``weighted_concat``: each is scaled by its weight, and they are concatenated. ``scaled_concat``: by its weight times their number."""
    global_dim: Count = 64
    """Width of Eq. 15's parts with ``project``. The paper does not give it."""
    mlp: tuple[Count, ...] = (32, 8)
    """Widths of the hidden layers of Eq. 16."""
    dropout: Share = 0.2
    """Probability of dropout. The paper does not say where: it is on both outputs inside the transformer and on the layers of Eq. 16."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but biases starts from."""


@dataclass(frozen=True)
class _MianUser:
    """One user, encoded.

    Attributes:
        means: vectors of user and context; of the behaviors the mean, ``(1, F, d)``.
        related: the behaviors after the transformer, Eq. 5, ``(P, d_b)``; None without IBIM.
        layout: of the history.
    """

    means: Embedded
    related: torch.Tensor | None
    layout: JaggedLayout | None


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
        d = config.embedding_dim
        self.embedding = FieldEmbedding(contract, d)
        self.candidate_columns = self.embedding.columns["candidate"]
        self.behavior_columns = self.embedding.columns["behaviors"]
        self.user_columns = self.embedding.columns["user"]
        self.context_columns = self.embedding.columns["context"]
        if not self.candidate_columns:
            raise ContractError(
                f"contract {contract.name!r} has no candidate field, and MIAN has nothing to score without one; "
                "add candidate fields to the data set's configuration and build the samples again"
            )
        d_i = d * len(self.candidate_columns)
        widths = {"e_i": d_i}  # of Eq. 14's parts

        if self.behavior_columns:
            d_b = d * len(self.behavior_columns)
            widths["e_b"] = d_b
        if self.behavior_columns and "ibim" not in config.without:
            if config.positions == "learned":
                self.positions = nn.Parameter(torch.zeros(config.max_positions or contract.history.length, d_b))
            if config.transformer != "none":
                head_dim, inner = config.head_dim or -(-d_b // config.heads), config.ffn_multiplier * d_b
                self.transformer = Transformer(d_b, config.heads, head_dim, inner, config.dropout, config.transformer)
            self.item_behaviors, widths["R_ibim"] = self._behavior_attention(contract, d_i, d_b), d_i + d_b
        if self.user_columns:
            widths["e_u"] = d * len(self.user_columns)
        if self.user_columns and "iuim" not in config.without:
            widths["R_iuim"] = d_i + d
            self.item_user = FieldAttention(d_i, d, len(self.user_columns), config.score_activation)
        if self.context_columns:
            widths["e_c"] = d * len(self.context_columns)
        if self.context_columns and "icim" not in config.without:
            widths["R_icim"] = d_i + d
            self.item_context = FieldAttention(d_i, d, len(self.context_columns), config.score_activation)

        self.part_names = tuple(name for name in PARTS if name in widths)
        part_widths = [widths[name] for name in self.part_names]
        mlp_width = sum(part_widths)
        self.global_interaction: ProjectedGlobalInteraction | ConcatenatedGlobalInteraction | None = None
        if "gim" not in config.without:
            if config.global_fusion == "project":
                self.global_interaction = ProjectedGlobalInteraction(part_widths, config.global_dim, config.score_activation)
            else:
                scaled = config.global_fusion == "scaled_concat"
                self.global_interaction = ConcatenatedGlobalInteraction(part_widths, config.score_activation, scaled)
            mlp_width = self.global_interaction.output_width
        self.mlp = MLP(mlp_width, config.mlp, config.dropout)
        self.logit = nn.Linear(self.mlp.output_width, 1)
        initialize(self, config.init_std)

    def _behavior_attention(self, contract: Contract, d_i: int, d_b: int) -> nn.Module:
        return BehaviorAttention(d_i, d_b, self.config.score_activation)

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

    def encode_user(self, batch: Mapping[str, torch.Tensor]) -> UserEncoding:
        """See :meth:`mian.models.ClickModel.encode_user`: the transformer runs here, once a user."""
        embedded = self.embedding(batch, USER_GROUPS)
        related = None
        if embedded.behaviors is not None and embedded.layout is not None and "ibim" not in self.config.without:
            related = self._related(embedded.behaviors.flatten(1), embedded.layout)
        return {self: _MianUser(mean_history(embedded), related, embedded.layout)}

    def candidate_logits(self, candidates: BesideUser) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.candidate_logits`."""
        return self._run_candidates(candidates)[0]

    def _run_candidates(self, candidates: BesideUser) -> tuple[torch.Tensor, Embedded]:
        """Logits ``(N,)``, and the candidates' vectors beside the user's, of behaviors the mean."""
        user: _MianUser = candidates.user[self]
        beside = embed_candidates(self.embedding, candidates, user.means)
        assert beside.candidate is not None, "there is a candidate field"
        e_i = beside.candidate.flatten(1)  # (N, I, d) -> (N, d_i)
        parts = {"e_i": e_i}
        if user.related is not None and user.layout is not None:
            parts["R_ibim"] = self.item_behaviors.one_history(e_i, user.related, user.layout)  # type: ignore[operator]
        if beside.behaviors is not None:
            parts["e_b"] = beside.behaviors.flatten(1)
        if beside.user is not None:
            parts["e_u"] = beside.user.flatten(1)
            if "iuim" not in self.config.without:
                parts["R_iuim"] = self.item_user(e_i, beside.user)[0]
        if beside.context is not None:
            parts["e_c"] = beside.context.flatten(1)
            if "icim" not in self.config.without:
                parts["R_icim"] = self.item_context(e_i, beside.context)[0]
        return self._score([parts[name].expand(candidates.count, -1) for name in self.part_names])[0], beside

    def explain(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The attention weights behind the logits of a batch; call ``eval()`` first, or dropout has its say.

        Args:
            batch: as for :meth:`forward`.

        Returns:
            Float32: ``behaviors (B, T)``, Eq. 7, all 0 for an empty history; ``user (B, J)``, Eq. 10, and ``context (B, K)``, Eq. 13, in
            the order of ``user_columns`` and ``context_columns``; ``global (B, L)``, Eq. 15, in the order of ``part_names``. Groups that
            the contract lacks, and modules that the options leave out, are left out.
        """
        _, weights, embedded = self._run(batch)
        if embedded.layout is not None and "behaviors" in weights:
            weights["behaviors"] = embedded.layout.pad(weights["behaviors"])  # (P,) -> (B, T)
        return weights

    def explained(self) -> dict[str, tuple[str, ...]]:
        """See :meth:`mian.models.ClickModel.explained`."""
        return {"user": self.user_columns, "context": self.context_columns, "global": self.part_names}

    def _run(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor], Embedded]:
        embedded = self.embedding(batch)  # Eqs. 1, 2
        parts: dict[str, torch.Tensor] = {}
        weights: dict[str, torch.Tensor] = {}

        assert embedded.candidate is not None, "there is a candidate field"
        e_i = parts["e_i"] = embedded.candidate.flatten(1)  # (B, I, d) -> (B, d_i)

        if embedded.behaviors is not None and embedded.layout is not None:
            e_b = embedded.behaviors.flatten(1)  # (P, F, d) -> (P, d_b): the real positions of all histories
            layout = embedded.layout
            if "ibim" not in self.config.without:
                h_b = self._related(e_b, layout)
                parts["R_ibim"], weights["behaviors"] = self.item_behaviors(e_i, h_b, layout)  # Eqs. 6-9
            # Eq. 14 has all of e_b, whose width depends on T: its mean over the real behaviors stands for it.
            parts["e_b"], _ = pool(e_b.new_zeros(len(e_b)), e_b, layout)  # (P, d_b) -> (B, d_b)

        if embedded.user is not None:
            if "iuim" not in self.config.without:
                parts["R_iuim"], weights["user"] = self.item_user(e_i, embedded.user)  # Eqs. 10, 11
            parts["e_u"] = embedded.user.flatten(1)  # (B, J, d) -> (B, J * d)

        if embedded.context is not None:
            if "icim" not in self.config.without:
                parts["R_icim"], weights["context"] = self.item_context(e_i, embedded.context)  # Eqs. 12, 13
            parts["e_c"] = embedded.context.flatten(1)  # (B, K, d) -> (B, K * d)

        logits, global_weights = self._score([parts[name] for name in self.part_names])  # Eq. 14
        if global_weights is not None:
            weights["global"] = global_weights
        return logits, weights, embedded

    def _score(self, parts: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits ``(B,)`` of the parts of Eq. 14, each ``(B, width)``, and the parts' weights ``(B, L)``; None without GIM."""
        if self.global_interaction is None:
            r_g, weights = torch.cat(parts, dim=1), None
        else:
            r_g, weights = self.global_interaction(parts)  # Eq. 15
        # Eq. 17 is a softmax over two classes; the sigmoid of one logit, the difference of its two, is the same function.
        logits: torch.Tensor = self.logit(self.mlp(r_g)).squeeze(-1)  # Eqs. 16, 17: (B, d_g) -> (B, 1) -> (B,)
        return logits, weights

    def _related(self, e_b: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
        """Eqs. 3-5: behaviors, float ``(P, d_b)``, in their places and beside each other."""
        if self.config.positions == "learned":
            steps = layout.steps.clamp(max=len(self.positions) - 1)  # 0 is the most recent
            e_b = e_b + F.embedding(steps, self.positions)
        if self.config.transformer == "none":
            return e_b
        related: torch.Tensor = self.transformer(e_b, layout)
        return related
