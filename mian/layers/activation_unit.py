"""The local activation unit of the Deep Interest Network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mian.contract import Contract
from mian.kernels import JaggedLayout
from mian.layers.activations import Activation, make_activation
from mian.layers.dice import BatchNormalization
from mian.layers.embedding import FieldEmbedding
from mian.layers.mlp import MLP


def shared_fields(contract: Contract, embedding: FieldEmbedding) -> list[tuple[int, int]]:
    """Which fields candidate and behaviors have in common: categorical, of one vocabulary, of one name where there is a choice.

    Args:
        contract: says which fields there are.
        embedding: of these fields.

    Returns:
        A field's number among the vectors of the candidate, and among those of a behavior.
    """
    candidate, behaviors = embedding.columns["candidate"], embedding.columns["behaviors"]
    pairs = []
    for behavior in contract.group("behaviors"):
        alike = [field for field in contract.group("candidate") if field.vocabulary == behavior.vocabulary]
        if alike and behavior.vocabulary is not None:
            field = next((field for field in alike if field.name == behavior.name), alike[0])
            pairs.append((candidate.index(field.column), behaviors.index(behavior.column)))
    return pairs


class ActivationUnit(nn.Module):
    """How much each behavior matters to the candidate: a network over the candidate, the behavior and the interaction of both.

    Zhou et al. 2018, section 4.3: candidate, behavior, and their interaction go into hidden layers and a linear one. The paper's Figure 2
    has an "out product" for the interaction; its authors' code has difference and product, entry by entry, which are here.

    Candidate and behavior may have different fields, such as a price in one and the kind of action in the other. Difference and product
    use the fields that both have. All fields of both are inputs of the network, too.

    The first layer's ``W [q, k, q - k, q * k]`` is ``(W_q + W_d) q + (W_k - W_d) k + W_p (q * k)``: the product with the candidate's
    vector is computed once for each sample, and not once for each behavior.

    Args:
        width: d, the width of a field's vector.
        candidate_fields: I, the number of fields of the candidate.
        behavior_fields: F, the number of fields of a behavior.
        shared: the fields that both have, see :func:`shared_fields`.
        hidden: the widths of the hidden layers, at least one.
        activation: the activation of the hidden layers.
    """

    def __init__(
        self,
        width: int,
        candidate_fields: int,
        behavior_fields: int,
        shared: Sequence[tuple[int, int]],
        hidden: Sequence[int],
        activation: Activation,
    ) -> None:
        super().__init__()
        self.candidate_projection = nn.Linear(width * candidate_fields, hidden[0])  # W_q
        self.behavior_projection = nn.Linear(width * behavior_fields, hidden[0], bias=False)  # W_k
        self.in_candidate: torch.Tensor
        self.in_behavior: torch.Tensor
        self.register_buffer("in_candidate", _columns([pair[0] for pair in shared], width), persistent=False)
        self.register_buffer("in_behavior", _columns([pair[1] for pair in shared], width), persistent=False)
        self.difference_projection: nn.Linear | None = None  # W_d
        self.product_projection: nn.Linear | None = None  # W_p
        if shared:
            self.difference_projection = nn.Linear(width * len(shared), hidden[0], bias=False)
            self.product_projection = nn.Linear(width * len(shared), hidden[0], bias=False)
        self.activation = make_activation(activation, hidden[0])
        self.mlp = MLP(hidden[0], hidden[1:], 0.0, activation)
        self.score = nn.Linear(self.mlp.output_width, 1)
        self._normalizations = [module for module in self.modules() if isinstance(module, BatchNormalization)]

    def forward(self, candidate: torch.Tensor, behaviors: torch.Tensor, layout: JaggedLayout) -> torch.Tensor:
        """Score behaviors.

        Args:
            candidate: ``q``, float ``(B, I * d)``.
            behaviors: ``k``, float ``(P, F * d)``.
            layout: which sample each behavior is of.

        Returns:
            Float ``(P,)``.
        """
        for normalization in self._normalizations:
            normalization.counted = layout.counted
        sample_part = self.candidate_projection(candidate)  # (B, hidden)
        if self.difference_projection is None or self.product_projection is None:
            first = self.behavior_projection(behaviors)
        else:
            q = candidate.index_select(1, self.in_candidate)
            k = behaviors.index_select(1, self.in_behavior)
            sample_part = sample_part + self.difference_projection(q)
            behavior_projection = self.behavior_projection.weight.index_add(
                1, self.in_behavior, self.difference_projection.weight, alpha=-1
            )  # W_k - W_d
            first = F.linear(behaviors, behavior_projection) + self.product_projection(q.index_select(0, layout.samples) * k)
        hidden = self.mlp(self.activation(first + sample_part.index_select(0, layout.samples)))
        scores: torch.Tensor = self.score(hidden).squeeze(1)
        return scores


def _columns(fields: Sequence[int], width: int) -> torch.Tensor:
    """Where the vectors of fields lie among all side by side, int64."""
    return (torch.tensor(fields, dtype=torch.int64)[:, None] * width + torch.arange(width)).flatten()
