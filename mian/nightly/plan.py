"""What a night is going to do, written down before it begins, so that a night that is started again does the same."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mian.atomic_write import write_atomically
from mian.contract import Split
from mian.contract.document import fingerprint
from mian.contract.lineage import Lineage
from mian.nightly.settings import NightlyConfig

PLAN_FILE = "plan.json"


class NightError(RuntimeError):
    """A night cannot go on; the message says which step, why, and where its log is."""


class Plan(BaseModel):
    """What ``plan.json`` of a night holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["mian-night"] = "mian-night"
    version: Literal[1] = 1
    day: dt.date
    settings: str
    """Fingerprint of the configurations."""
    train: Split
    validation: Split
    test: Split
    champion: str | None
    """The version that the training begins with, ``models:/mian/3``; None where it begins with nothing."""
    window_days: int | None
    """Training days of the training; None: all."""

    @property
    def overrides(self) -> list[str]:
        """The splits as arguments of ``build_samples``."""
        spans = {"train": self.train, "validation": self.validation, "test": self.test}
        return [f"splits.{name}.{end}={getattr(span, end)}" for name, span in spans.items() for end in ("first", "last")]


def make_plan(day: dt.date, config: NightlyConfig, settings: str, champion: str | None, lineage: Lineage | None) -> Plan:
    """Lay out the days of a night.

    Args:
        day: The last day of which there are logs.
        config: The settings.
        settings: Fingerprint of the configurations.
        champion: The version that serves, ``models:/mian/3``; None where nobody does.
        lineage: The champion's.

    Raises:
        NightError: There are too few days, or the champion has seen the days to compare on.
    """
    last = day - dt.timedelta(days=config.label_delay_days)
    test = Split(first=last - dt.timedelta(days=config.test_days - 1), last=last)
    before = test.first - dt.timedelta(days=1)
    validation = Split(first=before - dt.timedelta(days=config.validation_days - 1), last=before)
    end = validation.first - dt.timedelta(days=1)
    if end < config.first_day:
        raise NightError(
            f"the night of {day}: no training day is left, the first is {config.first_day} and the last would be {end}; name a later day"
        )
    train = Split(first=config.first_day, last=end)
    begins_with, window = None, config.window_days
    last_seen = None if lineage is None else lineage.last_seen
    if champion is not None and last_seen is None:
        raise NightError(
            f"{champion} does not say its training days, so that nothing can be compared with it; move its alias by hand to a version that "
            "does, or remove the alias, so that the next version is judged as the first champion"
        )
    if last_seen is not None and test.last <= last_seen:
        raise NightError(
            f"the night of {day}: {champion} was trained on or chosen by days up to {last_seen}, so that it cannot be compared on "
            f"those up to {test.last}; name a later day"
        )
    if config.begin_with == "champion" and champion is not None:
        trained = [used.day for used in lineage.days if used.use == "train"] if lineage is not None else []
        if not trained:
            raise NightError(f"{champion} does not say its training days; set begin_with: nothing for one night")
        window = (end - max(trained)).days
        if window < 1:
            raise NightError(
                f"the night of {day}: {champion} was trained up to {max(trained)}, so that no day is left to train on before "
                f"{validation.first}; name a later day"
            )
        begins_with = champion
    return Plan(
        day=day,
        settings=settings,
        train=train,
        validation=validation,
        test=test,
        champion=begins_with,
        window_days=window,
    )


def read_plan(folder: Path) -> Plan | None:
    """The plan of a night that was begun; None where it was not.

    Raises:
        NightError: The file is damaged.
    """
    path = folder / PLAN_FILE
    try:
        return Plan.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise NightError(f"{path}: damaged; remove the folder {folder} to begin the night anew") from error


def write_plan(folder: Path, plan: Plan) -> None:
    """Write the plan of a night; the file is whole or not there."""
    write_atomically(folder / PLAN_FILE, plan.model_dump_json(indent=1) + "\n")


def settings_fingerprint(config: NightlyConfig, overrides: list[str]) -> str:
    """Of the configurations that a night uses, files and all."""
    files = {name: Path(getattr(config, name)).read_text(encoding="utf-8") for name in ("data", "train", "promotion")}
    return fingerprint({"nightly": config.model_dump(mode="json"), "overrides": overrides, **files})
