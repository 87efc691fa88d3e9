"""Layers that models are built from, one a file; each computes named equations of its paper."""

from mian.layers.attention import InteractionAttention
from mian.layers.by_length import by_length
from mian.layers.embedding import FieldEmbedding
from mian.layers.global_interaction import ConcatenatedGlobalInteraction, ProjectedGlobalInteraction
from mian.layers.initialization import initialize
from mian.layers.mlp import MLP
from mian.layers.score import Score, ScoreActivation, masked_softmax
from mian.layers.transformer import PreLNTransformer

__all__ = [
    "MLP",
    "ConcatenatedGlobalInteraction",
    "FieldEmbedding",
    "InteractionAttention",
    "PreLNTransformer",
    "ProjectedGlobalInteraction",
    "Score",
    "ScoreActivation",
    "by_length",
    "initialize",
    "masked_softmax",
]
