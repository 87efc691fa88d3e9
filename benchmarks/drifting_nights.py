"""On a world that drifts: are nightly trainings better than a model that is left alone, and as good as new trainings every night?

    python benchmarks/drifting_nights.py --data data/drift
    python benchmarks/drifting_nights.py --data data/small --impressions 60000 --nights 2

The logs of ``conf/data/drift.yaml`` are simulated. The night of 2026-02-04 (``jobs/nightly.py`` with ``conf/nightly/drift.yaml``) trains on
all days before it, with new weights. Its version serves even where the gates refuse it, as a team's first model would. Each of the
``--nights`` nights after it begins with the version that serves. ``nightly`` is the version that serves after the night of a day. It is
scored on the day after that, which nothing has seen, beside others on the same rows:

- ``left_alone``: the version of the first night;
- ``retrained``: a training with new weights on the training and validation days of that night, by the same configuration;
- ``candidate``: the version of that night, whatever the gates said;
- ``attainable``: the world's own probabilities, given what a sample holds.

``KEY=VALUE`` replace those of ``conf/nightly/drift.yaml``. What is done is kept in ``--data`` and not done again. With fewer
``--nights``, a run can be looked at before its end.

Prints a line of JSON for each night, in the order of time, and one for all their rows together: ``decision`` of the gates and what
they refused the version for; by model, ``logloss``, ``auc`` and ``calibration`` on the day after; ``differences`` in logloss with their
95 % intervals, users as clusters; ``seconds`` of the night's steps and of the new training.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from drifting_world import DAY, ROOT, Finished, World

from mian.contract import Contract, read_contract
from mian.evaluation.chosen_days import CHOSEN, with_days
from mian.evaluation.offline import score_split
from mian.evaluation.scoring import Scores
from mian.evaluation.split_columns import impression_ids
from mian.evaluation.truth import ATTAINABLE, true_probabilities
from mian.metrics import evaluate
from mian.metrics.paired import logloss_difference
from mian.serving import Servable, load_servable

FIRST = dt.date(2026, 2, 4)
MOST = 10
MODELS = ("nightly", "left_alone", "retrained", "candidate")
PAIRS = (
    ("nightly", "left_alone"),
    ("nightly", "retrained"),
    ("candidate", "left_alone"),
    ("candidate", "retrained"),
    ("retrained", "left_alone"),
)
SHOWN = ("logloss", "auc", "calibration")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the nights and the new trainings, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="values that replace those of the nights' configuration"
    )
    parser.add_argument("--data", type=Path, required=True, help="where all is kept from one run to the next")
    parser.add_argument("--impressions", type=int, default=450_000, help="of the whole world")
    parser.add_argument("--nights", type=int, default=MOST, choices=range(1, MOST + 1), metavar=f"1..{MOST}")
    options = parser.parse_args(arguments)
    folder = options.data.absolute()
    os.chdir(ROOT)  # the configurations name each other from there
    world = World(folder, options.impressions, options.overrides)
    world.simulate()
    first = world.night(FIRST)
    nights = []
    for number in range(1, options.nights + 1):
        night = world.night(FIRST + number * DAY)
        nights.append((night, world.retrained(night)))
    for line in lines(world, first, nights):
        print(json.dumps({"benchmark": "drifting_nights", "impressions": options.impressions, **line}), flush=True)
    return 0


def lines(world: World, first: Finished, nights: Sequence[tuple[Finished, tuple[Path, float]]]) -> list[dict[str, Any]]:
    """One for each night, and one for all."""
    samples = world.judged(nights[-1][0].plan.day + DAY)
    contract = read_contract(str(samples))
    models = {first.version: first.model} | {night.version: night.model for night, _ in nights}
    found, scored = [_begun(world, first)], []
    for night, (retrained, seconds) in nights:
        day = night.plan.day + DAY
        folders = (models[night.serving], first.model, retrained, night.model)
        scores = {name: score(folder, contract, samples, day) for name, folder in zip(MODELS, folders, strict=True)}
        scores[ATTAINABLE] = attainable(scores["nightly"], contract, samples, day, world.logs)
        scored.append(scores)
        found.append(_begun(world, night) | {"retraining_seconds": seconds, "day": str(day), **figures(scores)})
    whole = {name: Scores(*map(np.concatenate, zip(*(each[name] for each in scored), strict=True))) for name in scored[0]}
    steps = {name: round(float(np.mean([night.seconds[name] for night, _ in nights])), 1) for name in nights[0][0].seconds}
    found.append(
        {
            "nights": len(nights),
            "promoted": sum(night.serving == night.version for night, _ in nights),
            "serves": nights[-1][0].serving,
            "seconds": steps,
            "retraining_seconds": round(float(np.mean([seconds for _, (_, seconds) in nights])), 1),
            **figures(whole),
        }
    )
    return found


def _begun(world: World, night: Finished) -> dict[str, Any]:
    """What a night did."""
    decision = world.decision(night)
    return {
        "night": str(night.plan.day),
        "begins_with": night.plan.champion or "nothing",
        "window_days": night.plan.window_days,
        "version": night.version,
        "decision": night.marks["promote"].result["outcome"],
        "refused_by": {gate.gate: gate.reason for gate in decision.failed},
        "serves": night.serving,
        "seconds": night.seconds,
    }


def score(folder: Path, contract: Contract, samples: Path, day: dt.date) -> Scores:
    """The scores of a model for a day."""
    return score_split(_servable(folder), _only(contract, day), str(samples), CHOSEN)


@lru_cache(maxsize=4)
def _servable(folder: Path) -> Servable:
    return load_servable(folder)


def _only(contract: Contract, day: dt.date) -> Contract:
    """The contract with one final day as a split.

    Raises:
        RuntimeError: The day is not final.
    """
    days = [each for each in contract.days if each.day == day and each.final]
    if not days:
        raise RuntimeError(f"{day} is not built, or not final")
    return with_days(contract, days)


def attainable(scored: Scores, contract: Contract, samples: Path, day: dt.date, logs: Path) -> Scores:
    """The world's own probabilities for the same rows."""
    ids = impression_ids(_only(contract, day), str(samples), CHOSEN)
    return scored._replace(probabilities=true_probabilities(str(logs / "truth"), ids)[ATTAINABLE].astype(np.float32))


def figures(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Metrics by model, and differences in logloss."""
    labels, users = scores["nightly"].labels, scores["nightly"].users
    for other in scores.values():
        if not (np.array_equal(other.labels, labels) and np.array_equal(other.users, users)):
            raise RuntimeError("the models were not scored on the same rows")
    metrics = {name: evaluate(labels, each.probabilities, users) for name, each in scores.items()}
    found: dict[str, Any] = {"rows": len(labels), "clicks": int(labels.sum()), "users": len(np.unique(users))}
    found |= {metric: {name: round(each[metric], 5) for name, each in metrics.items()} for metric in SHOWN}
    pairs = {f"{one} - {other}": _difference(labels, users, scores[one], scores[other]) for one, other in PAIRS}
    return found | {"differences": pairs}


def _difference(labels: npt.NDArray[np.int32], users: npt.NDArray[np.int64], one: Scores, other: Scores) -> dict[str, float]:
    found = logloss_difference(labels, users, one.probabilities, other.probabilities)
    low, high = found.interval(0.95)
    return {"value": round(found.value, 5), "low": round(low, 5), "high": round(high, 5)}


if __name__ == "__main__":
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("SPARK_CONF_DIR", str(ROOT / "conf" / "spark"))
    sys.exit(main())
