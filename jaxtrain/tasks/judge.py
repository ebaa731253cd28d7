"""Whether a program passes its tests, decided where the program is not.

The tests and the prompt run here, in the judge's process. A name that they need of the program is a stand-in
that calls over the pipe: arguments go and answers come as plain values (`pipe.py`), so `==` is that of
built-in types. The program holds neither the tests nor the verdict, and whatever it replaces, it replaces in
its own process. `answer_calls` is the program's side of the pipe.
"""

import builtins
import os
import select
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from jaxtrain.tasks.pipe import LONGEST, NotPlain, Pipe, pack, unpack

TICK = 0.05
"""Seconds between two looks at what a program that has not answered is doing."""


_NOT_RAISED = (
    *(StopIteration, StopAsyncIteration, Warning, ExceptionGroup),
    *(UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError),
)
EXCEPTIONS: dict[str, type[Exception]] = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _NOT_RAISED)
    if kind.__name__ == name
}
"""Exceptions that a program may raise in its tests, by name.

Those that end an iteration are not among them: `for answer in map(candidate, questions)` would stop at one as
if it were through.
"""


class Watched(Pipe):
    """The judge's end. A program that breaks a limit ends its own judgement: no test can catch that."""

    def __init__(
        self, read: int, write: int, clock: int, limits: tuple[float, float], end: Callable[[str], NoReturn]
    ):
        """clock: the program's /proc/PID/schedstat. limits: its seconds of computing and of sleep. end: is
        told why the program failed."""
        super().__init__(read, write)
        # a program that does not read must not hold up its judge
        os.set_blocking(write, False)
        self._polls = {read: select.poll(), write: select.poll()}
        self._polls[read].register(read, select.POLLIN)
        self._polls[write].register(write, select.POLLOUT)
        self._clock, self._limits = clock, limits
        self._begun, self._waited = self._used(), 0.0
        self.end = end

    def _used(self) -> tuple[float, float]:
        """Seconds the program had a processor, and those it wanted one (/proc/PID/schedstat)."""
        ran, queued, _ = os.pread(self._clock, 100, 0).split()
        return int(ran) / 1e9, int(queued) / 1e9

    def ask(self, message: Any) -> Any:
        """The program's reply to `message`, within its limits."""
        try:
            self.send(message)
            return self.receive()
        except (EOFError, OSError):
            self.end("exit")
        except (ValueError, RecursionError):
            self.end("an answer that is no message")

    def _take(self, count: int) -> bytes:
        if count > LONGEST:
            self.end("too long an answer")
        return super()._take(count)

    def _wait(self, descriptor: int) -> None:
        ready = False
        while not ready:
            begun = time.monotonic()
            ready = bool(self._polls[descriptor].poll(TICK * 1000))
            self._waited += time.monotonic() - begun
            ran, queued = (now - then for now, then in zip(self._used(), self._begun, strict=True))
            # waiting for a processor is neither computing nor sleep
            if ran > self._limits[0] or self._waited - ran - queued > self._limits[1]:
                self.end("time")


def _stand_in(pipe: Watched, name: str) -> Callable[..., Any]:
    """A function of the program, for the tests to call; what it raises is one of EXCEPTIONS."""

    def call(*arguments: Any, **named: Any) -> Any:
        try:
            given = pack(arguments), pack(named)
        except NotPlain as error:
            pipe.end(f"tests that hand over a {error}")
        return _value(pipe, pipe.ask([name, *given]))

    return call


def judge(pipe: Watched, program: str, prompt: str, tests: str, names: list[str]) -> str:
    """Empty where `program` passes `tests`, else what went wrong, unless the pipe's `end` was told that."""
    try:
        functions = set(_value(pipe, pipe.ask([program, names])))
        space: dict[str, Any] = {"__name__": "tests"}
        exec(compile(prompt, "prompt", "exec"), space)
        for name in names:
            is_function = name in functions
            space[name] = _stand_in(pipe, name) if is_function else _value(pipe, pipe.ask([name, None, None]))
        exec(compile(tests, "tests", "exec"), space)
    except BaseException as error:
        return type(error).__name__
    return ""


def _value(pipe: Watched, reply: Any) -> Any:
    """The answer in a reply; the exception in it is raised."""
    try:
        kind, held = reply
        if kind == "answer":
            return unpack(held)
        raised, text = EXCEPTIONS.get(held[0]), str(held[1])
    except (ValueError, TypeError, LookupError, RecursionError):
        pipe.end("an answer that is no plain value")
    if kind != "raised" or raised is None:
        pipe.end(held[0] if isinstance(held[0], str) else "an answer that is no message")
    raise raised(text)


def answer_calls(pipe: Pipe) -> None:
    """Run the program that the first message brings, then its functions as they are called, to the end."""
    program, names = pipe.receive()
    module = ModuleType("program")
    sys.modules["program"] = module

    def run() -> list[str]:
        exec(compile(program, "program", "exec"), vars(module))
        return [name for name in names if callable(getattr(module, name))]

    pipe.send(_reply(run))
    while True:
        name, arguments, named = pipe.receive()
        held = getattr(module, name)
        if arguments is None:
            pipe.send(_reply(lambda held=held: held))
        else:
            given, by_name = unpack(arguments), unpack(named)
            pipe.send(_reply(lambda held=held, given=given, by_name=by_name: held(*given, **by_name)))


def _reply(work: Callable[[], Any]) -> list[Any]:
    try:
        return ["answer", pack(work())]
    except NotPlain as error:
        return ["ended", [f"an answer of type {error}", ""]]
    except BaseException as error:
        for kind in type(error).__mro__:
            if EXCEPTIONS.get(kind.__name__) is kind:
                return ["raised", [kind.__name__, str(error)[:1000]]]
        return ["ended", [type(error).__name__, ""]]
