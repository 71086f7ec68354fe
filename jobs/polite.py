"""How strangers' servers are asked: http(s) alone, public addresses, so many bytes, so long and no longer.

img2dataset asks through `urllib.request.urlopen`, whose opener is installed here. As it comes, urllib
reads an answer without end until the memory is full, waits as long as a byte comes now and then,
follows redirects into the private network, and opens `file:` urls.
"""

import http.client
import socket
import threading
import time
import urllib.request
import weakref
from functools import partial
from typing import Any

from index.service.fetch import addresses

LOOK = 0.5  # seconds between two looks at what is overdue


def install(max_bytes: int, seconds: float, private: bool) -> None:
    """Make `urlopen` of this process keep to the limits: `seconds` are for the whole of an answer, redirects apart."""
    opener = urllib.request.OpenerDirector()
    watch = _Watch()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Asker(max_bytes, seconds, private, watch),
    ):
        opener.add_handler(handler)
    urllib.request.install_opener(opener)


class _Watch(threading.Thread):
    """Shuts sockets that are overdue: a server that sends its headers a byte at a time is not waited for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.due: weakref.WeakKeyDictionary[Any, float] = weakref.WeakKeyDictionary()
        self.lock = threading.Lock()

    def add(self, sock: Any, until: float) -> None:
        with self.lock:
            self.due[sock] = until
            if not self.is_alive():
                self.start()

    def run(self) -> None:
        while True:
            time.sleep(LOOK)
            with self.lock:
                overdue = [sock for sock, until in self.due.items() if until < time.monotonic()]
                for sock in overdue:
                    del self.due[sock]
            for sock in overdue:
                try:
                    sock.shutdown(2)
                except OSError:
                    pass  # it is closed already


class _Asker(urllib.request.AbstractHTTPHandler):
    handler_order = 400  # before the one that follows redirects, so that their bodies are bounded too

    def __init__(self, max_bytes: int, seconds: float, private: bool, watch: _Watch) -> None:
        super().__init__()
        self.max_bytes, self.seconds, self.private, self.watch = max_bytes, seconds, private, watch

    def http_request(self, request: Any) -> Any:
        request.until = time.monotonic() + self.seconds
        return self.do_request_(request)

    def http_open(self, request: Any) -> Any:
        return self.do_open(self._connection(_Http, request), request)

    def https_open(self, request: Any) -> Any:
        return self.do_open(self._connection(_Https, request), request)

    def _connection(self, kind: Any, request: Any) -> Any:
        private = self.private or request.has_proxy() or bool(request._tunnel_host)
        return partial(kind, until=request.until, private=private, watch=self.watch)

    def http_response(self, request: Any, response: Any) -> Any:
        return response if isinstance(response, Bounded) else Bounded(response, self.max_bytes, request.until)

    https_request, https_response = http_request, http_response


class _Checked:
    def __init__(self, *words: Any, until: float, private: bool, watch: _Watch, **options: Any) -> None:
        super().__init__(*words, **options)
        self.until, self.watch = until, watch
        if not private:
            self._create_connection = _to_public  # what http.client connects with

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.watch.add(self.sock, self.until)  # type: ignore[attr-defined]


def _to_public(address: tuple[str, int], *words: Any, **options: Any) -> socket.socket:
    """Connect to one of the addresses of a host, all of which are public: none is asked before that is known.

    The name is looked up once, so that what was checked is what is connected to. Raises OSError.
    """
    host, port = address
    found = addresses(host, port)
    if not found:
        raise OSError(f"{host} is at an address that is not on the open network")
    for last, one in enumerate(found, 1 - len(found)):
        try:
            return socket.create_connection((one, port), *words, **options)
        except OSError:
            if not last:
                raise
    raise AssertionError


class _Http(_Checked, http.client.HTTPConnection):
    pass


class _Https(_Checked, http.client.HTTPSConnection):
    pass


class Bounded:
    """A response whose `read` ends in an error past its bytes or its time, and when fewer came than were told."""

    def __init__(self, response: Any, max_bytes: int, until: float) -> None:
        self.response, self.max_bytes, self.until = response, max_bytes, until

    def __getattr__(self, name: str) -> Any:
        return getattr(self.response, name)

    def __enter__(self) -> "Bounded":
        return self

    def __exit__(self, *_: Any) -> None:
        self.response.close()

    def read(self, *_: Any) -> bytes:
        parts, size = [], 0
        while part := self.response.read1(1 << 16):
            parts.append(part)
            size += len(part)
            if size > self.max_bytes:
                raise OSError(f"more than {self.max_bytes} bytes")
            self._in_time()
        self._in_time()
        if self.response.length:
            raise OSError(f"{size} of {size + self.response.length} bytes came")
        return b"".join(parts)

    def _in_time(self) -> None:
        if time.monotonic() > self.until:
            raise TimeoutError("it took too long")
