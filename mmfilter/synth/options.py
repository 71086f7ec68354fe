"""What to generate, and what was generated."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import UsageError, nearest

KINDS: Mapping[str, float] = {
    "clean": 0.49,
    "wrong_caption": 0.20,
    "duplicate_exact": 0.03,
    "duplicate_reencoded": 0.03,
    "duplicate_resized": 0.03,
    "duplicate_cropped": 0.03,
    "other_language": 0.06,
    "short_caption": 0.03,
    "tiny": 0.02,
    "narrow": 0.02,
    "text_image": 0.03,
    "boilerplate": 0.03,
}
"""Every kind of sample and its share of a noisy pool, unless told otherwise."""

MISMATCHED = frozenset({"wrong_caption", "text_image", "boilerplate"})
"""Kinds whose caption does not describe what is to be seen."""


@dataclass(frozen=True, slots=True)
class SynthOptions:
    """`size` is the short side of a scene in px, `captions` how many captions each scene gets.

    `noise` is True for the shares in `KINDS`, False for clean pairs only, or shares by kind: those
    not named are 0 and `clean` takes what is left. The kinds' numbers are exact, not drawn.
    """

    samples: int = 2000
    per_shard: int = 1000
    seed: int = 0
    size: int = 112
    captions: int = 1
    noise: bool | Mapping[str, float] = True
    workers: int = 1

    def shares(self) -> dict[str, float]:
        """Kind -> share, in the order of `KINDS`, summing to 1. Raises UsageError."""
        if self.noise is True:
            return dict(KINDS)
        given = dict(self.noise) if isinstance(self.noise, Mapping) else {}
        for kind in given:
            if kind not in KINDS:
                raise UsageError(f"noise: no kind is called '{kind}'{nearest(kind, KINDS)} Known: {', '.join(KINDS)}")
        rest = 1.0 - sum(share for kind, share in given.items() if kind != "clean")
        if min([rest, *given.values()]) < -1e-9:
            raise UsageError(f"noise: the shares {given} must be at least 0 and sum to at most 1")
        return {kind: max(rest, 0.0) if kind == "clean" else given.get(kind, 0.0) for kind in KINDS}

    def check(self) -> None:
        """Raises UsageError for what cannot be generated."""
        limits = {"samples": (1, 10**9), "per_shard": (1, 10_000), "size": (64, 512), "captions": (1, 20)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be from {low} to {high}")
        self.shares()


@dataclass(frozen=True, slots=True)
class SynthReport:
    """Where the pool and its labels are, and how many samples of each kind it holds."""

    out: str
    labels: str
    samples: int
    shards: int
    seconds: float
    kinds: dict[str, int] = field(default_factory=dict)
