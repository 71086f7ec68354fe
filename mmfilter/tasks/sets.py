"""Evaluation sets in CLIP_benchmark's WebDataset layout, on disk or at an fsspec URL, read strictly.

``ROOT/{split}/nshards.txt`` and ``ROOT/{split}/{0..n-1}.tar``; beside them ``classnames.txt``,
``zeroshot_classification_templates.txt`` and ``dataset_type.txt`` (retrieval, multilabel, or none). A sample is
an image (webp, png, jpg, jpeg) with ``cls`` (a class), ``txt`` (captions, one a line) or ``npy`` (numbers).
"""

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from .. import storage
from ..errors import DataError
from ..member_names import split_name
from ..records import Failure
from ..samples import HELD
from ..tar import HARMLESS, WHOLE, Gap, Member, members
from ..tar_entries import UNREAD, unread

IMAGES = ("webp", "png", "jpg", "jpeg")  # in CLIP_benchmark's order of preference
BLIND = ("http", "https", "hf")  # nothing lists what lies beside each other there: only known names are looked for
KINDS = ("classification", "multilabel", "retrieval")
MAX_SHARDS = 1 << 20
LINE_END = re.compile(r"\r\n|\r|\n")


class MissingSet(DataError):
    """The set, or a part without which it cannot be measured, is not where it was looked for."""


@dataclass(frozen=True)
class EvalSet:
    """A set's text files, read. `classnames` are in the labels' order, without empty lines at the end; `templates`
    are without any. Both tuples are empty where there is no file."""

    root: str
    split: str
    kind: str
    shards: int
    classnames: tuple[str, ...]
    templates: tuple[str, ...]

    @property
    def files(self) -> list[str]:
        """All that it is read from, there or not."""
        texts = ("classnames.txt", TEMPLATES, "dataset_type.txt")
        return [*(storage.join(self.root, name) for name in texts), *self.paths]

    @property
    def paths(self) -> list[str]:
        """The tars, in order."""
        return [storage.join(self.root, self.split, f"{i}.tar") for i in range(self.shards)]

    def need_classes(self) -> None:
        """Raises MissingSet where there is nothing to make a zero-shot classifier of, DataError where one that is made
        of these lines would measure nothing."""
        for name, there in (("classnames.txt", self.classnames), (TEMPLATES, self.templates)):
            if not there:
                raise MissingSet(
                    f"{storage.join(self.root, name)}: is not there or empty; a zero-shot classifier is "
                    "made of class names and templates, so fetch it from where the tars came from"
                )
        path = storage.join(self.root, "classnames.txt")
        if "" in self.classnames:
            raise DataError(
                f"{path}: line {self.classnames.index('') + 1} is empty; each line names the class of its number, "
                "so no name can be left out"
            )
        if len(set(self.classnames)) < 2:
            raise DataError(f"{path}: '{self.classnames[0]}' is the only class, and every answer would be right")
        for template in self.templates:
            if not template_is_usable(template):
                raise DataError(
                    f"{storage.join(self.root, TEMPLATES)}: {template[:80]!r} is no template; {{c}} stands for the "
                    "class's name in each line, and no other braces"
                )


@dataclass(slots=True)
class Item:
    """A sample whose members are there: the image file, and the others by extension.

    `position` is its place among the set's samples, where a task counts them: keys may stand again in another tar.
    """

    key: str
    image: bytes
    parts: dict[str, bytes]
    position: int = -1


HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
TEMPLATES = "zeroshot_classification_templates.txt"


def template_is_usable(template: str) -> bool:
    """Whether a class's name has a place in it, and nothing else has."""
    return "{c}" in template and not re.search("[{}]", template.replace("{c}", ""))


def open_set(root: str, split: str = "test") -> EvalSet:
    """Raises MissingSet when there is no nshards.txt, DataError when a file holds something else."""
    path = storage.join(root, split, "nshards.txt")
    told = _text(path)
    if told is None:
        raise MissingSet(f"{path}: is not there, so {root} is no evaluation set in CLIP_benchmark's layout")
    count = re.fullmatch("0*([0-9]{1,9})", told.strip())  # int() refuses thousands of digits with a ValueError
    if count is None or not 0 < int(count[1]) <= MAX_SHARDS:
        raise DataError(f"{path}: the number of tars is wanted, not {told.strip()[:40]!r}")
    kind = (_text(storage.join(root, "dataset_type.txt")) or "classification").strip().lower()
    if kind not in KINDS:
        raise DataError(f"{root}/dataset_type.txt: '{kind[:40]}' is none of {', '.join(KINDS)}")
    names, templates = (_lines(storage.join(root, name)) for name in ("classnames.txt", TEMPLATES))
    while names and not names[-1]:
        names.pop()
    return EvalSet(root, split, kind, int(count[1]), tuple(names), tuple(filter(None, templates)))


def is_set(root: str, split: str = "test") -> bool:
    """Is there a set at `root`?"""
    try:
        return storage.exists(storage.join(root, split, "nshards.txt"))
    except OSError:
        return False


def _text(path: str) -> str | None:
    try:
        return storage.read_bytes(path).decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text in UTF-8 ({str(error)[:120]})") from error


def _lines(path: str) -> list[str]:
    return [line.strip() for line in lines_of(_text(path) or "")]


def lines_of(text: str) -> list[str]:
    """The lines of a text file. `str.splitlines` would also split at characters of a name, such as U+2028."""
    return LINE_END.split(text)


def read_set(found: EvalSet, needed: tuple[str, ...]) -> Iterator[Item | Failure]:
    """Every sample once, by tar and place; one that lacks an image or a member of `needed` is a Failure.

    Statuses are those of `mmfilter.samples`, and missing_cls, missing_txt, missing_npy. Raises MissingSet
    when a whole tar cannot be opened: what is left of the set would be another set. So would be what nshards.txt
    counts where there are more tars, and a DataError is raised.
    """
    more = _uncounted(found)
    if more:
        raise DataError(
            f"{more}: nshards.txt counts {found.shards} tars, 0.tar to {found.shards - 1}.tar, and this is none of "
            "them; fetch the set again, or remove the file"
        )
    wanted = frozenset({*IMAGES, *needed})

    def want(name: str) -> int:
        return WHOLE * (split_name(name)[1] in wanted)

    for path in found.paths:
        try:
            stream = storage.open_read(path)
        except OSError as error:
            why = f"{path}: cannot be opened ({error.strerror or error}); nshards.txt says {found.shards} tars"
            raise MissingSet(f"{why}, so fetch it again") from error
        with stream:
            yield from _grouped(members(stream, want), needed)


def _uncounted(found: EvalSet) -> str:
    """A tar beside those that nshards.txt counts, or nothing. Where folders cannot be listed the next is looked for."""
    following = storage.join(found.root, found.split, f"{found.shards}.tar")
    if storage.exists(following):
        return following
    if found.root.split("://", 1)[0] in BLIND:
        return ""
    tars = storage.list_files(storage.join(found.root, found.split), ".tar")
    return next((path for path in tars if path not in set(found.paths)), "")


def _grouped(entries: Iterator[Member | Gap], needed: tuple[str, ...]) -> Iterator[Item | Failure]:
    """Members of a key as one sample; those of other samples may stand between them."""
    open_: dict[str, dict[str, Member]] = {}
    done: set[str] = set()
    again: set[str] = set()  # of which it has been said that more came
    held, last = 0, ""
    for entry in entries:
        if isinstance(entry, Gap):
            if entry.status not in HARMLESS:
                yield Failure("", "", entry.status, entry.error)
            continue
        key, extension = split_name(entry.name)
        if (entry.kind != "file" and entry.kind not in UNREAD) or not key:
            continue
        if last != key and last in open_ and _complete(open_[last], needed):
            held -= _bytes(open_[last])
            done.add(last)
            yield _item(last, open_.pop(last), needed)
        last = key
        if key in done:
            if key not in again:
                again.add(key)
                yield Failure(key, "", "key_repeated", f"more members ({extension}) of a sample that was complete")
            continue
        if extension not in open_.setdefault(key, {}):  # the first of a kind stands
            open_[key][extension] = entry
            held += len(entry.data)
        while held > HELD and len(open_) > 1:
            oldest = next(iter(open_))
            held -= _bytes(open_[oldest])
            done.add(oldest)
            again.add(oldest)
            yield _item(oldest, open_.pop(oldest), needed)
    for key, parts in open_.items():
        yield _item(key, parts, needed)


def _bytes(parts: dict[str, Member]) -> int:
    return sum(len(part.data) for part in parts.values())


def _complete(parts: dict[str, Member], needed: tuple[str, ...]) -> bool:
    return any(name in parts for name in IMAGES) and all(name in parts for name in needed)


def _item(key: str, parts: dict[str, Member], needed: tuple[str, ...]) -> Item | Failure:
    found = next((name for name in IMAGES if name in parts), None)
    if found is None:
        return Failure(key, "", "missing_image", f"no {', '.join(IMAGES)}; it has: {', '.join(parts)}")
    image = parts[found]
    for name in needed:
        if name not in parts:
            return Failure(key, "", f"missing_{name}", f"no {name}; it has: {', '.join(parts)}")
    for name in (found, *needed):
        if (problem := unread(parts[name].kind, parts[name].size, name)) is not None:
            return Failure(key, "", *problem)
    if image.size == 0:
        return Failure(key, "", "image_empty", "the image has no bytes")
    return Item(key, image.data, {name: parts[name].data for name in needed})


class BadLabel(ValueError):
    """`status` is the sample's, the message a sentence."""

    def __init__(self, status: str, error: str) -> None:
        super().__init__(error)
        self.status = status


def class_label(data: bytes, classes: int) -> int:
    """The class of a ``cls`` member, 0 to `classes` - 1. Raises BadLabel."""
    text = data.strip()
    if not text.isdigit() or len(text) > 9:
        raise BadLabel("label_malformed", f"cls holds {data[:40]!r}, not a whole number from 0")
    if int(text) >= classes:
        raise BadLabel("label_out_of_range", f"class {int(text)}; classnames.txt has 0 to {classes - 1}")
    return int(text)


def captions(data: bytes) -> tuple[str, ...]:
    """The captions of a ``txt`` member, one a line, blank ones left out. Raises BadLabel."""
    try:
        found = tuple(line for line in lines_of(data.decode("utf-8")) if line.strip())
    except UnicodeDecodeError as error:
        raise BadLabel("text_not_utf8", f"byte {error.start} of the captions is not UTF-8") from error
    if not found:
        raise BadLabel("text_empty", "no caption")
    return found


def numbers(data: bytes, length: int | None = None) -> np.ndarray:
    """(length,) int64 of an ``npy`` member: whole numbers. Raises BadLabel; never unpickles."""
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = HEADERS[np.lib.format.read_magic(stream)]
            shape, _, dtype = header(stream)
        if dtype.hasobject or dtype.itemsize * prod(shape) > len(data):
            raise ValueError(f"{dtype} of shape {shape} in {len(data)} bytes")
        array = np.frombuffer(data, dtype, prod(shape), stream.tell()).reshape(shape)
    except Exception as error:  # numpy's parser of headers raises whatever it pleases on hostile bytes
        raise BadLabel("label_malformed", f"npy cannot be read ({str(error)[:120]})") from error
    if array.ndim != 1 or dtype.kind not in "biuf" or (length is not None and len(array) != length):
        raise BadLabel(
            "label_malformed", f"npy holds {array.dtype} of shape {array.shape}, wanted are ({length},) numbers"
        )
    values = array.astype(np.float64)
    if not (np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**53)).all():
        raise BadLabel("label_malformed", "npy holds numbers that are not whole")
    return values.astype(np.int64)
