"""Training on one process or on many Horovod ranks."""

from mian.trainer.agreement import DisagreementError
from mian.trainer.carry_over import CarryOverError
from mian.trainer.checkpoints import (
    CheckpointError,
    CheckpointStore,
    key_of_any_epochs,
    noted_config,
    noted_contract,
    training_key,
)
from mian.trainer.device import DeviceError, choose_device
from mian.trainer.kept_checkpoints import CHECKPOINTS, ENDED, kept_checkpoints, lock_path
from mian.trainer.lock import AlreadyRunningError, TrainingLock
from mian.trainer.ranks import HungRankError, RankError, Ranks
from mian.trainer.sorted_rows import SpillError
from mian.trainer.streams import Streams, open_streams
from mian.trainer.table_memory import TableMemoryError, refuse_large_tables
from mian.trainer.trainer import Trained, Trainer, TrainingError, TrainingStopped
from mian.trainer.world import World

__all__ = [
    "CHECKPOINTS",
    "ENDED",
    "AlreadyRunningError",
    "CarryOverError",
    "CheckpointError",
    "CheckpointStore",
    "DeviceError",
    "DisagreementError",
    "HungRankError",
    "RankError",
    "Ranks",
    "SpillError",
    "Streams",
    "TableMemoryError",
    "Trained",
    "Trainer",
    "TrainingError",
    "TrainingLock",
    "TrainingStopped",
    "World",
    "choose_device",
    "kept_checkpoints",
    "key_of_any_epochs",
    "lock_path",
    "noted_config",
    "noted_contract",
    "open_streams",
    "refuse_large_tables",
    "training_key",
]
