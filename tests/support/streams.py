"""What streams of numbered samples give."""

from mian.stream import SampleStream


def numbers(batches):
    """The rows' numbers, in order."""
    return [number for batch in batches for number in batch["user_key"].tolist()]


def batches_of(stream, epoch=0, *position):
    return [{name: tensor.tolist() for name, tensor in batch.items()} for batch in stream.epoch(epoch, *position)]


def ranks_of(samples, world_size, batch_size, order, **options):
    resident = order == "resident"
    order = "sharded" if resident else order
    return [
        SampleStream(
            samples.folder,
            samples.contract,
            "train",
            batch_size,
            rank=rank,
            world_size=world_size,
            order=order,
            resident=resident,
            columns=["user_key", "behavior_item_id"],
            **options,
        )
        for rank in range(world_size)
    ]
