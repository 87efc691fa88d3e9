"""The gates: each takes evidence and says whether the candidate may serve."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mian.contract import Day, Field
from mian.contract.audit_verdict import AuditState, audit_state, worst
from mian.contract.document import Group
from mian.evaluation.scoring import Scores
from mian.metrics import MetricError
from mian.metrics.paired import Estimate, auc_difference, calibration_estimate, holm, logloss_difference
from mian.promotion.contender import Contender
from mian.promotion.decision import GateResult, State
from mian.promotion.settings import CalibrationConfig, ComparisonConfig, DaysConfig, PromotionConfig, SlicesConfig
from mian.promotion.slices import Mask

AUDIT_AGAIN = (
    "Audit the samples (spark-submit jobs/audit_samples.py), then ask again; where it finds something, mend it and train again."
)
MORE_DAYS = "compare on more days (raise `days.most`, or wait for later days)"
AUDIT_PARENT = (
    "Train the candidate again, from a model of audited days or without init_from: a training notes what audits of those days said when it "
    "begins."
)


def enough_rows(scored: Scores, days: Sequence[Day], settings: DaysConfig) -> GateResult:
    """Whether the days have enough samples and clicks to tell anything, and rows without a click to tell them from."""
    rows, clicks = len(scored.labels), int(scored.labels.sum())
    figures = {"days": float(len(days)), "rows": float(rows), "clicks": float(clicks)}
    found = f"{days[0].day} to {days[-1].day}: {_count(len(days), 'day')} that neither model has seen, {rows:,} rows, {clicks:,} clicks"
    wanted = f"{_count(settings.fewest, 'day')}, {settings.rows:,} rows and {settings.positives:,} clicks"
    if rows and clicks == rows:
        return GateResult(
            gate="days",
            state="fail",
            reason=f"{found}: no row is without a click, so that no model can be told from another.",
            remedy="Find out why these days have clicked impressions alone: look at the impression log, and at `negatives` of the samples.",
            figures=figures,
        )
    if len(days) >= settings.fewest and rows >= settings.rows and clicks >= settings.positives:
        return GateResult(gate="days", state="pass", reason=f"{found}.", figures=figures)
    remedy = "Wait until more days are built and final, or lower the limits under `days` of the configuration."
    if len(days) >= settings.most:
        remedy = f"No more than the newest {_count(settings.most, 'day')} are taken: raise `days.most`, or lower the other limits there."
    return GateResult(
        gate="days", state="fail", reason=f"{found}; at least {wanted} are asked for.", remedy=remedy, figures=figures
    )


def audit(candidate: Contender, days: Sequence[Day], settings: PromotionConfig) -> GateResult:
    """Whether audits found nothing on the days that the candidate was made from and on those that it is compared on."""
    lineage = candidate.lineage
    assert lineage is not None, "days were chosen by it"
    states: dict[str, AuditState] = {}
    states |= {str(used.day): used.audit_now(settings.samples) for used in lineage.days}
    parent, inherited = lineage.parent, ""
    if parent is not None and parent.days is None:
        inherited = f"those of {parent.source}"
        states[inherited] = parent.audit
    elif parent is not None:
        states |= {f"{used.day} (by {parent.source})": used.audit_now(settings.samples) for used in parent.days or ()}
    states |= {str(day.day): audit_state(settings.samples, day.day, day.fingerprint) for day in days}
    bad = {name: state for name, state in states.items() if state != "clean"}
    figures = {
        state.replace(" ", "_"): float(sum(s == state for s in states.values())) for state in ("clean", "findings", "not audited")
    }
    if not bad:
        reason = f"Nothing was found on the {len(states)} days that the candidate was made from or is compared on."
        return GateResult(gate="audit", state="pass", reason=reason, figures=figures)
    state = worst(bad.values())
    named = [name for name, found in bad.items() if found == state]
    what = "an audit found something on" if state == "findings" else "no audit of"
    reason = f"{what[0].upper()}{what[1:]} {', '.join(named[:3])}{f' and {len(named) - 3} more days' if len(named) > 3 else ''}."
    if settings.audit == "ignored":
        return GateResult(gate="audit", state="cannot tell", reason=f"{reason} The configuration ignores it.", figures=figures)
    remedy = AUDIT_PARENT if named == [inherited] else AUDIT_AGAIN
    return GateResult(gate="audit", state="fail", reason=reason, remedy=remedy, figures=figures)


def signature(candidate: Contender, champion: Contender) -> GateResult:
    """Whether the candidate takes every request that the champion takes."""
    problems = list(_differences(candidate, champion))
    if not problems:
        return GateResult(gate="signature", state="pass", reason="The candidate takes every request that the champion takes.")
    return GateResult(
        gate="signature",
        state="fail",
        reason=f"Requests for the champion do not fit the candidate: {'; '.join(problems[:5])}.",
        remedy="Change the clients first, so that their requests fit both models, then move the alias by hand.",
        figures={"differences": float(len(problems))},
    )


def _differences(candidate: Contender, champion: Contender) -> Iterator[str]:
    mine, other = _fields(candidate), _fields(champion)
    optional = {name: set(contender.servable.stand_ins) for name, contender in (("mine", candidate), ("other", champion))}
    for key, field in mine.items():
        if key not in other:
            if field.column not in optional["mine"]:
                yield f"it needs {field.column}, which they do not have"
        elif other[key].is_text != field.is_text:
            yield f"{field.column} is {_kind(field)} for it, and {_kind(other[key])} for the champion"
        elif field.column in optional["other"] and field.column not in optional["mine"]:
            yield f"it needs {field.column}, which requests may leave out"
    yield from (f"it does not take {field.column}" for key, field in other.items() if key not in mine)


def _fields(contender: Contender) -> dict[tuple[Group, str], Field]:
    return {(field.group, field.name): field for field in contender.servable.contract.fields}


def _kind(field: Field) -> str:
    return "text" if field.is_text else "a number"


def informative(scored: Scores, confidence: float) -> GateResult:
    """Whether the candidate tells more than the click rate of these very rows."""
    rate = np.full(len(scored.labels), scored.labels.mean(), np.float32)
    gain = logloss_difference(scored.labels, scored.users, scored.probabilities, rate)
    bound = gain.quantile(confidence)
    figures = {"logloss_difference": gain.value, "upper_bound": _finite(bound)}
    better = "lower" if gain.value < 0 else "higher"
    reason = (
        f"Its logloss is {abs(gain.value):.5f} {better} than that of the click rate of these rows as every prediction, and with "
    )
    reason += f"other users may be {bound:.5f} higher" if bound > 0 else f"other users is still {-bound:.5f} lower"
    reason += f" (one-sided {confidence:.1%} bound)."
    if bound < 0:
        return GateResult(gate="informative", state="pass", reason=reason, figures=figures)
    remedy = (
        "It is not surely better than no model: look at the training's curves, and at the fields of these days that are missing or "
        f"unknown; where it is better by the point alone, {MORE_DAYS}."
    )
    return GateResult(gate="informative", state="fail", reason=reason, remedy=remedy, figures=figures)


def not_worse(scored: Scores, before: Scores, settings: ComparisonConfig) -> Iterator[GateResult]:
    """Whether logloss and AUC are not worse than the champion's by more than a margin."""
    logloss = logloss_difference(scored.labels, scored.users, scored.probabilities, before.probabilities)
    yield _within("logloss", logloss, settings.logloss_margin, settings.confidence)
    try:
        auc = auc_difference(scored.labels, scored.users, before.probabilities, scored.probabilities)
    except MetricError as error:
        yield GateResult(gate="AUC", state="cannot tell", reason=f"{error}.")
    else:
        yield _within("AUC", auc, settings.auc_margin, settings.confidence)


def _within(metric: str, loss: Estimate, margin: float, confidence: float) -> GateResult:
    bound = loss.quantile(confidence)
    low, high = loss.interval(2 * confidence - 1)
    figures = {"worse_by": loss.value, "low": _finite(low), "high": _finite(high), "margin": margin}
    better = "better" if loss.value < 0 else "worse"
    said = "the same" if loss.value == 0 else f"{better} by {abs(loss.value):.5f}"
    reason = f"{metric} is {said} on these rows, and with other users "
    reason += f"is still better by {-bound:.5f}" if bound < 0 else f"may be worse by up to {bound:.5f}"
    reason += f" (one-sided {confidence:.1%} bound); allowed is {margin:g}."
    if bound < margin:
        return GateResult(gate=metric, state="pass", reason=reason, figures=figures)
    remedy = (
        f"{metric} is surely worse: find out why before you train again; the slices say where."
        if low > 0
        else f"These days do not rule out that {metric} is worse by {margin:g}: {MORE_DAYS}, or train longer."
    )
    return GateResult(gate=metric, state="fail", reason=reason, remedy=remedy, figures=figures)


def calibration(scored: Scores, settings: CalibrationConfig) -> GateResult:
    """Whether predictions are right on average."""
    try:
        found = calibration_estimate(scored.labels, scored.users, scored.probabilities)
    except MetricError as error:
        return GateResult(gate="calibration", state="fail", reason=f"{error}.", remedy="Compare on days with clicks.")
    low, high = found.interval(settings.confidence)
    figures = {
        "calibration": found.value,
        "low": _finite(low),
        "high": _finite(high),
        "lowest": settings.lowest,
        "highest": settings.highest,
    }
    reason = (
        f"Mean prediction over click rate is {found.value:.3f}, between {low:.3f} and {high:.3f}; "
        f"allowed is {settings.lowest:g} to {settings.highest:g}."
    )
    if settings.lowest <= low and high <= settings.highest:
        return GateResult(gate="calibration", state="pass", reason=reason, figures=figures)
    too = "high" if found.value > 1 else "low"
    remedy = f"Predictions are too {too}: train with calibration: platt, or on days whose click rate is that of today."
    if settings.lowest <= found.value <= settings.highest:
        remedy = f"The interval is wider than the bounds: {MORE_DAYS}."
    return GateResult(gate="calibration", state="fail", reason=reason, remedy=remedy, figures=figures)


def slices(scored: Scores, before: Scores, masks: Mapping[str, Mask], settings: SlicesConfig) -> list[GateResult]:
    """Whether any part of the rows is significantly worse in logloss by more than the tolerance; one result a slice."""
    found: dict[str, Estimate] = {}
    counts: dict[str, tuple[int, int]] = {}
    for name, mask in masks.items():
        counts[name] = int(mask.sum()), int(scored.labels[mask].sum())
        if counts[name][0] >= settings.rows and counts[name][1] >= settings.positives:
            loss = logloss_difference(
                scored.labels[mask], scored.users[mask], scored.probabilities[mask], before.probabilities[mask]
            )
            if loss.users > 1:
                found[name] = loss
    chances = holm({name: loss.chance_above(settings.tolerance) for name, loss in found.items()})
    results = []
    for name, (rows, clicks) in counts.items():
        gate, figures = f"slice {name}", {"rows": float(rows), "clicks": float(clicks)}
        if name not in found:
            said = f"{_count(rows, 'row')} and {_count(clicks, 'click')}"
            is_small = rows < settings.rows or clicks < settings.positives
            reason = f"{said}: fewer than {settings.rows:,} and {settings.positives:,}." if is_small else f"{said} of one user."
            results.append(GateResult(gate=gate, state="cannot tell", reason=reason, figures=figures))
            continue
        loss, chance = found[name], chances[name]
        low, high = loss.interval(0.95)
        figures |= {"worse_by": loss.value, "low": low, "high": high, "chance": chance}
        state: State = "fail" if chance < settings.level else "pass"
        reason = (
            f"logloss {loss.value:+.5f} ({low:+.5f} to {high:+.5f}) on {rows:,} rows; adjusted p {chance:.2g} for worse by more than "
            f"{settings.tolerance:g}."
        )
        remedy = f"The candidate is worse where {name}: look there for logs that changed or values that went missing."
        results.append(
            GateResult(gate=gate, state=state, reason=reason, remedy=remedy if state == "fail" else "", figures=figures)
        )
    return results


def latency(engine: str, mine: float, before: float | None, candidates: int, highest: float) -> GateResult:
    """Whether a request takes not much longer than with the champion."""
    figures = {"milliseconds": mine, "champion_milliseconds": before}
    said = f"One user and {candidates:,} candidates take {mine:.2f} ms on {engine}"
    if before is None:
        return GateResult(gate="latency", state="pass", reason=f"{said}; there is no champion to compare with.", figures=figures)
    figures["ratio"] = mine / before
    reason = f"{said}, {mine / before:.2f} times the champion's {before:.2f} ms; allowed are {highest:g} times."
    if mine <= highest * before:
        return GateResult(gate="latency", state="pass", reason=reason, figures=figures)
    remedy = "Make the model smaller, or raise latency.highest_ratio after you have checked the servers' load."
    return GateResult(gate="latency", state="fail", reason=reason, remedy=remedy, figures=figures)


def size(mine: int, before: int, highest: float) -> GateResult:
    """Whether the files are not much larger than the champion's."""
    reason = (
        f"{mine / 1e6:,.1f} MB, {mine / before:.2f} times the champion's {before / 1e6:,.1f} MB; allowed are {highest:g} times."
    )
    figures = {"bytes": float(mine), "champion_bytes": float(before), "ratio": mine / before}
    if mine <= highest * before:
        return GateResult(gate="size", state="pass", reason=reason, figures=figures)
    remedy = (
        "Prune the vocabularies or shrink the embeddings, or raise highest_size_ratio after you have checked the servers' memory."
    )
    return GateResult(gate="size", state="fail", reason=reason, remedy=remedy, figures=figures)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
