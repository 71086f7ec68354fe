"""From a tar's members to samples: grouped by WebDataset's rule, none lost without a reason.

A member's key is its path up to the first dot of the file name; the rest, in lower case, is its
extension. Members of a sample may be interleaved with others'. A sample has an image and a caption; where they
stand, and what a uid is made of, says `mmfilter.fields`. A json is optional. One that lacks something is a
`Failure` with a status:

missing_image missing_text    there is none (open_clip drops such silently)
missing_json        there is none, bytes were lost beside the sample, and others of the shard have one;
                    so with missing_text
image_empty         the image has no bytes
text_not_utf8       the caption is not UTF-8
text_too_long       the caption is over `max_text_bytes`
json_malformed      not JSON, not UTF-8, not a mapping, or two different uids
uid_repeated        a second sample with this uid in the shard
key_repeated        more members of a key whose sample was complete: the first one stands
member_too_large    over 1 GiB
content_error       anything else in its name, json or caption that raises an error
member_sparse member_continued    its bytes do not stand in the tar as they are
lost                the parquet or _stats.json beside the tar tells of it, the tar does not hold it
unreadable          no tar is there, or a pipe or a device in its place
empty not_a_tar corrupt_header truncated  bytes were lost and nothing tells which samples were in them
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from . import storage
from .errors import check_environment
from .expected import expected_failures, expected_keys
from .fields import (
    CONTENT,
    SHOWN,
    Problem,
    ReadOptions,
    Uid,
    content_uid,
    derived_uid,
    find_caption,
    is_copy,
    is_image,
    parse_json,
    stated_uid,
)
from .groups import Group
from .member_names import split_name, stand_apart, wanted_bytes
from .records import Failure, Sample, failure_of
from .tar import HARMLESS, Gap, Member, members
from .tar_entries import UNREAD
from .text import valid_text

HELD = 1 << 30  # bytes of incomplete samples in memory; past it the oldest is given up as incomplete
DAMAGE = frozenset({"empty", "not_a_tar", "corrupt_header", "truncated"})  # notes that failures tell of too
WINDOW = 64  # samples that wait for a json or a caption file which most pools of their kind do not have


def read_samples(
    path: str, options: ReadOptions = ReadOptions(), notes: Counter[str] | None = None, want_images: bool = True
) -> Iterator[Sample | Failure]:
    """Every sample of the shard at `path` once, well or failed, in the tar's order; then what is lost.

    `notes` counts what happened to the file as a whole. With `want_images` False only the first bytes of images
    are read (a reshard's index, a lint), unless uids are made of them. Never raises on content, and never takes the
    environment's fault for content: raises MachineError where the tar is there and cannot be read to its end.
    """
    reader = _Reader(path, options, Counter() if notes is None else notes)
    try:
        stream = storage.open_read(path)
    except OSError as error:
        check_environment(path, error)
        lost = expected_failures(path)
        why = f"{path} cannot be opened: {error.strerror or error}"
        yield from ([Failure(f.key, f.uid, "lost", why) for f in lost] or [Failure("", "", "unreadable", why)])
        return
    with stream, storage.reading(path):
        for entry in members(stream, wanted_bytes(options, want_images), reader.notes):
            yield from reader.take(entry)
    yield from reader.finish()


class _Reader:
    """Groups members and turns each group into a Sample or a Failure."""

    def __init__(self, path: str, options: ReadOptions, notes: Counter[str]) -> None:
        self.path, self.shard, self.options, self.notes = path, storage.stem(path), options, notes
        self.captions = options.caption_members
        self.open: dict[str, Group] = {}
        self.last: Group | None = None
        self.held = 0
        self.interleaved = False  # members of a sample stood apart: no sample is closed before it is complete
        self.finished: set[str] = set()
        self.uids: set[str] = set()
        self.again: dict[str, list[int]] = {}  # where members of a finished sample stand, an entry for each image
        self.scanned = False
        self.gaps: list[Gap] = []
        self.incomplete = 0
        self.jsons = self.bare = self.texts = 0  # samples with a json, without one, with a caption member
        self.known = False  # whether the files beside the tar tell what was in it

    def take(self, entry: Member | Gap) -> Sequence[Sample | Failure]:
        """The samples that are whole, or given up, now that this entry has come."""
        if isinstance(entry, Gap):
            self.notes[entry.status] += 1
            if entry.status not in HARMLESS:
                self.gaps.append(entry)
            if self.last is not None and (entry.status == "no_end" or entry.status not in HARMLESS):
                self.last.damaged = True
            return ()
        if entry.kind != "file" and entry.kind not in UNREAD:
            self.notes[f"member_{entry.kind}"] += 1
            return ()
        key, extension = split_name(entry.name)
        if not key:
            self.notes["member_without_key"] += 1
            return ()
        done = []
        if self.last is not None and self.last.key != key:
            self.interleaved = self.interleaved or key in self.open
            if self.last.complete:
                done.append(self._close(self.last))
            elif len(self.open) > WINDOW and self._contiguous():
                first = next(iter(self.open.values()))
                if first.sufficient(self.captions):
                    done.append(self._close(first))
        group = self.open.get(key)
        if key in self.finished or (group is not None and self._starts_again(group, extension)):
            places = self.again.setdefault(key, [])
            if not places or is_image(extension):
                places.append(entry.header)
            return done
        if group is None:
            group = self.open[key] = Group(key)
        self._add(group, extension, entry)
        while self.held > HELD and len(self.open) > 1:
            done.append(self._close(next(iter(self.open.values()))))
        return done

    def _contiguous(self) -> bool:
        """Whether a sample's members stand together, so that one without a json need not be held to the tar's end.

        The names of a local tar are read ahead for it, once: its jsons or captions may all stand behind its images.
        """
        if not self.scanned and not self.interleaved:
            self.scanned = True
            self.interleaved = not storage.is_remote(self.path) and stand_apart(self.path)
        return not self.interleaved

    def _starts_again(self, group: Group, extension: str) -> bool:
        """Whether this is the image of a second sample of a key whose first one needs nothing more."""
        return extension in group.parts and is_image(extension) and group.sufficient(self.captions)

    def _add(self, group: Group, extension: str, entry: Member) -> None:
        self.last = group
        self.held += group.add(extension, entry, self.captions)

    def _close(self, group: Group) -> Sample | Failure:
        del self.open[group.key]
        self.finished.add(group.key)
        self.held -= group.bytes
        self.last = None if self.last is group else self.last
        try:
            result = self._sample(group)
        except Exception as error:  # whatever stands in a sample costs this sample alone
            result = failure_of(group.key, "", error)
        if isinstance(result, Failure):
            self.incomplete += result.status.startswith("missing_")
        return result

    def finish(self) -> Iterator[Sample | Failure]:
        """What is still open, what came twice, and what should have been there."""
        for group in list(self.open.values()):
            yield self._close(group)
        for key, places in self.again.items():
            for at in places:
                why = f"more members of a finished sample from byte {at} on; the first stands"
                yield Failure(key, "", "key_repeated", why)
        lost = self._lost()
        yield from lost
        if not self.finished and not self.gaps and not lost:
            self.notes["no_samples"] += 1
        if self.gaps and not lost and not self.incomplete and not self.known:
            for gap in self.gaps:  # nothing else tells of these bytes
                yield Failure("", "", gap.status, gap.error)

    def _lost(self) -> list[Failure]:
        why = "; ".join(gap.error for gap in self.gaps[:3]) or "the tar holds no member of it"
        keys = expected_keys(self.path, wanted=bool(self.gaps or self.incomplete))
        self.known = keys is not None and (bool(keys) or not self.finished)  # none told of, and some here: it lies
        seen = {key.rsplit("/", 1)[-1] for key in self.finished}
        if isinstance(keys, dict) and (not seen or seen & keys.keys()):
            return [Failure(key, uid, "lost", why) for key, uid in keys.items() if key not in seen]
        count = len(keys) if isinstance(keys, dict) else keys
        if isinstance(keys, dict) and keys:
            self.notes["parquet_of_other_keys"] += 1
        return [Failure("", "", "lost", why) for _ in range((count or 0) - len(self.finished))]

    def _part_lost(self, group: Group) -> Problem:
        """Of a sample beside which bytes were lost: whether they took its json or its caption member.

        It lacks what others of its shard have: its uid is not known, or its caption would be another.
        """
        has = f"; it has: {', '.join(list(group.parts)[:SHOWN])}"
        if "json" not in group.parts and (self.jsons or self.bare == 1):
            return "missing_json", f"bytes of the tar are lost where its json may have stood{has}"
        if self.texts and not any(name in group.parts for name in self.captions):
            return "missing_text", f"bytes of the tar are lost where its caption may have stood{has}"
        return None

    def _uid(self, group: Group, meta: dict[str, Any], text: str, sound: bool) -> Uid:
        """Stated or derived; made of the content only where the sample is sound."""
        uid = stated_uid(meta, self.options) or derived_uid(self.shard, group.key, self.options)
        if self.options.uids != CONTENT or uid.note != "uid_derived":
            return uid
        return Uid(content_uid(group.parts[group.image].data, text) if sound else "", note=uid.note)

    def _sample(self, group: Group) -> Sample | Failure:
        """Check a group part by part; the first thing wrong is its status."""
        parts, notes = group.parts, group.notes
        meta: dict[str, Any] = {}
        problem: Problem = None
        json = parts.get("json")
        if json is not None:
            self.jsons += 1
            meta, problem = parse_json(json.data)
        else:
            self.bare += 1
        caption, text, text_problem = find_caption(parts, meta, self.options, self.captions)
        lost = self._part_lost(group) if group.damaged else None
        self.texts += caption in self.captions
        unread = problem is not None or (lost is not None and lost[0] == "missing_json")  # it may state a uid
        problem = group.problem() or lost or problem or text_problem
        uid, stated, note = Uid("") if unread else self._uid(group, meta, text, problem is None)
        if note:
            notes.append(note)
        if problem is None and uid in self.uids and not (self.options.copies and is_copy(group.key, uid)):
            problem = ("uid_repeated", "an earlier sample of this shard has the same uid")
        if problem is not None:
            return Failure(group.key, uid, *problem)
        self.uids.add(uid)
        if caption != "txt":
            notes.append(f"caption_{caption}")
        image = parts[group.image]
        url = meta.get("url")
        listed = [(extension, part.offset, part.size, part.check) for extension, part in parts.items()]
        return Sample(
            valid_text(group.key),
            uid,
            text,
            valid_text(url) if isinstance(url, str) else "",
            image.data,
            meta,
            image.offset,
            image.size,
            listed,
            notes,
            group.image,
            caption,
            stated,
            b"" if json is None else json.data,
        )
