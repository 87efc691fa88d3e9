"""What torch's own operators are slow at: on a CPU compiled, on a GPU in Triton; elsewhere, or where neither is there, torch's own.

Histories lie packed: the positions of all samples one after the other, without padding; see :class:`mian.kernels.jagged.JaggedLayout`.
"""

from mian.kernels.attention_pooling import pool, softmax
from mian.kernels.dropout import Dropout
from mian.kernels.embedding_rows import distinct, field_rows, lazy_adam_, rowwise_adagrad_, sum_by_place
from mian.kernels.jagged import DenseLayout, JaggedLayout, layout_of
from mian.kernels.load import is_compiled
from mian.kernels.recurrence import fits_recurrence, recurrence
from mian.kernels.self_attention import attention

__all__ = [
    "DenseLayout",
    "Dropout",
    "JaggedLayout",
    "attention",
    "distinct",
    "field_rows",
    "fits_recurrence",
    "is_compiled",
    "layout_of",
    "lazy_adam_",
    "pool",
    "recurrence",
    "rowwise_adagrad_",
    "softmax",
    "sum_by_place",
]
