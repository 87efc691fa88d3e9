"""The report of an evaluation: one page of HTML that needs no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from mian.contract import Contract
from mian.evaluation.auc_plot import plot_auc
from mian.evaluation.example_row import ExampleRow, example_row
from mian.evaluation.offline import DISTINCT, ISOTONIC, MODEL, SplitEvaluation, metric_texts
from mian.evaluation.truth import ATTAINABLE
from mian.metrics import plot_reliability, reliability
from mian.reports.page import Section, Table, render_page
from mian.reports.pictures import Picture, png, style
from mian.serving import Servable, shown
from mian.serving.explanation_plot import plot_explanation

#: By the name of an attention: what it weighs.
MODULES = {
    "IBIM": "IBIM weighs the behaviors, the most recent first.",
    "IUIM": "IUIM weighs the fields of the user.",
    "ICIM": "ICIM weighs the fields of the context.",
    "GIM": (
        "GIM weighs the parts that the score is made of: e_i, e_b, e_u and e_c are the candidate, the behaviors, the user and the context "
        "themselves, R_ibim, R_iuim and R_icim are what IBIM, IUIM and ICIM make of them."
    ),
}
NO_ATTENTION = "This model has no attention weights to show; MIAN and MIAN-plus have."
NO_CLICK = "No row of the split was clicked, so there is no example."


def report_page(servable: Servable, model: str, evaluation: SplitEvaluation) -> str:
    """The page as HTML text.

    Args:
        servable: The model.
        model: What it was called where it was asked for.
        evaluation: What it made of a split.
    """
    contract, split = evaluation.contract, evaluation.split
    days = contract.split(split)
    missing = len(contract.missing_days(split))
    with style():
        sections = [
            _comparison(evaluation.table),
            _metrics(evaluation.table),
            _reliability(evaluation),
            _example(contract, example_row(servable, evaluation)),
        ]
    return render_page(
        f"{contract.name}: {model} on split {split}",
        f"Model {model}, scored on split {split} of {evaluation.samples}: samples of {days[0].day} to {days[-1].day}"
        + (f", of which {missing} days are not built." if missing else "."),
        sections,
        _facts(evaluation.table.loc[MODEL], len(days)),
        f"Written by jobs/evaluate.py. Samples {contract.name}: configuration {contract.config_fingerprint[:12]}, "
        f"vocabularies {contract.vocabulary_fingerprint[:12]}, version {contract.vocabulary_version}.",
    )


def _facts(metrics: pd.Series, days: int) -> list[tuple[str, str]]:
    facts = [
        (f"{days:,}", "day" if days == 1 else "days"),
        (f"{metrics['rows']:,.0f}", "rows"),
        (f"{metrics['positives']:,.0f}", "positives"),
        (f"{metrics['positives'] / metrics['rows']:.2%}", "click rate"),
        ("undefined" if math.isnan(metrics["auc"]) else f"{metrics['auc']:.4f}", "AUC of the model"),
    ]
    share = metrics.get("share", math.nan)
    return facts if math.isnan(share) else [*facts, (f"{share:.1%}", "of attainable")]


def _comparison(table: pd.DataFrame) -> Section:
    text = "AUC is the probability that a clicked row scores above a row that was not clicked."
    caption = "Longer bars are better. They begin at 0.5, the AUC of a random order."
    if ATTAINABLE in table.index:
        text += (
            " The logs are of a simulated world, so the best possible is known: attainable is the best prediction from what samples hold, "
            "the upper bound also knows what no sample holds."
        )
        caption += " The dashed line is the attainable AUC; the percentage is (AUC - 0.5) / (attainable AUC - 0.5)."
    title = "The model against baselines and the best possible" if len(table) > 1 else "AUC"
    return Section(title, text, pictures=[Picture("auc.png", caption, png(plot_auc(table)))])


def _metrics(table: pd.DataFrame) -> Section:
    texts = metric_texts(table)
    rows = tuple((str(name), *map(str, row)) for name, row in zip(texts.index, texts.to_numpy(), strict=True))
    return Section(
        "Metrics",
        "Higher auc and gauc are better, and lower logloss. calibration is mean prediction over click rate: 1 is right on average."
        + (" share is of the attainable AUC above 0.5." if "share" in table else "")
        + (" distinct_scores is how many different probabilities there are." if DISTINCT in table else ""),
        [Table(("", *texts.columns), rows)],
    )


def _reliability(evaluation: SplitEvaluation) -> Section:
    table = reliability(evaluation.scored.labels, evaluation.scored.probabilities)
    tables, text = {MODEL: table}, ""
    if evaluation.isotonic is not None:
        tables[ISOTONIC] = reliability(evaluation.scored.labels, evaluation.isotonic)
        text = (
            f" isotonic is the model's scores after an isotonic regression that was fitted on split {evaluation.isotonic_split}, for "
            "comparison: the model is served without it."
        )
    caption = (
        f"Each point is one of {len(table)} groups of rows, by predicted probability: across, what the model predicts on average, up, the "
        "share that was clicked, with its 95 % interval. On the dashed line predictions are right, below it they are too high."
    )
    return Section(
        "Reliability",
        "Whether predicted probabilities agree with click rates. Bids and budgets need that, and AUC does not measure it." + text,
        pictures=[Picture("reliability.png", caption, png(plot_reliability(tables, f"Reliability on split {evaluation.split}")))],
    )


def _example(contract: Contract, example: ExampleRow | None) -> Section:
    section = Section("Attention of one example", NO_CLICK)
    if example is None:
        return section
    if example.attention.empty:
        section.text = NO_ATTENTION
        return section
    history = (
        f"a full history of {example.behaviors:,} behaviors"
        if example.behaviors == contract.history.length
        else f"the longest history of them, {example.behaviors:,} behaviors"
    )
    with_history = f" with {history}" if contract.group("behaviors") else ""
    section.text = (
        f"Of the clicked rows{with_history}, this is the one that the model gives the highest probability: impression "
        f"{example.impression_id} of {example.time:%Y-%m-%d %H:%M} UTC, {example.probability:.4f}. Its candidate:"
    )
    candidate = tuple((field.column, _value(example.values[field.column])) for field in contract.group("candidate"))
    weights = tuple(
        (line.module, line.label, "" if line.module == "GIM" else _value(line.value), f"{line.weight:.4f}")
        for line in example.attention.rename(columns={"name": "label"}).itertuples()
    )
    section.tables = [
        Table(("field", "value"), candidate, texts=2),
        Table(("module", "name", "value", "weight"), weights, folded="All values and weights", texts=3),
    ]
    figure = plot_explanation(example.attention, example.probability)
    section.pictures = [Picture("attention.png", _how_to_read(contract, example.attention), png(figure))]
    return section


def _how_to_read(contract: Contract, attention: pd.DataFrame) -> str:
    sums = attention.groupby("module")["weight"].sum()
    sentences = ["A longer bar: for this candidate, the model gives this value more weight. Bars of one length: it prefers none."]
    sentences += [text for module, text in MODULES.items() if module in sums.index]
    sentences.append(_about_sums([module for module, total in sums.items() if abs(total - 1) > 1e-3]))
    if any(not field.is_categorical for field in contract.fields):
        sentences.append("A missing number is shown as the training mean, which the model reads in its place.")
    return " ".join(sentences)


def _about_sums(free: Sequence[str]) -> str:
    """A sentence on what the weights of a module add up to; those of some modules may add up to anything."""
    if free:
        return f"Weights of {', '.join(free)} each stand for themselves, those of any other module add up to 1."
    return "The weights of a module add up to 1."


def _value(value: object) -> str:
    return shown(value) or "unknown"
