"""Read a shard and decode its images in threads, ahead of the model, so that the device never waits."""

import hashlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from .images import DecodeError, decode, probe
from .preprocess import Unpreparable, draft
from .samples import Failure, ReadOptions, Sample, read_samples

T = TypeVar("T")


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


@dataclass(frozen=True)
class FeedPlan:
    """What the model and the scores want of each image.

    `prepare` maps a preparation's key to the function that makes an image uint8 (H, W, 3); models
    with the same preparation share one. With `pixels` False only the header is looked at, and only
    where the json has no size. `draft_side` > 0 lets large JPEGs be decoded at a fraction of their
    size (the option `decoder: fast`): it is the side in px that the largest model takes.
    """

    read: ReadOptions
    pixels: bool
    keep_images: bool = False
    keep_bytes: bool = False
    prepare: Mapping[str, Callable[[Image.Image], np.ndarray]] = field(default_factory=dict)
    draft_side: int = 0
    batch_size: int = 64
    threads: int = 1


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
    """A batch: samples, sizes, PIL images (when kept) and uint8 (n, H, W, 3) by preparation."""

    opened: list[Opened]
    arrays: dict[str, np.ndarray]


def feed(path: str, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
    """Batches of a shard's well samples, in the tar's order; what cannot be read goes to `failures`.

    Batches depend on the shard and `batch_size` alone, never on timing or on the number of threads.
    """
    return ahead(_batches(path, plan, failures, clock))


def _batches(path: str, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
    batch: list[Opened] = []
    for opened in _opened(path, plan, failures, clock):
        batch.append(opened)
        if len(batch) == plan.batch_size:
            yield _stack(batch)
            batch = []
    if batch:
        yield _stack(batch)


def _opened(path: str, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Opened]:
    """Samples in order, decoded by a pool that works up to two batches ahead."""
    pending: deque[Future[Opened | Failure]] = deque()
    window = 2 * plan.batch_size
    with ThreadPoolExecutor(plan.threads, "decode") as pool:
        samples = read_samples(path, plan.read)
        more = True
        while more or pending:
            while more and len(pending) < window:
                started = time.perf_counter()
                item = next(samples, None)
                clock.add("read", started)
                if item is None:
                    more = False
                elif isinstance(item, Failure):
                    failures.append(item)
                else:
                    pending.append(pool.submit(_open, item, plan, clock))
            if pending:
                result = pending.popleft().result()
                if isinstance(result, Failure):
                    failures.append(result)
                else:
                    yield result


def _open(sample: Sample, plan: FeedPlan, clock: Clock) -> Opened | Failure:
    started = time.perf_counter()
    digest = hashlib.sha256(sample.image).hexdigest()
    started = clock.add("sha256", started)
    try:
        image: Image.Image | None = None
        arrays: dict[str, np.ndarray] = {}
        width, height = stated_size(sample.meta)
        if plan.pixels or not width:
            seen = probe(sample.image, plan.read.limits)
            width, height = (width, height) if width else seen
        if plan.pixels:
            image = _decoded(sample.image, plan)
            arrays = {key: prepare(image) for key, prepare in plan.prepare.items()}
    except DecodeError as error:
        return Failure(sample.key, sample.uid, error.status, error.error)
    except Unpreparable as error:
        return Failure(sample.key, sample.uid, error.status, str(error))
    finally:
        clock.add("decode", started)
    if not plan.keep_bytes:
        sample.image = b""
    return Opened(sample, digest, width, height, image if plan.keep_images else None, arrays)


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


def _stack(batch: list[Opened]) -> Fed:
    keys = batch[0].arrays
    return Fed(batch, {key: np.stack([opened.arrays.pop(key) for opened in batch]) for key in list(keys)})


def ahead(items: Iterator[T], depth: int = 1) -> Iterator[T]:
    """Run an iterator in a thread, `depth` items ahead of its consumer. Errors pass through."""
    done = object()
    box: queue.Queue[Any] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                box.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(done)
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=run, name="feed", daemon=True)
    thread.start()
    try:
        while (item := box.get()) is not done:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()
