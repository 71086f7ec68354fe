"""Read a shard and decode its images in threads, ahead of the model, so that the device never waits.

A plan and what comes of it can be sent to another machine: decoding need not be where the model is.
"""

import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from . import narrow
from .ahead import ahead
from .culprits import culprits
from .fields import ReadOptions
from .images import decode, image_ending, probe
from .outgoing import TRAINED_ON
from .plugs import Score
from .preprocess import Preparation, draft, prepare
from .records import Failure, Sample, failure_of
from .samples import DAMAGE, read_samples

UNIT = 8192
"""Samples after which a shard's batches begin anew, so that it can be cut there and done by several workers
with the same bytes. Captions share a batch with those of their length within a unit alone: of 10,000 drawn
from 5,151 of the web's, the text tower (a tenth of the work) computes 2 % more tokens with a batch of 64, and
9 % with 256, than one sort of the shard would have it; with half the unit 5 and 20 %.
"""


LARGEST = 1 << 1023  # an integer beyond it is no float


class Clock:
    """Seconds by stage, added up over threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, started: float) -> float:
        """Add the time since `started` (time.perf_counter) to `stage`; returns now."""
        now = time.perf_counter()
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - started
        return now

    def add_all(self, seconds: Mapping[str, float]) -> None:
        """Add another clock's seconds."""
        with self._lock:
            for stage, much in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + much


@dataclass(frozen=True)
class FeedPlan:
    """What the model and the scores want of each image.

    `prepare` maps a preparation's key to how an image becomes uint8 (H, W, 3); models with the same
    preparation share one. With `pixels` False only the header is looked at, and only where the json
    has no size or a score wants the file. `scores` are called with each batch and its pixels; what of
    the pixels is wanted afterwards is in `kept` (image, bytes). `draft_side` > 0 lets large JPEGs be
    decoded at a fraction of their size (the option `decoder: fast`): it is the side in px that the
    largest model takes.
    Units before `first` and from `until` on are left to others.
    """

    read: ReadOptions
    pixels: bool
    scores: tuple[Score, ...] = ()
    kept: frozenset[str] = frozenset()
    prepare: Mapping[str, Preparation] = field(default_factory=dict)
    draft_side: int = 0
    batch_size: int = 64
    threads: int = 1
    first: int = 0
    until: int | None = None

    @cached_property
    def wanted(self) -> frozenset[str]:
        """What of a decoded sample its batch has to hold: some of image, bytes."""
        return self.kept.union(*(score.needs for score in self.scores))


@dataclass
class Opened:
    """One sample after decoding: its size in pixels and what the plan asked for."""

    sample: Sample
    sha256: str
    width: int
    height: int
    image: Image.Image | None
    arrays: dict[str, np.ndarray]


@dataclass
class Fed:
    """A batch of n samples of a unit: base columns as lists of n, uint8 (n, H, W, 3) by preparation, and what the
    plan's scores came to, (n,) by column. `pixels` are the lists that the plan keeps: image, bytes.
    """

    rows: dict[str, list[Any]]
    arrays: dict[str, np.ndarray]
    scored: dict[str, np.ndarray]
    pixels: dict[str, list[Any]]
    notes: Counter[str]
    unit: int = 0

    def __len__(self) -> int:
        return len(self.rows["uid"])

    def take(self, rows: list[int]) -> "Fed":
        """The samples at the positions `rows`, in that order."""
        if len(rows) == len(self):
            return self
        columns, pixels = ({k: [v[i] for i in rows] for k, v in held.items()} for held in (self.rows, self.pixels))
        arrays, scored = ({k: v[rows] for k, v in held.items()} for held in (self.arrays, self.scored))
        return replace(self, rows=columns, arrays=arrays, scored=scored, pixels=pixels)


Source = Callable[[str, FeedPlan, list[Failure], Clock], Iterator[Fed]]
"""Where a shard's batches come from: `feed`, or one that has another machine do it."""


def feed(path: str, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
    """Batches of a shard's well samples, in the tar's order; what cannot be read goes to `failures`.

    Batches depend on the shard and `batch_size` alone, never on timing, on the number of threads, or on
    which units are asked for. What is noted of the file as a whole comes last, as a batch without rows.
    """
    return ahead(_batches(path, plan, failures, clock))


def _batches(path: str, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
    batch: list[Opened] = []
    at, notes = plan.first, Counter[str]()
    for unit, opened in _opened(path, plan, failures, clock, notes):
        if batch and (unit != at or len(batch) == plan.batch_size):
            yield from _fed(batch, at, plan, failures, clock)
            batch = []
        batch.append(opened)
        at = unit
    if batch:
        yield from _fed(batch, at, plan, failures, clock)
    if plan.until is None and (whole := Counter({note: n for note, n in notes.items() if note not in DAMAGE})):
        yield Fed({"uid": []}, {}, {}, {}, whole, at)


def _opened(
    path: str, plan: FeedPlan, failures: list[Failure], clock: Clock, notes: Counter[str]
) -> Iterator[tuple[int, Opened]]:
    """(unit, sample) in order, decoded by a pool that works up to two batches ahead."""
    pending: deque[tuple[int, Future[Opened | Failure]]] = deque()
    threads = narrow.threads(plan.threads)
    window = max(1, 2 * plan.batch_size * threads // plan.threads)
    with ThreadPoolExecutor(threads, "decode") as pool:
        items = _read(path, plan, clock, notes)
        more = True
        while more or pending:
            while more and len(pending) < window:
                found = next(items, None)
                if found is None:
                    more = False
                elif isinstance(found[1], Failure):
                    failures.append(found[1])
                else:
                    pending.append((found[0], pool.submit(_open, found[1], plan, clock)))
            if pending:
                unit, future = pending.popleft()
                result = future.result()
                if isinstance(result, Failure):
                    failures.append(result)
                else:
                    yield unit, result


def _read(path: str, plan: FeedPlan, clock: Clock, notes: Counter[str]) -> Iterator[tuple[int, Sample | Failure]]:
    """(unit, item) of the plan's units. The tar is read from its start: what a key or uid repeats may stand there."""
    samples, well = read_samples(path, plan.read, notes), 0
    while True:
        started = time.perf_counter()
        item = next(samples, None)
        clock.add("read", started)
        unit = well // UNIT
        if item is None or (plan.until is not None and unit >= plan.until):
            return
        well += isinstance(item, Sample)
        if unit >= plan.first:
            yield unit, item


def _open(sample: Sample, plan: FeedPlan, clock: Clock) -> Opened | Failure:
    started = time.perf_counter()
    digest = hashlib.sha256(sample.image).hexdigest()
    started = clock.add("sha256", started)
    try:
        image: Image.Image | None = None
        arrays: dict[str, np.ndarray] = {}
        width, height = stated_size(sample.meta)
        if plan.pixels or not width or "bytes" in plan.wanted:  # a score of the file is given images alone
            seen = probe(sample.image, plan.read.limits)
            width, height = (width, height) if width else seen
        if not plan.pixels and image_ending(sample.image) not in TRAINED_ON:
            decode(sample.image, plan.read.limits)  # a reshard has to, so what cannot be decoded fails here
        if plan.pixels:
            image = _decoded(sample.image, plan)
            arrays = {key: prepare(image, how) for key, how in plan.prepare.items()}
    except Exception as error:  # whatever its picture raises costs this sample alone
        return failure_of(sample.key, sample.uid, error)
    finally:
        clock.add("decode", started)
    if "bytes" not in plan.wanted:
        sample.image = b""
    return Opened(sample, digest, width, height, image if "image" in plan.wanted else None, arrays)


def _decoded(data: bytes, plan: FeedPlan) -> Image.Image:
    if plan.draft_side and (drafted := draft(data, plan.draft_side)) is not None:
        return drafted
    return decode(data, plan.read.limits)


def stated_size(meta: Mapping[str, Any]) -> tuple[int, int]:
    """original_width and original_height of a sample's json, or (0, 0) when it has no sound ones."""
    size = meta.get("original_width"), meta.get("original_height")
    if all(isinstance(v, int) and not isinstance(v, bool) and 0 < v < 2**31 for v in size):
        return size  # type: ignore[return-value]
    return 0, 0


def _fed(batch: list[Opened], unit: int, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
    """The batch, scored while its pixels are at hand; without the samples of which a score raises an error."""
    rows, pixels = _columns(batch)
    started = time.perf_counter()

    def score(some: list[int]) -> dict[str, np.ndarray]:
        part = {name: [column[i] for i in some] for name, column in {**rows, **pixels}.items()}
        return {name: values for score in plan.scores for name, values in score(part).items()}

    scored, raised = culprits(score, len(batch))
    clock.add("score", started)
    if raised:
        failures += [failure_of(batch[i].sample.key, batch[i].sample.uid, error) for i, error in raised.items()]
        batch = [opened for i, opened in enumerate(batch) if i not in raised]
        rows, pixels = _columns(batch)
    arrays = {key: np.stack([opened.arrays.pop(key) for opened in batch]) for key in plan.prepare if batch}
    notes = Counter(note for opened in batch for note in opened.sample.notes)
    notes["sha256_mismatch"] = sum(o.sample.meta.get("sha256", o.sha256) != o.sha256 for o in batch)
    if batch:
        yield Fed(rows, arrays, scored, {name: pixels[name] for name in plan.kept}, notes, unit)


def _columns(batch: list[Opened]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """(base columns, pixels) of a batch."""
    samples = [opened.sample for opened in batch]
    rows: dict[str, list[Any]] = {
        "uid": [sample.uid for sample in samples],
        "url": [sample.url for sample in samples],
        "text": [sample.text for sample in samples],
        "original_width": [opened.width for opened in batch],
        "original_height": [opened.height for opened in batch],
        "face_bboxes": [_boxes(sample) for sample in samples],
        "sha256": [opened.sha256 for opened in batch],
        "key": [sample.key for sample in samples],
        "offset": [sample.offset for sample in samples],
        "size": [sample.size for sample in samples],
    }
    pixels: dict[str, list[Any]] = {"image": [opened.image for opened in batch]}
    return rows, {**pixels, "bytes": [sample.image for sample in samples]}


def _boxes(sample: Sample) -> list[list[float]]:
    """face_bboxes as it came, when it is a list of [x0, y0, x1, y1] that floating point can hold."""
    boxes = sample.meta.get("face_bboxes")
    if not isinstance(boxes, list):
        return []
    return [
        [float(v) for v in box]
        for box in boxes
        if isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)
        if not any(abs(v) > LARGEST for v in box if isinstance(v, int))
    ]
