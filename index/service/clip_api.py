"""clip-retrieval's API, so that its clients work unchanged: /indices-list, /knn-service, /metadata."""

import json
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from .fetch import fetch
from .hits import Json, hits
from .models import from_base64
from .pool import Opened, Pool, Snapshot
from .requests import KnnService, MetadataOf
from .service import Service, check_k, checked_vector, pick_index
from .settings import Refused

B = TypeVar("B", bound=BaseModel)
SAME = 0.94  # similarity from which its `deduplicate` takes two results for one


class ClipRetrieval:
    """Its client sends JSON without saying so, hence bodies are parsed here whatever their type says."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def router(self) -> APIRouter:
        router = APIRouter(tags=["clip-retrieval"], default_response_class=Json)
        router.add_api_route("/indices-list", self.indices, summary="Names of the indices")
        router.add_api_route(
            "/knn-service", self.knn, methods=["POST"], summary="The nearest samples", openapi_extra=_body(KnnService)
        )
        router.add_api_route(
            "/metadata", self.metadata, methods=["POST"], summary="Metadata by id", openapi_extra=_body(MetadataOf)
        )
        return router

    async def indices(self) -> Json:
        names = []
        for pool in self.service.pools:
            _, now = await self.service.fresh(pool)
            names += [self._name(pool, index) for index in now.indices]
        return Json(names)

    def _name(self, pool: str, index: str) -> str:
        """An index's name; behind its pool's where there are several pools."""
        return f"{pool}/{index}" if len(self.service.pools) > 1 else index

    async def _find(self, name: str | None, modality: str = "") -> tuple[Pool, Snapshot, Opened]:
        """The index, or that of the same model and the other modality where that is asked for."""
        where, _, index = (name or "").rpartition("/")
        pool, now = await self.service.fresh(where or None)
        opened = pick_index(now, index or None)
        for other in now.indices.values():
            if opened.index.modality != modality == other.index.modality and other.index.model == opened.index.model:
                return pool, now, other
        return pool, now, opened

    async def knn(self, request: Request) -> Json:
        body = await _parsed(request, KnnService)
        if body.modality not in ("image", "text"):
            raise Refused(400, f"modality: 'image' or 'text', not '{body.modality[:50]}'")
        shown = check_k(body.num_images, self.service.settings, "num_images")
        k = max(shown, check_k(body.num_result_ids or shown, self.service.settings, "num_result_ids"))
        pool, now, opened = await self._find(body.indice_name, body.modality)
        vector = await self._vector(pool, opened, body)
        positions, similarity = await self.service.search(opened, vector, k)
        if body.deduplicate and len(positions):
            first = await run_in_threadpool(_once, opened, positions)
            positions, similarity = positions[first], similarity[first]
        told = await run_in_threadpool(_metadata, now, opened, positions[:shown])
        found = [{"id": i, "similarity": s} for i, s in zip(positions.tolist(), similarity.tolist(), strict=True)]
        return Json([{**more, **hit} for more, hit in zip([*told, *({} for _ in found[shown:])], found, strict=True)])

    async def _vector(self, pool: Pool, opened: Opened, body: KnnService) -> np.ndarray:
        model = opened.index.model
        if body.embedding_input is not None:
            return checked_vector(body.embedding_input, opened.index.dim, "embedding_input")
        if body.text:
            return await self.service.text(pool, model, body.text)
        if body.image:
            return await self.service.image(pool, model, from_base64(body.image))
        if body.image_url:
            settings = self.service.settings
            data = await run_in_threadpool(fetch, body.image_url, settings.hosts, settings.body)
            return await self.service.image(pool, model, data)
        raise Refused(400, "an empty query: give text, image, image_url or embedding_input")

    async def metadata(self, request: Request) -> Json:
        body = await _parsed(request, MetadataOf)
        _, now, opened = await self._find(body.indice_name)
        if body.ids and max(body.ids) >= len(opened.index):
            raise Refused(404, f"ids: {max(body.ids)} is not in this index, which has {len(opened.index)}")
        told = await run_in_threadpool(_metadata, now, opened, np.array(body.ids, np.int64))
        return Json([{"id": i, "metadata": more} for i, more in zip(body.ids, told, strict=True)])


async def _parsed(request: Request, kind: type[B]) -> B:
    try:
        return kind.model_validate(json.loads(await request.body()))
    except ValidationError as error:
        raise Refused(422, sentence(error.errors())) from None
    except (ValueError, RecursionError):
        raise Refused(400, "the body is not JSON") from None


def sentence(errors: Any) -> str:
    """The first of pydantic's errors as one; what was sent is not repeated."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}}


def _metadata(now: Snapshot, opened: Opened, positions: np.ndarray) -> list[dict[str, Any]]:
    """By position: its names for caption and key, and the score columns; {} for one that left the pool."""
    rows = opened.to_rows(positions)
    there = np.flatnonzero(rows >= 0)
    found: list[dict[str, Any]] = [{} for _ in rows]
    keys = now.columns.rows(rows[there], ("text", "url", "key"))
    for place, key, hit in zip(there.tolist(), keys, hits(now, rows[there]), strict=True):
        sizes = {"original_width": hit["width"], "original_height": hit["height"]}
        more = {"image_path": key["key"] or "", "caption": hit["text"], "url": hit["url"], "uid": hit["uid"]}
        found[place] = {**more, **sizes, **hit["scores"]}
    return found


def _once(opened: Opened, positions: np.ndarray) -> np.ndarray:
    """Places in `positions` (m,) of the first of each connected component at similarity SAME or more."""
    rows = opened.index.vectors.take(positions)
    near = rows @ rows.T >= SAME
    left, first = np.ones(len(rows), bool), []
    for place in range(len(rows)):
        if not left[place]:
            continue
        first.append(place)
        todo = [place]
        left[place] = False
        while todo:
            found = np.flatnonzero(near[todo.pop()] & left)
            left[found] = False
            todo += found.tolist()
    return np.array(first, np.int64)
