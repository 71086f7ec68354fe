"""Connections: a time for a request's headers, room for others, and nothing held for a client that does not read.

uvicorn waits without end for headers that are half sent, before any route or token is looked at. Here each connection
has a time to send a whole request head; where there are too many, the one that has waited longest for its client is
closed, and requests in work stay.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0  # from the connection, or the end of the time it may idle, to a whole request head
IDLE_SECONDS = 15  # between a response and the next request
DRAIN_SECONDS = 10.0  # in which a client must read something of an answer
CONNECTIONS = 512  # at once
OTHERS = 64  # of them no single address may take


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol in HTTP/1.1, with these limits."""

    most = CONNECTIONS

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self.server_state.__dict__.setdefault("waiting", {})[self] = None
        self._wait(HEAD_SECONDS)
        own = sum(map(self._same_client, self.connections))
        if own > max(self.most - OTHERS, 1):
            self._make_room(self._same_client)
        elif len(self.connections) > self.most:
            self._make_room(lambda other: True)

    def _same_client(self, other: Any) -> bool:
        return bool(self.client and other.client and self.client[0] == other.client[0])

    def _make_room(self, chosen: Any) -> None:
        """Close the connection that has waited longest for its client; this one where none but it waits."""
        waiting = self.server_state.__dict__["waiting"]
        next(other for other in waiting if chosen(other)).abort()

    def abort(self) -> None:
        """Close without sending what is still to be sent."""
        self._forget()
        self.connections.discard(self)
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.cycle.response_complete:
            self._forget()

    def on_response_complete(self) -> None:
        before = self.cycle
        self._wait(IDLE_SECONDS + HEAD_SECONDS)
        super().on_response_complete()
        if self.cycle is not before:  # a request that had come already
            self._forget()

    def _wait(self, seconds: float) -> None:
        """Give the client `seconds` for its next request's head."""
        self._forget()
        self.server_state.__dict__["waiting"][self] = None
        self._unsent = self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _forget(self) -> None:
        self.server_state.__dict__["waiting"].pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:  # a slow reader, which reads
            self._wait(DRAIN_SECONDS)
        else:
            self.abort()


def protocol(concurrency: int) -> type[BoundedProtocol]:
    """The protocol with room for a service that works on `concurrency` requests at once."""
    most = max(CONNECTIONS, 4 * concurrency + OTHERS)
    return type("BoundedProtocol", (BoundedProtocol,), {"most": most})
