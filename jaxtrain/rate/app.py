"""`jaxtrain rate serve`: people rank answers in the browser, side by side and blind.

A rater comes by an invite link, which becomes a signed cookie; the administrator by a link of their own.
Every form carries a token against forged requests. Pages work without JavaScript; `rate.js` adds keys.
"""

import hmac
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import uvicorn
from itsdangerous import BadSignature, URLSafeSerializer
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from jaxtrain.rate import exchange
from jaxtrain.rate.overview import overview
from jaxtrain.rate.store import Store
from jaxtrain.runtime import web
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count
from jaxtrain.runtime.progress import say

FOLDER = Path(__file__).parent / "templates"
LONGEST_FORM = 64 * 1024
"""Bytes of a form; more is refused."""
HEADERS = web.headers("form-action 'self'")
LONGEST_MARKDOWN = 32 * 1024
"""Characters; a longer text is shown as it is, for a table of it takes seconds to lay out."""

# Raw HTML is shown as text, links cannot run scripts, and nothing is loaded from elsewhere.
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """`rate serve`: open the rating page on a database."""

    database: str = "ratings.sqlite"
    """File of an SQLite database, or an SQLAlchemy URL."""
    host: str = "127.0.0.1"
    """Address to listen on: only this machine, unless you say otherwise. Put TLS in front of any other."""
    port: int = 8000
    """TCP port; 0: a free one."""
    address: str = ""
    """Where people reach the page, such as https://rate.example.org: links begin with it, and cookies then
    travel over https alone. Empty: the address that it listens on."""
    overlap: Count = 1
    """Judgements wanted for each task, by different raters."""
    gold_every: int = 10
    """One task in so many is one whose right order is known, while there are any."""
    lease_minutes: float = 15.0
    """How long a task is kept for the rater who looks at it."""
    instructions: str = ""
    """Markdown file for raters: its first line is the question above every task, the rest what counts."""
    invite: tuple[str, ...] = ()
    """Names of raters whose links are printed at the start."""
    secret_file: str = "ratings.key"
    """File with the key that signs links and cookies; made if it is missing. Delete it to void all links."""


class RatingApp:
    """The pages around one store; `asgi` is the application to serve.

    Handlers that are plain functions run in threads: other raters go on while a long text is laid out.
    """

    def __init__(
        self,
        store: Store,
        secret: str,
        config: ServeConfig,
        *,
        address: str = "",
        clock: Callable[[], float] = time.time,
    ):
        """address: where people reach the pages, such as https://rate.example.org; links begin with it."""
        self.store, self.clock, self.overlap = store, clock, config.overlap
        self._task = (config.overlap, 60 * config.lease_minutes, config.gold_every)
        given = Path(config.instructions or FOLDER / "instructions.md")
        if not given.is_file():
            raise UserError(f"instructions: there is no file {given}; write one of what counts")
        self.question, _, self.guide = given.read_text(encoding="utf-8").strip().partition("\n")
        self.address = address.rstrip("/")
        self._invites = URLSafeSerializer(secret, salt="invite")
        self._admin = URLSafeSerializer(secret, salt="admin")
        self._pages = Environment(
            loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        self._pages.filters |= {"markdown": _markdown}
        routes = [
            Route("/", self._rate),
            Route("/judge", self._judge, methods=["POST"]),
            Route("/undo", self._undo, methods=["POST"]),
            Route("/invite/{token}", self._enter),
            Route("/admin/enter/{token}", self._enter_admin),
            Route("/admin", self._overview),
            Route("/admin/invite", self._invite, methods=["POST"]),
            Route("/admin/{kind}.jsonl", self._download),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ]
        cookies = {"secret_key": secret, "same_site": "lax", "max_age": 30 * 86400}
        session = Middleware(SessionMiddleware, **cookies, https_only=self.address.startswith("https:"))
        handlers = {HTTPException: self._refused, UserError: self._refused, ClientDisconnect: web.gone}
        self.asgi = Starlette(routes=routes, middleware=[session], exception_handlers=handlers)

    def invite_link(self, name: str) -> str:
        """A rater's link; their name is in it, signed."""
        return f"{self.address}/invite/{self._invites.dumps(name)}"

    def admin_link(self) -> str:
        return f"{self.address}/admin/enter/{self._admin.dumps('admin')}"

    # --- raters ---

    def _enter(self, request: Request) -> Response:
        name = _signed(self._invites, request.path_params["token"])
        request.session.clear()
        request.session["rater"] = self.store.add_rater(name, False)
        request.session["name"] = name
        return _to("/")

    def _rate(self, request: Request) -> Response:
        rater, now = _rater(request), self.clock()
        task = self.store.next_task(rater, now, *self._task)
        done, left = self.store.progress(rater, now, self.overlap)
        withdrawn = request.session.pop("withdrawn", None)
        ranks = withdrawn["ranks"] if task and withdrawn and withdrawn["task"] == task.task else []
        told = {"question": self.question.lstrip("# "), "guide": self.guide}
        return self._page(request, "rate.html", task=task, done=done, left=left, ranks=ranks, **told)

    async def _judge(self, request: Request) -> Response:
        rater, form = _rater(request), await _form(request)
        task, verdict = _number(form, "task"), form.get("verdict", "ranks")
        if verdict not in ("ranks", "all_bad", "skip"):
            raise HTTPException(400, f"There is no verdict {verdict!r}.")
        answers = sum(name.startswith("rank_") for name in form)
        given = [_number(form, f"rank_{k}") for k in range(answers)] if verdict == "ranks" else [1] * answers
        places = sorted(set(given))  # 1, 2, 2, 4 is 1, 2, 2, 3
        await run_in_threadpool(
            self.store.judge,
            task,
            rater,
            [] if verdict == "skip" else [places.index(rank) + 1 for rank in given],
            now=self.clock(),
            milliseconds=_number(form, "milliseconds"),
            assigned=True,
            all_bad=verdict == "all_bad",
            skip=verdict == "skip",
            reason=form.get("reason", "")[:1000],
        )
        return _to("/")

    async def _undo(self, request: Request) -> Response:
        rater = _rater(request)
        await _form(request)
        ranks = await run_in_threadpool(self.store.undo, rater, self.clock(), self._task[1])
        if ranks:
            task = await run_in_threadpool(self.store.next_task, rater, self.clock())
            request.session["withdrawn"] = {"task": task.task, "ranks": ranks}
        return _to("/")

    # --- the administrator ---

    def _enter_admin(self, request: Request) -> Response:
        _signed(self._admin, request.path_params["token"])
        request.session["admin"] = True
        return _to("/admin")

    def _overview(self, request: Request) -> Response:
        _administrator(request)
        link = request.session.pop("invited", None)
        return self._page(request, "admin.html", seen=overview(self.store), overlap=self.overlap, link=link)

    async def _invite(self, request: Request) -> Response:
        _administrator(request)
        name = (await _form(request)).get("name", "").strip()
        if not name or len(name) > 80:
            raise HTTPException(400, "Give the rater a name of at most 80 characters.")
        await run_in_threadpool(self.store.add_rater, name, False)
        request.session["invited"] = {"name": name, "url": self.invite_link(name)}
        return _to("/admin")

    def _download(self, request: Request) -> Response:
        _administrator(request)
        rows = {"rankings": exchange.rankings, "preferences": exchange.preferences}
        if (kind := request.path_params["kind"]) not in rows:
            raise HTTPException(404, "There are rankings.jsonl and preferences.jsonl.")
        name = {"Content-Disposition": f'attachment; filename="{kind}.jsonl"'}
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows[kind](self.store))
        return StreamingResponse(lines, media_type="application/jsonl", headers=HEADERS | name)

    # --- pages ---

    def _page(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        token = request.session.setdefault("csrf", secrets.token_urlsafe(16))
        text = self._pages.get_template(name).render(csrf=token, session=request.session, **values)
        return HTMLResponse(text, status, HEADERS)

    def _refused(self, request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return self._page(request, "refused.html", error.status_code, text=error.detail)
        return self._page(request, "refused.html", 409, text=f"Not recorded: {error}.")


def serve(config: ServeConfig) -> None:
    """Serve until interrupted; prints the administrator's link and those of the raters named."""
    parts = urlsplit(config.address)
    if config.address and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise UserError(f"address is {config.address!r}; give one such as https://rate.example.org")
    opened = Store(config.database, durable=True)
    with opened as store, web.listen(config.host, config.port) as listening:
        app = RatingApp(
            store,
            _secret(Path(config.secret_file)),
            config,
            address=config.address or f"http://{config.host}:{listening.getsockname()[1]}",
        )
        counts = store.counts()
        missing = "" if counts["tasks"] else ": `jaxtrain rate sample` puts some in"
        judged = f"{counts['judgements']} judgements in {config.database}"
        say(f"rate serve: {counts['tasks']} tasks, {judged}{missing}")
        say(f"  administrator  {app.admin_link()}")
        for name in config.invite:
            say(f"  {name:<13}  {app.invite_link(name)}")
        uvicorn.Server(web.settings(app.asgi)).run(sockets=[listening])


def _secret(file: Path) -> str:
    """The key in `file`, which only its owner can read; made if it is missing."""
    if not file.is_file():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
    key = file.read_text().strip()
    if len(key) < 32:
        raise UserError(f"{file} holds no key of at least 32 characters; delete it to have one made")
    return key


def _markdown(text: str) -> Markup:
    if len(text) > LONGEST_MARKDOWN:
        return Markup("<pre>{}</pre>").format(text)
    return Markup(_MARKDOWN.render(text))


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, HEADERS)


def _signed(signer: URLSafeSerializer, token: str) -> str:
    try:
        return signer.loads(token)
    except BadSignature:
        raise HTTPException(403, "This link is not valid. Ask whoever runs this page for another.") from None


def _rater(request: Request) -> int:
    if "rater" not in request.session:
        raise HTTPException(403, "Please open the link that you were invited with.")
    return request.session["rater"]


def _administrator(request: Request) -> None:
    if not request.session.get("admin"):
        raise HTTPException(403, "Please open the administrator's link, printed where this page was started.")


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form that this page itself showed."""
    body = await web.body(request, LONGEST_FORM)
    try:
        form = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=40))
    except ValueError:
        raise HTTPException(400, "This is not a form of this page.") from None
    known = request.session.get("csrf", "")
    if not known or not hmac.compare_digest(form.get("csrf", "").encode(), known.encode()):
        raise HTTPException(403, "This form was not sent from this page. Go back, reload it and try again.")
    return form


def _number(form: dict[str, str], name: str) -> int:
    value = form.get(name, "")
    if not value.isascii() or not value.isdigit() or len(value) > 12:
        raise HTTPException(400, f"{name} is no number: rank every answer.")
    return int(value)
