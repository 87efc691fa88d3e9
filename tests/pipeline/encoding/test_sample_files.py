"""A worker process outlives a build, and its encoder must not."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mian.contract import Field, Vocabulary
from pipeline.encoding.sample_files import worker_encoder

CITY = Field(group="user", name="city", vocabulary="city")


@dataclass
class Sent:
    """What a worker sees of a broadcast."""

    value: dict[str, pa.Array]


def encoded(sent: Sent, city: str) -> int:
    """The id that a worker gives a value."""
    size = len(sent.value["city"]) + 2
    encoder = worker_encoder([Vocabulary(name="city", size=size, path="city", sha256="")], sent)  # type: ignore[arg-type]
    (number,) = encoder.encode(CITY, pa.array([city])).tolist()
    return number


def test_each_build_is_encoded_by_its_own_vocabularies() -> None:
    """Those of a build that has ended are freed, and the next one's may lie at the same address."""
    for build in range(200):
        cities = [f"city {build}", f"city {build + 1}"]
        assert [encoded(Sent({"city": pa.array(cities)}), city) for city in [*cities, "elsewhere"]] == [2, 3, 1], build


def test_a_build_makes_its_encoder_once_a_worker() -> None:
    sent = Sent({"city": pa.array(["rome"])})
    assert worker_encoder([], sent) is worker_encoder([], sent)  # type: ignore[arg-type]
