"""Evaluate a model: ``python jobs/evaluate.py --model models:/mian@newest --samples data/demo/samples``."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import mlflow
import pandas as pd

from jobs import command
from jobs.configuration import ConfigError, check_output_file
from mian.atomic_write import write_atomically
from mian.contract import ContractError, read_contract
from mian.evaluation.baselines import BaselineError
from mian.evaluation.offline import FORMATS, evaluate_offline
from mian.evaluation.report_page import report_page
from mian.evaluation.truth import TruthError
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
        "--isotonic",
        metavar="SPLIT",
        help="a split, such as validation, to fit an isotonic regression on: shows what it makes of the model's scores, as one more row "
        "and curve of the report, to compare calibrations with; the model does not change",
    )
    parser.add_argument(
        "--truth",
        metavar="FOLDER",
        help="true probabilities of a simulated world: shows the attainable metrics and their upper bound",
    )
    parser.add_argument(
        "--report",
        metavar="FILE.html",
        help="also write a page that needs no other file: AUC beside the baselines and the attainable, the table, reliability, and the "
        "attention of an example",
    )
    parser.add_argument(
        "--position",
        choices=["logged", "serving"],
        default="logged",
        help="serving: fields that are known only after ranking (position_fields of the training) are what the model reads where a request "
        "leaves them out, in place of those of the samples",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")
    parser.add_argument("--predictions", metavar="FILE", help="also write impression_id, label and probability as Parquet")
    parser.add_argument("--tracking-uri", help=f"MLFLOW_TRACKING_URI, or else {DEFAULT_URI}, where it is not given")
    options = parser.parse_args(arguments)
    errors = (BaselineError, ContractError, ModelError, ServableError, StreamError, TrackingError, TruthError, *STORE_ERRORS)
    return command.run(lambda: print(_evaluate(vars(options))), errors)


def _evaluate(values: dict[str, Any]) -> str:
    mlflow.set_tracking_uri(tracking_uri(values["tracking_uri"]))
    model, samples, split, report = (values[name] for name in ("model", "samples", "split", "report"))
    if values["compare"] and split == values["train_split"]:
        raise ConfigError(
            f"--compare: the baselines would be fitted on split {split}, which they are scored on; give another --train-split, or leave "
            "--compare out"
        )
    if split == values["isotonic"]:
        raise ConfigError(
            f"--isotonic: the regression would be fitted on split {split}, which is evaluated; give another split, such as validation"
        )
    if report is not None:
        check_output_file("--report", report, (".html",))
    contract = read_contract(samples)
    servable = load_model(model)
    found = evaluate_offline(
        servable,
        contract,
        samples,
        split,
        values["compare"],
        values["train_split"],
        values["truth"],
        values["position"],
        values["isotonic"],
    )
    if values["json"] is not None:
        pathlib.Path(values["json"]).write_text(found.table.to_json(orient="index", indent=1) + "\n", encoding="utf-8")
    if values["predictions"] is not None:
        probabilities = found.scored.probabilities.astype("float64")
        rows = {"impression_id": found.ids, "label": found.scored.labels, "probability": probabilities}
        pd.DataFrame(rows).to_parquet(values["predictions"], index=False)
    if report is not None:
        write_atomically(pathlib.Path(report), report_page(servable, model, found))
    served = ", fields that are known only after ranking as in serving" if values["position"] == "serving" else ""
    lines = [f"{model} on split {split} of {samples}{served}", found.table.to_string(formatters=FORMATS)]
    return "\n".join(lines if report is None else [*lines, f"report: {report}"])


if __name__ == "__main__":
    sys.exit(main())
