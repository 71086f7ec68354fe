"""What a lint of a pool found, and how it is told to a person or a program."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from .form import Form

SEVERITIES = ("error", "warning", "note")  # data is lost or will be; some samples are set aside; good to know
ASIDE = "such samples are set aside with this status; mend or drop them"
SHOWN = 3  # shards named in a line


@dataclass(frozen=True)
class Finding:
    """`what` in a word, `text` in a sentence, `todo` what to do; `shard` is "" for the pool as a whole."""

    severity: str
    what: str
    shard: str
    count: int
    text: str
    todo: str = ""


@dataclass
class PoolReport:
    """The pool in numbers, and its findings: worst first, then by shard."""

    shards: int
    samples: int  # well
    failed: dict[str, int]
    bytes: int
    findings: list[Finding] = field(default_factory=list)
    form: Form | None = None
    held: int = 0  # samples whose image is in a tar, valid or not

    @property
    def errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def set_aside(self) -> bool:
        """Whether there are samples that a run sets aside; the copies in a resharded pool are none."""
        return any(finding.what in self.failed for finding in self.findings) or bool(self.of_form())

    def of_form(self) -> list[Finding]:
        """What only the first samples show, of which whole images were read."""
        if self.form is None:
            return []
        read, first = self.form.read, self.form.first
        return [
            Finding("warning", status, "", n, f"{n} of the first {read} samples: {first[status]}", ASIDE)
            for status, n in self.form.failed.items()
            if status not in self.failed
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        return {**asdict(replace(self, form=None)), "form": self.form.to_dict() if self.form else None}

    def lines(self) -> list[str]:
        """For a person: a head line, then one for each kind of finding, and what to do about it."""
        failed = sum(self.failed.values())
        told = [f"{self.shards:,} shards, {self.bytes:,} bytes: {self.samples:,} samples are well, {failed:,} are not"]
        kinds: dict[tuple[str, str, str], list[Finding]] = {}
        for finding in self.findings:
            kinds.setdefault((finding.severity, finding.what, finding.todo), []).append(finding)
        for (severity, what, todo), found in kinds.items():
            told.append(f"{severity:8}{what}: {_told(found)}")
            if todo:
                told.append(f"{'':8}-> {todo}")
        told += self.form.lines() if self.form else []
        return told if self.findings else [*told, "nothing to complain of"]


def _told(found: list[Finding]) -> str:
    """One finding in its own words; several of a kind by their sum, their shards and the first one's words."""
    first = found[0]
    if len(found) == 1:
        return f"{first.shard}: {first.text}" if first.shard else first.text
    names = ", ".join(finding.shard for finding in found[:SHOWN]) + (", ..." if len(found) > SHOWN else "")
    return f"{sum(f.count for f in found):,} in {len(found):,} shards ({names}); the first: {first.text}"


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.what, f.shard, f.text))


def total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """The sum of counters, by name."""
    whole: Counter[str] = Counter()
    for count in counts:
        whole.update(count)
    return dict(sorted(whole.items()))
