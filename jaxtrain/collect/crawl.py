"""Pages over HTTP into WARC files: Common Crawl by its id, and a small polite crawl of one's own site.

The stage reads the WARC files afterwards (web.py), so a crawl is made once and read as often as needed.
"""

import gzip
import hashlib
import io
import json
import time
import urllib.robotparser
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urldefrag, urljoin, urlsplit

from resiliparse.parse.encoding import bytes_to_str, detect_encoding
from resiliparse.parse.html import HTMLTree

from jaxtrain.collect.download import AGENT, FAULTS, Politeness, Refused, fetch, get
from jaxtrain.collect.files import DAMAGED, MAX_RECORD, Unread
from jaxtrain.collect.web import WebSource, read_archive
from jaxtrain.document import Document
from jaxtrain.runtime.errors import UserError

COMMON_CRAWL = "https://data.commoncrawl.org"
_DATE = "1970-01-01T00:00:00Z"  # the same crawl gives the same bytes: when it was made is in the file system


@dataclass(frozen=True, kw_only=True)
class CommonCrawlSource:
    """Files of one crawl of Common Crawl."""

    name: str
    """Name of the source and of its file."""
    crawl: str
    """Id of the crawl, for example `CC-MAIN-2024-10`."""
    first: int = 0
    """Number of the first file in the crawl's list of paths."""
    files: int = 1
    """How many files to take."""
    kind: Literal["warc", "wet"] = "warc"
    """Pages with their HTML (about 1 GB a file), or their text (100 MB)."""
    folder: str
    """Where the files are kept."""
    server: str = COMMON_CRAWL
    """Where they are fetched from."""
    politeness: Politeness = Politeness()
    """How the server is asked."""


@dataclass(frozen=True, kw_only=True)
class SiteSource:
    """Pages of one site, found by following its links."""

    name: str
    """Name of the source and of its file."""
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


def read_common_crawl(source: CommonCrawlSource, unread: Unread) -> Iterator[Document]:
    """The pages of the files, fetched where they are not there yet; a file that cannot be had is counted."""
    folder, server = Path(source.folder), source.server.rstrip("/")
    listing = f"crawl-data/{source.crawl}/{source.kind}.paths.gz"
    try:
        fetch(f"{server}/{listing}", folder / source.crawl / f"{source.kind}.paths.gz", source.politeness)
        with gzip.open(folder / source.crawl / f"{source.kind}.paths.gz", "rt") as lines:
            paths = [line.strip() for line in lines if line.strip()]
    except (Refused, *DAMAGED) as error:
        raise UserError(f"source {source.name!r}: no list of {source.crawl} at {server} ({error})") from error
    web = WebSource(name=source.name, paths=())
    for path in paths[source.first : source.first + source.files]:
        file = folder / source.crawl / Path(path).name
        try:
            fetch(f"{server}/{path}", file, source.politeness)
        except Refused as error:
            unread[f"{file.name}: {error}"] += 1
            continue
        yield from read_archive(file, web, unread)


def read_site(source: SiteSource, unread: Unread) -> Iterator[Document]:
    """The pages of the crawl, made first where it is not there yet."""
    file = Path(source.folder) / "crawl.warc.gz"
    if not file.exists():
        crawl(source, file)
    unread.update(json.loads(file.with_name("unread.json").read_text()))
    yield from read_archive(file, WebSource(name=source.name, paths=(), license=source.license), unread)


def crawl(source: SiteSource, file: Path, sleep: Callable[[float], Any] = time.sleep) -> None:
    """Breadth first, one page at a time, as robots.txt allows; the WARC file is whole or absent."""
    hosts = {urlsplit(url).netloc for url in source.start}
    if not hosts or "" in hosts:
        raise UserError(f"source {source.name!r}: `start` needs URLs, such as https://example.org/")
    reasons: Unread = Unread()
    waiting = deque((urldefrag(url)[0], 0) for url in source.start)
    seen = {url for url, _ in waiting}
    robots: dict[str, urllib.robotparser.RobotFileParser] = {}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial, asked = file.with_name(file.name + ".part"), 0
    with partial.open("wb") as out:
        while waiting and asked < source.most_pages:
            url, depth = waiting.popleft()
            rules = robots.setdefault(urlsplit(url).netloc, _robots(url, source.politeness, robots))
            if not rules.can_fetch(AGENT, url):
                reasons["robots.txt does not allow it"] += 1
                continue
            sleep(max(source.politeness.pause, float(rules.crawl_delay(AGENT) or 0)))
            asked += 1
            try:
                status, at, kind, body = get(url, source.politeness, MAX_RECORD)
            except FAULTS as error:
                reasons[f"no answer: {type(error).__name__}"] += 1
                continue
            if urlsplit(at).netloc not in hosts:
                reasons["a redirect to another site"] += 1
                continue
            out.write(_record(at, status, kind, body))
            if depth < source.depth and status == 200 and "html" in kind:
                for link in _links(body, at):
                    if urlsplit(link).netloc in hosts and link not in seen:
                        seen.add(link)
                        waiting.append((link, depth + 1))
    reasons["beyond most_pages"] += len(waiting)
    file.with_name("unread.json").write_text(
        json.dumps({k: n for k, n in reasons.items() if n}, sort_keys=True)
    )
    partial.replace(file)


def _robots(
    url: str, politeness: Politeness, known: dict[str, urllib.robotparser.RobotFileParser]
) -> urllib.robotparser.RobotFileParser:
    """The rules of a host; where they cannot be read, nothing is allowed (RFC 9309)."""
    if (host := urlsplit(url).netloc) in known:
        return known[host]
    rules = urllib.robotparser.RobotFileParser()
    try:
        status, _, _, body = get(urljoin(url, "/robots.txt"), politeness, 500_000)
    except FAULTS:
        status, body = 503, b""
    if status >= 500:
        rules.disallow_all = True
    else:
        rules.parse(body.decode("utf-8", "replace").splitlines() if status == 200 else [])
    return rules


def _links(body: bytes, base: str) -> list[str]:
    """Targets of the links of a page, absolute, in order."""
    tree = HTMLTree.parse(bytes_to_str(body, detect_encoding(body, from_html_meta=True) or "utf-8"))
    found = []
    for element in tree.body.get_elements_by_tag_name("a") if tree.body else ():
        try:
            link = urldefrag(urljoin(base, (element.getattr("href") or "").strip()))[0]
        except ValueError:  # http://[
            continue
        if urlsplit(link).scheme in ("http", "https"):
            found.append(link)
    return list(dict.fromkeys(found))


def _record(url: str, status: int, kind: str, body: bytes) -> bytes:
    """One WARC response record as a gzip member (ISO 28500)."""
    http = (
        f"HTTP/1.1 {status} \r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    name = hashlib.blake2b(url.encode(), digest_size=16).hexdigest()
    head = (
        f"WARC/1.1\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: {_DATE}\r\n"
        f"WARC-Record-ID: <urn:uuid:{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}>\r\n"
        f"Content-Type: application/http; msgtype=response\r\nContent-Length: {len(http)}\r\n\r\n"
    )
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as member:
        member.write(head.encode() + http + b"\r\n\r\n")
    return packed.getvalue()
