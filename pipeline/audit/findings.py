"""What an audit found, and how it says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

#: Findings of one kind that are written out; the others are counted.
SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """One thing that is not as the logs say.

    ``kind`` is one of ``file``, ``field``, ``impression``, ``missing``, ``quarantine``, ``time``, ``label``, ``negative``, ``value``,
    ``history``, ``future behavior``, ``behavior``, ``vocabulary``, ``transform``, ``leak``; see
    ``docs/how-to/audit.md``. ``count`` is greater than 1 where a finding stands for others like it that are not written out.
    """

    kind: str
    samples: str
    """What the samples hold."""
    logs: str
    """What the logs say."""
    day: str = ""
    impression_id: str = ""
    column: str = ""
    count: int = 1


@dataclass
class Report:
    """What was checked, what was not, and what was found."""

    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def found(self, kind: str) -> list[Finding]:
        """The findings of a kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def text(self) -> str:
        """The report as it is printed."""
        lines = ["checked:", *[f"  {line}" for line in self.checked]]
        if self.notes:
            lines += ["notes:", *[f"  {line}" for line in self.notes]]
        totals: Counter[str] = Counter()
        for finding in self.findings:
            totals[finding.kind] += finding.count
        for kind, total in totals.items():
            examples = [finding for finding in self.found(kind) if finding.samples or finding.logs][:SHOWN]
            lines.append(f"{kind}: {total:,} {'finding' if total == 1 else 'findings'}")
            lines += [f"  {_line(finding)}" for finding in examples]
            if total > len(examples):
                lines.append(f"  ... and {total - len(examples):,} more")
        total = sum(totals.values())
        lines.append(f"{total:,} {'finding' if total == 1 else 'findings'}" if total else "nothing found")
        return "\n".join(lines)


def _line(finding: Finding) -> str:
    place = "  ".join(part for part in (finding.day, finding.impression_id, finding.column) if part)
    return f"{place}{': ' * bool(place)}the samples hold {finding.samples}; the logs say {finding.logs}"
