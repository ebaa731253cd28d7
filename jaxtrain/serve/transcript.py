"""The text of an answer while its ids come, and the tool calls behind it."""

from collections.abc import Callable, Sequence

from jaxtrain.tokenize.tool_text import LONGEST_OPENING, Call, Form, begins, may_begin, read_calls

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what half a character decodes to
CONTEXT = 8
"""Tokens before new ones that are decoded with them: more than any character, or space, reaches back."""


class Transcript:
    """Whole characters only, nothing from a stop text on, and nothing that may still become one.

    A token costs the same wherever in the answer it stands: what has been given out is not looked at again.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop: tuple[int, ...],
        stop_texts: tuple[str, ...] = (),
        calls: Form = "",
    ):
        """calls: how tool calls are written, which are then kept back; empty: none are looked for."""
        self._decode, self._stop, self._stop_texts, self._form = decode, stop, stop_texts, calls
        self._window: list[int] = []  # the last ids, of whose text `_seen` characters have been read
        self._seen = 0
        self._held = ""  # what has been read and not given out
        self._in_call = False
        self._pieces: list[str] = []
        self.count = 0
        """Ids that have been read."""
        self.calls: list[Call] = []
        """Tool calls, once the answer is over."""

    @property
    def text(self) -> str:
        """What has been given out."""
        return "".join(self._pieces)

    def read(self, ids: Sequence[int], is_over: bool) -> str:
        """What can be shown beyond what was; `ids` are all of the answer so far."""
        new = ids[self.count :]
        self.count += len(new)
        self._held += self._decoded(new[:-1] if new and new[-1] in self._stop else new, is_over)
        if is_over:
            found = [at for stop in self._stop_texts if (at := self._held.find(stop)) >= 0]
            said, self.calls = read_calls(self._held[: min(found, default=None)], self._form)
        else:
            said = self._held[: self._shown()]
        self._held = self._held[len(said) :]
        if said:
            self._pieces.append(said)
            self._form = "" if self._form == "bare" else self._form  # such a call is the whole answer
        return said

    def _decoded(self, new: Sequence[int], is_over: bool) -> str:
        """The text that new ids bring, without half a character at its end while more may come."""
        self._window += new
        text = self._decode(self._window)
        # of more than three bytes that are no character some never will be one
        half = 0 if is_over else min(3, len(text) - len(text.rstrip(UNFINISHED)))
        end = len(text) - half
        read, left = text[self._seen : end], len(text) - max(end, self._seen)
        if len(self._window) > 2 * CONTEXT:
            del self._window[:-CONTEXT]
            text = self._decode(self._window)
        self._seen = len(text) - left
        return read

    def _shown(self) -> int:
        """How much of the held text can be given out: up to a call or a stop text, or what may become one."""
        if self._in_call:
            return 0
        text, call = self._held, begins(self._held, self._form)
        self._in_call = call is not None
        ends = [at for stop in self._stop_texts if (at := text.find(stop)) >= 0]
        longest = max(map(len, (*self._stop_texts, LONGEST_OPENING))) - 1
        starts = range(max(0, len(text) - longest), len(text))
        begun = next((at for at in starts if self._begins_something(text[at:])), len(text))
        return min([*ends, begun, len(text) if call is None else call])

    def _begins_something(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stop_texts) or may_begin(end, self._form)
