"""Layers that models are built from, one a file; each computes named equations of its paper."""

from mian.layers.activation_unit import ActivationUnit, shared_fields
from mian.layers.activations import Activation
from mian.layers.beside_user import USER_GROUPS, BesideUser, UserEncoding, embed_candidates, repeat_user
from mian.layers.candidate_attention import BehaviorAttention, FieldAttention
from mian.layers.cin import CompressedInteraction
from mian.layers.cross import MatrixCross, VectorCross
from mian.layers.dice import BatchNormalization, Dice
from mian.layers.embedding import Embedded, EmbeddingTable, FieldEmbedding
from mian.layers.field_vectors import FieldVectors, LinearPart, concat_fields, mean_history
from mian.layers.global_interaction import ConcatenatedGlobalInteraction, ProjectedGlobalInteraction
from mian.layers.gru import GRU, OldestFirst, ReadingOrder, reading_order
from mian.layers.initialization import initialize
from mian.layers.lookup import Lookup, Prepared
from mian.layers.mlp import MLP
from mian.layers.pairwise import pairwise
from mian.layers.placement import Placement, sharded_tables, tables_without_memory
from mian.layers.score import Score, ScoreActivation
from mian.layers.transformer import Transformer

__all__ = [
    "GRU",
    "MLP",
    "USER_GROUPS",
    "Activation",
    "ActivationUnit",
    "BatchNormalization",
    "BehaviorAttention",
    "BesideUser",
    "CompressedInteraction",
    "ConcatenatedGlobalInteraction",
    "Dice",
    "Embedded",
    "EmbeddingTable",
    "FieldAttention",
    "FieldEmbedding",
    "FieldVectors",
    "LinearPart",
    "Lookup",
    "MatrixCross",
    "OldestFirst",
    "Placement",
    "Prepared",
    "ProjectedGlobalInteraction",
    "ReadingOrder",
    "Score",
    "ScoreActivation",
    "Transformer",
    "UserEncoding",
    "VectorCross",
    "concat_fields",
    "embed_candidates",
    "initialize",
    "mean_history",
    "pairwise",
    "reading_order",
    "repeat_user",
    "sharded_tables",
    "shared_fields",
    "tables_without_memory",
]
