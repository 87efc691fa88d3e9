"""The document of a decision: what was asked, what was found, and what comes of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from mian.promotion.settings import PromotionConfig

State = Literal["pass", "fail", "cannot tell"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GateResult(_Strict):
    """What a gate says."""

    gate: str
    state: State
    """Only ``fail`` refuses a version."""
    reason: str
    """One sentence for people, with the figures that decide."""
    remedy: str = ""
    """What to do where the gate fails."""
    figures: dict[str, float | None] = {}
    """By name; None where a figure is undefined."""


class Evidence(_Strict):
    """The rows that both models were scored on."""

    first: dt.date
    last: dt.date
    days: int
    rows: int
    clicks: int
    users: int
    metrics: dict[str, dict[str, float | None]]
    """By version, the metrics of :func:`mian.metrics.evaluate`; None where one is undefined."""


class Decision(_Strict):
    """What ``promotion.json`` holds."""

    format: Literal["mian-promotion"] = "mian-promotion"
    version: Literal[1] = 1
    model: str
    """The registered name."""
    candidate: str
    """The number of its version."""
    champion: str | None
    """The number of the version that the alias was at; None where there was none."""
    alias: str
    decided: dt.datetime
    """UTC."""
    gates: tuple[GateResult, ...]
    evidence: Evidence | None
    """None where there were no days to compare on."""
    settings: PromotionConfig

    @property
    def is_promoted(self) -> bool:
        """Whether no gate fails."""
        return not self.failed

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The gates that refuse the candidate."""
        return tuple(gate for gate in self.gates if gate.state == "fail")

    def text(self, dry_run: bool = False) -> str:
        """The decision as it is printed; ``dry_run``: of a promotion that moves nothing."""
        width = max(len(gate.gate) for gate in self.gates)
        lines = [f"{gate.gate:<{width}}  {gate.state:<11}  {gate.reason}" for gate in self.gates]
        return "\n".join([*lines, "", self.headline(dry_run), *(f"  {line}" for line in self.next_steps())])

    def headline(self, dry_run: bool = False) -> str:
        """One sentence; ``dry_run``: of a promotion that moves nothing."""
        if self.is_promoted and dry_run:
            return f"Dry run: version {self.candidate} of {self.model} passes every gate; it was not promoted."
        if self.is_promoted:
            before = "the first champion" if self.champion is None else f"in the place of version {self.champion}"
            return f"Promoted: version {self.candidate} of {self.model} passes every gate and serves as {self.alias}, {before}."
        stays = "there is no champion yet" if self.champion is None else f"version {self.champion} stays {self.alias}"
        return f"Refused: version {self.candidate} of {self.model} does not serve; {stays}."

    def next_steps(self) -> Sequence[str]:
        """What to do now, a sentence a failed gate."""
        return [gate.remedy for gate in self.failed if gate.remedy]
