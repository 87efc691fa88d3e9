"""The alias of the version that serves: who holds it, who held it, and how it is moved by one process at a time."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
import uuid
from contextlib import suppress
from types import TracebackType

import mlflow
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mian.tracking.mlflow_store import STORE_ERRORS, error_text

CHAMPIONS_TAG = "mian.champions"
"""Tag of a registered model: the record of its promotions, JSON."""
ROLLED_BACK_TAG = "mian.rolled_back"
"""Tag of a version that a rollback took the alias from: when."""
KEPT = 50
"""So many promotions the record has at most."""
LEASE_SECONDS = 120.0
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.5

log = logging.getLogger(__name__)


class AliasError(RuntimeError):
    """The alias cannot be moved: another promotion is at it, or there is nothing to go back to."""


class Champion(BaseModel):
    """An entry of the record of promotions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    since: int
    """Milliseconds since 1970."""
    alias: str


class AliasLock:
    """Only one process at a time moves the aliases of a registered model, wherever they run.

    MLflow compares nothing when it sets an alias, but a registered model can be created only once: while the lock is held there is one of
    the name ``NAME.promotion``. One that a killed process left is taken over after two minutes.

    Args:
        client: Of the tracking store.
        name: The registered model.
        wait: Seconds to wait for another process.

    Raises:
        AliasError: On entering: another process held it all the time.
    """

    def __init__(self, client: mlflow.MlflowClient, name: str, wait: float = WAIT_SECONDS) -> None:
        self._client = client
        self._name = f"{name}.promotion"
        self._wait = wait
        self._token = uuid.uuid4().hex

    def __enter__(self) -> AliasLock:
        end = time.monotonic() + self._wait
        while not self._create():
            holder = self._holder()
            is_left = holder is not None and _expiry(holder, self._name) < time.time()
            if is_left and self._remove():
                continue
            if time.monotonic() > end:
                if is_left:
                    raise AliasError(
                        f"registered model {self._name}, the lock of a process that was killed, cannot be deleted; delete it by hand"
                    )
                who = "another process" if holder is None else holder.get("holder", "another process")
                raise AliasError(
                    f"{who} is moving an alias of the model (registered model {self._name} is its lock); try again, nothing was changed"
                )
            time.sleep(POLL_SECONDS)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(*STORE_ERRORS):  # what was done counts; a lock that stays is taken over
            holder = self._holder()
            if holder is not None and holder.get("token") == self._token:
                self._remove()

    def check(self) -> None:
        """See that the lock is still held; to be called right before the alias is moved.

        Raises:
            AliasError: It is not.
        """
        holder = self._holder()
        if holder is None or holder.get("token") != self._token or _expiry(holder, self._name) < time.time():
            raise AliasError("this process was too slow, and another one took its lock over; nothing was changed, try again")

    def _create(self) -> bool:
        tags = {
            "token": self._token,
            "holder": f"process {os.getpid()} on {socket.gethostname()}",
            "expires": repr(time.time() + LEASE_SECONDS),
        }
        description = f"The lock of a promotion that is at work; after {LEASE_SECONDS:.0f} s the next one takes it over."
        try:
            self._client.create_registered_model(self._name, tags, description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return False
        return True

    def _holder(self) -> dict[str, str] | None:
        try:
            return dict(self._client.get_registered_model(self._name).tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _remove(self) -> bool:
        """Whether it is gone."""
        try:
            self._client.delete_registered_model(self._name)
        except MlflowException as error:
            return str(error.error_code) == "RESOURCE_DOES_NOT_EXIST"  # another process was first
        return True


def _expiry(tags: dict[str, str], name: str) -> float:
    try:
        return float(tags["expires"])
    except (KeyError, ValueError) as error:
        raise AliasError(f"registered model {name} is no lock of a promotion, and has the name of one; rename it") from error


def champion_version(client: mlflow.MlflowClient, name: str, alias: str) -> str | None:
    """The version that an alias is at; None where there is no such alias."""
    found = client.get_registered_model(name).aliases.get(alias)
    return None if found is None else str(found)


def champions(client: mlflow.MlflowClient, name: str, alias: str) -> list[Champion]:
    """The record of promotions to an alias, the newest last.

    Raises:
        AliasError: The record cannot be read.
    """
    return [entry for entry in _record(client, name) if entry.alias == alias]


def promote(
    client: mlflow.MlflowClient, lock: AliasLock, name: str, alias: str, expected: str | None, version: str
) -> str | None:
    """Move an alias to a version, if it is still where it was expected.

    Args:
        client: Of the tracking store.
        lock: Of the model, held.
        name: The registered model.
        alias: The alias.
        expected: The version that the alias is to be at now; None where there is to be no such alias.
        version: Where it goes.

    Returns:
        The version that the alias is at in truth, where it is another one, and is left there; ``expected`` where it was moved.

    Raises:
        AliasError: The lock was lost.
    """
    now = champion_version(client, name, alias)
    if now != expected:
        return now
    record = champions(client, name, alias)
    if expected is not None and (not record or record[-1].version != expected):
        record.append(Champion(version=expected, since=0, alias=alias))  # moved by hand before
    lock.check()
    _move(client, name, alias, version, [*record, Champion(version=version, since=_now(), alias=alias)])
    return expected


def roll_back(client: mlflow.MlflowClient, lock: AliasLock, name: str, alias: str) -> tuple[str, str]:
    """Move an alias back to the version that held it before, along the record of promotions.

    The version that it leaves gets the tag :data:`ROLLED_BACK_TAG`, and is not promoted again until that is removed. Versions that have
    the tag are left out: a rollback that was killed before it wrote its record is not undone by the next.

    Returns:
        The version that the alias was at, and the one that it is at now.

    Raises:
        AliasError: There is no earlier champion, or the lock was lost.
    """
    current = champion_version(client, name, alias)
    record = champions(client, name, alias)
    while record and (record[-1].version == current or not _may_serve(client, name, record[-1].version)):
        record.pop()
    by_hand = f"MlflowClient().set_registered_model_alias({name!r}, {alias!r}, {record[-1].version if record else 'VERSION'})"
    if current is None:
        said = (
            f"version {record[-1].version} served before; set the alias by hand: {by_hand}"
            if record
            else "promote a version first"
        )
        raise AliasError(f"{name} has no alias {alias}, so there is nothing to go back from; {said}")
    if not record:
        raise AliasError(f"{name}: the record of promotions has no version before {current}; move the alias by hand: {by_hand}")
    lock.check()
    client.set_model_version_tag(name, current, ROLLED_BACK_TAG, str(_now()))  # first: a night must not promote it again
    _move(client, name, alias, record[-1].version, record)
    return current, record[-1].version


def _move(client: mlflow.MlflowClient, name: str, alias: str, version: str, record: list[Champion]) -> None:
    """Set the alias, then what is recorded of it; the record of other aliases stays. Without a record the alias stays moved."""
    client.set_registered_model_alias(name, alias, version)
    try:
        others = [entry for entry in _record(client, name) if entry.alias != alias]
        document = json.dumps([entry.model_dump() for entry in [*others, *record[-KEPT:]]])
        client.set_registered_model_tag(name, CHAMPIONS_TAG, document)
    except STORE_ERRORS as error:
        log.warning("%s@%s is version %s; that is not in the record of promotions: %s", name, alias, version, error_text(error))


def _record(client: mlflow.MlflowClient, name: str) -> list[Champion]:
    text = client.get_registered_model(name).tags.get(CHAMPIONS_TAG, "[]")
    try:
        return TypeAdapter(list[Champion]).validate_json(text)
    except ValidationError as error:
        raise AliasError(f"registered model {name}: tag {CHAMPIONS_TAG} is no record of promotions; remove it") from error


def _may_serve(client: mlflow.MlflowClient, name: str, version: str) -> bool:
    """Whether the registry has a version still, and it was not rolled back."""
    try:
        found = client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return ROLLED_BACK_TAG not in found.tags


def _now() -> int:
    return time.time_ns() // 1_000_000
