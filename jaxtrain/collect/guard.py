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
import os
import resource
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import IO, Any

from jaxtrain.collect.source import Source, Step
from jaxtrain.document import Conversation, Document, Record
from jaxtrain.formats.files import Unread, Unreadable
from jaxtrain.runtime.errors import UserError

SECONDS = 30  # of processor time for a step, and for each megabyte of it
MEMORY = 2_000_000_000  # bytes that the process may grow by
MOST_REASONS = 1000  # of one source; beyond them a reason is counted without its place
_AT_ONCE = 1 << 18  # bytes of records that are sent together
_PLACE = 64  # bytes for the place that the process is at
_END: Any = object()

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
            worker, pipe = _start(source, verdicts, done, at)
            left = True
            try:
                for line in pipe:
                    message = json.loads(line)
                    done = tuple(message["done"])
                    _count(unread, message["unread"])
                    if "error" in message:
                        raise UserError(message["error"])
                    yield from map(_record, message["records"])
                left = False
            finally:
                pipe.close()
                if left:  # whoever asked for the records wants no more of them
                    os.kill(worker, signal.SIGKILL)
                _, status = os.waitpid(worker, 0)
            if status == 0:
                return
            place = at[:].rstrip(b"\0").decode()
        assert place not in verdicts, f"the verdict on {place} is not kept to"
        verdicts[place] = _verdict(source, os.waitstatus_to_exitcode(status), place)
        save()


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


def _record(row: dict[str, Any]) -> Record:
    return Conversation(**row) if "messages" in row else Document(**row)


def _start(source: Source, verdicts: Verdicts, done: Place, at: mmap.mmap) -> tuple[int, IO[bytes]]:
    """The process that reads, and the pipe through which its messages come."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Python and JAX warn of threads, which the process that reads has none of and needs none of.
        warnings.simplefilter("ignore")
        worker = os.fork()
    if worker:
        os.close(writing)
        return worker, os.fdopen(reading, "rb", 1 << 20)
    status = 1
    try:
        os.close(reading)
        faulthandler.disable()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        with os.fdopen(writing, "wb") as pipe:
            _work(source, verdicts, done, at, pipe)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _work(source: Source, verdicts: Verdicts, done: Place, at: mmap.mmap, pipe: IO[bytes]) -> None:
    unread: Unread = Counter()
    waiting: list[str] = []
    sent = time.monotonic()
    limit = 0.0

    def send(done: Place, **more: Any) -> None:
        nonlocal sent
        head = json.dumps({"done": done, "unread": unread, **more})
        pipe.write(f'{head[:-1]}, "records": [{", ".join(waiting)}]}}\n'.encode())
        pipe.flush()
        waiting.clear()
        unread.clear()
        sent = time.monotonic()

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

    walk = _Walk(unread, verdicts, done, begin)
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    _bound_memory()
    try:
        size = 0
        for place, _, row in walk.items(source.read(unread), (), ""):
            waiting.append(row)
            size += len(row)
            if size > _AT_ONCE or time.monotonic() - sent > 1:
                send(place)
                size = 0
        send(walk.done)
    except UserError as error:
        send(walk.done, error=str(error))


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
            place = (*step, number)
            text = "/".join(map(str, place))
            # Looking for an item can fail as its own step can; then what is behind it is lost, too.
            if self._judged(f"{text} on", f"{name} behind {number - 1}".strip()):
                return
            self._begin(f"{text} on", 0)
            try:
                item = next(iterator, _END)
            except UserError:
                raise
            except Exception as error:
                self._lost(error, f"{name} behind {number - 1}" if number > 1 else name)
                return
            if item is _END:
                return
            if isinstance(item, Step):
                named = f"{name} {item.place}".strip()
                if not self._is_done(place) and not self._judged(text, named):
                    self._begin(text, item.size)
                    yield from self._run(item, place, named)
            elif item and not self._is_done(place) and (row := self._row(item, f"{name} {number}")):
                yield place, item, row
            if place == self._behind:
                self._unread.clear()  # what was counted up to here was sent by the process before
            if place >= self._behind:
                self.done = place

    def _is_done(self, place: Place) -> bool:
        """Whether it, and not only what it begins with, was finished by a process before."""
        return place == self._behind or place < self._behind and place != self._behind[: len(place)]

    def _run(self, step: Step, place: Place, name: str) -> Iterator[tuple[Place, Record, str]]:
        try:
            found = step.run()
        except UserError:
            raise
        except Exception as error:
            self._lost(error, name)
            return
        yield from self.items(found, place, name)

    def _judged(self, place: str, name: str) -> bool:
        if verdict := self._verdicts.get(place):
            self._unread[f"{name}: {verdict}"] += 1
        return bool(verdict)

    def _lost(self, error: Exception, name: str) -> None:
        if isinstance(error, Unreadable):
            self._unread[str(error)] += 1
        elif isinstance(error, MemoryError):
            self._unread[f"{name} needs more memory than {MEMORY // 10**9} GB"] += 1
        else:
            self._unread[f"{name} cannot be read: {type(error).__name__}"] += 1

    def _row(self, record: Record, name: str) -> str:
        """The record as JSON; empty, and counted, where it is none."""
        try:
            row = json.dumps(vars(record), ensure_ascii=False)
            row.encode()
        except UnicodeEncodeError:
            self._unread["half of a surrogate pair, which is no text"] += 1
            return ""
        except Exception as error:
            self._lost(error, name)
            return ""
        return row
