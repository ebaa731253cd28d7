"""Long work shows a bar on a terminal and a plain line every few seconds in a log."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxtrain.runtime.terminal import visible

console = Console(stderr=True, highlight=False, soft_wrap=True)
LINE_SECONDS = 10.0  # between two plain lines of one piece of work

Item = TypeVar("Item")


def say(message: str) -> None:
    """One line for the reader of the terminal or the log (stderr; stdout carries results)."""
    console.print(visible(message), markup=False)


@contextmanager
def live(text: str) -> Iterator[Callable[[str], None]]:
    """A line at the foot of the terminal, which each call replaces; a log has none."""
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(text) as status:
        yield status.update


def track(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, showing how many of `total` are done."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            yield from bar.track(items, total=total, description=what)
        return
    last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            say(f"{what}: {done}" + (f" of {total}" if total else ""))
