"""Explain a score: ``python jobs/explain.py --model models:/mian@newest --row row.json --plot explanation.png``."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import mlflow
import pandas as pd

from jobs import command
from jobs.configuration import ConfigError
from mian.contract import ContractError
from mian.models import ModelError
from mian.serving import ServableError, ServingInputError, explain, shown
from mian.serving.explanation_plot import plot_explanation
from mian.tracking.errors import TrackingError
from mian.tracking.mlflow_store import DEFAULT_URI, STORE_ERRORS, tracking_uri
from mian.tracking.registry import load_model

ERRORS = (ContractError, ModelError, ServableError, ServingInputError, TrackingError, *STORE_ERRORS)

PLOTS = (".png", ".svg", ".pdf")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, score the row, print what the model looked at; 0 when done, 1 with one clear error when not."""
    parser = command.parser(
        "Scores a row of raw values and says what the model looked at: the attention of IBIM over behaviors, of IUIM and ICIM\n"
        "over fields, of GIM over parts."
    )
    parser.add_argument("--model", required=True, help="models:/mian/1, models:/mian@newest, or the folder that a training kept")
    parser.add_argument(
        "--row",
        required=True,
        metavar="JSON",
        help="an object with a value for each column of the contract, or a file with one; behaviors are lists, the most recent first",
    )
    parser.add_argument("--plot", metavar="FILE", help="also draw it: .png, .svg or .pdf")
    parser.add_argument("--json", metavar="FILE", help="also write it as JSON")
    parser.add_argument("--tracking-uri", help=f"MLFLOW_TRACKING_URI, or else {DEFAULT_URI}, where it is not given")
    options = parser.parse_args(arguments)
    return command.run(lambda: print(_explain(vars(options))), ERRORS)


def _explain(values: dict[str, Any]) -> str:
    mlflow.set_tracking_uri(tracking_uri(values["tracking_uri"]))
    row = _read_row(values["row"])
    plot = values["plot"]
    if plot is not None and pathlib.Path(plot).suffix.lower() not in PLOTS:
        raise ConfigError(f"--plot: {plot} does not end in {' or '.join(PLOTS)}; give a name that does")
    servable = load_model(values["model"])
    raw = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()})
    probability = float(servable.predict_proba(raw)[0])
    (table,) = explain(servable, raw)
    if plot is not None:
        plot_explanation(table, probability).savefig(plot, dpi=150)
    if values["json"] is not None:
        document = {"probability": probability, "explanation": table.to_dict(orient="records")}
        pathlib.Path(values["json"]).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    text = table.assign(value=[shown(value) for value in table["value"]], weight=[f"{weight:.4f}" for weight in table["weight"]])
    return f"probability of a click: {probability:.6f}\n{text.to_string(index=False)}"


def _read_row(given: str) -> dict[str, Any]:
    """The row that ``--row`` names.

    Raises:
        ConfigError: it is no JSON object, and no file with one.
    """
    text, where = given, "--row"
    if not given.lstrip().startswith(("{", "[")):
        where = given
        try:
            text = pathlib.Path(given).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--row: {given} is no JSON object, and no file that can be read ({error})") from error
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:  # a whole number of thousands of digits as well, and lists in lists
        raise ConfigError(f'{where}: not JSON ({error}); give an object such as {{"candidate_item_id": "i7", ...}}') from error
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: a JSON object is needed, with a value for each column, got {type(row).__name__}")
    return row


if __name__ == "__main__":
    sys.exit(main())
