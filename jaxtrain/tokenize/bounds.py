"""A chat template rendered in a process of its own: it is a program that came with somebody's weights.

Jinja's sandbox keeps a template from the machine, not from its time and memory: `'a' * 10**10`, a loop in a
loop, a list that holds itself twice, forty times over. Those the kernel bounds (setrlimit), for this file run
as a program. One such process renders for all threads; where a template ends it, the next one has another.
"""

import atexit
import datetime
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import markupsafe
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 10
"""Of a processor, for a rendering."""
MEMORY = 1 << 30
"""Bytes of address space, with what Python takes."""
LONGEST = 1 << 23
"""Characters of what is rendered."""
BEGIN, END = "\U000ffffe", "\U000fffff"
"""No characters of Unicode: around what the assistant says."""


class Refused(ValueError):
    """A template raises something, or wants more than it may have; the message says which."""


class Renderer:
    """Renders templates one after another, whichever thread asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._end)

    def __call__(self, template: str, date: str, **values: Any) -> str:
        """What a template makes of values of JSON. date: what it is told that asks for today's, YYYY-MM-DD.

        Errors: Refused.
        """
        asked = json.dumps([template, date, values]).encode() + b"\n"
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            try:
                with suppress(BrokenPipeError):
                    process.stdin.write(asked)
                    process.stdin.flush()
                answer = process.stdout.readline()
            except BaseException:  # also where the user interrupts: the answer would be taken for the next
                self._end()
                raise
            if not answer:
                code = process.wait()
                much = f"more than {SECONDS} seconds of a processor"
                raise Refused(much if code == -signal.SIGXCPU else f"it ends its process (status {code})")
        text, error = json.loads(answer)
        if error:
            raise Refused(error)
        return text

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            self._end()
            packages = {str(Path(package.__path__[0]).parent) for package in (jinja2, markupsafe)}
            self._process = subprocess.Popen(
                # a file and no module, whose package it would import; -P: nor may it import what lies beside
                [sys.executable, "-P", "-S", __file__, str(SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": os.pathsep.join(packages)},
                start_new_session=True,
            )
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            with suppress(BrokenPipeError), self._process as process:
                process.kill()
            self._process = None


render = Renderer()


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, around what the assistant says, is rendered between marks."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{BEGIN}{caller()}{END}"


@lru_cache(maxsize=64)
def _compiled(template: str, date: str) -> jinja2.Template:
    """The date is the tokenizer's and never today's: the same conversation renders the same on any day."""
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = datetime.date.fromisoformat(date).strftime
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in `transformers`: nothing is escaped for HTML."""
    options = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _main(seconds: int) -> None:
    """Answer each line, a template with its date and values, with a line: its text, and why there is none."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    for line in sys.stdin.buffer:
        until = int(time.process_time()) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (until if most < 0 else min(until, most), most))
        text, error = "", ""
        try:
            template, date, values = json.loads(line)
            text = _compiled(template, date).render(values)
            if len(text) > LONGEST:
                text, error = "", f"a text of more than {LONGEST:,} characters"
        except MemoryError:
            error = f"more than {MEMORY >> 30} GiB of memory"
        except Exception as raised:  # it is a program: it may raise anything
            error = str(raised) or type(raised).__name__
        sys.stdout.write(json.dumps([text, error]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
