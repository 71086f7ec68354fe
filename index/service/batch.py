"""Calls that come at the same moment are done as one: a search of one matrix, a batch through a model."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np


class Batcher:
    """`call` does a list of items at once, in `pool`; each `await batcher(item)` gets its own result.

    The first item waits `window` seconds for company; what comes while a batch is at work is the next.
    One event loop.
    """

    def __init__(
        self, call: Callable[[list[Any]], Sequence[Any]], pool: Executor, window: float, most: int, seen: Any = None
    ) -> None:
        self.call, self.pool, self.window, self.most, self.seen = call, pool, window, most, seen
        self._waiting: list[tuple[Any, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: Any) -> Any:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        if self.window:
            await asyncio.sleep(self.window)
        while self._waiting:
            now, self._waiting = self._waiting[: self.most], self._waiting[self.most :]
            if self.seen is not None:
                self.seen(len(now))
            try:
                results = await loop.run_in_executor(self.pool, self.call, [item for item, _ in now])
                for (_, future), result in zip(now, results, strict=True):
                    if not future.done():
                        future.set_result(result)
            except BaseException as error:
                for _, future in now:
                    if not future.done():
                        future.set_exception(error)
        self._task = None


def search_many(index: Any) -> Callable[[list[tuple[np.ndarray, int]]], list[tuple[np.ndarray, np.ndarray]]]:
    """(vector, k) pairs -> (positions, similarities) of each, past the end cut.

    Those of about the same k go together: a larger k looks into more lists.
    """

    def search(items: list[tuple[np.ndarray, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
        results: list[Any] = [None] * len(items)
        sizes = [max(k, 16).bit_length() for _, k in items]
        for size in sorted(set(sizes)):
            group = [i for i, other in enumerate(sizes) if other == size]
            k = max(items[i][1] for i in group)
            positions, similarity = index.search(np.stack([items[i][0] for i in group]), k)
            for row, i in enumerate(group):
                results[i] = _cut(positions[row], similarity[row], items[i][1])
        return results

    return search


def _cut(positions: np.ndarray, similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    positions, similarity = positions[:k], similarity[:k]
    there = positions >= 0
    return positions[there], similarity[there]
