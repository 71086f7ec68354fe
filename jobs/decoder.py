"""Decoding away from the model: a task on any node's cores reads a shard and streams its batches to a worker.

Ray finds the cores, waits for a machine that has them, and begins a stream again elsewhere when its machine
is gone: batches depend on the shard alone, so it goes on with the one that was due. A stream stops when
`AHEAD` of its batches lie unread, so memory stays flat whoever is the slower.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray

from mmfilter.ahead import ahead
from mmfilter.feed import Clock, Fed, FeedPlan, Source, feed
from mmfilter.records import Failure

AHEAD = 2  # batches; of 256 images of 224 px one is 39 MB
RETRIES = 3  # of a stream whose machine or process died; then the shard's attempt has failed
PATIENCE = 300.0  # seconds in which a decoder must have begun: one more shard is asked for than there are decoders


@dataclass(frozen=True)
class Rest:
    """What ends a stream: the samples that failed, and seconds by stage."""

    failures: list[Failure]
    seconds: dict[str, float]


def decoded(path: str, plan: FeedPlan) -> Iterator[Fed | Rest]:
    """The shard's batches, then the rest."""
    failures: list[Failure] = []
    clock = Clock()
    yield from feed(path, plan, failures, clock)
    yield Rest(failures, clock.seconds)


STREAM: Any = ray.remote(decoded)
OPTIONS = {"num_returns": "streaming", "max_retries": RETRIES, "_generator_backpressure_num_objects": AHEAD}


class Lanes:
    """Where each of a worker's shards is decoded: `own` at a time beside the model, the others by decoders.

    Whichever is done first takes the next shard, so that the faster of the two does more of them.
    """

    def __init__(self, own: int, decoder_cpus: int) -> None:
        self.free = threading.Semaphore(own)
        self.far: Source = partial(far_feed, decoder_cpus)

    def source(self, path: str, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
        """`feed`, here or at a decoder; the same batches and failures."""
        if not self.free.acquire(blocking=False):
            yield from self.far(path, plan, failures, clock)
            return
        try:
            yield from feed(path, plan, failures, clock)
        finally:
            self.free.release()


def far_feed(cpus: int, path: str, plan: FeedPlan, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
    """`feed` by a decoder of so many cores; here, where none has begun within `PATIENCE`."""
    stream = STREAM.options(num_cpus=cpus, **OPTIONS).remote(path, replace(plan, threads=cpus))
    begun, _ = ray.wait([stream], timeout=PATIENCE, fetch_local=False)
    if not begun:
        ray.cancel(stream)
        return feed(path, plan, failures, clock)
    return ahead(_fetched(stream, failures, clock))


def _fetched(stream: Any, failures: list[Failure], clock: Clock) -> Iterator[Fed]:
    try:
        for reference in stream:
            item = ray.get(reference)
            del reference  # else the store holds a batch more
            if isinstance(item, Rest):
                failures += item.failures
                clock.add_all(item.seconds)
            else:  # the store's arrays cannot be written to, and torch warns of such
                yield replace(item, arrays={key: np.array(pixels) for key, pixels in item.arrays.items()})
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # as it would have been raised here
    finally:
        ray.cancel(stream)
