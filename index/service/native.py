"""The native API: everything under /api, for the page and for scripts."""

import asyncio
import io
import time
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from mmfilter import storage
from mmfilter.concepts_file import read_concepts
from mmfilter.errors import nearest
from mmfilter.subset import Subset
from mmfilter.uids import parse_uids

from .duplicates import GroupRequest, groups, of_sample
from .guard import COOKIE, session_of
from .hits import Json, column_info, hits, sample
from .images import image
from .pool import Pool, Snapshot
from .requests import Export, Preview, Search
from .rules import kept_rows, preview
from .scores import edge, histogram
from .service import Service, among_mask, check_k, pick_index, query_vector
from .settings import Refused

UidPath = Annotated[str, Path(pattern="^[0-9a-fA-F]{32}$")]
PoolName = Annotated[str | None, Query(max_length=200)]
DAY = {"Cache-Control": "private, max-age=86400"}


class Native:
    """The routes; each method answers one."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/api", tags=["native"], default_response_class=Json)
        router.add_api_route("/info", self.info, summary="What there is: samples, indices, columns, subsets, limits")
        router.add_api_route("/search", self.search, methods=["POST"], summary="The nearest samples to a query")
        router.add_api_route("/sample/{uid}", self.sample, summary="All that is known of one sample")
        router.add_api_route("/image/{uid}", self.image, summary="A thumbnail, or (side=0) the file in the tar")
        router.add_api_route("/histogram/{column}", self.histogram, summary="How a column's values lie")
        router.add_api_route("/edge/{column}", self.edge, summary="What lies on either side of a threshold")
        router.add_api_route("/preview", self.preview, methods=["POST"], summary="What rules would keep")
        router.add_api_route("/export", self.export, methods=["POST"], summary="A subset as .npy")
        router.add_api_route("/concepts/{model}", self.concepts, summary="The pool's clusters")
        router.add_api_route(
            "/duplicates", self.duplicates, summary="Groups of duplicates, measured against what is kept"
        )
        router.add_api_route("/session", self.session, methods=["POST"], summary="A cookie in the token's place")
        return router

    async def info(self, pool: PoolName = None) -> Json:
        served, now = await self.service.fresh(pool)
        settings = self.service.settings
        indices = [
            {"name": name, "model": i.model, "modality": i.modality, "size": len(i), "recall": i.info.get("recall")}
            for name, i in ((name, opened.index) for name, opened in now.indices.items())
        ]
        found = {
            "name": served.name,
            "out": served.out,
            "pools": list(self.service.pools),
            "outs": [pool.out for pool in self.service.pools.values()],
            "models": await run_in_threadpool(lambda: now.models),
            "samples": len(now.columns),
            "indices": indices,
            "columns": await run_in_threadpool(column_info, now),
            "subsets": list(now.subsets),
            "kept_by": now.kept_by,
            "concepts": list(now.concepts),
            "limits": {"k": settings.k, "body": settings.body, "concurrency": settings.concurrency},
            "trouble": served.trouble,
            "gaps": await run_in_threadpool(lambda: now.gaps),
        }
        return Json(found)

    async def search(self, body: Search) -> Json:
        started = time.perf_counter()
        pool, now = await self.service.fresh(body.pool)
        k = check_k(body.k, self.service.settings)
        if body.verdict:
            now.subset(body.verdict)
        plain = body.among.model_dump(exclude_none=True)
        mask = await run_in_threadpool(among_mask, now, body.among) if plain else None
        asked = body.model_dump(include={"text", "image", "uid", "vector", "like", "unlike", "minus"})
        if not any(value is not None and value != "" and value != [] for value in asked.values()):
            rows, similarity = await run_in_threadpool(_random, now, mask, k, body.seed), None
        else:
            rows, similarity = await self._nearest(pool, now, body, mask)
        found = await run_in_threadpool(hits, now, rows, similarity, body.verdict or "")
        return Json({"hits": found, "seconds": round(time.perf_counter() - started, 6)})

    async def _nearest(self, pool: Pool, now: Snapshot, body: Search, mask: np.ndarray | None) -> Any:
        """(rows, similarity), each (m,)."""
        opened = pick_index(now, body.index)
        vector = await query_vector(self.service, pool, opened, body)
        among = None if mask is None else opened.among(mask)
        if body.floor is None:
            positions, similarity = await self.service.search(opened, vector, body.k, among)
        else:
            above = opened.index.above
            positions, similarity = await run_in_threadpool(above, vector, body.floor, body.k, among=among)
        rows = opened.to_rows(positions)
        return rows[rows >= 0], similarity[rows >= 0]

    async def sample(self, uid: UidPath, pool: PoolName = None) -> Json:
        served, now = await self.service.fresh(pool)
        row = _row(now, uid)
        told = await run_in_threadpool(sample, served, now, row)
        return Json({**told, **await run_in_threadpool(of_sample, now, row)})

    async def image(
        self, uid: UidPath, side: Annotated[int, Query(ge=0, le=4096)] = 256, pool: PoolName = None
    ) -> Response:
        served, now = await self.service.fresh(pool)
        loop, row = asyncio.get_running_loop(), _row(now, uid)
        data, kind = await loop.run_in_executor(self.service.pictures, image, served, now, row, side)
        return Response(data, media_type=kind, headers=DAY)

    async def histogram(
        self, column: str, bins: Annotated[int, Query(ge=1, le=1000)] = 80, pool: PoolName = None
    ) -> Json:
        _, now = await self.service.fresh(pool)
        return Json(await run_in_threadpool(histogram, now, column, bins))

    async def edge(
        self,
        column: str,
        at: Annotated[float, Query(allow_inf_nan=False)],
        n: Annotated[int, Query(ge=1, le=100)] = 12,
        pool: PoolName = None,
    ) -> Json:
        _, now = await self.service.fresh(pool)
        return Json(await run_in_threadpool(edge, now, column, at, n))

    async def preview(self, body: Preview) -> Json:
        pool, now = await self.service.fresh(body.pool)
        return Json(await run_in_threadpool(preview, body.select, now, pool.out))

    async def export(self, body: Export) -> Response:
        pool, now = await self.service.fresh(body.pool)
        if (body.uids is None) == (body.select is None):
            raise Refused(400, "export: give either 'uids' or 'select'")
        data = await run_in_threadpool(_export, body, pool, now)
        named = {"Content-Disposition": 'attachment; filename="subset.npy"'}
        return Response(data, media_type="application/octet-stream", headers=named)

    async def concepts(self, model: str, pool: PoolName = None) -> Json:
        served, now = await self.service.fresh(pool)
        if model not in now.concepts:  # a name of a folder that is there, so never a path
            raise Refused(404, f"no concepts of '{model[:100]}'{nearest(model[:100], now.concepts)}")
        path = storage.join(served.out, "concepts", model, "concepts.json")
        return Json({"concepts": await run_in_threadpool(read_concepts, path)})

    async def duplicates(
        self,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        order: Literal["size", "doubt", "alike"] = "size",
        kind: Literal["", "exact", "perceptual", "semantic"] = "",
        of: Annotated[str, Query(pattern="^([0-9a-fA-F]{32})?$")] = "",
        start: Annotated[int, Query(ge=0)] = 0,
        pool: PoolName = None,
    ) -> Json:
        """`of` names a kept sample: its group alone. `start` is the first duplicate of each group that is listed."""
        _, now = await self.service.fresh(pool)
        row = _row(now, of) if of else None
        return Json(await run_in_threadpool(groups, now, GroupRequest(offset, limit, order, kind, row, start)))

    async def session(self) -> Json:
        """Asked with the token; the cookie then stands for it, so that <img> works too."""
        answer = Json({"ok": True})
        if self.service.settings.token:
            value = session_of(self.service.settings.token)
            answer.set_cookie(COOKIE, value, httponly=True, samesite="strict", path="/")
        return answer


def _row(now: Snapshot, uid: str) -> int:
    row = int(now.columns.find(parse_uids([uid.lower()]))[0])
    if row < 0:
        raise Refused(404, f"uid {uid.lower()} is not in this pool; it may have failed (`mmfilter explain` tells)")
    return row


def _random(now: Snapshot, mask: np.ndarray | None, k: int, seed: int) -> np.ndarray:
    """(m,) rows drawn by `seed`, in the order they were drawn."""
    rng, n = np.random.default_rng(seed), len(now.columns)
    if mask is None:
        return rng.choice(n, min(k, n), replace=False, shuffle=True) if n else np.empty(0, np.int64)
    rows = np.flatnonzero(mask)
    return rng.choice(rows, min(k, len(rows)), replace=False) if len(rows) else rows


def _export(body: Export, pool: Pool, now: Snapshot) -> bytes:
    if body.uids is not None:
        uids = parse_uids([uid.lower() for uid in body.uids])
        lost = np.flatnonzero(now.columns.find(uids) < 0)
        if len(lost):
            raise Refused(404, f"export: uid {body.uids[int(lost[0])]} is not in this pool ({len(lost)} are not)")
    else:
        uids = now.columns.uids[kept_rows(body.select, now, pool.out)]
    stream = io.BytesIO()
    np.save(stream, Subset(uids).uids, allow_pickle=False)
    return stream.getvalue()
