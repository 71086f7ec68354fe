"""What form a pool has: where its captions, uids and images stand, found by reading the first few samples."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .errors import TransientError
from .fields import JSON_FIELD, ReadOptions
from .images import DecodeError, image_ending, probe
from .records import Failure, Sample
from .samples import read_samples
from .text import cut

LOOKED_AT = 20  # samples
DERIVED = "derived from"
SHARDS = 3  # of which no more are opened for them
UNLIKE = {
    "missing_text": "Name the members or json fields that hold captions: --captions 'a;b' (or `read: {captions: ...}`)",
    "missing_image": "A sample needs an image member (jpg, png, webp, gif, bmp, tiff), e.g. 000.jpg beside 000.txt",
    "text_not_utf8": "Captions are UTF-8: convert them, or name others with --captions",
    "text_too_long": "Allow longer captions in the recipe (`read: {max_text_bytes: N}`)",
    "json_malformed": "Each json is one mapping in UTF-8: write them again",
    "too_many_pixels": "Allow larger images in the recipe (`read: {max_pixels: N}`)",
    "uid_repeated": "The json's uid is the same in all: name another field with --uids json.FIELD",
    "format_not_allowed": "Allow the format in the recipe (`read: {avif: true}`), or convert the images",
}
"""Statuses that tell of a pool's form and not of damage, and what to do where all samples have them."""


@dataclass
class Form:
    """What the first samples look like. Counters map where something stood to how many samples had it there."""

    read: int = 0
    captions: Counter[str] = field(default_factory=Counter)
    uids: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    endings: set[str] = field(default_factory=set)
    jsons: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    uid_field: str = ""  # of --uids json.FIELD
    how: str = ""

    @property
    def valid(self) -> int:
        return self.read - sum(self.failed.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for json."""
        counted = {"captions": self.captions, "uids": self.uids, "images": self.images, "failed": self.failed}
        return {"read": self.read, "json": self.jsons, **{what: dict(counts) for what, counts in counted.items()}}

    def lines(self) -> list[str]:
        """What was found where, for a person."""
        shown = [f"fields of the first {self.read} samples:"]
        for what, counts in (("captions", self.captions), ("uids", self.uids), ("images", self.images)):
            shown.append(f"  {what:<9} " + (", ".join(f"{name} {n}" for name, n in counts.most_common()) or "none"))
        shown.append(f"  {'json':<9} {self.jsons}")
        return shown + [f"  {'failed':<9} {status} {n}: {self.first[status]}" for status, n in self.failed.items()]

    def problem(self) -> str | None:
        """Why no sample of this pool can be used, and what to do; None where some can, or where damage is why."""
        if self.uid_field and self.jsons and set(self.uids) == {f"{DERIVED} {self.how}"}:
            absent = f"--uids json.{self.uid_field}: none of the first {self.jsons} jsons has this field"
            return f"{absent}. Name one that they have; --keep-going runs all the same"
        unlike = [status for status in self.failed if status in UNLIKE]
        usable = self.valid - (self.valid == 1 and self.failed["uid_repeated"] > 1)  # the first of them all
        if usable or not unlike:
            return None
        status = max(unlike, key=self.failed.__getitem__)
        return (
            f"none of the first {self.read} samples can be used: {self.failed[status]} x {status}, the first: "
            f"{self.first[status]}. {UNLIKE[status]}. --keep-going runs all the same"
        )


def look_at_form(paths: Iterable[str], read: ReadOptions, most: int = LOOKED_AT) -> Form:
    """The form of the first `most` samples; a shard that cannot be read is passed over. Never raises on content.

    Raises TransientError where no shard can be read.
    """
    named = read.uids.removeprefix(JSON_FIELD) if read.uids.startswith(JSON_FIELD) else ""
    form = Form(uid_field=named, how=read.how)
    raised = None
    for path in list(paths)[:SHARDS]:
        try:
            for sample in read_samples(path, read):
                if isinstance(sample, Failure) and not sample.key:
                    continue  # damage of the file
                _add(form, sample, read)
                if form.read >= most:
                    return form
        except TransientError as error:
            raised = error
    if raised is not None and not form.read:
        raise raised
    return form


def _add(form: Form, sample: Sample | Failure, read: ReadOptions) -> None:
    form.read += 1
    failure = sample if isinstance(sample, Failure) else _not_allowed(sample, read)
    if failure is not None:
        form.failed[failure.status] += 1
        form.first.setdefault(failure.status, f"{cut(failure.key)}: {failure.error}")
    if isinstance(sample, Sample):
        form.captions[sample.caption] += 1
        form.uids[_uid_of(sample, read)] += 1
        form.images[image_ending(sample.image) or "unknown"] += 1
        form.endings.add(sample.image_member)
        form.jsons += bool(sample.json)


def _uid_of(sample: Sample, read: ReadOptions) -> str:
    if "uid_derived" in sample.notes:
        return f"{DERIVED} {read.how}"
    if "uid_hashed" in sample.notes:
        return "hashed from the json's identifier"
    return "json" if sample.json else "key"


def _not_allowed(sample: Sample, read: ReadOptions) -> Failure | None:
    """A failure where the image's format is not allowed; other faults of an image are damage, met later."""
    try:
        probe(sample.image, read.limits)
    except DecodeError as error:
        return Failure(sample.key, sample.uid, error.status, error.error)
    return None
