"""Files over HTTP that survive a bad line: resume, retry with growing pauses, time-outs, a limited rate.

What was fetched is kept in the source's folder, so a second run asks for nothing.
"""

import http.client
import re
import time
import urllib.error
import urllib.request
from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from jaxtrain.runtime.files import publish

AGENT = "jaxtrain"
FAULTS = (OSError, http.client.HTTPException, ValueError)
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Politeness:
    """How a server is asked."""

    timeout: float = 30.0
    """Seconds without a byte after which an answer counts as stalled."""
    tries: int = 4
    """Of each file; a later try goes on where the one before stopped."""
    longest: float = 3600.0
    """Seconds that one try of a file may take: a server that sends a byte now and then never stalls."""
    pause: float = 1.0
    """Seconds between two requests; before the nth retry 2^n times as many, or as many as the
    server asks for."""


class Refused(Exception):
    """The server's answer is final; the message is the reason that is counted."""


def fetch(url: str, path: Path, politeness: Politeness) -> None:
    """Download `url` to `path`, whole or not at all; Refused where it cannot be had."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, version = (path.with_name(path.name + end) for end in (".part", ".part.etag"))
    reason, wait = "", 0.0
    for attempt in range(politeness.tries):
        time.sleep(max(wait, politeness.pause * 2**attempt))
        try:
            _append(url, partial, version, politeness)
            version.unlink(missing_ok=True)
            publish(partial, path)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # what is there is no beginning of the file
                partial.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 425, 429):
                raise Refused(f"HTTP status {error.code}") from error
            reason, wait = f"HTTP status {error.code}", min(_wished(error.headers), politeness.longest)
        except FAULTS as error:
            reason, wait = type(error).__name__, 0.0
    raise Refused(f"no answer after {politeness.tries} tries: {reason}")


def _wished(headers: Message) -> float:
    """Seconds that a server asks to wait: `Retry-After: 55`, or the hub's `RateLimit: "api";r=0;t=55`."""
    said = f"t={headers.get('Retry-After', '')} {headers.get('RateLimit', '')}"
    return max(map(float, re.findall(r"\bt=(\d+)", said)), default=0.0)


def _append(url: str, partial: Path, known: Path, politeness: Politeness) -> None:
    """Go on with a file. known: holds the ETag of what the part is of."""
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": AGENT} | ({"Range": f"bytes={have}-"} if have else {})
    asked = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(asked, timeout=politeness.timeout) as answer:
        version = answer.headers.get("ETag", "")
        if answer.status == 206 and known.exists() and known.read_text() != version:
            partial.unlink()  # the rest is of another version than the part that is here
            raise OSError("the file has changed")
        expected = answer.headers.get("Content-Length")
        got, deadline = 0, time.monotonic() + politeness.longest
        with partial.open("ab" if answer.status == 206 else "wb") as file:
            known.write_text(version)
            while data := answer.read1(_CHUNK):
                file.write(data)
                got += len(data)
                if time.monotonic() > deadline:
                    raise TimeoutError
        if expected is not None and got < int(expected):
            raise OSError("the answer was cut")


def get(url: str, politeness: Politeness, most: int, hosts: Collection[str]) -> tuple[int, str, str, bytes]:
    """(status, final url, content type, at most `most` bytes) of a page; an error of HTTP is a status.

    hosts: where a redirect may lead; Refused for another one, which is not asked.
    Errors: TimeoutError where all of it takes longer than four times the politeness' timeout.
    """
    opener = urllib.request.build_opener(_Within(hosts))
    asked = urllib.request.Request(url, headers={"User-Agent": AGENT})
    found: Future[tuple[int, str, str, bytes]] = Future()

    def ask() -> None:
        try:
            with opener.open(asked, timeout=politeness.timeout) as answer:
                kind = answer.headers.get("Content-Type", "")
                found.set_result((answer.status, answer.url, kind, answer.read(most)))
        except BaseException as error:
            found.set_exception(error)

    # A server that sends a byte now and then keeps `ask` waiting in the head as well as in the body.
    Thread(target=ask, daemon=True).start()
    try:
        return found.result(4 * politeness.timeout)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, url, "", b""


class _Within(urllib.request.HTTPRedirectHandler):
    """Follows redirects to some hosts alone."""

    def __init__(self, hosts: Collection[str]) -> None:
        self._hosts = hosts

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).netloc not in self._hosts:
            raise Refused("a redirect to another site")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
