"""Training on one process or on many Horovod ranks."""

from mian.trainer.ranks import RankError, Ranks, other_ranks_needed
from mian.trainer.trainer import Streams, Trained, Trainer, TrainingError, open_streams

__all__ = [
    "RankError",
    "Ranks",
    "Streams",
    "Trained",
    "Trainer",
    "TrainingError",
    "open_streams",
    "other_ranks_needed",
]
