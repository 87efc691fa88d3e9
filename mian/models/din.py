"""The Deep Interest Network.

Source: Zhou et al.: Deep Interest Network for Click-Through Rate Prediction, KDD 2018. Section numbers are the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field as Option
from torch import nn

from mian.contract import Contract, ContractError
from mian.kernels import pool
from mian.layers import (
    MLP,
    USER_GROUPS,
    Activation,
    ActivationUnit,
    BesideUser,
    Embedded,
    FieldEmbedding,
    UserEncoding,
    embed_candidates,
    initialize,
    repeat_user,
    shared_fields,
)
from mian.models.click_model import ClickModel
from mian.models.options import Count, Deviation, Options, Share


class DINConfig(Options):
    """Options of :class:`DIN`."""

    embedding_dim: Count = 16
    """Width of every field's vector; MIAN's here."""
    unit: tuple[Count, ...] = Option(default=(36,), min_length=1)
    """Widths of the activation unit's hidden layers; the paper's Figure 2. Its authors' code: 80, 40."""
    unit_activation: Activation = "dice"
    """Their activation. The paper's Figure 2: PReLU or Dice."""
    softmax: bool = False
    """Whether the weights of a history are made to add up to 1. The paper: no, so that how strong an interest is stays (section 4.3)."""
    mlp: tuple[Count, ...] = (200, 80)
    """Widths of the hidden layers; the paper's."""
    activation: Activation = "dice"
    """Their activation. The paper compares PReLU with Dice (section 5.2)."""
    dropout: Share = 0.0
    """Probability of dropout behind each of them. The paper has it as one of several regularizations that it compares."""
    init_std: Deviation = 0.02
    """Deviation of the truncated normal that every weight but biases starts from; MIAN's. The paper gives none."""


class DIN(ClickModel):
    """The history as a sum of behaviors, each weighted by what it is to the candidate: sections 4.2 and 4.3.

    The candidate's fields, the history's sum, the user's and the context's fields side by side go through hidden layers. Section
    5.1's regularization, of the rows that a batch holds, is the trainer's ``optimizer.l2_embedding`` in kind. The paper's two-class
    softmax is the sigmoid of one logit.

    Args:
        contract: says which fields there are.
        config: the options.

    Raises:
        ContractError: the contract has no behaviors, or no candidate field.
    """

    def __init__(self, contract: Contract, config: DINConfig) -> None:
        super().__init__()
        need_histories(contract, "DIN")
        self.config = config
        d = config.embedding_dim
        self.embedding = FieldEmbedding(contract, d)
        candidate, behaviors = len(contract.group("candidate")), len(contract.group("behaviors"))
        shared = shared_fields(contract, self.embedding)
        self.unit = ActivationUnit(d, candidate, behaviors, shared, config.unit, config.unit_activation)
        self.mlp = MLP(d * len(contract.fields), config.mlp, config.dropout, config.activation)
        self.logit = nn.Linear(self.mlp.output_width, 1)
        initialize(self, config.init_std)

    def logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.logits`."""
        return self._score(self.embedding(batch))

    def encode_user(self, batch: Mapping[str, torch.Tensor]) -> UserEncoding:
        """See :meth:`mian.models.ClickModel.encode_user`: the vectors; what a behavior matters depends on the candidate."""
        return {self: self.embedding(batch, USER_GROUPS)}

    def candidate_logits(self, candidates: BesideUser) -> torch.Tensor:
        """See :meth:`mian.models.ClickModel.candidate_logits`."""
        beside = embed_candidates(self.embedding, candidates, candidates.user[self])
        return self._score(repeat_user(beside, candidates.count))

    def _score(self, embedded: Embedded) -> torch.Tensor:
        layout = embedded.layout
        assert embedded.candidate is not None and embedded.behaviors is not None and layout is not None, "see need_histories"
        v_a = embedded.candidate.flatten(1)  # (B, I, d) -> (B, I * d)
        e = embedded.behaviors.flatten(1)  # (P, F, d) -> (P, F * d): the real behaviors of all histories
        scores = self.unit(v_a, e, layout)  # (P,)
        # (B, F * d), a zero vector for an empty history
        v_u = pool(scores, e, layout)[0] if self.config.softmax else layout.sum(scores[:, None] * e)
        others = [group.flatten(1) for group in (embedded.user, embedded.context) if group is not None]
        logits: torch.Tensor = self.logit(self.mlp(torch.cat([v_a, v_u, *others], dim=1))).squeeze(1)
        return logits


def need_histories(contract: Contract, model: str) -> None:
    """Refuse a contract without what a model of histories is about.

    Raises:
        ContractError: it has no behaviors, or no candidate field.
    """
    for group, what in (("behaviors", "behaviors"), ("candidate", "candidate field")):
        if not [field for field in contract.fields if field.group == group]:
            raise ContractError(
                f"contract {contract.name!r} has no {what}, and {model} is about what the behaviors are to the candidate; add them to the "
                "data set's configuration and build the samples again, or take a model that does without, such as deepfm"
            )
