"""The trainings of an experiment, and what is kept of them on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field

from mian.atomic_write import write_atomically
from mian.checkpoint.keys import training_key
from mian.config import Strict, TrainConfig
from mian.contract import Contract
from mian.experiments.plan_config import ExperimentConfig, Point

RESULT = "result.json"
MODEL = "model"


class ExperimentError(RuntimeError):
    """The experiment cannot go on, or a file of it is damaged."""


class Result(Strict):
    """What is remembered of a training that has ended."""

    failed: str | None = None
    """Why, where its loss was no number any more."""
    validation: dict[str, float] = Field({})
    """Metrics of the best weights."""
    best_step: int = 0
    steps: int = 0
    samples: int = 0
    """That it was trained on, one counted as often as it was read."""
    curve: tuple[tuple[int, dict[str, float]], ...] = ()
    """What was reported at which step."""
    dense_parameters: int = 0
    table_parameters: int = 0
    ranks: int = 1
    run_id: str | None = None


@dataclass(frozen=True)
class Trial:
    """One training: a variant at a point of the grid with a seed."""

    variant: str
    point: Point
    seed: int
    config: TrainConfig
    folder: Path

    @property
    def model(self) -> Path:
        """Where its model is kept."""
        return self.folder / MODEL

    def result(self) -> Result | None:
        """What came of it; None where it has not ended.

        Raises:
            ExperimentError: the file is damaged.
        """
        path = self.folder / RESULT
        try:
            return Result.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            why = " ".join(str(error).split())
            raise ExperimentError(f"{path} is damaged ({why}); delete {self.folder}, and it is trained again") from error

    def is_open(self, model: bool = False) -> bool:
        """Whether it has not ended; with ``model``, also whether it has, and its model is gone."""
        result = self.result()
        return result is None or (model and result.failed is None and not self.model.exists())

    def keep(self, result: Result) -> None:
        """Write what came of it, whole or not at all."""
        write_atomically(self.folder / RESULT, json.dumps(result.model_dump(mode="json"), indent=1).encode())


class Experiment:
    """The trainings that a configuration asks for, in the folder where they are kept.

    Processes that work in one folder at the same time share the trainings: each takes one that no other has.

    Args:
        config: the configuration.
        contract: of its samples.
    """

    def __init__(self, config: ExperimentConfig, contract: Contract) -> None:
        self.config = config
        self.contract = contract
        self.folder = Path(config.output)

    def trial(self, variant: str, point: Point, seed: int) -> Trial:
        """A training; variants that ask for the same one share it."""
        config = self.config.trial(variant, point, seed)
        folder = self.folder / "trials" / f"{config.model.name}-{training_key(config, self.contract)}"
        return Trial(variant, point, seed, config, folder)

    def best_point(self, variant: str) -> Point | None:
        """Where on the grid a variant has the lowest logloss on the validation split; None while some points have no result.

        Raises:
            ExperimentError: no point has a logloss that is a number.
        """
        found = {}
        for point in self.config.points(variant):
            result = self.trial(variant, point, self.config.seeds[0]).result()
            if result is None:
                return None
            if result.failed is None:
                found[point] = result.validation["logloss"]
        if not found:
            raise ExperimentError(
                f"{variant}: no training of the grid came to an end with a loss that is a number; take lower learning rates"
            )
        return min(found, key=lambda point: found[point])

    def chosen(self, variant: str) -> list[Trial]:
        """A variant's trainings at its best point, one a seed; empty while it is not known.

        Raises:
            ExperimentError: see :meth:`best_point`.
        """
        point = self.best_point(variant)
        return [] if point is None else [self.trial(variant, point, seed) for seed in self.config.seeds]

    def open_trials(self) -> Iterator[Trial]:
        """The trainings that have not ended, as far as they are known."""
        seen = set()
        grid_trials = (self.trial(variant, point, self.config.seeds[0]) for variant, point in self.config.points_by_variant())
        seed_trials = (trial for variant in self.config.variants for trial in self.chosen(variant))
        for trials, model in ((grid_trials, False), (seed_trials, True)):
            for trial in trials:
                if trial.folder not in seen and trial.is_open(model):
                    seen.add(trial.folder)
                    yield trial

    def claim(self) -> tuple[Trial, FileLock] | None:
        """A training that has not ended and that no other process has, and the lock that keeps it so.

        Returns:
            None when all have ended.

        Raises:
            Timeout: others have all that are open.
        """
        busy = None
        for trial in self.open_trials():
            lock = self.lock(f"trials/{trial.folder.name}/lock")
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                busy = error
                continue
            if trial.is_open(model=True):
                return trial, lock
            lock.release()  # another process has ended it in this moment
        if busy is not None:
            raise busy
        return None

    def lock(self, name: str) -> FileLock:
        """A lock among processes, which the system opens when its holder ends, however it does."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)


def shown(point: Point) -> dict[str, Any]:
    """A point by the last parts of its keys."""
    return {key.rpartition(".")[2]: value for key, value in point}
