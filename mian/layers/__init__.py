"""Layers that models are built from, one a file; each computes named equations of its paper."""

from mian.layers.attention import BehaviorAttention, FieldAttention
from mian.layers.embedding import Embedded, EmbeddingTable, FieldEmbedding
from mian.layers.global_interaction import ConcatenatedGlobalInteraction, ProjectedGlobalInteraction
from mian.layers.initialization import initialize
from mian.layers.lookup import Lookup, Prepared
from mian.layers.mlp import MLP
from mian.layers.placement import Placement, split_tables
from mian.layers.score import Score, ScoreActivation
from mian.layers.transformer import PreLNTransformer

__all__ = [
    "MLP",
    "BehaviorAttention",
    "ConcatenatedGlobalInteraction",
    "Embedded",
    "EmbeddingTable",
    "FieldAttention",
    "FieldEmbedding",
    "Lookup",
    "Placement",
    "PreLNTransformer",
    "Prepared",
    "ProjectedGlobalInteraction",
    "Score",
    "ScoreActivation",
    "initialize",
    "split_tables",
]
