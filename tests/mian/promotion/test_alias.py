"""The alias in a real store: one process at a time, only from where it was, and back again."""

import json
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mian.promotion import alias as module
from mian.promotion.alias import (
    CHAMPIONS_TAG,
    ROLLED_BACK_TAG,
    AliasError,
    AliasLock,
    champion_version,
    champions,
    promote,
    roll_back,
)
from tests.support.stores import new_store


@pytest.fixture
def client(tmp_path: Path) -> mlflow.MlflowClient:
    """Of a store with five versions of a model."""
    client = mlflow.MlflowClient(new_store(tmp_path / "mlflow.db"))
    client.create_registered_model("ctr")
    for _ in range(5):
        client.create_model_version("ctr", str(tmp_path))
    return client


def moved(client: mlflow.MlflowClient, expected: str | None, version: str, alias: str = "champion") -> str | None:
    with AliasLock(client, "ctr") as lock:
        return promote(client, lock, "ctr", alias, expected, version)


def rolled_back(client: mlflow.MlflowClient) -> tuple[str, str]:
    with AliasLock(client, "ctr") as lock:
        return roll_back(client, lock, "ctr", "champion")


def test_the_alias_moves_only_from_where_it_was_expected(client: mlflow.MlflowClient) -> None:
    assert moved(client, None, "1") is None
    assert champion_version(client, "ctr", "champion") == "1"
    assert moved(client, None, "2") == "1"
    assert moved(client, "3", "2") == "1"
    assert champion_version(client, "ctr", "champion") == "1"
    assert moved(client, "1", "2") == "1"
    assert champion_version(client, "ctr", "champion") == "2"


def test_a_rollback_goes_back_step_by_step(client: mlflow.MlflowClient) -> None:
    for before, version in ((None, "1"), ("1", "2"), ("2", "4")):
        moved(client, before, version)
    moved(client, None, "5", alias="shadow")
    assert rolled_back(client) == ("4", "2")
    assert ROLLED_BACK_TAG in client.get_model_version("ctr", "4").tags
    assert rolled_back(client) == ("2", "1")
    with pytest.raises(AliasError, match="no version before 1"):
        rolled_back(client)
    assert champion_version(client, "ctr", "champion") == "1"
    assert [entry.version for entry in champions(client, "ctr", "shadow")] == ["5"]


def test_after_a_move_by_hand_a_rollback_goes_to_the_last_that_was_promoted(client: mlflow.MlflowClient) -> None:
    moved(client, None, "1")
    moved(client, "1", "2")
    client.set_registered_model_alias("ctr", "champion", "3")
    assert rolled_back(client) == ("3", "2")


def test_a_promotion_after_a_move_by_hand_can_be_rolled_back(client: mlflow.MlflowClient) -> None:
    client.set_registered_model_alias("ctr", "champion", "1")
    moved(client, "1", "2")
    assert rolled_back(client) == ("2", "1")


def test_a_version_that_is_gone_is_left_out_of_a_rollback(client: mlflow.MlflowClient) -> None:
    for before, version in ((None, "1"), ("1", "2"), ("2", "3")):
        moved(client, before, version)
    client.delete_model_version("ctr", "2")
    assert rolled_back(client) == ("3", "1")


def test_without_an_alias_there_is_nothing_to_go_back_from(client: mlflow.MlflowClient) -> None:
    with pytest.raises(AliasError, match="no alias champion"):
        rolled_back(client)


def test_a_damaged_record_is_told_and_nothing_moves(client: mlflow.MlflowClient) -> None:
    moved(client, None, "1")
    client.set_registered_model_tag("ctr", CHAMPIONS_TAG, "[{")
    with pytest.raises(AliasError, match=CHAMPIONS_TAG):
        moved(client, "1", "2")
    assert champion_version(client, "ctr", "champion") == "1"


def test_a_second_process_waits_and_then_says_who_is_at_it(client: mlflow.MlflowClient) -> None:
    with (
        AliasLock(client, "ctr"),
        pytest.raises(AliasError, match=r"process .* is moving an alias"),
        AliasLock(client, "ctr", wait=0.3),
    ):
        raise AssertionError("two hold it")
    with AliasLock(client, "ctr", wait=0):
        pass
    assert [model.name for model in client.search_registered_models()] == ["ctr"], "no lock is left"


def test_the_lock_of_a_killed_process_is_taken_over(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "LEASE_SECONDS", -1.0)
        left = AliasLock(client, "ctr")
        left.__enter__()
    with AliasLock(client, "ctr", wait=0) as lock:
        lock.check()
        with pytest.raises(AliasError, match="too slow"):
            promote(client, left, "ctr", "champion", None, "1")
        left.__exit__(None, None, None)
        lock.check()
    assert champion_version(client, "ctr", "champion") is None


@pytest.mark.parametrize("tags", [{}, {"expires": "soon"}], ids=["no tags", "another tag"])
def test_a_model_of_the_lock_s_name_is_left_alone(client: mlflow.MlflowClient, tags: dict[str, str]) -> None:
    client.create_registered_model("ctr.promotion", tags)
    with pytest.raises(AliasError, match="rename it"), AliasLock(client, "ctr"):
        raise AssertionError("it is held")
    assert client.get_registered_model("ctr.promotion").tags == tags


def test_a_lock_that_ran_out_moves_nothing(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with AliasLock(client, "ctr") as lock:
        late = time.time() + module.LEASE_SECONDS + 1
        monkeypatch.setattr(time, "time", lambda: late)
        with pytest.raises(AliasError, match="too slow"):
            promote(client, lock, "ctr", "champion", None, "1")


def test_the_record_does_not_grow_without_end(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 3)
    before = None
    for version in ("1", "2", "3", "4", "5"):
        moved(client, before, version)
        before = version
    record = json.loads(client.get_registered_model("ctr").tags[CHAMPIONS_TAG])
    assert [entry["version"] for entry in record] == ["3", "4", "5"]


def fail(*_: Any, **__: Any) -> None:
    raise MlflowException("the store is away")


def test_a_lock_that_cannot_be_deleted_is_an_error_after_the_wait(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "LEASE_SECONDS", -1.0)
        AliasLock(client, "ctr").__enter__()
    monkeypatch.setattr(client, "delete_registered_model", fail)
    with pytest.raises(AliasError, match="cannot be deleted; delete it by hand"), AliasLock(client, "ctr", wait=0.3):
        raise AssertionError("it is held")


def test_a_move_counts_where_what_comes_after_it_fails(client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    moved(client, None, "1")
    with monkeypatch.context() as patch:
        patch.setattr(client, "set_registered_model_tag", fail)
        patch.setattr(client, "delete_registered_model", fail)
        assert moved(client, "1", "2") == "1"
    client.delete_registered_model("ctr.promotion")
    assert champion_version(client, "ctr", "champion") == "2"
    assert rolled_back(client) == ("2", "1"), "the record lacks 2"


def test_a_rollback_that_was_killed_before_its_record_is_not_undone(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved(client, None, "1")
    moved(client, "1", "2")
    with monkeypatch.context() as patch:
        patch.setattr(client, "set_registered_model_tag", fail)
        assert rolled_back(client) == ("2", "1")
    with pytest.raises(AliasError, match="no version before 1"):
        rolled_back(client)
    assert champion_version(client, "ctr", "champion") == "1"


def test_where_the_champion_was_deleted_the_one_before_is_named(client: mlflow.MlflowClient) -> None:
    moved(client, None, "1")
    moved(client, "1", "2")
    client.delete_model_version("ctr", "2")
    with pytest.raises(AliasError, match="version 1 served before; set the alias by hand"):
        rolled_back(client)
