"""clip-retrieval's API, for its clients as they are: /indices-list, /knn-service, /metadata."""

import base64
import json
import re
import shlex
import time
from typing import Any, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from .columns import CAPTION
from .fetch import fetch
from .hits import Json, hits
from .images import image
from .models import from_base64
from .pool import Opened, Pool, Snapshot
from .requests import KnnService, MetadataOf
from .service import Service, check_k, checked_vector, pick_index
from .settings import Refused

B = TypeVar("B", bound=BaseModel)
SAME = 0.94  # similarity from which its `deduplicate` takes two results for one
ROWS = 256  # of a product of results with results that is held at once
SIDE = 256  # pixels of the longer side of a picture in an answer
PICTURE_SECONDS = 10.0  # after which an answer gets no further pictures: a store may be slow
QUERIES = ("text", "image", "image_url", "embedding_input")
NOTE = "X-Mmfilter-Note"  # the header that says what was asked for and not done: bodies are lists of results


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

    async def _find(self, name: str | None) -> tuple[Pool, Snapshot, Opened]:
        """The index of that name, the first where none is named. Raises Refused."""
        where, slash, index = (name or "").rpartition("/")
        pool, now = await self.service.fresh(where or None)
        if slash and not index:
            raise Refused(404, f"indice_name: '{name}' names no index; there is: {', '.join(now.indices) or 'none'}")
        return pool, now, pick_index(now, index or None)

    async def knn(self, request: Request) -> Json:
        body = await _parsed(request, KnnService)
        if body.modality not in ("image", "text"):
            raise Refused(400, f"modality: 'image' or 'text', not '{body.modality[:50]}'")
        if body.use_mclip:
            raise Refused(400, "use_mclip: this service has no multilingual model; ask without it")
        shown = check_k(body.num_images, self.service.settings, "num_images")
        k = check_k(body.num_result_ids or shown, self.service.settings, "num_result_ids")
        pool, now, named = await self._find(body.indice_name)
        opened = of_modality(now, named, body.modality, bool(body.indice_name))
        vector = await self._vector(pool, opened, body)
        positions, similarity = await self.service.search(opened, vector, k)
        if body.deduplicate and len(positions):
            first = await run_in_threadpool(lambda: first_of_each(opened.index.vectors.take(positions)))
            positions, similarity = positions[first], similarity[first]
        if opened is not named:
            uids = opened.index.uids[positions]
            ids = await run_in_threadpool(named.index.positions, uids)  # /metadata is asked by the name alone
            positions, similarity = ids[ids >= 0], similarity[ids >= 0]
        told = await run_in_threadpool(self._metadata, pool, now, named, positions[:shown])
        found = [{"id": i, "similarity": s} for i, s in zip(positions.tolist(), similarity.tolist(), strict=True)]
        rows = [{**more, **hit} for more, hit in zip([*told, *({} for _ in found[shown:])], found, strict=True)]
        note = missing(body)
        return Json(rows, headers={NOTE: note} if note else None)

    async def _vector(self, pool: Pool, opened: Opened, body: KnnService) -> np.ndarray:
        model = opened.index.model
        named = [name for name in QUERIES if getattr(body, name) not in (None, "")]
        if len(named) > 1:
            raise Refused(400, f"{' and '.join(named)}: a query is one of them; /api/search takes the mean of several")
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
        raise Refused(400, f"an empty query: give one of {', '.join(QUERIES)}")

    async def metadata(self, request: Request) -> Json:
        body = await _parsed(request, MetadataOf)
        pool, now, opened = await self._find(body.indice_name)
        if body.ids and max(body.ids) >= len(opened.index):
            raise Refused(404, f"ids: {max(body.ids)} is not in this index, which has {len(opened.index)}")
        told = await run_in_threadpool(self._metadata, pool, now, opened, np.array(body.ids, np.int64))
        return Json([{"id": i, "metadata": more} for i, more in zip(body.ids, told, strict=True)])

    def _metadata(self, pool: Pool, now: Snapshot, opened: Opened, positions: np.ndarray) -> list[dict[str, Any]]:
        """By position: its names for caption and key, the score columns and, of the first, the picture in base64.

        {} for a sample that left the pool; no `url` where there is none: the web front would show it and fail.
        """
        rows = opened.to_rows(positions)
        present = np.flatnonzero(rows >= 0)
        found: list[dict[str, Any]] = [{} for _ in rows]
        keys = now.columns.rows(rows[present], CAPTION)
        for place, key, hit in zip(present.tolist(), keys, hits(now, rows[present]), strict=True):
            sizes = {"original_width": hit["width"], "original_height": hit["height"]}
            url = {"url": hit["url"]} if hit["url"] else {}
            more = {"image_path": key["key"] or "", "caption": hit["text"], **url, "uid": hit["uid"]}
            found[place] = {**more, **sizes, **hit["scores"]}
        until = time.monotonic() + PICTURE_SECONDS
        for place in present[: self.service.settings.thumbnails].tolist():
            if time.monotonic() < until and (picture := _picture(pool, now, int(rows[place]))):
                found[place]["image"] = picture
        return found


def of_modality(now: Snapshot, named: Opened, modality: str, by_name: bool) -> Opened:
    """The index of `modality` and of the named index's model; of any model where no index was named.

    Raises Refused where there is none: another index would answer another question.
    """
    choices = [named, *now.indices.values()]
    own = [other for other in choices if other.index.model == named.index.model]
    for other in own if by_name else [*own, *choices]:
        if other.index.modality == modality:
            return other
    words = ["mmfilter", "index", now.columns.table.out, "--model", named.index.model, "--modality", modality]
    raise Refused(
        404, f"modality: there is no index of {modality}s of model '{named.index.model}', and no other is searched "
        f"in its place; build it with `{shlex.join(words)}` (it is taken up on its own)",
    )  # fmt: skip


def missing(body: KnnService) -> str:
    """What a query asks for that this service does not have, as a sentence; "" for nothing."""
    asked = {
        "use_safety_model": body.use_safety_model,
        "use_violence_detector": body.use_violence_detector,
        "aesthetic_score": body.aesthetic_score not in (None, ""),
        "aesthetic_weight": body.aesthetic_weight not in (None, ""),
    }
    names = [name for name, wanted in asked.items() if wanted]
    notes = [f"no model for {', '.join(names)} here: results are neither removed nor ranked by it"] if names else []
    unknown = [re.sub("[^A-Za-z0-9_.-]", "?", name[:40]) for name in body.model_extra or ()]  # it becomes a header
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        notes.append(f"not known and not used: {', '.join(unknown[:5])}{more}")
    return "; ".join(notes)


def _picture(pool: Pool, now: Snapshot, row: int) -> str:
    """A thumbnail in base64, "" where there is none to be had; /api/image says why."""
    try:
        data, _ = image(pool, now, row, SIDE)
    except Exception:  # whatever the bytes are, the other results stand
        return ""
    return base64.b64encode(data).decode("ascii")


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


def first_of_each(rows: np.ndarray) -> np.ndarray:
    """Places in `rows` (m, d) of unit length of the first of each connected component at similarity SAME or more."""
    first = np.arange(len(rows))  # of each row's component, as far as it is known
    for at in range(0, len(rows), ROWS):
        for place, near in enumerate(rows[at : at + ROWS] @ rows[at:].T >= SAME):
            joined = first[at + place + np.flatnonzero(near[place:])]  # those before are joined to it already
            if len(joined) and joined.min() != joined.max():
                first[np.isin(first, joined)] = joined.min()
    return np.unique(first)
