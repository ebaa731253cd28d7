"""The rating page: people rank answers in the browser, side by side and blind.

A rater comes by an invite link, which becomes a signed cookie; the administrator by a link of their own.
Every form carries a token against forged requests. Pages work without JavaScript; `rate.js` adds keys.
"""

import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

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

FOLDER = Path(__file__).parent / "templates"
LONGEST_FORM = 64 * 1024
"""Bytes of a form; more is refused."""
HEADERS = web.headers("form-action 'self'")
INSTRUCTIONS = """# Which answer is better?

The better answer does what was asked for, is true, and harms nobody. That it is longer, or sure of itself, is
no merit. Read all of them before you decide; skip what you cannot judge.
"""
"""Markdown: the question above every task, and what counts."""

LONGEST_MARKDOWN = 32 * 1024
"""Characters; a longer text is shown as it is, for a table of it takes seconds to lay out."""

# Raw HTML is shown as text, links cannot run scripts, and nothing is loaded from elsewhere.
_MARKDOWN = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table").disable("image")


class RatingApp:
    """The pages around one store; `asgi` is the application to serve.

    Handlers that are plain functions run in threads: other raters go on while a long text is laid out.
    """

    def __init__(
        self,
        store: Store,
        secret: str,
        *,
        overlap: int = 1,
        lease_seconds: float = 900.0,
        gold_every: int = 10,
        instructions: str = INSTRUCTIONS,
        address: str = "",
        clock: Callable[[], float] = time.time,
    ):
        """address: where people reach the pages, such as https://rate.example.org; links begin with it.

        instructions: Markdown as `INSTRUCTIONS`.
        """
        self.store, self.clock = store, clock
        self.overlap, self.lease_seconds, self.gold_every = overlap, lease_seconds, gold_every
        self.question, _, self.guide = instructions.strip().partition("\n")
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
        task = self.store.next_task(rater, now, self.overlap, self.lease_seconds, self.gold_every)
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
        ranks = await run_in_threadpool(self.store.undo, rater, self.clock(), self.lease_seconds)
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
