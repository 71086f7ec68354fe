"""The application: both APIs, the page, metrics and documentation behind one guard."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from mmfilter import __version__
from mmfilter.errors import DataError, MMFilterError

from .clip_api import NOTE, ClipRetrieval, sentence
from .guard import Guard
from .hits import Json
from .native import Native
from .service import Service
from .settings import Refused, Settings

PAGE = Path(__file__).resolve().parent.parent / "page"
log = logging.getLogger("mmfilter.serve")


def create_app(outs: list[str], settings: Settings = Settings(), warm: bool = False) -> FastAPI:
    """Serve the run folders `outs`. `warm` reads columns and loads models at the start, beside the first requests.

    Raises UsageError, DataError where a folder cannot be served.
    """
    service = Service(outs, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if warm:
            service.warm()
        yield

    app = FastAPI(
        title="mmfilter", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        default_response_class=Json,
    )  # fmt: skip
    app.state.service = service
    app.include_router(Native(service).router())
    app.include_router(ClipRetrieval(service).router())
    _add_pages(app, service)
    for kind in (MMFilterError, RequestValidationError, HTTPException, RecursionError, Exception):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    if settings.cors:  # outside the guard: a preflight carries no token and is told nothing of the pool
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.cors, allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"], allow_credentials=False,  # no cookie crosses origins
            expose_headers=[NOTE, "Retry-After"],
        )  # fmt: skip
    return app


def _add_pages(app: FastAPI, service: Service) -> None:
    @app.get("/metrics", tags=["service"], summary="For Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_docs(app.openapi()))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        start = PAGE / "page.html"
        return FileResponse(start, media_type="text/html") if start.is_file() else HTMLResponse(_docs(app.openapi()))

    if PAGE.is_dir():
        app.mount("/page", StaticFiles(directory=PAGE), name="page")


async def _answer(request: Request, error: Exception) -> Response:
    """Every failure is ``{"error": sentence}``; only what nobody foresaw is a 500, and is logged."""
    if isinstance(error, RequestValidationError):
        return Json({"error": sentence(error.errors())}, 422)
    if isinstance(error, HTTPException):
        return Json({"error": str(error.detail)}, error.status_code, headers=dict(error.headers or {}))
    if isinstance(error, RecursionError):
        return Json({"error": "nested too deep"}, 400)
    if isinstance(error, Refused):
        return Json({"error": str(error)}, error.status)
    if isinstance(error, DataError):  # the disk's fault, not the request's
        log.warning("%s: %s", request.url.path, error)
        return Json({"error": str(error)}, 503, headers={"Retry-After": "5"})
    if isinstance(error, MMFilterError):
        return Json({"error": str(error)}, 400)
    log.error("%s: unforeseen", request.url.path, exc_info=error)
    return Json({"error": "something unforeseen went wrong; the service's log has it"}, 500)


def _docs(schema: dict[str, Any]) -> str:
    """The routes as a plain page: no script, nothing fetched. The whole is /openapi.json."""
    rows = []
    for path, methods in sorted(schema["paths"].items()):
        for method, route in methods.items():
            fields = ", ".join(p["name"] for p in route.get("parameters", ()))
            content = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            named = schema["components"]["schemas"].get(content.get("$ref", "").rpartition("/")[2], content)
            fields += ", ".join(named.get("properties", ()))
            cells = (f"{method.upper()} {path}", route.get("summary", ""), fields)
            rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>mmfilter: the API</title>'
    return (
        f'{head}<h1>mmfilter {escape(__version__)}</h1><p>All of it: <a href="/openapi.json">/openapi.json</a></p>'
        f"<table><tr><th>Route<th>What<th>Fields</tr>{''.join(rows)}</table></html>"
    )
