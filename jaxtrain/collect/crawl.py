"""Pages over HTTP into WARC files: Common Crawl by its id, and a small polite crawl of one's own site.

The stage reads the WARC files afterwards (web.py), so a crawl is made once and read as often as needed.
"""

import gzip
import html
import json
import re
import time
import uuid
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Literal
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from jaxtrain.collect.download import AGENT, FAULTS, Politeness, Refused, fetch, get
from jaxtrain.collect.source import Item, Source, Step
from jaxtrain.collect.web import WebSource
from jaxtrain.formats.encoding import decode
from jaxtrain.formats.files import MAX_RECORD, Unread
from jaxtrain.runtime.errors import UserError

MOST_DELAY = 10  # seconds between two requests that a robots.txt may ask for
_HREF = re.compile(r"""\bhref\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""", re.I)
_DATE = "1970-01-01T00:00:00Z"  # the same crawl gives the same bytes: when it was made is in the file system


@dataclass(frozen=True, kw_only=True)
class CommonCrawlSource(Source):
    """Files of one crawl of Common Crawl."""

    crawl: str
    """Id of the crawl, for example `CC-MAIN-2024-10`."""
    first: int = 0
    """Number of the first file in the crawl's list of paths."""
    count: int = 1
    """How many files to take."""
    kind: Literal["warc", "wet"] = "warc"
    """Pages with their HTML (about 1 GB a file), or their text (100 MB)."""
    folder: str
    """Where the files are kept."""
    server: str = "https://data.commoncrawl.org"
    """Where they are fetched from."""
    politeness: Politeness = Politeness()
    """How the server is asked."""

    def fetch(self, unread: Unread) -> None:
        """Get the files that are not there yet; one that cannot be had is counted."""
        for url, file in self._files():
            try:
                fetch(url, file, self.politeness)
            except Refused as error:
                unread[f"{file.name}: {error}"] += 1

    def read(self, unread: Unread) -> Iterator[Item]:
        web = WebSource(name=self.name, paths=())
        for _, file in self._files():
            if file.exists():
                yield Step(file.name, partial(web.read_file, file, unread), file.stat().st_size)

    def _files(self) -> list[tuple[str, Path]]:
        """Where each file is on the server, and here."""
        server, folder = self.server.rstrip("/"), Path(self.folder) / self.crawl
        listing = folder / f"{self.kind}.paths.gz"
        try:
            fetch(f"{server}/crawl-data/{self.crawl}/{listing.name}", listing, self.politeness)
            with gzip.open(listing, "rt") as lines:
                paths = [line.strip() for line in lines if line.strip()]
        except (Refused, OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(f"source {self.name!r}: no list of {self.crawl} at {server} ({error})") from error
        chosen = paths[self.first :][: self.count]
        return [(f"{server}/{path}", folder / Path(path).name) for path in chosen]


@dataclass(frozen=True, kw_only=True)
class SiteSource(Source):
    """Pages of one site, found by following its links."""

    start: tuple[str, ...]
    """URLs to begin with; only pages of their hosts are read."""
    depth: int = 3
    """Links between a page and the start."""
    most_pages: int = 1000
    """Pages to ask for."""
    license: str = ""
    """SPDX identifier of the pages."""
    folder: str
    """Where the crawl is kept, as `crawl.warc.gz`; remove it to crawl again."""
    politeness: Politeness = field(default_factory=lambda: Politeness(timeout=10.0, tries=2))
    """How the server is asked; a longer `Crawl-delay` of robots.txt is kept to."""

    def fetch(self, unread: Unread) -> None:
        """Make the crawl where it is not there yet."""
        if not self._file.exists():
            crawl(self, self._file)

    def read(self, unread: Unread) -> Iterator[Item]:
        unread.update(json.loads(self._file.with_name("unread.json").read_text()))
        web = WebSource(name=self.name, paths=(), license=self.license)
        yield Step(self._file.name, partial(web.read_file, self._file, unread), self._file.stat().st_size)

    @property
    def _file(self) -> Path:
        return Path(self.folder) / "crawl.warc.gz"


def crawl(source: SiteSource, file: Path) -> None:
    """Breadth first, one page at a time, as robots.txt allows; the WARC file is whole or absent."""
    hosts = {urlsplit(url).netloc for url in source.start}
    if not hosts or "" in hosts:
        raise UserError(f"source {source.name!r}: `start` needs URLs, such as https://example.org/")
    reasons: Unread = Unread()
    waiting = deque((urldefrag(url)[0], 0) for url in source.start)
    seen = {url for url, _ in waiting}
    rules_at = cache(lambda robots: _rules(robots, source.politeness, hosts))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial, asked = file.with_name(file.name + ".part"), 0
    with partial.open("wb") as out:
        while waiting and asked < source.most_pages:
            url, depth = waiting.popleft()
            rules = rules_at(urljoin(url, "/robots.txt"))
            if not rules.can_fetch(AGENT, url):
                reasons["robots.txt does not allow it"] += 1
                continue
            wished = min(MOST_DELAY, int(rules.crawl_delay(AGENT) or 0))
            time.sleep(max(source.politeness.pause, wished))
            asked += 1
            try:
                status, at, kind, body = get(url, source.politeness, MAX_RECORD, hosts)
            except (Refused, *FAULTS) as error:
                refused = isinstance(error, Refused)
                reasons[str(error) if refused else f"no answer: {type(error).__name__}"] += 1
                continue
            out.write(_record(at, status, kind, body))
            if depth < source.depth and status == 200 and "html" in kind:
                for link in _links(body, at):
                    if urlsplit(link).netloc in hosts and link not in seen:
                        seen.add(link)
                        waiting.append((link, depth + 1))
    reasons["beyond most_pages"] += len(waiting)
    file.with_name("unread.json").write_text(json.dumps(+reasons, sort_keys=True))
    partial.replace(file)


def _rules(robots: str, politeness: Politeness, hosts: set[str]) -> RobotFileParser:
    """What a robots.txt says; where it cannot be read, nothing is allowed (RFC 9309)."""
    rules = RobotFileParser()
    try:
        status, _, _, body = get(robots, politeness, 500_000, hosts)
    except (Refused, *FAULTS):
        status, body = 503, b""
    rules.disallow_all = status >= 500
    text = body.decode("utf-8", "replace") if status == 200 else ""
    lines = []
    for line in text.splitlines():
        with suppress(ValueError):  # a delay of `²` or a path of `//[` would end the parser
            RobotFileParser().parse(["User-agent: *", line])
            lines.append(line)
    rules.parse(lines)
    return rules


def _links(body: bytes, base: str) -> list[str]:
    """Targets of the links of a page, absolute, in order."""
    found = []
    for tag in decode(body, html=True).split("<")[1:]:
        if tag[:1] not in "aA" or not tag[1:2].isspace() or not (href := _HREF.search(tag.partition(">")[0])):
            continue
        with suppress(ValueError):  # http://[
            link = urldefrag(urljoin(base, html.unescape(href[1].strip("\"'")).strip()))[0]
            if urlsplit(link).scheme in ("http", "https"):
                found.append(link)
    return list(dict.fromkeys(found))


def _record(url: str, status: int, kind: str, body: bytes) -> bytes:
    """One WARC response record as a gzip member (ISO 28500)."""
    answer = f"HTTP/1.1 {status} \r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: {_DATE}\r\n"
        f"WARC-Record-ID: <{uuid.uuid5(uuid.NAMESPACE_URL, url).urn}>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(answer + body)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + answer + body + b"\r\n\r\n", mtime=0)
