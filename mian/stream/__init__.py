"""Samples as batches of tensors: every row exactly once an epoch, in an order that a seed decides, over any number of ranks.

Example:
    >>> contract = read_contract("samples")
    >>> stream = SampleStream("samples", contract, "train", batch_size=1024, rank=rank, world_size=world_size)
    >>> for batch in stream.epoch(0):
    ...     batch["behavior_item_id"]  # int32, (B, T)
"""

from mian.stream.errors import StreamError
from mian.stream.sharding import EpochSegment
from mian.stream.stream import SampleStream

__all__ = ["EpochSegment", "SampleStream", "StreamError"]
