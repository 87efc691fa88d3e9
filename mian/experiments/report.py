"""The report of an experiment: one page of HTML that needs no other file, and the same as Markdown with its figures beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from mian.atomic_write import write_atomically
from mian.experiments import comparison_tables, figures
from mian.experiments.comparison_tables import METRICS
from mian.experiments.efficiency import efficiency
from mian.experiments.global_weights import GlobalWeights, global_weights
from mian.experiments.held_out import HeldOutRows, read_held_out_rows, scores
from mian.experiments.trials import Experiment, shown
from mian.reports.page import Section, Table, render_page
from mian.reports.pictures import Picture, png, style

MARKDOWN = "report.md"
HTML = "report.html"
METRICS_FILE = "metrics.csv"
TITLES = {"auc": "AUC", "logloss": "logloss", "gauc": "gAUC"}


def write_report(experiment: Experiment) -> Path:
    """Score the test split with every chosen model, and write the report into the experiment's folder.

    Returns:
        The folder: ``report.html``, ``report.md`` with its pictures, and ``metrics.csv``, one row per variant and seed.

    Raises:
        ExperimentError: trainings are missing, or a file is damaged.
        ContractError, StreamError, TruthError: the test split cannot be read.
    """
    config = experiment.config
    rows = read_held_out_rows(experiment)
    probabilities = {variant: [scores(experiment, trial) for trial in experiment.chosen(variant)] for variant in config.variants}
    metrics = comparison_tables.metrics_by_seed(rows, probabilities)
    peer = comparison_tables.best_peer(metrics, list(config.compared), config.proposed)
    with style():
        sections = [
            _comparison(experiment, rows, metrics, probabilities, peer),
            *([_ablations(experiment, rows, metrics, probabilities)] if config.ablations else []),
            _slices(experiment, rows, probabilities, peer),
            *_attention(experiment),
            _efficiency(experiment),
            _settings(experiment),
        ]
    folder = experiment.folder / "report"
    for picture in (picture for section in sections for picture in section.pictures):
        write_atomically(folder / picture.file, picture.png)
    intro = _intro(experiment, rows)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    markdown = environment.from_string(resources.files(__package__).joinpath(f"{MARKDOWN}.j2").read_text(encoding="utf-8"))
    write_atomically(folder / MARKDOWN, markdown.render(title=config.title, intro=intro, sections=sections))
    write_atomically(folder / HTML, render_page(config.title, intro, sections))
    by_seed = pd.concat(metrics, names=["variant", "seed"]).rename(index=dict(enumerate(config.seeds)), level="seed")
    write_atomically(folder / METRICS_FILE, by_seed.to_csv().encode())
    return folder


def _intro(experiment: Experiment, rows: HeldOutRows) -> str:
    contract, config = experiment.contract, experiment.config
    samples = {name: sum(day.rows for day in contract.split(name)) for name in contract.splits}
    sizes = ", ".join(f"{count:,} {name}" for name, count in samples.items())
    seeds = len(config.seeds)
    points = max(len(config.points(variant)) for variant in config.variants)
    return (
        f"Data set {contract.name!r}: {sizes} samples; {rows.labels.mean():.2%} of the test split are clicks. Every model is trained at "
        f"the point of one grid ({points} points at most) where the logloss of the validation split is lowest, with {seeds} "
        f"seed{'s' if seeds > 1 else ''} there. The test split is scored once, by the weights that were best on the validation split."
    )


def _comparison(
    experiment: Experiment,
    rows: HeldOutRows,
    metrics: Mapping[str, pd.DataFrame],
    probabilities: comparison_tables.Probabilities,
    peer: str,
) -> Section:
    config = experiment.config
    variants = list(config.compared)
    table = comparison_tables.comparison(rows, metrics, probabilities, variants, peer)
    section = Section(
        "Comparison with the peers",
        f"Table 2 of Zhang et al. 2021. Mean and standard deviation over the seeds. Changes are relative to {peer}, the best peer by AUC. "
        "p is of a paired t-test of AUC over the seeds; the interval is that of the difference of AUC, for users drawn anew."
        + (
            " Of the attainable AUC: AUC / attainable; above 0.5: (AUC - 0.5) / (attainable - 0.5)."
            if rows.truth is not None
            else ""
        ),
        [_shown(table, config.published)],
        [
            Picture(
                "differences.png",
                f"AUC on the test split less that of {peer}, with the 95 % interval over users drawn anew.",
                png(figures.differences(table, peer)),
            )
        ],
    )
    if config.published is not None:
        section.text += f" Published figures: {config.published.source}."
    return section


def _ablations(
    experiment: Experiment, rows: HeldOutRows, metrics: Mapping[str, pd.DataFrame], probabilities: comparison_tables.Probabilities
) -> Section:
    config = experiment.config
    table = comparison_tables.comparison(rows, metrics, probabilities, [config.treatment, *config.ablations], config.treatment)
    section = Section(
        f"What {config.treatment} is without its parts",
        f"Tables 3 and 4 of Zhang et al. 2021; the columns are those above, held against {config.treatment}.",
        [_shown(table, None)],
    )
    transformers = [config.treatment, *(variant for variant, row in config.ablations.items() if "transformer" in row.options)]
    if len(transformers) > 1:
        curves = {
            variant: [_curve(experiment, variant, number) for number in range(len(config.seeds))] for variant in transformers
        }
        caption = (
            "Figure 5 of Zhang et al. 2021: the validation split while training goes on; the mean of the seeds and their range, as far "
            "as all of them were trained."
        )
        section.pictures.append(Picture("convergence.png", caption, png(figures.convergence(curves))))
    return section


def _curve(experiment: Experiment, variant: str, number: int) -> figures.Curve:
    result = experiment.chosen(variant)[number].result()
    return result.curve if result is not None else ()


def _slices(experiment: Experiment, rows: HeldOutRows, probabilities: comparison_tables.Probabilities, peer: str) -> Section:
    config = experiment.config
    variants = list(config.compared)
    drawn = list(
        dict.fromkeys(
            [
                peer,
                config.latency_baseline,
                config.treatment,
                *(variant for variant in config.proposed if variant in config.compared),
            ]
        )
    )
    section = Section("Where the models differ", "AUC within parts of the test split, the mean of the seeds.")
    for number, (title, table) in enumerate(comparison_tables.slices(rows, probabilities, variants).items()):
        names = [*variants, *(rows.truth or {})]
        texts = [
            (str(part), f"{int(values['rows']):,}", f"{values['rate']:.4f}", *(_number(values[name], 4) for name in names))
            for part, values in table.iterrows()
        ]
        section.tables.append(Table((title, "rows", "click rate", *names), tuple(texts)))
        section.pictures.append(Picture(f"slices-{number + 1}.png", f"AUC by {title}.", png(figures.slices(table, title, drawn))))
    return section


def _attention(experiment: Experiment) -> list[Section]:
    treatment = experiment.config.treatment
    trial = experiment.chosen(treatment)[0]
    weights: GlobalWeights | None = global_weights(experiment, trial)
    if weights is None:
        return []
    texts = [
        (name, f"{mean:.3f}", f"{deviation:.3f}")
        for name, mean, deviation in zip(weights.parts, weights.mean, weights.deviation, strict=True)
    ]
    caption = (
        f"Figure 6 of Zhang et al. 2021: the global attention of {treatment} (seed {trial.seed}) for {len(weights.cases)} drawn samples of "
        "the test split, and its mean over all of it, which the paper leaves out."
    )
    return [
        Section(
            "What the global attention weighs",
            f"Weights of Eq. 15 over the test split. Even weights would be {1 / len(weights.parts):.3f}.",
            [Table(("part", "mean", "standard deviation"), tuple(texts))],
            [Picture("attention.png", caption, png(figures.attention_cases(weights)))],
        )
    ]


def _efficiency(experiment: Experiment) -> Section:
    config = experiment.config
    table = efficiency(experiment, list(config.variants), config.latency_baseline)
    texts = [
        (
            str(variant),
            f"{row['seconds']:,.0f}" if row["seconds"] >= 100 else f"{row['seconds']:.3g}",
            f"{row['relative']:.2f}",
            f"{int(row['dense']):,}",
            f"{int(row['dense'] + row['tables']):,}",
        )
        for variant, row in table.iterrows()
    ]
    columns = ("model", "seconds an epoch", f"over {config.latency_baseline}", "parameters without embeddings", "parameters")
    return Section(
        "Time and size",
        "Section 4.5 of Zhang et al. 2021: steps of training on batches in memory, on one process, all models in turn, the median of "
        "some rounds, times the steps of an epoch.",
        [Table(columns, tuple(texts))],
    )


def _settings(experiment: Experiment) -> Section:
    config = experiment.config
    keys = [key.rpartition(".")[2] for key in config.grid_keys]
    texts = []
    for variant in config.variants:
        trials = experiment.chosen(variant)
        point = shown(trials[0].point)
        results = [result for trial in trials if (result := trial.result()) is not None]
        steps = ", ".join(f"{result.best_step:,}" for result in results)
        logloss = sum(result.validation["logloss"] for result in results) / len(results)
        texts.append((variant, *(str(point.get(key, "-")) for key in keys), f"{logloss:.5f}", steps))
    return Section(
        "Settings that were chosen",
        "The point of the grid with the lowest logloss on the validation split, the mean logloss there over the seeds, and the step that "
        "each seed's best weights are of. A dash: the model has no such option, or sets it itself.",
        [Table(("model", *keys, "validation logloss", "best steps"), tuple(texts))],
    )


def _shown(table: pd.DataFrame, published: Any) -> Table:
    columns = ["model", *(TITLES[metric] for metric in METRICS), "AUC, change", "logloss, change", "p", "AUC, difference"]
    columns += ["of attainable AUC", "of attainable above 0.5"] if "share" in table else []
    columns += ["AUC, published", "logloss, published"] if published is not None else []
    texts = []
    for variant, row in table.iterrows():
        cells = [str(variant), *(_mean(row[metric], row[f"{metric}_sd"]) for metric in METRICS)]
        cells += [_number(100 * row["auc_relative"], 2, "+", " %"), _number(100 * row["logloss_relative"], 2, "+", " %")]
        cells += [_number(row["p"], 3), "-" if math.isnan(row["low"]) else f"{row['low']:+.4f} to {row['high']:+.4f}"]
        cells += [_number(row["attainable_fraction"], 3), _number(row["share"], 3)] if "share" in table else []
        if published is not None:
            cells += [_number(metric.get(str(variant), math.nan), 4) for metric in (published.auc, published.logloss)]
        texts.append(tuple(cells))
    return Table(tuple(columns), tuple(texts))


def _mean(value: float, deviation: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if math.isnan(deviation) else f"{value:.4f} \u00b1 {deviation:.4f}"


def _number(value: float, digits: int, sign: str = "", unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.{digits}f}{unit}"
