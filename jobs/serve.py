"""`serve`: the HTTP service over run folders: search, the page, clip-retrieval's API."""

import ipaddress
import os
import resource
import socket
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from mmfilter.allow import Allow
from mmfilter.errors import MMFilterError, UsageError, need

from . import options as o
from .terminal import print

EXTRA = "mmfilter[serve]"
FILES = 1 << 16
PORTS = {"http": 80, "https": 443}  # left out of an origin
Cors = Annotated[
    list[str] | None, typer.Option("--cors", help="An origin whose web pages may read answers, or '*'. Repeatable.")
]
Name = Annotated[
    list[str] | None,
    typer.Option("--name", help="A host name that requests without a token may come by. Repeatable."),
]
Thumbnails = Annotated[
    int, typer.Option(min=0, max=1000, help="Most results of clip-retrieval's API with their picture.")
]
ANY_PAGE = (
    "mmfilter: with --cors '*' and no token, any web page that is open in a browser on this machine may read the pool; "
    "name the origin that needs it"
)


def add(app: typer.Typer) -> None:
    @app.command()
    def serve(
        outs: o.OutsArg,
        host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 1234,
        max_k: Annotated[int, typer.Option(min=1, help="Most results of a search.")] = 10_000,
        max_body: Annotated[float, typer.Option(min=0.01, help="Most MiB of a request's body.")] = 8.0,
        concurrency: Annotated[int, typer.Option(min=1, help="Most requests in work at once; more get a 503.")] = 64,
        window: Annotated[float, typer.Option(min=0, max=100, help="Milliseconds a query waits for others.")] = 1.5,
        cache: Annotated[int, typer.Option(min=1, help="MiB of captions and thumbnails to keep.")] = 1024,
        allow_host: Annotated[
            list[str] | None, typer.Option("--allow-host", help="A host that image_url may name. Repeatable.")
        ] = None,
        token: Annotated[
            str,
            typer.Option(envvar="MMFILTER_TOKEN", show_envvar=False, help="Who asks must send it (or MMFILTER_TOKEN)."),
        ] = "",
        name: Name = None,
        cors: Cors = None,
        thumbnails: Thumbnails = 100,
        models: Annotated[bool, typer.Option(help="Load the models that text and image queries take.")] = True,
        weights: o.Weights = None,
        metadata: o.Metadata = None,
        allow: Allow = Allow(),
    ) -> None:
        """Answer queries over HTTP: a page, a JSON API, and clip-retrieval's."""
        _prepare()
        from index.pool import Pool
        from index.reference import given_weights
        from index.service.app import create_app
        from index.service.settings import Settings

        from .outdir import absolute

        folder = _folder(metadata, len(outs))
        given = given_weights([Pool(absolute(out), folder, allow=allow) for out in outs], weights or ())
        settings = Settings(
            max_k, int(max_body * 2**20), concurrency, window / 1000, cache << 20,
            token, tuple(name.lower() for name in allow_host or ()), models,
            metadata=folder or "", allow=allow, cors=origins(cors or []), thumbnails=thumbnails,
            weights=given, names=(host.lower(), *map(host_name, name or ())),
        )  # fmt: skip
        application = create_app([absolute(out) for out in outs], settings, warm=True)
        _warn(application, settings)
        listen(application, bind(host, port), settings)


def _folder(metadata: str | None, outs: int) -> str | None:
    """The folder of metadata, made absolute. Raises UsageError where it is given for several OUTs."""
    from .outdir import absolute

    if metadata and outs > 1:
        raise UsageError(
            f"--metadata {metadata}: it is of one OUT, and {outs} are given; run `mmfilter select` or `index` "
            "with --metadata on each, which then remember theirs"
        )
    return metadata and absolute(metadata)


def _warn(application: Any, settings: Any) -> None:
    """Say on stderr what is missing or stale, and who may read the pool."""
    for served in application.state.service.pools.values():
        for sentence in filter(None, [served.trouble, *served.snapshot.gaps]):
            print(f"mmfilter: {sentence}", file=sys.stderr)
    if "*" in settings.cors and not settings.token:
        print(ANY_PAGE, file=sys.stderr)


def _prepare() -> None:
    """Raise MissingDependency where a library is absent; ask OpenMP for threads that do not spin."""
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        need(module, EXTRA)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before FAISS loads: its idle threads would eat a third


def origins(given: list[str]) -> tuple[str, ...]:
    """Origins as browsers send them: lower case, without the scheme's own port. Raises UsageError."""
    if "*" in given:
        return ("*",)
    return tuple(_origin(text) for text in given)


def _origin(text: str) -> str:
    try:
        parts = urlsplit(text.strip().lower())
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    plain = not (parts.query or parts.fragment or "@" in parts.netloc) and parts.path in ("", "/")
    if parts.scheme not in PORTS or not host or not plain or not host.isascii() or "*" in host:
        raise UsageError(
            f"--cors {text}: an origin is SCHEME://HOST or SCHEME://HOST:PORT with http or https, as in "
            "http://localhost:1235, its name in ASCII; '*' alone is any origin"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port in (None, PORTS[parts.scheme]) else f":{port}")


def host_name(text: str) -> str:
    """A host's name as the Host header has it, in lower case. Raises UsageError."""
    name = text.strip().lower().removesuffix(".")
    if not name or not name.isascii() or any(c in name for c in "/@*, ") or name.count(":") == 1:
        raise UsageError(
            f"--name {text}: a host's name alone, in ASCII, without scheme and port, as in pool.example.org"
        )
    return name


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises MMFilterError where the address is taken or not ours."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        why = error.strerror or error
        raise MMFilterError(f"cannot listen on {host}:{port} ({why}); give another --port or --host") from error


def _raise_files() -> None:
    """Let the process open as many files as it may: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def listen(application: Any, listening: socket.socket, settings: Any) -> None:
    """Serve until a signal; requests in work are finished first."""
    import uvicorn

    from index.service.connections import IDLE_SECONDS, protocol

    from .stopping import Stopped, handed_over

    host, port = listening.getsockname()[:2]
    if not (settings.token or ipaddress.ip_address(host).is_loopback):
        print(
            f"mmfilter: anyone who reaches {host}:{port} may ask; set MMFILTER_TOKEN or --token to a secret",
            file=sys.stderr,
        )
    shown = f"[{host}]" if ":" in host else host
    print(f"mmfilter: http://{shown}:{port}/ (the API: /docs)", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        application, log_level="warning", access_log=False, server_header=False, lifespan="on", ws="none",
        timeout_keep_alive=IDLE_SECONDS, timeout_graceful_shutdown=10, h11_max_incomplete_event_size=1 << 16,
        http=protocol(settings.concurrency), backlog=256,
    )  # fmt: skip
    _raise_files()
    try:
        with handed_over():
            uvicorn.Server(config).run(sockets=[listening])
    except Stopped as stopped:  # the signal that ended it, passed on
        raise SystemExit(stopped.code) from None
