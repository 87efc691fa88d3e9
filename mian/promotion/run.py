"""A promotion from the registry to the registry: fetch, judge, record, move the alias."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import mlflow

from mian.promotion.alias import ROLLED_BACK_TAG, AliasLock, champion_version, promote, roll_back
from mian.promotion.contender import contender
from mian.promotion.decision import Decision, GateResult
from mian.promotion.judge import Comparison, judge
from mian.promotion.page import decision_page
from mian.promotion.settings import PromotionConfig
from mian.tracking.mlflow_store import STORE_ERRORS, check_store, error_text, uploading
from mian.tracking.model_source import RegisteredVersion, find_version

FOLDER = "promotion"
"""Of the artifacts of the candidate's run."""
OUTCOME_TAG, REASONS_TAG, CHAMPION_TAG, ARTIFACT_TAG = (
    f"mian.promotion{part}" for part in ("", ".reasons", ".champion", ".artifact")
)
"""Tags of a version that was put through the gates: ``promoted`` or ``refused``; the gates that refused it; what it was compared with;
where the document is."""
MOVED = "Ask again: the candidate is then compared with the version that serves now."

log = logging.getLogger(__name__)


class Promotion(NamedTuple):
    """What came of a promotion."""

    decision: Decision
    page: str
    """HTML text."""
    is_moved: bool
    """Whether the alias points to the candidate now."""


class AlreadyServingError(Exception):
    """The candidate is the version that serves."""


def run_promotion(name: str, candidate: str, settings: PromotionConfig, dry_run: bool) -> Promotion:
    """Judge a version and, where every gate lets it through, have the alias point to it.

    Args:
        name: The registered name.
        candidate: An alias, or the number of a version.
        settings: The days, the limits, and the alias that is moved.
        dry_run: Whether nothing is written and nothing is moved.

    Raises:
        AliasError: The alias cannot be moved.
        AlreadyServingError: The candidate is the version that serves.
        ContractError, StreamError: The samples cannot be read.
        MlflowException, OSError: The store does not answer.
        ServableError: A version is no model that mian trained, or is damaged.
        TrackingError: There is no such model, version or alias.
    """
    check_store(mlflow.get_tracking_uri(), is_read=True)
    client = mlflow.MlflowClient()
    version = find_version(f"models:/{name}/{candidate}" if candidate.isdecimal() else f"models:/{name}@{candidate}")
    now = champion_version(client, name, settings.alias)
    if now == version.version:
        raise AlreadyServingError(f"{name}: version {now} is {settings.alias} already; nothing to decide")
    with ExitStack() as stack:
        champion = None if now is None else stack.enter_context(contender(RegisteredVersion(name, now)))
        decision, comparison = judge(name, stack.enter_context(contender(version)), champion, settings)
    rolled_back = client.get_model_version(name, version.version).tags.get(ROLLED_BACK_TAG)
    if rolled_back is not None:
        decision = _with(decision, _rolled_back(version, settings.alias))
    if dry_run:
        return Promotion(decision, decision_page(decision, comparison, dry_run), False)
    page, tags = _keep(client, version, decision, comparison)
    is_moved = False
    if decision.is_promoted:
        with AliasLock(client, name) as lock:  # uploads may take longer than the lock holds
            at = promote(client, lock, name, settings.alias, now, version.version)
        is_moved = at == now
        if not is_moved:
            decision = _with(decision, _moved(settings.alias, now, at))
            page, tags = _keep(client, version, decision, comparison)
    try:
        for key, value in tags.items():
            client.set_model_version_tag(name, version.version, key, value)
    except STORE_ERRORS as error:
        if not is_moved:
            raise
        log.warning("%s@%s is version %s, which lacks tags: %s", name, settings.alias, version.version, error_text(error))
    return Promotion(decision, page, is_moved)


def run_rollback(name: str, alias: str) -> str:
    """Have an alias point to the version that it pointed to before; what was done, in a sentence.

    Raises:
        AliasError: There is no earlier champion, or another promotion is at work.
        MlflowException, OSError: The store does not answer.
        TrackingError: There is no such model.
    """
    check_store(mlflow.get_tracking_uri(), is_read=True)
    client = mlflow.MlflowClient()
    with AliasLock(client, name) as lock:
        left, back = roll_back(client, lock, name, alias)
    return (
        f"{name}@{alias} is version {back} again; version {left} has the tag {ROLLED_BACK_TAG} and is not promoted again until that is "
        "removed"
    )


def _with(decision: Decision, gate: GateResult) -> Decision:
    return decision.model_copy(update={"gates": (*decision.gates, gate)})


def _rolled_back(version: RegisteredVersion, alias: str) -> GateResult:
    return GateResult(
        gate="rollback",
        state="fail",
        reason=f"Version {version.version} was {alias} before, and was rolled back.",
        remedy=f"Train a new version; where the rollback was a mistake, remove the tag {ROLLED_BACK_TAG} of version {version.version}.",
    )


def _moved(alias: str, expected: str | None, found: str | None) -> GateResult:
    before, after = (f"version {each}" if each is not None else "no version" for each in (expected, found))
    return GateResult(
        gate="champion", state="fail", reason=f"{alias} was moved from {before} to {after} meanwhile.", remedy=MOVED
    )


def _keep(
    client: mlflow.MlflowClient, version: RegisteredVersion, decision: Decision, comparison: Comparison | None
) -> tuple[str, dict[str, str]]:
    """Keep the decision with the candidate's run; the page, and the tags that the version is to have."""
    page = decision_page(decision, comparison)
    outcome = "promoted" if decision.is_promoted else "refused"
    stem = f"{decision.decided:%Y%m%dT%H%M%S}-version-{version.version}"
    run = client.get_model_version(version.name, version.version).run_id
    tags = {
        OUTCOME_TAG: outcome,
        REASONS_TAG: ", ".join(gate.gate for gate in decision.failed) or "none",
        CHAMPION_TAG: decision.champion or "none",
    }
    if run:
        with tempfile.TemporaryDirectory() as folder, uploading():
            files = _files(Path(folder), stem, decision, page)
            for file in files:
                client.log_artifact(run, str(file), FOLDER)
        tags[ARTIFACT_TAG] = f"runs:/{run}/{FOLDER}/{stem}.json"
    else:
        log.warning("version %s has no run, so that the decision is kept in its tags alone", version.version)
    return page, tags


def _files(folder: Path, stem: str, decision: Decision, page: str) -> Sequence[Path]:
    document, html = folder / f"{stem}.json", folder / f"{stem}.html"
    document.write_text(decision.model_dump_json(indent=1) + "\n", encoding="utf-8")
    html.write_text(page, encoding="utf-8")
    return document, html
