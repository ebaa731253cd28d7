"""A folder's model and tokenizer, and the thread that decodes for all clients."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax

from jaxtrain import weights
from jaxtrain.conversation import Messages
from jaxtrain.decode.request import Request, ends_with
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.model.quantized import Kind
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.compiled import keep_compiled
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.serve.grammar import Grammars
from jaxtrain.tokenize.chat import form_of_calls, render
from jaxtrain.tokenize.tool_text import Form


@dataclass(frozen=True, kw_only=True)
class Held:
    """Which model answers, and how it is held."""

    model: str
    """Folder of a finished training stage, or a Hugging Face folder."""
    max_new: Count = 256
    """Tokens of an answer that names no limit, at most."""
    dtype: Literal["model", "float32", "bfloat16"] = "model"
    """Of weights and activations; model: as the folder says."""
    weights: Literal["model", "int8"] = "model"
    """The matrices of blocks and head: in 8 bits (int8), or in `dtype` (model)."""
    mesh: MeshConfig = field(default_factory=lambda: MeshConfig(fsdp=1, tensor=-1))


class Engine:
    """A scheduler that takes texts. `start` begins the decoding thread, `close` ends it."""

    def __init__(
        self,
        model: Path | str,
        *,
        rows: int = 8,
        max_length: int = 0,
        dtype: str = "model",
        held: Kind = "model",
        max_new: int = 256,
        queue: int = 64,
        guess: bool = False,
    ):
        """On the mesh that is set. Errors: UserError where the folder holds no model or no tokenizer.

        max_length: tokens of prompt and answer; 0: the model's. dtype: of weights and activations; `model`:
        the folder's. held: the matrices, as codes or in `dtype` (`model`). max_new: of an answer that names
        no limit. guess: see `Scheduler`.
        """
        keep_compiled()
        self.name = Path(model).resolve().name
        self.max_new, self._guess = max_new, guess
        source = weights.open(model)
        self.tokenizer = source.tokenizer
        self.form_of_calls: Form = form_of_calls(self.tokenizer)
        """How the model's template writes tool calls; empty: not in a form that is read back."""
        loaded = source.load_to_use(dtype, held)
        shapes = jax.eval_shape(lambda: Transformer(loaded.config, jax.random.key(0)))
        self.dtype = loaded.config.dtype if held == "model" else held
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        limit = min(max_length or loaded.config.max_length, loaded.config.max_length)
        self.scheduler = Scheduler(loaded, rows=rows, max_length=limit, queue=queue, guess=guess)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.scheduler.run, args=(self._stopping,), name="decode")

    def warm_up(self) -> None:
        """Compile what every request needs, before the first one waits for it."""
        prompt = [self.tokenizer.bos] * min(34, self.scheduler.max_length - 1)
        room = self.scheduler.max_length - len(prompt)
        # so many that the scheduler tries with guesses and without
        self.scheduler.complete([Request(prompt=prompt, max_new=min(room, 64 if self._guess else 1))])

    @cached_property
    def grammars(self) -> Grammars:
        """Errors: UserError where llguidance is not installed."""
        return Grammars(self.tokenizer, self.scheduler.vocab_size)

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

    def chat_prompt(self, messages: Messages, tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """Ids up to where the assistant's answer begins; UserError for what the template refuses."""
        return render(messages, self.tokenizer, tools=tools, generation_prompt=True)[0]

    def request(
        self,
        prompt: Sequence[int],
        *,
        max_new: int | None,
        stop_texts: tuple[str, ...] = (),
        grammar: str = "",
        **asked: Any,
    ) -> Request:
        """A request for the scheduler, with the model's own stops; `asked`: its other fields.

        max_new: None: as many tokens as fit, up to the engine's own limit. grammar: of `grammars.check`.
        Errors: UserError where no token fits.
        """
        room = self.scheduler.max_length - len(prompt)
        if room < 1:
            most = self.scheduler.max_length
            raise UserError(f"the prompt has {len(prompt)} tokens; with one of the answer at most {most} fit")
        return Request(
            prompt=prompt,
            max_new=min(self.max_new, room) if max_new is None else max_new,
            stop=self.tokenizer.stop,
            is_over=ends_with(self.tokenizer.decode, stop_texts),
            allowed=self.grammars.allowed(grammar) if grammar else None,
            **asked,
        )
