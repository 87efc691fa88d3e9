"""What a training's streams read, and how its configuration says so."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mian.checkpoint.store import CheckpointStore
from mian.distributed.collectives import Ranks
from mian.models import ModelError
from mian.stream import StreamError
from mian.training import Streams, open_streams
from tests.support.resumed import assert_same, stopped, trainer_of


def streams_of(samples: Any, **values: Any) -> Streams:
    return open_streams(samples.config(**values), samples.contract, Ranks())


def test_only_columns_that_are_used_are_read(samples: Any) -> None:
    fields = [field.column for field in samples.contract.fields]
    streams = streams_of(samples)
    assert streams.test is not None
    assert list(next(streams.train.epoch(0))) == [*fields, "behavior_length", "label"]
    for held_out in (streams.validation, streams.test):
        assert list(next(held_out.epoch(0))) == [*fields, "behavior_length", "label", "user_key"]


def test_a_model_that_is_not_there_is_said_before_anything_is_read(samples: Any) -> None:
    with pytest.raises(ModelError, match="there is no model 'main'"):
        streams_of(samples, model={"name": "main"})


def test_the_window_the_shard_and_the_check_are_what_the_configuration_says(samples: Any) -> None:
    def windows(**stream: Any) -> list[int]:
        """Of each batch, the rows of the memory that it lies in, times 4."""
        batches = list(streams_of(samples, stream=stream, batch_size=10).train.epoch(0))
        return [batch["label"].untyped_storage().nbytes() for batch in batches]

    rows = sum(day.rows for day in samples.contract.split("train"))
    assert max(windows(shuffle_window=100)) == 4 * (rows // 10 * 10)
    largest = max(file.rows for day in samples.contract.split("train") for file in day.files)
    assert max(windows(shuffle_window=1, mixed_row_groups=1)) == 4 * largest

    wrong = [file.model_copy(update={"sha256": "0" * 64}) for file in samples.contract.days[0].files]
    days = (samples.contract.days[0].model_copy(update={"files": tuple(wrong)}), *samples.contract.days[1:])
    damaged = type(samples)(samples.folder, samples.contract.model_copy(update={"days": days}))
    list(streams_of(damaged).train.epoch(0))
    with pytest.raises(StreamError, match="SHA-256"):
        list(streams_of(damaged, stream={"verify": "epoch"}).train.epoch(0))


def test_a_shard_in_memory_goes_with_sharded_order_alone(samples: Any) -> None:
    samples.config(stream={"resident": True})
    with pytest.raises(ValidationError, match="set order: sharded, or resident: false"):
        samples.config(stream={"resident": True, "order": "global"})


def test_a_training_with_its_shard_in_memory_goes_on_as_if_it_had_not_been_stopped(samples: Any, tmp_path: Path) -> None:
    stream = {"resident": True, "shuffle_window": 3}
    undisturbed = trainer_of(samples, stream=stream).run()
    for step in (20, 100):  # 63 are an epoch
        assert stopped(trainer_of(samples, CheckpointStore(tmp_path, 2), step, stream=stream)) == step
    assert_same(trainer_of(samples, CheckpointStore(tmp_path, 2), stream=stream).run(), undisturbed)


def test_how_files_are_read_and_checked_decides_no_weights(samples: Any) -> None:
    settings = samples.config().settings()
    assert samples.config(stream={"workers": 7, "verify": "epoch"}).settings() == settings
    for stream in ({"shuffle_window": 1}, {"resident": True}, {"order": "global"}):
        assert samples.config(stream=stream).settings() != settings
