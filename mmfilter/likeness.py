"""What a duplicate is to the sample that is kept for it, in words: each number is of the two that stand beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .allow import Allow
from .errors import MMFilterError
from .scores import SCORES

Told = Mapping[str, Any]
"""One of `index.evidence.Evidence.tell`."""
BITS = 64
STEPS = 6  # of a chain that are named


@dataclass(frozen=True)
class Likeness:
    """Of one sample: `duplicate`, how it stands to the one that is kept (None: it is no duplicate), and `stands_for`,
    of how many duplicates it is the one that is kept. `error` says why that is not known."""

    duplicate: dict[str, Any] | None = None
    stands_for: int = 0
    error: str = ""

    def lines(self) -> list[str]:
        """As the command line prints it, without indentation."""
        if self.error:
            return [f"duplicates cannot be compared: {self.error}"]
        if self.stands_for:
            return [f"the one that is kept of {self.stands_for + 1:,} duplicates"]
        return [] if self.duplicate is None else [f"duplicate of {self.duplicate['of']}", *sentences(self.duplicate)]


def evidence(out: str, metadata: str = "", allow: Allow = Allow()) -> Any:
    """The `index.evidence.Evidence` of a folder; None where its duplicates are not known. Raises MMFilterError."""
    return SCORES.get("duplicates").evidence(out, metadata or None, allow)


def read_likeness(out: str, uid: str, metadata: str = "", allow: Allow = Allow()) -> Likeness:
    """What is known of `uid` (32 hex)."""
    try:
        known = evidence(out, metadata, allow)
        row = -1 if known is None else known.find(uid)
        if row < 0:
            return Likeness()
        place, group = known.place_of(row), known.group_of(row)
        told = known.tell([place])[0] if place >= 0 else None
        return Likeness(told, int(known.sizes[group]) if group >= 0 else 0)
    except MMFilterError as error:
        return Likeness(error=str(error))


def number(told: Told) -> str:
    """What is measured of the two samples, that of the kind first: ``cosine 0.9312 by l14; 21 of 64 bits apart``."""
    if told["same_file"]:
        return "the same file"
    kind, others = told["kind"], [_cosine(told), _bits(told)]
    first = "not the same file" if kind == "exact" else ""
    if kind == "perceptual":
        others.reverse()
    return "; ".join(part for part in (first, *others) if part) or "not measured"


def sentences(told: Told) -> list[str]:
    """The kind and the numbers of a duplicate and the kept one; then the chain, where only one joins them."""
    found = [f"{told['kind'] or 'kind not known'}: {number(told)}"]
    if told["direct"] is False:
        found.append(f"that alone would not make it a duplicate: {chain(told)}")
    return found


def chain(told: Told) -> str:
    """Over which samples a duplicate joined the kept one."""
    steps = told["chain"]
    if not steps:
        return "it joined over other samples of the group, which cannot be told"
    named = [f"{step['uid']} ({_step(step)})" for step in steps[:-1]][:STEPS]
    more = len(steps) - 1 - len(named)
    rest = f", {more:,} more" if more > 0 else ""
    return f"it joined through {', then '.join(named)}{rest}, then the kept one ({_step(steps[-1])})"


def _step(step: Told) -> str:
    """The one number of a link: of its own kind."""
    if step["same_file"]:
        return "the same file"
    return _bits(step) if step["kind"] == "perceptual" else _cosine(step, named=False) or _bits(step)


def _cosine(told: Told, named: bool = True) -> str:
    if told["cosine"] is None:
        return ""
    what = " of captions" if told["modality"] == "text" else ""
    return f"cosine{what} {told['cosine']:.4f}" + (f" by {told['model']}" if named else "")


def _bits(told: Told) -> str:
    return "" if told["bits"] is None else f"{told['bits']} of {BITS} bits apart"
