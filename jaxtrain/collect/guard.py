"""A source is read in a process of its own, so that no record costs more than itself.

An exception within a step (source.py) is counted with its place. A step that takes more processor time or
memory than any sound record needs ends the process, as a crash in a library does; the place is written down
as a verdict, and another process goes on behind it with what was not read yet. The verdicts are part of the
artifact and are kept to when a killed run is started again, so that none is reached twice.

The bounds are those of the kernel (setrlimit): nobody watches a clock, and processor time does not depend on
what else the machine does.
"""

import faulthandler
import json
import mmap
import multiprocessing
import resource
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from jaxtrain.collect.source import Source, Step
from jaxtrain.config import missing_extra
from jaxtrain.document import Conversation, Document, Record
from jaxtrain.formats.files import Unread, Unreadable
from jaxtrain.runtime.errors import UserError

SECONDS = 30  # of processor time for a step, and for each megabyte of it
MEMORY = 2_000_000_000  # bytes that the process may grow by
MOST_REASONS = 1000  # of one source; beyond them a reason is counted without its place
_AT_ONCE = 1 << 18  # bytes of records that are sent together
_PLACE = 64  # bytes for the place that the process is at
_END: Any = object()
_FORK = multiprocessing.get_context("fork")

Verdicts = dict[str, str]
"""Place -> why the reading ended there."""
Place = tuple[int, ...]
"""Numbers of a step, of the step or record within it, and so on."""


def read(
    source: Source,
    unread: Unread,
    verdicts: Verdicts | None = None,
    save: Callable[[], None] = lambda: None,
) -> Iterator[Record]:
    """The records of a source, each bounded; `unread` counts the rest by reason.

    verdicts: those of an earlier run; new ones are added, and `save` is called at each.
    """
    source.fetch(unread)
    verdicts = {} if verdicts is None else verdicts
    done: Place = ()
    while True:
        with mmap.mmap(-1, _PLACE) as at:
            reading, writing = _FORK.Pipe(duplex=False)
            given = (source, verdicts, done, at, reading, writing)
            worker = _FORK.Process(target=_work, args=given, daemon=True)
            with warnings.catch_warnings():
                # Python and JAX warn of threads, which the process that reads has none of and needs none of.
                warnings.simplefilter("ignore")
                worker.start()
            writing.close()
            ended = False
            try:
                for message in _messages(reading):
                    done = tuple(message["done"])
                    _count(unread, message["unread"])
                    if "error" in message:
                        raise UserError(message["error"])
                    for row in message["records"]:
                        yield Conversation(**row) if "messages" in row else Document(**row)
                ended = True
            finally:
                reading.close()
                if not ended:  # whoever asked for the records wants no more of them
                    worker.kill()
                worker.join()
            if worker.exitcode == 0:
                return
            place = at[:].rstrip(b"\0").decode()
        assert place not in verdicts, f"the verdict on {place} is not kept to"
        verdicts[place] = _verdict(source, worker.exitcode or 0, place)
        save()


def _messages(pipe: Connection) -> Iterator[dict[str, Any]]:
    """What the process that reads sends, until it ends."""
    with suppress(EOFError, OSError):
        while True:
            yield json.loads(pipe.recv_bytes())


def read_here(source: Source, unread: Unread) -> Iterator[Record]:
    """The records of a source without bounds, read in this process."""
    source.fetch(unread)
    for _, record, _ in _Walk(unread, {}, (), lambda place, size: None).items(source.read(unread), (), ""):
        yield record


def _verdict(source: Source, code: int, place: str) -> str:
    if code == -signal.SIGXCPU:
        return f"took more than {SECONDS} s of processor time for a megabyte"
    if code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL, 1):
        name = signal.Signals(-code).name if code < 0 else "an error"
        return f"ended its reader with {name}"
    raise UserError(
        f"the reader of source {source.name!r} was ended from outside (status {code}, place {place}); "
        "look whether the machine ran out of memory, then run the same command again"
    )


def _count(unread: Unread, more: dict[str, int]) -> None:
    for reason, number in more.items():
        reason = reason[:200].encode("utf-8", "backslashreplace").decode()
        known = reason in unread or len(unread) < MOST_REASONS
        unread[reason if known else "other reasons"] += number


def _work(
    source: Source, verdicts: Verdicts, done: Place, at: mmap.mmap, reading: Connection, pipe: Connection
) -> None:
    """Read in this process, write down at which place it is, and send what is found."""
    reading.close()  # so that this process ends with the other
    faulthandler.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    unread: Unread = Counter()
    waiting: list[str] = []
    sent, size, limit = time.monotonic(), 0, 0.0
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]

    def send(done: Place, **more: Any) -> None:
        head = json.dumps({"done": done, "unread": unread, **more})
        pipe.send_bytes(f'{head[:-1]}, "records": [{", ".join(waiting)}]}}'.encode())
        waiting.clear()
        unread.clear()

    def begin(place: str, size: int) -> None:
        nonlocal limit
        at[:] = place.encode().ljust(_PLACE, b"\0")
        until = time.process_time() + SECONDS * max(1.0, size / 1e6)
        # To the second, and only where it moves: it is a call of the kernel.
        if abs(until - limit) > 1:
            limit = until
            seconds = int(limit) + 1
            soft = seconds if most == resource.RLIM_INFINITY else min(seconds, most)
            resource.setrlimit(resource.RLIMIT_CPU, (soft, most))

    _bound_memory()
    walk = _Walk(unread, verdicts, done, begin)
    try:
        for place, _, row in walk.items(source.read(unread), (), ""):
            waiting.append(row)
            size += len(row)
            if size > _AT_ONCE or time.monotonic() - sent > 1:
                send(place)
                sent, size = time.monotonic(), 0
        send(walk.done)
    except (UserError, ModuleNotFoundError) as error:
        told = missing_extra(error) if isinstance(error, ModuleNotFoundError) else None
        send(walk.done, error=told or str(error))


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 (no file that a user named)
            used = int(file.read().split()[5]) * resource.getpagesize()
    except OSError:  # only Linux counts so
        return
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, resource.RLIM_INFINITY))


class _Walk:
    """Goes through the steps of a source: over what is done, past verdicts, counting what fails."""

    def __init__(
        self, unread: Unread, verdicts: Verdicts, done: Place, begin: Callable[[str, int], None]
    ) -> None:
        self._unread, self._verdicts, self._behind, self._begin = unread, verdicts, done, begin
        self.done = done
        """The last place that is finished."""

    def items(self, found: Iterable[Any], step: Place, name: str) -> Iterator[tuple[Place, Record, str]]:
        """Place, record and its JSON, of each record that is found."""
        iterator = iter(found)
        for number in count(1):
            place, item, row = (*step, number), _END, ""
            text, behind = "/".join(map(str, place)), f"{name} behind {number - 1}".strip()
            # Looking for an item can fail as its own step can; then what is behind it is lost, too.
            if self._judged(f"{text} on", behind):
                return
            self._begin(f"{text} on", 0)
            with self._counting(behind if number > 1 else name):
                item = next(iterator, _END)
            if item is _END:
                return
            if isinstance(item, Step):
                named = f"{name} {item.place}".strip()
                if not self._is_done(place) and not self._judged(text, named):
                    self._begin(text, item.size)
                    inner: Iterable[Any] = ()
                    with self._counting(named):
                        inner = item.run()
                    yield from self.items(inner, place, named)
            elif item and not self._is_done(place):
                with self._counting(f"{name} {number}"):
                    row = json.dumps(vars(item), ensure_ascii=False)
                    row.encode()
                    yield place, item, row
            if place == self._behind:
                self._unread.clear()  # what was counted up to here was sent by the process before
            if place >= self._behind:
                self.done = place

    def _is_done(self, place: Place) -> bool:
        """Whether it, and not only what it begins with, was finished by a process before."""
        return place == self._behind or place < self._behind and place != self._behind[: len(place)]

    def _judged(self, place: str, name: str) -> bool:
        if verdict := self._verdicts.get(place):
            self._unread[f"{name}: {verdict}"] += 1
        return bool(verdict)

    @contextmanager
    def _counting(self, name: str) -> Iterator[None]:
        """What fails within is counted; UserError and a missing package are for the user."""
        try:
            yield
        except (UserError, ModuleNotFoundError):
            raise
        except Unreadable as error:
            self._unread[str(error)] += 1
        except UnicodeEncodeError:
            self._unread["half of a surrogate pair, which is no text"] += 1
        except MemoryError:
            self._unread[f"{name} needs more memory than {MEMORY // 10**9} GB"] += 1
        except Exception as error:
            self._unread[f"{name} cannot be read: {type(error).__name__}"] += 1
