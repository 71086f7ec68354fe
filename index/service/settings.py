"""What the service is told at its start, and the one error it adds: a refusal with an HTTP status."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmfilter.allow import Allow
from mmfilter.errors import MMFilterError


@dataclass(frozen=True)
class Settings:
    """Limits and permissions. `hosts` may be fetched from (``host`` or ``host:port``); none by default."""

    k: int = 10_000  # most results of a search
    body: int = 8 << 20  # most bytes of a request's body
    concurrency: int = 64  # most requests in work at once; more are shed
    window: float = 0.0015  # seconds that a query waits for others to share its search
    cache: int = 1 << 30  # bytes of captions and thumbnails that are kept
    token: str = ""  # the bearer token; "" asks for none
    hosts: tuple[str, ...] = ()
    models: bool = True  # load the models that text and image queries take
    refresh: float = 2.0  # seconds between looks for what changed on disk
    body_seconds: float = 20.0  # how long a request may take to send its body
    metadata: str = ""  # a folder of DataComp's metadata, in place of OUT/metadata
    cors: tuple[str, ...] = ()  # origins whose pages may read answers; "*" for any
    thumbnails: int = 100  # most results of clip-retrieval's API that carry their picture
    names: tuple[str, ...] | None = None  # hosts that a request without a token may name; None: any
    allow: Allow = Allow()  # what of a pool may be missing or stale
    weights: Mapping[str, str] = field(default_factory=dict)  # model -> file or folder, in place of fetching


class Refused(MMFilterError):
    """A request that is answered with `status` and the message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
