"""A folder's model and tokenizer, and the thread that decodes for all clients."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxtrain import weights
from jaxtrain.conversation import Messages
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Answer, Request, Scheduler, ends_with
from jaxtrain.runtime.compiled import keep_compiled
from jaxtrain.runtime.errors import UserError
from jaxtrain.serve.transcript import Transcript
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.template import form_of_calls
from jaxtrain.tokenize.tool_text import Form


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a client asks for, in text or ids."""

    prompt: tuple[int, ...]
    max_new: int | None
    """Tokens of the answer at most; None: as many as fit, up to the engine's own limit."""
    settings: Settings
    seed: int
    stop_texts: tuple[str, ...] = ()
    calls: Form = ""
    """How tool calls are written, where the model may make some."""


class Engine:
    """Takes wishes, gives answers. `start` begins the decoding thread, `close` ends it."""

    def __init__(
        self,
        model: Path | str,
        *,
        rows: int = 8,
        max_length: int = 0,
        dtype: str = "model",
        max_new: int = 256,
        queue: int = 64,
    ):
        """On the mesh that is set. Errors: UserError where the folder holds no model or no tokenizer.

        max_length: tokens of prompt and answer; 0: the model's. dtype: of weights and activations; `model`:
        the folder's. max_new: of an answer that names no limit.
        """
        keep_compiled()
        self.name = Path(model).resolve().name
        self.max_new = max_new
        source = weights.open(model)
        self.tokenizer = source.tokenizer
        self.stop = self.tokenizer.stop
        loaded = source.load_to_use(dtype)
        limit = min(max_length or loaded.config.max_length, loaded.config.max_length)
        self.scheduler = Scheduler(loaded, rows=rows, max_length=limit, queue=queue)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.scheduler.run, args=(self._stopping,), name="decode")

    def warm_up(self) -> None:
        """Compile what every request needs, before the first one waits for it."""
        prompt = [self.tokenizer.bos] * min(34, self.scheduler.max_length - 1)
        self.scheduler.complete([Request(prompt=prompt, max_new=1)])

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping.is_set()

    def close(self) -> None:
        """End what is under way, and the thread."""
        self._stopping.set()
        self.scheduler.wake()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def form_of_calls(self) -> Form:
        """How the model's template writes tool calls; empty: not in a form that is read back."""
        return form_of_calls(self.tokenizer)

    def chat_prompt(self, messages: Messages, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[int, ...]:
        """Ids up to where the assistant's answer begins; UserError for what the template refuses."""
        return tuple(render(messages, self.tokenizer, tools=tools, generation_prompt=True)[0])

    def text_prompt(self, text: str) -> tuple[int, ...]:
        """Ids of a text to go on with."""
        return tuple(self.tokenizer.opening(text))

    def submit(self, wish: Wish, listen: Callable[[Answer], None] | None = None) -> Answer:
        """Errors: Full, or UserError where the wish cannot be met."""
        room = self.scheduler.max_length - len(wish.prompt)
        if room < 1:
            raise UserError(
                f"the prompt has {len(wish.prompt)} tokens; with one of the answer at most "
                f"{self.scheduler.max_length} fit"
            )
        request = Request(
            prompt=wish.prompt,
            max_new=min(self.max_new, room) if wish.max_new is None else wish.max_new,
            settings=wish.settings,
            seed=wish.seed,
            stop=self.stop,
            is_over=ends_with(self.tokenizer.decode, wish.stop_texts) if wish.stop_texts else None,
        )
        return self.scheduler.submit(request, listen)

    def cancel(self, answer: Answer) -> None:
        self.scheduler.cancel(answer)

    def transcript(self, wish: Wish) -> Transcript:
        return Transcript(self.tokenizer.decode, self.stop, wish.stop_texts, wish.calls)

    def several(self, wish: Wish, count: int) -> list[Wish]:
        """The same wish with a seed of its own for each answer."""
        return [replace(wish, seed=wish.seed + n) for n in range(count)]
