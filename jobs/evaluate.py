"""Evaluate a model: ``python jobs/evaluate.py --model models:/mian@newest --samples data/demo/samples``."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import mlflow
import pandas as pd

from jobs import command
from jobs.configuration import ConfigError
from mian.contract import ContractError, read_contract
from mian.evaluation.baselines import BaselineError
from mian.evaluation.offline import TruthError, baseline_scores, compare, impression_ids, score_split, true_probabilities
from mian.models import ModelError
from mian.serving import ServableError
from mian.stream import StreamError
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import DEFAULT_URI, STORE_ERRORS, tracking_uri
from mian.tracking.registry import load_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, score, print a table; 0 when done, 1 with one clear error when not."""
    parser = command.parser("Scores a split of samples with a registered model and prints its metrics beside those of baselines.")
    parser.add_argument("--model", required=True, help="models:/mian/1, models:/mian@newest, or the folder that a training kept")
    parser.add_argument("--samples", required=True, metavar="FOLDER", help="what jobs/build_samples.py wrote")
    parser.add_argument("--split", default="test")
    parser.add_argument("--train-split", default="train", help="what the baselines are fitted on")
    parser.add_argument(
        "--compare",
        nargs="*",
        default=[],
        choices=["logistic_regression", "popularity"],
        help="baselines to fit and to show beside the model",
    )
    parser.add_argument(
        "--truth",
        metavar="FOLDER",
        help="true probabilities of a simulated world: shows the attainable metrics and their upper bound",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--predictions", metavar="FILE", help="also write impression_id, label and probability as Parquet")
    parser.add_argument("--tracking-uri", help=f"MLFLOW_TRACKING_URI, or else {DEFAULT_URI}, where it is not given")
    options = parser.parse_args(arguments)
    errors = (BaselineError, ContractError, ModelError, ServableError, StreamError, TrackingError, TruthError, *STORE_ERRORS)
    return command.run(lambda: print(_evaluate(options)), errors)


def _evaluate(options: object) -> str:
    values = vars(options)
    mlflow.set_tracking_uri(tracking_uri(values["tracking_uri"]))
    samples, split = values["samples"], values["split"]
    if values["compare"] and split == values["train_split"]:
        raise ConfigError(
            f"--compare: the baselines would be fitted on split {split}, which they are scored on; give another --train-split, or leave "
            "--compare out"
        )
    contract = read_contract(samples)
    scores = score_split(load_model(values["model"]), contract, samples, split)
    others = {name: baseline_scores(name, contract, samples, values["train_split"], split) for name in values["compare"]}
    ids = impression_ids(contract, samples, split)
    if values["truth"] is not None:
        others |= true_probabilities(values["truth"], ids)
    table = compare(scores, others)
    if values["json"] is not None:
        pathlib.Path(values["json"]).write_text(table.to_json(orient="index", indent=1) + "\n", encoding="utf-8")
    if values["predictions"] is not None:
        rows = {"impression_id": ids, "label": scores.labels, "probability": scores.probabilities.astype("float64")}
        pd.DataFrame(rows).to_parquet(values["predictions"], index=False)
    return f"{values['model']} on split {split} of {samples}\n{format_table(table)}"


def format_table(table: pd.DataFrame) -> str:
    """The table for a terminal."""
    digits = {"auc": 5, "logloss": 5, "gauc": 5, "calibration": 4, "rows": 0, "positives": 0, "share": 4}
    return str(table.to_string(formatters={name: (lambda x, d=d: f"{x:,.{d}f}") for name, d in digits.items()}))


if __name__ == "__main__":
    sys.exit(main())
