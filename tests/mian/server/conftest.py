from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mian.contract import Contract
from mian.serving import OneUser, load_servable
from tests.factories import FIELDS, LENGTH, VALUES, make_contract, make_model, write_contract, write_servable, write_vocabularies
from tests.support.ranking_server import RankingServer, ranking_server

OPTIONS: dict[str, Any] = {"embedding_dim": 8, "heads": 2, "mlp": [16, 8], "global_dim": 16, "init_std": 0.5}


@dataclass(frozen=True)
class World:
    """A contract and its samples' folder, of which servables can be made."""

    contract: Contract
    samples: Path

    def write(self, folder: Path, seed: int = 0) -> Path:
        return write_servable(
            folder, make_model(self.contract, options=OPTIONS, seed=seed), self.contract, self.samples, options=OPTIONS
        )


def make_world(samples: Path) -> World:
    contract = make_contract(*FIELDS, vocabularies=write_vocabularies(samples, VALUES), length=LENGTH)
    write_contract(samples, contract)
    return World(contract, samples)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world") / "samples")


@pytest.fixture(scope="session")
def servable(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.write(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture(scope="module")
def server(servable: Path) -> Iterator[RankingServer]:
    """A server that the tests of a file share, with limits that are soon reached."""
    limits = ["--max-body-bytes", "200000", "--max-candidates", "300", "--max-history", "400", "--max-explained", "3"]
    with ranking_server(servable, *limits, "--max-seconds", "2") as server:
        yield server


@pytest.fixture
def request_body() -> dict[str, Any]:
    """Three candidates: known, unknown and missing values; two behaviors."""
    return {
        "user": {"age": "20s", "visits": 3},
        "context": {"hour": 17, "slot": 2.0},
        "behaviors": {"item_id": ["i1", None], "category": ["c1", "new"], "hours_ago": [0.5, 30]},
        "candidates": {"item_id": ["i3", "\u00e9\u4e16", None], "category": ["c3", 7, "c0"], "price": [12.5, None, -3]},
    }


def expected(servable: Path, body: dict[str, Any]) -> np.ndarray:
    """What the model in this process gives."""
    one_user = OneUser(load_servable(servable))
    user = one_user.user(body["user"], body["context"], body.get("behaviors", {}))
    return one_user.candidates(user, body["candidates"], body.get("candidate_context"))


def as_json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
