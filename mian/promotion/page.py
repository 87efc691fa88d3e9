"""The page of a decision: whether the version serves, why, and what to do; below it the figures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mian.metrics import plot_reliability, reliability
from mian.promotion.decision import Decision, GateResult
from mian.promotion.judge import Comparison
from mian.reports import palette
from mian.reports.page import Section, Table, render_page
from mian.reports.pictures import Picture, png, style

COLORS = {"pass": palette.BLUE, "fail": palette.VERMILION, "cannot tell": "0.6"}
MARKERS = {"pass": "o", "fail": "X", "cannot tell": "s"}
SLICE = "slice "


def decision_page(decision: Decision, comparison: Comparison | None, dry_run: bool = False) -> str:
    """The page as HTML text.

    Args:
        decision: What was decided.
        comparison: The rows that it was decided on; None where there were none.
        dry_run: Whether nothing is moved.
    """
    with style():
        sections = [_why(decision), *_margins(decision), *_slices(decision), *_reliability(decision, comparison)]
    return render_page(
        decision.headline(dry_run),
        _intro(decision, dry_run),
        [*sections, _all_gates(decision)],
        _facts(decision, dry_run),
        f"Written by jobs/promote.py, {decision.decided:%Y-%m-%d %H:%M} UTC. Samples: {decision.settings.samples}.",
    )


def _intro(decision: Decision, dry_run: bool) -> str:
    failed = decision.failed
    if not failed:
        unclear = sum(gate.state == "cannot tell" for gate in decision.gates)
        told = f" For {unclear} there was too little to tell." if unclear else ""
        left = "Promote it without --dry-run to have it serve." if dry_run else "Nothing is left to do."
        return f"{left} {len(decision.gates)} gates were asked and none refused it.{told}"
    names = ", ".join(gate.gate for gate in failed)
    return f"{len(failed)} of {len(decision.gates)} gates refused it: {names}. The table says why, and what to do next."


def _facts(decision: Decision, dry_run: bool) -> list[tuple[str, str]]:
    passed = "would pass" if dry_run else "promoted"
    facts = [(passed if decision.is_promoted else "refused", f"version {decision.candidate}")]
    evidence = decision.evidence
    if evidence is None:
        return facts
    facts += [
        (f"{evidence.days:,}", f"days, to {evidence.last}"),
        (f"{evidence.rows:,}", "rows"),
        (f"{evidence.users:,}", "users"),
    ]
    for version, metrics in evidence.metrics.items():
        who = "candidate" if version == decision.candidate else "champion"
        auc = metrics["auc"]
        facts.append(("undefined" if auc is None else f"{auc:.4f}", f"AUC of the {who}"))
    return facts


def _why(decision: Decision) -> Section:
    failed = decision.failed
    if not failed:
        return Section("Why", "Every gate lets it through. The comparison is on days that neither model has seen.")
    rows = tuple((gate.gate, gate.reason, gate.remedy) for gate in failed)
    return Section("Why, and what to do", "", [Table(("gate", "what it found", "what to do"), rows, texts=3)])


def _margins(decision: Decision) -> list[Section]:
    compared = [gate for gate in decision.gates if "margin" in gate.figures and gate.figures["low"] is not None]
    if not compared:
        return []
    figure = Figure(figsize=(8.5, 1.6 * len(compared) + 0.4), layout="constrained")
    grid = figure.subplots(len(compared), squeeze=False)
    for axes, gate in zip(grid[:, 0], compared, strict=True):
        _interval(axes, 0, gate)
        margin = float(gate.figures["margin"] or 0.0)
        axes.axvline(margin, color=palette.VERMILION, linestyle="--", linewidth=1)
        axes.text(margin, 0.62, " allowed up to here", color=palette.VERMILION, va="center", fontsize=9)
        axes.set_ylim(-0.8, 0.9)
        axes.set_yticks([0], [gate.gate])
        axes.set_xlabel(f"{gate.gate}: better than the champion to the left of 0, worse to the right")
    caption = (
        "The point is what these days show, the bar where the truth lies with high confidence. A candidate passes where the whole bar is "
        "left of the dashed line."
    )
    text = "Other users would have given other figures, so the bar decides and not the point."
    return [Section("Against the champion", text, pictures=[Picture("margins.png", caption, png(figure))])]


def _slices(decision: Decision) -> list[Section]:
    slices = [gate for gate in decision.gates if gate.gate.startswith(SLICE)]
    drawn = [gate for gate in slices if "low" in gate.figures]
    if not slices:
        return []
    section = Section(
        "Parts of the users and items",
        "A model can be as good as before on the whole and worse for some. Small parts tell little: their bars are long.",
    )
    if drawn:
        figure = Figure(figsize=(8.5, 0.42 * len(drawn) + 1.0), layout="constrained")
        axes: Axes = figure.subplots()
        for place, gate in enumerate(reversed(drawn)):
            _interval(axes, place, gate)
        axes.set_yticks(range(len(drawn)), [gate.gate.removeprefix(SLICE) for gate in reversed(drawn)])
        axes.set_xlabel("logloss: better than the champion to the left of 0, worse to the right")
        caption = "Bars are 95 % intervals. A part fails where it is worse by more than chance explains, all parts considered."
        section.pictures = [Picture("slices.png", caption, png(figure))]
    rows = tuple((gate.gate.removeprefix(SLICE), gate.state, gate.reason) for gate in slices)
    section.tables = [Table(("part", "verdict", "what was found"), rows, folded="All parts", texts=3)]
    return [section]


def _interval(axes: Axes, place: float, gate: GateResult) -> None:
    low, value, high = (float(gate.figures[name] or 0.0) for name in ("low", "worse_by", "high"))
    color = COLORS[gate.state]
    axes.plot([low, high], [place, place], color=color, linewidth=3, solid_capstyle="round")
    axes.plot([value], [place], marker=MARKERS[gate.state], color=color, markersize=8)
    axes.axvline(0.0, color="0.4", linewidth=0.8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _reliability(decision: Decision, comparison: Comparison | None) -> list[Section]:
    if comparison is None or not comparison.candidate.labels.any():
        return []
    scores = {f"candidate, version {decision.candidate}": comparison.candidate}
    if comparison.champion is not None:
        scores[f"champion, version {decision.champion}"] = comparison.champion
    tables = {name: reliability(each.labels, each.probabilities) for name, each in scores.items()}
    caption = (
        "Across: what a model predicts on average; up: the share that was clicked, with its 95 % interval. On the dashed line "
        "predictions are right, below it they are too high."
    )
    text = "Whether predicted probabilities agree with click rates. Bids and budgets need that."
    return [Section("Reliability", text, pictures=[Picture("reliability.png", caption, png(plot_reliability(tables)))])]


def _all_gates(decision: Decision) -> Section:
    rows: Sequence[tuple[str, ...]] = [(gate.gate, gate.state, gate.reason) for gate in decision.gates]
    text = "A gate that cannot tell had too little to go by; it refuses nothing."
    return Section("All gates", text, [Table(("gate", "verdict", "what it found"), tuple(rows), texts=3)])
