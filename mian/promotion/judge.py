"""From two versions and some days of samples to a decision."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mian.contract import Contract, ContractError, Day, read_contract
from mian.evaluation.chosen_days import CHOSEN, with_days
from mian.evaluation.offline import score_split
from mian.evaluation.scoring import Scores
from mian.metrics import evaluate
from mian.promotion import gates
from mian.promotion.comparison_days import UnseenDaysError, unseen_days
from mian.promotion.contender import Contender
from mian.promotion.decision import Decision, Evidence, GateResult
from mian.promotion.latency import request_milliseconds
from mian.promotion.settings import PromotionConfig
from mian.promotion.slices import Mask, check_item_field, slice_masks, sliced_field
from mian.scoring.stand_ins import Position

RETRAIN = "Train the candidate again with this release, without init_from or from a model that says its days."
MOVE_BY_HAND = (
    "Nothing can be compared with the champion: move its alias to a version that says its days by hand, or remove the alias, so that the "
    "candidate is judged as the first champion."
)
TRAIN_ON_THESE = (
    "Name samples in the configuration that both models can be scored on, or train the candidate on those of the champion."
)
NO_NUMBERS = {
    "candidate": "Train the candidate again, at a lower learning rate; look at its curves, and for odd numbers in the samples.",
    "champion": "Go back to the version before (--rollback), or remove the alias, then ask again.",
}


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows of days that neither has seen.

    Attributes:
        days: The days, in order of time.
        candidate: Labels, the candidate's probabilities and users, ``(N,)``.
        champion: The champion's; None where there is none.
        masks: Rows of each slice.
    """

    days: tuple[Day, ...]
    candidate: Scores
    champion: Scores | None
    masks: dict[str, Mask]


def judge(
    name: str, candidate: Contender, champion: Contender | None, settings: PromotionConfig
) -> tuple[Decision, Comparison | None]:
    """Put a candidate through every gate.

    Args:
        name: The registered name.
        candidate: Who is to serve.
        champion: Who serves; None where nobody does.
        settings: The days and the limits.

    Returns:
        The decision, and the rows that it was made on; None where there were no days to compare on.

    Raises:
        ContractError: The samples cannot be read, or lack a field of ``slices``.
        StreamError: Samples cannot be read.
    """
    contract = read_contract(settings.samples)
    for field in settings.slices.fields:
        sliced_field(contract, field)
    check_item_field(contract, settings.slices)
    both = [candidate] if champion is None else [candidate, champion]
    results: list[GateResult] = []
    comparison = None
    fits = [gates.signature(candidate, champion)] if champion is not None else []
    try:
        days = unseen_days(contract, [each.lineage for each in both], settings.days)
    except UnseenDaysError as error:
        remedy = "Build later days (jobs/build_samples.py), or train a candidate that leaves days over."
        if _last_seen(candidate) is None:
            remedy = RETRAIN
        elif champion is not None and _last_seen(champion) is None:
            remedy = MOVE_BY_HAND
        results.append(GateResult(gate="days", state="fail", reason=f"{str(error)[0].upper()}{str(error)[1:]}.", remedy=remedy))
        results += fits
    else:
        try:
            comparison = _compare(contract, days, candidate, champion, settings)
        except _CannotScoreError as error:
            results.append(GateResult(gate="comparison", state="fail", reason=str(error), remedy=error.remedy))
            results += [gates.audit(candidate, days, settings), *fits]
        else:
            results.append(gates.enough_rows(comparison.candidate, days, settings.days))
            results += [gates.audit(candidate, days, settings), *fits]
            results += _metrics(comparison, settings)
    results += _costs(both, settings)
    decision = Decision(
        model=name,
        candidate=candidate.version.version,
        champion=None if champion is None else champion.version.version,
        alias=settings.alias,
        decided=dt.datetime.now(dt.timezone.utc).replace(microsecond=0),
        gates=tuple(results),
        evidence=None if comparison is None else _evidence(comparison, candidate, champion),
        settings=settings,
    )
    return decision, comparison


class _CannotScoreError(Exception):
    """A model cannot be scored on the samples; with what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def _last_seen(contender: Contender) -> dt.date | None:
    return None if contender.lineage is None else contender.lineage.last_seen


def _compare(
    contract: Contract, days: Sequence[Day], candidate: Contender, champion: Contender | None, settings: PromotionConfig
) -> Comparison:
    samples, position = settings.samples, settings.comparison.position
    chosen = with_days(contract, days)
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        scored = _scores(candidate, "candidate", chosen, samples, position)
        other = None if champion is None else _scores(champion, "champion", chosen, samples, position)
    finally:
        torch.set_num_threads(before)
    masks: dict[str, Mask] = {}
    if champion is not None:
        masks = slice_masks(chosen, samples, CHOSEN, [candidate, champion], settings.slices)
    return Comparison(tuple(days), scored, other, masks)


def _scores(contender: Contender, role: str, contract: Contract, samples: str, position: Position) -> Scores:
    try:
        scored = score_split(contender.servable, contract, samples, CHOSEN, position)
    except ContractError as error:
        raise _CannotScoreError(f"The {role} cannot be scored on {samples}: {error}.", TRAIN_ON_THESE) from error
    if missing := int(np.isnan(scored.probabilities).sum()):
        raise _CannotScoreError(
            f"The {role} has no score (NaN) for {missing:,} of {len(scored.labels):,} rows.", NO_NUMBERS[role]
        )
    return scored


def _metrics(comparison: Comparison, settings: PromotionConfig) -> Iterator[GateResult]:
    scored, before = comparison.candidate, comparison.champion
    if not 0 < scored.labels.sum() < len(scored.labels):
        return  # the gate on days has failed
    yield gates.informative(scored, settings.comparison.confidence)
    if before is not None:
        yield from gates.not_worse(scored, before, settings.comparison)
    yield gates.calibration(scored, settings.calibration)
    if before is not None:
        yield from gates.slices(scored, before, comparison.masks, settings.slices)


def _costs(both: Sequence[Contender], settings: PromotionConfig) -> Iterator[GateResult]:
    if settings.latency is not None:
        engine, times = request_milliseconds(list(both), settings.latency, settings.threads)
        before = times[1] if len(times) > 1 else None
        yield gates.latency(engine, times[0], before, settings.latency.candidates, settings.latency.highest_ratio)
    if settings.highest_size_ratio is not None and len(both) > 1:
        yield gates.size(both[0].bytes, both[1].bytes, settings.highest_size_ratio)


def _evidence(comparison: Comparison, candidate: Contender, champion: Contender | None) -> Evidence:
    scored = comparison.candidate
    metrics = {candidate.version.version: _defined(scored)}
    if champion is not None and comparison.champion is not None:
        metrics[champion.version.version] = _defined(comparison.champion)
    return Evidence(
        first=comparison.days[0].day,
        last=comparison.days[-1].day,
        days=len(comparison.days),
        rows=len(scored.labels),
        clicks=int(scored.labels.sum()),
        users=len(set(scored.users.tolist())),
        metrics=metrics,
    )


def _defined(scored: Scores) -> dict[str, float | None]:
    metrics = evaluate(scored.labels, scored.probabilities, scored.users)
    return {name: value if value == value else None for name, value in metrics.items()}
