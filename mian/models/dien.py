"""The Deep Interest Evolution Network.

Source: Zhou et al.: Deep Interest Evolution Network for Click-Through Rate Prediction, AAAI 2019. Equation numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field as Option
from torch import nn

from mian.contract import Contract
from mian.contract.document import LENGTH_COLUMN
from mian.kernels import JaggedLayout, fits_recurrence, softmax
from mian.layers import (
    GRU,
    MLP,
    USER_GROUPS,
    Activation,
    ActivationUnit,
    BesideUser,
    Embedded,
    FieldEmbedding,
    ReadingOrder,
    UserEncoding,
    embed_candidates,
    initialize,
    reading_order,
    repeat_user,
    shared_fields,
)
from mian.models.click_model import ClickModel
from mian.models.din import need_histories
from mian.models.options import Count, Deviation, Options, Share


class DIENConfig(Options):
    """Options of :class:`DIEN`."""

    embedding_dim: Count = 16
    """Width of every field's vector; MIAN's here. The authors' code: 18. States are as wide as all fields of a behavior, as there."""
    attention: Literal["bilinear", "unit"] = "bilinear"
    """What weighs interests by the candidate. ``bilinear``: the paper's ``h_t W e_a`` (Eq. 14). ``unit``: DIN's activation unit, as in
    the authors' code and DeepCTR."""
    unit: tuple[Count, ...] = Option(default=(80, 40), min_length=1)
    """Widths of that unit's hidden layers; the authors' code."""
    unit_activation: Activation = "sigmoid"
    """Their activation; the authors' code."""
    auxiliary_weight: float = Option(default=1.0, ge=0.0)
    """``alpha``, the weight of the auxiliary loss (Eq. 7); 0 for none. The authors' code: 1."""
    auxiliary: Literal["inner_product", "network"] = "inner_product"
    """What tells the behavior that came next from another one. ``inner_product``: of state and behavior, as the paper's
    ``sigmoid([h, e])`` reads. ``network``: hidden layers over both side by side, as in the authors' code and DeepCTR."""
    auxiliary_mlp: tuple[Count, ...] = (100, 50)
    """Widths of that network's hidden layers, which have sigmoids; the authors' code."""
    mlp: tuple[Count, ...] = (200, 80)
    """Widths of the hidden layers; the authors' code."""
    activation: Activation = "dice"
    """Their activation; the authors' code."""
    dropout: Share = 0.0
    """Probability of dropout behind each of them. The paper mentions none."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but biases starts from; MIAN's. The paper gives none."""


class DIEN(ClickModel):
    """Interests are the states of a GRU over the history; a second GRU (AUGRU) lets them evolve towards the candidate.

    Histories are read from the oldest behavior to the most recent. The paper has one item embedding; here, states and behaviors are as
    wide as all fields of a behavior side by side. The negatives of the auxiliary loss are other behaviors of the batch, drawn anew in
    each step. Whole behaviors are drawn, so that an item keeps its category. Popular items are drawn as often as they are popular, as in
    the authors' code; the paper says only that negatives are sampled. A negative that equals the real next behavior is left out.

    Args:
        contract: says which fields there are.
        config: the options.

    Raises:
        ContractError: the contract has no behaviors, or no candidate field.
    """

    def __init__(self, contract: Contract, config: DIENConfig) -> None:
        super().__init__()
        need_histories(contract, "DIEN")
        self.config = config
        d = config.embedding_dim
        self.embedding = FieldEmbedding(contract, d)
        candidate, behaviors = len(contract.group("candidate")), len(contract.group("behaviors"))
        width = d * behaviors
        self.extractor = GRU(width, width)
        if config.auxiliary_weight and config.auxiliary == "network":
            hidden = MLP(2 * width, config.auxiliary_mlp, 0.0, "sigmoid")
            self.auxiliary = nn.Sequential(hidden, nn.Linear(hidden.output_width, 1))
        if config.attention == "bilinear":
            self.attention = nn.Linear(d * candidate, width, bias=False)  # W of Eq. 14
        else:
            shared = shared_fields(contract, self.embedding)
            self.unit = ActivationUnit(d, candidate, behaviors, shared, config.unit, config.unit_activation)
        self.signs: torch.Tensor
        self.register_buffer("signs", torch.tensor([[-1.0], [1.0]]), persistent=False)  # see auxiliary_loss
        self.terms: torch.Tensor
        self.register_buffer("terms", torch.zeros(()), persistent=False)  # see use_auxiliary_terms
        self.evolution = GRU(width, width)
        self.mlp = MLP(d * len(contract.fields), config.mlp, config.dropout, config.activation)
        self.logit = nn.Linear(self.mlp.output_width, 1)
        initialize(self, config.init_std)

    @property
    def supports_cuda_graphs(self) -> bool:
        """Where one operator reads the histories; elsewhere how many of them go on at a step is asked for."""
        return fits_recurrence(self.logit.weight, self.evolution.hidden)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        return self._run(batch)[0]

    def losses(self, batch: Mapping[str, torch.Tensor], labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`mian.models.ClickModel.losses`; ``L = L_target + alpha L_aux``, Eq. 7."""
        logits, h, e, layout = self._run(batch)
        logloss = F.binary_cross_entropy_with_logits(logits.float(), labels.float())
        if not self.config.auxiliary_weight:
            return logloss, logloss
        # of the real ones, not asking how many there are
        drawn = (torch.rand(len(e), device=e.device) * layout.offsets[-1]).long()
        return logloss, logloss + self.config.auxiliary_weight * self.auxiliary_loss(h, e, drawn, layout)

    def auxiliary_terms(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
        """See :meth:`mian.models.ClickModel.auxiliary_terms`; behaviors that came after another one."""
        return (batch[LENGTH_COLUMN] - 1).clamp(min=0).sum() if self.config.auxiliary_weight else None

    def use_auxiliary_terms(self, terms: torch.Tensor) -> None:
        """See :meth:`mian.models.ClickModel.use_auxiliary_terms`."""
        self.terms.copy_(terms)

    def auxiliary_loss(self, h: torch.Tensor, e: torch.Tensor, drawn: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
        """How badly the interests distinguish the behavior that came next from another, drawn one: Eq. 6.

        The paper sums over a history and takes the mean over histories. Here, as in the authors' code, the loss is the mean over all
        behaviors that came next, so that ``alpha`` does not depend on the length of histories. DeepCTR's loss is half of this one: the
        mean over both terms of Eq. 6.

        Args:
            h: the interest after each of P behaviors, float ``(P, width)``.
            e: the vectors of these behaviors, float ``(P, width)``.
            drawn: for each behavior, the number of the behavior that was drawn in its place, int64 ``(P,)``.
            layout: which sample each behavior belongs to, the most recent first.

        Returns:
            Scalar; 0 if no behavior came after another one. For a part of a batch, it is the contribution of this part to the mean over
            the whole batch, see :meth:`use_auxiliary_terms`.
        """
        # All but the most recent of each history: the next one lies one place before.
        has_next = ((layout.steps > 0) & (layout.summed < layout.shape[0]))[1:]
        places = torch.stack([torch.arange(len(e), device=e.device), drawn])[:, :-1]
        next_and_other = e.index_select(0, places.flatten()).view(*places.shape, e.shape[1])  # one gather, one way back
        is_other = (next_and_other[0] != next_and_other[1]).any(dim=1)
        # -log sigmoid of what came next, -log (1 - sigmoid) of the other one
        losses = F.softplus(self._came_next(h[1:], next_and_other) * self.signs)
        counted = torch.stack([has_next, has_next & is_other])
        terms = torch.where(self.terms > 0, self.terms, has_next.sum().clamp(min=1))
        return (losses * counted).sum() / terms

    def _came_next(self, h: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        """Logits, float ``(2, N)``, of states ``(N, width)`` and two behaviors for each, ``(2, N, width)``."""
        if self.config.auxiliary == "inner_product":
            return (h * e).sum(dim=2)
        logits: torch.Tensor = self.auxiliary(torch.cat([h.expand_as(e), e], dim=2)).squeeze(2)
        return logits

    def _run(self, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, JaggedLayout]:
        """Logits ``(B,)``, and of the real behaviors, sample after sample, states and vectors, each ``(P, width)``."""
        embedded = self.embedding(batch)
        layout = embedded.layout
        assert embedded.behaviors is not None and layout is not None, "see need_histories"
        e_b = embedded.behaviors.flatten(1)  # (P, F, d) -> (P, width)
        order = reading_order(layout, e_b, self.evolution.hidden)
        states = self.extractor(order.arrange(e_b), order)  # Eqs. 2-5
        return self._score(embedded, states, order), order.restore(states), e_b, layout

    def encode_user(self, batch: Mapping[str, torch.Tensor]) -> UserEncoding:
        """See :meth:`mian.models.ClickModel.encode_user`: interests are extracted here; they evolve towards each candidate."""
        embedded = self.embedding(batch, USER_GROUPS)
        layout = embedded.layout
        assert embedded.behaviors is not None and layout is not None, "see need_histories"
        e_b = embedded.behaviors.flatten(1)
        order = reading_order(layout, e_b, self.evolution.hidden)
        h = order.restore(self.extractor(order.arrange(e_b), order))
        return {self: replace(embedded, behaviors=h[:, None])}

    def candidate_logits(self, candidates: BesideUser) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.candidate_logits`."""
        repeated = repeat_user(embed_candidates(self.embedding, candidates, candidates.user[self]), candidates.count)
        assert repeated.behaviors is not None and repeated.layout is not None, "see need_histories"
        h = repeated.behaviors.flatten(1)
        order = reading_order(repeated.layout, h, self.evolution.hidden)
        return self._score(repeated, order.arrange(h), order)

    def _score(self, embedded: Embedded, states: torch.Tensor, order: ReadingOrder) -> torch.Tensor:
        """Logits ``(B,)``, of the states after each behavior, ``(P, width)``, in the order in which they are read."""
        layout = embedded.layout
        assert embedded.candidate is not None and layout is not None, "see need_histories"
        e_a = embedded.candidate.flatten(1)  # (B, I, d) -> (B, I * d)
        a = order.arrange(self._attention(e_a, order.restore(states), layout))  # Eq. 14
        h_t = _last_states(order.restore(self.evolution(states, order, a)), layout)
        others = [group.flatten(1) for group in (embedded.user, embedded.context) if group is not None]
        logits: torch.Tensor = self.logit(self.mlp(torch.cat([e_a, h_t, *others], dim=1))).squeeze(1)
        return logits

    def _attention(self, e_a: torch.Tensor, h: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
        """Weights that add up to 1 over each history, float ``(P,)``."""
        if self.config.attention == "bilinear":
            scores = (self.attention(e_a).index_select(0, layout.samples) * h).sum(dim=1)  # h_t W e_a
        else:
            scores = self.unit(e_a, h, layout)
        return softmax(scores, layout)


def _last_states(states: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
    """Those after the most recent behaviors, each the first of its sample: ``(B, width)``, a zero vector for an empty history."""
    if not states.shape[0]:
        return states.new_zeros(layout.shape[0], states.shape[1])
    first = layout.offsets[:-1].clamp(max=states.shape[0] - 1)
    return states.index_select(0, first) * (layout.lengths > 0)[:, None]
