"""What both APIs stand on: the pools, their models, and searches that share one pass over an index."""

import asyncio
import os
import posixpath
import shlex
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from starlette.concurrency import run_in_threadpool

from mmfilter.errors import MMFilterError, UsageError, nearest
from mmfilter.uids import parse_uids

from ..ask import AGAINST
from ..vectors import unit
from .batch import Batcher
from .metrics import Metrics
from .models import Models, from_base64
from .pool import Opened, Pool, Snapshot
from .requests import Among, Search
from .rules import where_mask
from .settings import Refused, Settings

T = TypeVar("T")


class Service:
    """Run folders `outs`, known by their last names (by a number as well where two are alike)."""

    def __init__(self, outs: list[str], settings: Settings) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.searching = ThreadPoolExecutor(1, "search", initializer=_half_the_cores)
        self.embedding = ThreadPoolExecutor(1, "embed")
        self.pictures = ThreadPoolExecutor(4, "picture")  # their own: what waits for a large one holds up no other work
        share = Settings(**{**settings.__dict__, "cache": settings.cache // max(len(outs), 1)})
        self.pools: dict[str, Pool] = {}
        self.models: dict[str, Models] = {}
        self._texts: dict[tuple[str, str], Batcher] = {}
        for out in outs:
            name = base = posixpath.basename(out.rstrip("/")) or "pool"
            while name in self.pools:
                name = f"{base}-{len(self.pools) + 1}"
            pool = Pool(out, name, share, self.searching, self.metrics)
            self.pools[name] = pool
            self.models[name] = Models(out, settings)

    @property
    def first(self) -> Pool:
        return next(iter(self.pools.values()))

    def pool(self, name: str | None) -> Pool:
        """Raises Refused."""
        if not name:
            return self.first
        if name not in self.pools:
            known = ", ".join(self.pools)
            raise Refused(404, f"no pool is called '{name[:100]}'{nearest(name[:100], self.pools)} There is: {known}")
        return self.pools[name]

    async def fresh(self, name: str | None) -> tuple[Pool, Snapshot]:
        """A pool and what it holds now; a look at the disk is due every few seconds, and nobody waits for it."""
        pool = self.pool(name)
        if pool.due():
            asyncio.get_running_loop().run_in_executor(None, pool.refresh)
        return pool, pool.snapshot

    def warm(self) -> None:
        """Read score columns and load models, in a thread of its own, so that the first question is quick."""

        def read() -> None:
            for name, pool in self.pools.items():
                snapshot = pool.snapshot
                try:
                    for column in snapshot.columns.scores:
                        snapshot.columns.numbers(column)
                    for opened in snapshot.indices.values():
                        if self.settings.models:
                            self.models[name].get(opened.index.model)
                except MMFilterError as error:
                    pool.trouble = str(error)

        threading.Thread(target=read, name="warm", daemon=True).start()

    async def text(self, pool: Pool, model: str, text: str) -> np.ndarray:
        """float32 (d,): several texts at a time go through the model together."""
        key = (pool.name, model)
        if key not in self._texts:
            models = self.models[pool.name]
            call: Callable[[list[Any]], Any] = lambda texts: models.texts(model, texts)  # noqa: E731
            self._texts[key] = Batcher(call, self.embedding, self.settings.window, 64)
        return np.asarray(await self._texts[key](text))

    async def image(self, pool: Pool, model: str, data: bytes) -> np.ndarray:
        """float32 (d,): decoded beside the queue of the models, which texts wait in too."""
        loop, models = asyncio.get_running_loop(), self.models[pool.name]
        pixels = await loop.run_in_executor(self.pictures, models.prepared, model, data)
        return await loop.run_in_executor(self.embedding, models.image, model, pixels)

    async def search(self, opened: Opened, vector: np.ndarray, k: int, among: np.ndarray | None = None) -> Any:
        """(positions (m,), similarity (m,)), m up to k, descending; `among` (len(index),) bool restricts."""
        k = min(k, len(opened.index))
        if k == 0 or (among is not None and not among.any()):
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if among is None:
            return await opened.batcher((vector, k))
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self.searching, lambda: opened.index.search(vector[None], k, among=among))
        positions, similarity = found[0][0], found[1][0]
        return positions[positions >= 0], similarity[positions >= 0]


def _half_the_cores() -> None:
    """FAISS's threads in this thread: the others answer requests, and are waited for when there are too many."""
    import faiss

    faiss.omp_set_num_threads(max(1, (os.cpu_count() or 1) // 2))


def check_k(k: int, settings: Settings, name: str = "k") -> int:
    """Raises Refused above the limit."""
    if k > settings.k:
        raise Refused(
            400, f"{name}: at most {settings.k:,}; ask for fewer, or start the service with a greater --max-k"
        )
    return k


def pick_index(snapshot: Snapshot, name: str | None) -> Opened:
    """The named index, or the first: of images where there is one. Raises Refused."""
    if not snapshot.indices:
        model = (snapshot.models or ["MODEL"])[0]
        command = shlex.join(["mmfilter", "index", snapshot.columns.table.out, "--model", model])
        raise Refused(400, f"this pool has no index; build one with `{command}` (it is taken up on its own)")
    if not name:
        return min(snapshot.indices.values(), key=lambda opened: opened.index.modality != "image")
    if name not in snapshot.indices:
        known = ", ".join(snapshot.indices)
        raise Refused(404, f"no index is called '{name}'{nearest(name, snapshot.indices)} There is: {known}")
    return snapshot.indices[name]


def checked_vector(values: list[float], dim: int, name: str) -> np.ndarray:
    """float32 (dim,) of length 1. Raises Refused."""
    if len(values) != dim:
        raise Refused(400, f"{name}: {len(values)} numbers, where this index has {dim}")
    vector = unit(np.clip(np.array([values], np.float64), -1e18, 1e18))[0]
    if not vector.any():
        raise Refused(400, f"{name}: it has no direction (all zeros)")
    return np.asarray(vector)


def stored(opened: Opened, uids: list[str]) -> np.ndarray:
    """float32 (m, d): the vectors of uids in the index. Raises Refused for one that is not there."""
    positions = opened.index.positions(parse_uids([uid.lower() for uid in uids]))
    if (positions < 0).any():
        lost = uids[int(np.flatnonzero(positions < 0)[0])]
        raise Refused(404, f"uid {lost} is not in the index {opened.index.name}")
    return np.asarray(opened.index.vectors.take(positions))


async def query_vector(service: Service, pool: Pool, opened: Opened, body: Search) -> np.ndarray:
    """float32 (d,) of length 1, as `mmfilter query` makes it; what is only unwanted asks for its opposite.

    Raises Refused.
    """
    model, dim = opened.index.model, opened.index.dim
    wanted, unwanted = [], []
    if body.text:
        wanted.append(await service.text(pool, model, body.text))
    if body.image:
        wanted.append(await service.image(pool, model, from_base64(body.image)))
    if body.vector is not None:
        wanted.append(checked_vector(body.vector, dim, "vector"))
    if uids := [*([body.uid] if body.uid else []), *body.like]:
        wanted += list(await run_in_threadpool(stored, opened, uids))
    if body.unlike:
        unwanted += list(await run_in_threadpool(stored, opened, body.unlike))
    if body.minus:
        unwanted.append(await service.text(pool, model, body.minus))
    vector = _mean(wanted, dim) - (AGAINST if wanted else 1.0) * _mean(unwanted, dim)
    if not vector.any():
        raise Refused(400, "what is wanted and what is not cancel out: nothing is left to look for")
    return np.asarray(unit(vector[None])[0])


def _mean(rows: list[np.ndarray], dim: int) -> np.ndarray:
    """float32 (dim,) of length 1, or zeros of none."""
    return unit(np.mean(rows, axis=0)[None])[0] if rows else np.zeros(dim, np.float32)


def among_mask(snapshot: Snapshot, among: Among) -> np.ndarray | None:
    """(n,) bool by row, or None for all. Raises Refused, UsageError."""
    masks = []
    if among.subset is not None or among.kept is not None:
        name = among.subset if among.subset is not None else snapshot.kept_by
        if not name:
            raise Refused(400, "kept: nothing was selected in this pool yet; run `mmfilter select`")
        mask = snapshot.subset(name).mask
        masks.append(~mask if among.kept is False else mask)
    if among.where:
        masks.append(where_mask(among.where, snapshot))
    if among.clusters is not None or among.without_clusters is not None:
        if "cluster_id" not in snapshot.columns.kinds:
            raise UsageError("clusters: this pool has no column 'cluster_id'; run `mmfilter cluster` first")
        ids = snapshot.columns.numbers("cluster_id")
        if among.clusters is not None:
            masks.append(np.isin(ids, _small(among.clusters)))
        if among.without_clusters is not None:
            masks.append(~np.isin(ids, _small(among.without_clusters)))
    return np.logical_and.reduce(masks) if masks else None


def _small(ids: list[int]) -> np.ndarray:
    return np.array([i for i in ids if abs(i) < 2**31], np.int64)
