"""What samples depend on: the configuration, the code's rules, the vocabularies, and the rows that they are made from."""

from __future__ import annotations

import datetime as dt
from typing import Any

from mian.contract.document import fingerprint
from pipeline.config import DataConfig

#: The version of the rules that make samples from logs. Whoever changes a rule, so that the same logs give other samples, or changes
#: the default of an option that decides them, adds one: all days are then built anew, as a new generation.
SAMPLES_VERSION = 2

#: What a build may say anew without another sample coming out: where they go, how much is done at once, which days are known to be what.
_ELSEWHERE = {
    "simulate", "splits", "name", "samples", "logs", "sampling", "quality", "rows_per_pass", "keep_generations",
}  # fmt: skip
#: Parts of the configuration that decide files, but no id: days that differ in them can be published together.
_OF_FILES = {"rows_per_file", "examples_per_day"}


def vocabulary_fingerprint(config: DataConfig) -> str:
    """Of what vocabularies are made with; not of the logs' contents: once made, they stay."""
    kept = {part: value for part, value in setting_fingerprints(config).items() if part not in _OF_FILES}
    return fingerprint({**kept, "samples_version": SAMPLES_VERSION})


def setting_fingerprints(config: DataConfig) -> dict[str, str]:
    """Of each part of the configuration that samples depend on, by its name."""
    return {part: fingerprint(value) for part, value in _settings(config).items()}


def settings_fingerprint(config: DataConfig) -> str:
    """Of what samples depend on, but for where they go and what they are called."""
    return fingerprint(_settings(config))


def day_fingerprint(config: DataConfig, day: dt.date, vocabularies: str, inputs: str) -> str:
    """Of all that one day's samples depend on."""
    parts = {"config": _settings(config), "kept": config.sampled(day), "samples_version": SAMPLES_VERSION}
    return fingerprint({**parts, "vocabularies": vocabularies, "held_out": day not in config.splits["train"], "inputs": inputs})


def _settings(config: DataConfig) -> dict[str, Any]:
    # without defaults, so that an option of a later release changes nothing where it is not used
    settings = config.model_dump(mode="json", exclude=_ELSEWHERE, exclude_defaults=True, by_alias=True)
    settings["log"] = {key: value for key, value in settings["log"].items() if key not in ("empty_days", "complete_to")}
    return settings | {"clock_skew_seconds": config.quality.clock_skew_seconds}
