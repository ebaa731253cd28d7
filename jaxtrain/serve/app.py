"""The HTTP server: OpenAI's endpoints, a chat page, health and metrics, around one engine.

    POST /v1/chat/completions   POST /v1/completions   GET /v1/models, /v1/models/{id}
    GET /                       GET /health            GET /metrics (Prometheus)

A client that goes away gives its row back. Nothing is loaded from elsewhere, and no other site's page can use
the server: requests name this host and send JSON, which browsers do not do across origins without asking.
"""

import asyncio
import hmac
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from jaxtrain.decode.request import Answer, Full
from jaxtrain.runtime import web
from jaxtrain.runtime.errors import UserError
from jaxtrain.serve import protocol
from jaxtrain.serve.engine import Engine
from jaxtrain.serve.protocol import Call, Kind, Refused
from jaxtrain.serve.writer import Writer

STATIC = Path(__file__).parent / "static"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
LONGEST_BODY = 4 << 20
"""Bytes of a request; more is refused."""
HEADERS = web.headers("connect-src 'self'; form-action 'none'")


class _Gone(Exception):
    """The client closed its connection."""


class ServeApp:
    """The pages around one engine; `asgi` is the application to serve, which starts and ends the engine."""

    def __init__(self, engine: Engine, *, api_key: str | None = None, hosts: tuple[str, ...] = ("*",)):
        """api_key: what clients send as a bearer token; None: anyone may ask. hosts: names of this server."""
        self.engine, self._api_key = engine, api_key
        self._started = time.time()
        self._responses: Counter[tuple[str, int]] = Counter()
        routes = [
            Route(CHAT, partial(self._complete, "chat"), methods=["POST"]),
            Route(TEXT, partial(self._complete, "text"), methods=["POST"]),
            Route("/v1/embeddings", self._embeddings, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            Route("/", self._page),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        self.asgi = Starlette(
            routes=routes,
            middleware=[web.known_hosts(hosts)],
            exception_handlers={
                Refused: self._refused,
                HTTPException: self._refused,
                ClientDisconnect: web.gone,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(self.engine.close)

    # --- completions ---

    async def _complete(self, kind: Kind, request: Request) -> Response:
        self._authorize(request)
        if not web.is_json(request):
            raise Refused(415, "send the request as application/json")
        body = await web.body(request, LONGEST_BODY)
        call = await asyncio.to_thread(protocol.read, body, kind, self.engine)
        events: asyncio.Queue[int] = asyncio.Queue()
        answers = self._submit(call, events)
        path = request.url.path
        if call.stream:
            lines = self._stream(request, call, answers, events)
            self._responses[path, 200] += 1
            return _Releasing(lines, partial(self._release, answers))
        try:
            async for _ in _changes(request, answers, events):
                pass
        except _Gone:
            self._responses[path, 499] += 1
            return Response(status_code=499)  # nobody reads it
        finally:
            self._release(answers)
        if any(answer.reason == "error" for answer in answers):
            raise Refused(500, "decoding failed; the server's log says why")
        self._responses[path, 200] += 1
        return JSONResponse(Writer(call, self.engine, answers).whole(), headers=HEADERS)

    def _submit(self, call: Call, events: asyncio.Queue[int]) -> list[Answer]:
        """All requests of a call, or none of them."""
        if not self.engine.is_alive:
            raise Refused(503, "the server is not decoding; its log says why")
        loop = asyncio.get_running_loop()
        answers: list[Answer] = []

        def listen(n: int, answer: Answer) -> None:
            if call.stream or answer.reason:
                loop.call_soon_threadsafe(events.put_nowait, n)

        try:
            for n, asked in enumerate(call.requests):
                answers.append(self.engine.scheduler.submit(asked, partial(listen, n)))
        except UserError as error:
            self._release(answers)
            raise Refused(429 if isinstance(error, Full) else 400, str(error)) from None
        return answers

    def _release(self, answers: list[Answer]) -> None:
        for answer in answers:
            self.engine.scheduler.cancel(answer)  # which leaves one alone that has ended

    async def _stream(
        self, request: Request, call: Call, answers: list[Answer], events: asyncio.Queue[int]
    ) -> AsyncIterator[str]:
        """Server-sent events of a call."""
        writer = Writer(call, self.engine, answers)
        with suppress(_Gone):
            for n in range(len(answers)):
                if (opening := writer.first(n)) is not None:
                    yield _event(opening)
            async for n in _changes(request, answers, events):
                if (piece := writer.piece(n)) is not None:
                    yield _event(piece)
            if call.include_usage:
                yield _event(writer.last())
            yield "data: [DONE]\n\n"

    # --- what surrounds it ---

    async def _models(self, request: Request) -> Response:
        self._authorize(request)
        return JSONResponse({"object": "list", "data": [self._about()]}, headers=HEADERS)

    async def _model(self, request: Request) -> Response:
        self._authorize(request)
        if (name := request.path_params["name"]) != self.engine.name:
            raise Refused(404, f"there is no model {name!r}; this server has {self.engine.name!r}", "model")
        return JSONResponse(self._about(), headers=HEADERS)

    def _about(self) -> dict[str, Any]:
        about = {"id": self.engine.name, "object": "model", "created": int(self._started)}
        about |= {"owned_by": "jaxtrain", "max_length": self.engine.scheduler.max_length}
        return about | {"parameters": self.engine.parameters, "dtype": self.engine.dtype}

    async def _embeddings(self, request: Request) -> Response:
        self._authorize(request)
        raise Refused(404, "embeddings are not supported: the model has no vector of a text")

    async def _health(self, request: Request) -> Response:
        alive = self.engine.is_alive
        return JSONResponse({"status": "ok" if alive else "not decoding"}, 200 if alive else 503, HEADERS)

    async def _metrics(self, request: Request) -> Response:
        self._authorize(request)
        scheduler, responses = self.engine.scheduler, sorted(self._responses.items())
        ended = {f'{{reason="{reason}"}}': count for reason, count in sorted(scheduler.ended.items())}
        answered = {f'{{path="{path}",status="{status}"}}': count for (path, status), count in responses}
        metrics = [
            ("rows", "gauge", "Requests that can decode side by side.", {"": scheduler.rows}),
            ("rows_busy", "gauge", "Requests that decode now.", {"": scheduler.busy}),
            ("requests_waiting", "gauge", "Requests in the queue.", {"": scheduler.waiting}),
            ("tokens_total", "counter", "Tokens sampled.", {"": scheduler.tokens}),
            ("prompt_tokens_total", "counter", "Tokens of prompts.", {"": scheduler.prompt_tokens}),
            ("shared_tokens_total", "counter", "Those that were read before.", {"": scheduler.shared_tokens}),
            ("answers_total", "counter", "Answers that ended.", ended),
            ("responses_total", "counter", "HTTP responses of the completions endpoints.", answered),
        ]
        for name, words, times in (
            ("first_token_seconds", "From a request to its first token.", scheduler.first_token),
            ("between_tokens_seconds", "Between two tokens of an answer.", scheduler.between_tokens),
        ):
            values = {f'{{quantile="{share}"}}': times.quantile(share) for share in (0.5, 0.95)}
            metrics.append((name, "summary", words, values | {"_sum": times.total, "_count": times.count}))
        lines = []
        for name, kind, words, values in metrics:
            lines += [f"# HELP jaxtrain_{name} {words}", f"# TYPE jaxtrain_{name} {kind}"]
            lines += [f"jaxtrain_{name}{labels} {value:g}" for labels, value in values.items()]
        return PlainTextResponse("\n".join(lines) + "\n", headers=HEADERS)

    async def _page(self, request: Request) -> Response:
        return FileResponse(STATIC / "chat.html", headers=HEADERS)

    def _authorize(self, request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_known = hmac.compare_digest(given.strip().encode(), (self._api_key or "").encode())
        if self._api_key is not None and not (is_known and scheme.lower() == "bearer"):
            raise Refused(401, "send the server's API key as `Authorization: Bearer KEY`")

    async def _refused(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, Refused):
            assert isinstance(error, HTTPException)
            error = Refused(error.status_code, f"{error.detail}: {request.method} {request.url.path}")
        # a path that a stranger made up would stand in the metrics for ever
        if request.url.path in (CHAT, TEXT) and request.method == "POST":
            self._responses[request.url.path, error.status] += 1
        retry = {"Retry-After": "1"} if error.status == 429 else {}
        return JSONResponse(error.body(), error.status, HEADERS | retry)


class _Releasing(StreamingResponse):
    """A stream that gives its rows back however it ends."""

    def __init__(self, lines: AsyncIterator[str], release: Callable[[], None]):
        super().__init__(lines, media_type="text/event-stream", headers=HEADERS)
        self._release = release

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._release()


async def _changes(request: Request, answers: list[Answer], events: asyncio.Queue[int]) -> AsyncIterator[int]:
    """Indices of answers as they change, until all have ended. Errors: _Gone where the client has left."""
    gone = asyncio.ensure_future(_disconnected(request))
    left = set(range(len(answers)))
    try:
        while left:
            event = asyncio.ensure_future(events.get())
            done, _ = await asyncio.wait({gone, event}, return_when=asyncio.FIRST_COMPLETED)
            if event not in done:
                event.cancel()
                raise _Gone
            n = event.result()
            if answers[n].reason:
                left.discard(n)
            yield n
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
