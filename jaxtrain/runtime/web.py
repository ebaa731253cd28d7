"""What every HTTP server here asks of strangers: a whole request in time, a body of bounded length.

Needs the extra `serve` or `rate`. A request that is not whole in time is dropped, as is who does not read the
answer. There is a most of connections; beyond it the one that has waited longest for its request to be whole
makes room, so those who send only half of one cannot keep others out.
"""

import asyncio
import logging
import os
import resource
import socket
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from jaxtrain.runtime.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
BACKLOG = 128
"""Connections accepted at once, before any is looked at."""


@dataclass(frozen=True)
class Patience:
    """Seconds that the other end of a connection has."""

    head: float = 10.0
    """To send a request's head."""
    body: float = 60.0
    """To send its body."""
    reader: float = 60.0
    """To take what was written."""


class Connection(H11Protocol):
    """uvicorn's connection, with limits to how long one waits for its other end."""

    most: int
    """Connections of one server."""
    patience: Patience
    waiting: "dict[Connection, None]"
    """Those of them whose request is not whole, the longest first."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # so that every byte that is not taken counts, and not from 64 kB on
        transport.set_write_buffer_limits(high=0)
        self._deadline: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        self._part = ""
        self._wait_for("head", self.patience.head)
        if len(self.connections) > self.most:
            next(iter(self.waiting)).transport.abort()

    def handle_events(self) -> None:
        super().handle_events()
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._wait_for("body", self.patience.body)
        elif state is h11.IDLE:
            self._wait_for("head", self.patience.head)
        else:
            self._wait_for("", 0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_for("", 0)
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = self._reader or self.loop.call_later(self.patience.reader, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def _wait_for(self, part: str, seconds: float) -> None:
        """For a part of the request that has not begun to be waited for; for nothing if it is empty."""
        if part == self._part:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._part = part
        if part:
            self.waiting.setdefault(self)
        else:
            self.waiting.pop(self, None)
        self._deadline = self.loop.call_later(seconds, self.transport.abort) if part else None


def settings(app: Any, *, most: int = 0, patience: Patience = Patience(), **more: Any) -> uvicorn.Config:
    """uvicorn's settings of an application, with the limits of this file.

    most: connections; 0: half of the descriptors that this process may open, at most 512.
    """
    most = most or max(16, min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2))
    own = {"most": most, "patience": patience, "waiting": {}}
    quiet = {"log_level": logging.WARNING, "server_header": False, "ws": "none", "backlog": BACKLOG}
    return uvicorn.Config(app, http=type("Connection", (Connection,), own), **quiet, **more)


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; UserError where the address is taken, before anything is loaded. port 0: a free one."""
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(f"cannot listen at {host}:{port} ({reason}); name another port") from None
    return listening


def headers(policy: str) -> dict[str, str]:
    """Of every answer: nothing is loaded from elsewhere or kept. policy: what else its page may do."""
    own = "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"
    return {
        "Content-Security-Policy": f"{own}; {policy}",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


def known_hosts(hosts: tuple[str, ...]) -> Middleware:
    """Refuses requests for names that are not this server's: other sites' pages cannot read its answers."""
    return Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)


def is_json(request: Request) -> bool:
    """The request says that it is JSON, which a browser does not do for another site without asking."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    return kind.lower() == "application/json"


async def body(request: Request, longest: int) -> bytes:
    """The body of a request. Errors: HTTPException 413; ClientDisconnect where the client left amid it."""
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > longest:
            raise HTTPException(413, f"a request of more than {longest} bytes is not read")
    return bytes(found)


async def gone(request: Request, error: Exception) -> Response:
    """What an application answers to ClientDisconnect: nobody reads it."""
    return Response(status_code=499)
