"""Before any route: who may ask, how much at once, how large; and the headers of every answer. Plain ASGI."""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from .metrics import Metrics
from .settings import Settings

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

COOKIE = "mmfilter_session"
HEADER_COUNT, HEAD_BYTES = 100, 1 << 16  # of a request
SEND_SECONDS = 30.0  # for each piece of an answer
OPEN = ("/page/",)  # the page's assets hold nothing of the pool
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
]


class _Answer(Exception):
    def __init__(self, status: int, error: str, *headers: tuple[bytes, bytes]) -> None:
        self.status, self.error, self.headers = status, error, headers


class Guard:
    """Wraps the application: token, body size, concurrency, security headers, metrics."""

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.waiting = self.working = 0
        self.session = session_of(settings.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        if scope["path"].startswith("//"):  # an address that ends in "/", with a route joined to it by another "/"
            scope["path"] = "/" + scope["path"].lstrip("/")
        started, status = time.perf_counter(), [500]
        answering = self._headers(send, status)
        try:
            _check_head(scope)
            self._check_host(scope)
            self._check_origin(scope)
            self._authorize(scope)
            await self._limited(scope, receive, answering)
        except _Answer as refusal:
            await _refuse(refusal, answering)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status[0]).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)

    def _headers(self, send: Send, status: list[int]) -> Send:
        async def answering(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            async with asyncio.timeout(SEND_SECONDS):  # a client that does not read holds no place
                await send(message)

        return answering

    def _check_host(self, scope: Scope) -> None:
        """Without a token, refuse a name that is not the service's: a page of another site may have its own name
        lead to this machine (DNS rebinding), and a browser then lets it read the answers.
        """
        if self.settings.token or self.settings.names is None:
            return
        given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if not all(_is_own(host, self.settings.names) for host in given):
            raise _Answer(
                403, "the Host header names another host; start the service with --name HOST, or with a token"
            )

    def _check_origin(self, scope: Scope) -> None:
        """Refuse what a page of another origin asks for, unless `--cors` names it or it knows the token.

        Browsers send `Origin` with all but plain reads, and say of those in `Sec-Fetch-Site` whose page asks. A link
        to the service may stand anywhere.
        """
        if scope["method"] == "OPTIONS" or "*" in self.settings.cors or self._knows_token(scope):
            return
        origin, site, host = (_header(scope, name).lower() for name in (b"origin", b"sec-fetch-site", b"host"))
        if origin in self.settings.cors or site in ("same-origin", "none"):
            return
        where = urlsplit_or_none(origin)
        names = self.settings.names or ()
        own = where is not None and (where.netloc == host or (where.hostname in names and where.netloc in names))
        link = scope["method"] in ("GET", "HEAD") and _header(scope, b"sec-fetch-mode") == "navigate"
        cross_site = not origin and site in ("cross-site", "same-site") and not link
        if cross_site or (origin and not own):
            raise _Answer(
                403,
                f"a page of another origin ({origin[:100] or site}) may not ask; start the service with --cors ORIGIN "
                "to allow it, or with --name HOST where the page is the service's own behind a proxy",
            )

    def _knows_token(self, scope: Scope) -> bool:
        given = _header(scope, b"authorization").encode("latin-1")
        return bool(self.settings.token) and hmac.compare_digest(given, b"Bearer " + self.settings.token.encode())

    def _authorize(self, scope: Scope) -> None:
        if not self.settings.token or scope["path"] == "/" or scope["path"].startswith(OPEN):
            return
        if self._knows_token(scope):
            return
        if not hmac.compare_digest(_cookie(_header(scope, b"cookie")).encode("latin-1"), self.session.encode()):
            raise _Answer(401, "a token is wanted: 'Authorization: Bearer TOKEN'", (b"www-authenticate", b"Bearer"))

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then work; both only while there is room."""
        most = self.settings.concurrency
        if self.waiting >= 4 * most and scope["path"] != "/metrics":
            raise self._shed()
        self.waiting += 1
        try:
            body = await self._body(scope, receive) if scope["method"] in ("POST", "PUT", "PATCH") else b""
            if self.working >= most and scope["path"] != "/metrics":
                raise self._shed()
            self.working += 1
            self.metrics.working.set(self.working)
            try:
                await self.app(scope, _given(body, receive), send)
            finally:
                self.working -= 1
                self.metrics.working.set(self.working)
        finally:
            self.waiting -= 1

    def _shed(self) -> _Answer:
        self.metrics.shed.inc()
        return _Answer(503, "too many requests are in work; ask again in a second", (b"retry-after", b"1"))

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self.settings.body
        large = _Answer(413, f"the body is over {most:,} bytes", (b"connection", b"close"))
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if length.isdigit() and (len(length) > 15 or int(length) > most):
            raise large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Answer(400, "the body was cut short")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            slow = f"the body did not come within {self.settings.body_seconds:g} seconds"
            raise _Answer(408, slow, (b"connection", b"close")) from None


def _header(scope: Scope, name: bytes) -> str:
    """The last header of that name, "" where there is none."""
    return next((value.decode("latin-1") for key, value in reversed(scope["headers"]) if key == name), "")


def _check_head(scope: Scope) -> None:
    size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope.get("raw_path") or b"")
    if len(scope["headers"]) > HEADER_COUNT or size + len(scope.get("query_string") or b"") > HEAD_BYTES:
        raise _Answer(
            431, f"at most {HEADER_COUNT} headers, and {HEAD_BYTES:,} bytes of them", (b"connection", b"close")
        )


def urlsplit_or_none(text: str) -> Any:
    """The parts of a URL; None where it is none."""
    try:
        parts = urlsplit(text)
        return parts if parts.hostname else None
    except ValueError:
        return None


def session_of(token: str) -> str:
    """What a browser's cookie holds in the token's place: images cannot send a header of their own."""
    return hashlib.sha256(b"mmfilter session " + token.encode()).hexdigest()


def _is_own(host: str, names: tuple[str, ...]) -> bool:
    """Whether a Host header is an address, which no name can be led to, a loopback name, or one of `names`."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().removesuffix(".")
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return name == "localhost" or name.endswith(".localhost") or name in names


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _given(body: bytes, receive: Receive) -> Receive:
    """The body that was read, once; then what the connection says."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> MutableMapping[str, Any]:
        return left.pop() if left else await receive()

    return given


async def _refuse(refusal: _Answer, send: Send) -> None:
    body = json.dumps({"error": refusal.error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
