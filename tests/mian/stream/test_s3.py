"""Samples in a bucket: a server that speaks S3, on this machine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer

from mian.contract import read_contract
from mian.stream import SampleStream, StreamError
from tests.factories import write_contract

BUCKET = "clicks"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """The filesystem of an empty bucket, which the environment leads to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "nobody")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "knows")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("NO_PROXY", "127.0.0.1")
        files = fsspec.filesystem("s3", skip_instance_cache=False)
        files.mkdir(BUCKET)
        yield files
        files.clear_instance_cache()
    server.stop()


@pytest.fixture
def samples(write_samples: Any, bucket: Any) -> Iterator[Any]:
    """The same samples in a folder and in the bucket."""
    written = write_samples([23, 8, 41, 5, 17], rows_per_group=9)
    write_contract(Path(written.folder), written.contract)
    bucket.put(written.folder, f"{BUCKET}/samples", recursive=True)
    yield written
    bucket.rm(f"{BUCKET}/samples", recursive=True)


@pytest.mark.parametrize("settings", [{}, {"resident": True}, {"verify": "epoch"}, {"shuffle": False, "drop_last": False}])
def test_samples_in_a_bucket_are_those_in_a_folder(samples: Any, settings: dict[str, Any]) -> None:
    contract = read_contract(f"s3://{BUCKET}/samples")
    there = SampleStream(f"s3://{BUCKET}/samples", contract, "train", 6, rank=1, world_size=2, **settings)
    here = SampleStream(samples.folder, samples.contract, "train", 6, rank=1, world_size=2, **settings)
    for epoch in range(2):
        for batch, same in zip(there.epoch(epoch), here.epoch(epoch), strict=True):
            assert list(batch) == list(same)
            assert all(torch.equal(batch[name], same[name]) for name in batch)


def test_a_file_that_is_not_in_the_bucket(samples: Any, bucket: Any) -> None:
    path = f"{BUCKET}/samples/{samples.files[2].path}"
    bucket.rm(path)
    with pytest.raises(StreamError, match=f"{path}: no such file.*rebuild day 2026-01-03"):
        SampleStream(f"s3://{BUCKET}/samples", samples.contract, "train", 6)


def test_a_file_that_leaves_the_bucket_between_two_epochs(samples: Any, bucket: Any) -> None:
    stream = SampleStream(f"s3://{BUCKET}/samples", samples.contract, "train", 6)
    list(stream.epoch(0))
    path = f"{BUCKET}/samples/{samples.files[2].path}"
    bucket.rm(path)
    with pytest.raises(StreamError, match=f"{path}: .*rebuild day 2026-01-03"):
        list(stream.epoch(1))


def test_other_bytes_in_the_bucket_are_found_where_files_are_verified(samples: Any, bucket: Any) -> None:
    path = f"{BUCKET}/samples/{samples.files[2].path}"
    data = bytearray(bucket.cat(path))
    data[4] ^= 1
    bucket.pipe(path, bytes(data))
    with pytest.raises(StreamError, match=rf"{path}, row group \d: the file's SHA-256 .*rebuild day 2026-01-03"):
        list(SampleStream(f"s3://{BUCKET}/samples", samples.contract, "train", 6, verify="epoch").epoch(0))
