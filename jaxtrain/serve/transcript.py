"""The text of an answer while its ids come, and the tool calls behind it."""

from collections.abc import Callable, Sequence

from jaxtrain.tokenize.tool_text import LONGEST_OPENING, Call, Form, begins, may_begin, read_calls

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what half a character decodes to


class Transcript:
    """Whole characters only, nothing from a stop text on, and nothing that may still become one."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: tuple[int, ...],
        stop_texts: tuple[str, ...] = (),
        calls: Form = "",
    ):
        """calls: how tool calls are written, which are then kept back; empty: none are looked for."""
        self._decode, self._stop, self._stop_texts, self._form = decode, stop, stop_texts, calls
        self.text = ""
        """What has been given out."""
        self.calls: list[Call] = []
        """Tool calls, once the answer is over."""

    def read(self, ids: Sequence[int], is_over: bool) -> str:
        """What can be shown beyond what was; `ids` are all of the answer so far."""
        if ids and ids[-1] in self._stop:
            ids = ids[:-1]
        text = self._decode(ids)
        found = [at for stop in self._stop_texts if (at := text.find(stop)) >= 0]
        if found:
            text = text[: min(found)]
        elif not is_over:
            text = text.rstrip(UNFINISHED)
            text = text[: len(text) - self._held(text)]
        if is_over:
            text, self.calls = read_calls(text, self._form)
        elif (at := begins(text, self._form)) is not None:
            text = text[:at]
        new = text[len(self.text) :]
        self.text += new
        return new

    def _held(self, text: str) -> int:
        """Characters at the end that begin a stop text, or a tool call."""
        longest = max(map(len, (*self._stop_texts, LONGEST_OPENING))) - 1
        return next(
            (n for n in range(min(longest, len(text)), 0, -1) if self._begins_something(text[-n:])),
            0,
        )

    def _begins_something(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stop_texts) or may_begin(end, self._form)
