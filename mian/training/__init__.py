"""Training on one process or on many Horovod ranks."""

from mian.training.agreement import DisagreementError
from mian.training.carry_over import CarryOverError
from mian.training.data import Streams, open_streams
from mian.training.elastic import ElasticSession
from mian.training.outcome import TrainingError, TrainingResult, TrainingStopped
from mian.training.table_memory import TableMemoryError, refuse_large_tables
from mian.training.trainer import Trainer

__all__ = [
    "CarryOverError",
    "DisagreementError",
    "ElasticSession",
    "Streams",
    "TableMemoryError",
    "Trainer",
    "TrainingError",
    "TrainingResult",
    "TrainingStopped",
    "open_streams",
    "refuse_large_tables",
]
