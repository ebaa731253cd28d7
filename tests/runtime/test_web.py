"""Strangers who send half a request, or do not read, against a real server on loopback."""

import logging
import socket
import threading
import urllib.request
from types import SimpleNamespace

import pytest
from parrot import serving
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from jaxtrain.runtime import web
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.web import Patience

CHUNK, CHUNKS = bytes(1 << 20), 64
left = threading.Event()
"""The stream of /long has ended, whole or not."""


async def _echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await web.body(request, 1 << 20))))


async def _long(request: Request) -> StreamingResponse:
    async def chunks():
        try:
            for _ in range(CHUNKS):
                yield CHUNK
        finally:
            left.set()

    return StreamingResponse(chunks())


APP = SimpleNamespace(
    asgi=Starlette(
        routes=[Route("/", _echo, methods=["GET", "POST"]), Route("/long", _long)],
        exception_handlers={ClientDisconnect: web.gone},
    )
)
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(address: str) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return answer.read()


@pytest.fixture(scope="module")
def hasty():
    with serving(APP, patience=Patience(head=0.2, body=0.2, reader=0.2)) as address:
        yield address


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        WHOLE + b"GET / HTT",
    ],
)
def test_half_a_request_is_not_waited_for(hasty, sent: bytes, caplog):
    with connect(hasty) as stranger:
        stranger.sendall(sent)
        found = b""
        try:
            while part := stranger.recv(1 << 16):
                found += part
        except ConnectionResetError:
            pass
    assert found.startswith(b"HTTP/1.1 200") == sent.startswith(WHOLE)
    assert get(hasty) == b"0"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_who_leaves_in_the_middle_of_a_body_leaves_no_traceback(hasty, caplog):
    for _ in range(5):
        with connect(hasty) as stranger:
            stranger.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
    assert get(hasty) == b"0"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_who_does_not_read_is_left(hasty):
    left.clear()
    with connect(hasty) as stranger:
        stranger.sendall(WHOLE.replace(b"GET /", b"GET /long"))
        assert left.wait(30), "the stream is still held"
        size = 0
        try:
            while part := stranger.recv(1 << 20):
                size += len(part)
        except ConnectionResetError:
            pass
    assert size < CHUNKS * len(CHUNK)
    assert get(hasty) == b"0"


def test_a_patient_reader_gets_the_whole():
    with serving(APP) as address:
        assert len(get(f"{address}/long")) == CHUNKS * len(CHUNK)


def test_half_requests_cannot_keep_others_out():
    """Eight connections at most: forty that are never whole, and one that is, in between and after."""
    with serving(APP, most=8) as address, connect(address) as kept:
        kept.sendall(WHOLE)
        assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200")
        strangers = []
        try:
            for _ in range(40):
                strangers.append(connect(address))
                strangers[-1].sendall(b"GET / HTTP/1.1\r\nX: ")
                assert get(address) == b"0"
        finally:
            for stranger in strangers:
                stranger.close()
        assert get(address) == b"0"


def test_a_port_that_is_taken_is_said():
    with web.listen("127.0.0.1", 0) as listening:
        listening.listen()
        port = listening.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen at 127.0.0.1:{port} .*name another port"):
            web.listen("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen at no.such.host.invalid:1"):
        web.listen("no.such.host.invalid", 1)
