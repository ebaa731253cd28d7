"""The one way to ask a model for text that is not waited for: many conversations at once."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.conversation import Messages
from jaxtrain.decode.request import Request
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.files import write_whole
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer

ROWS = 64
"""Answers that are drawn side by side, whose keys and values are in memory together."""


def answers(
    model: Transformer,
    tokenizer: Tokenizer | None,
    conversations: Sequence[Messages | Sequence[int]],
    *,
    max_new: int | Sequence[int],
    stop: Sequence[int] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    rows: int = ROWS,
    what: str = "answers",
) -> list[list[int]]:
    """Ids of an answer to each conversation, with the stop token where one came; on the mesh that is set.

    conversations: messages, in the model's chat template, or ids to go on with. max_new: tokens of an answer
    at most, of all or of each. stop: ids that end an answer; the tokenizer's if None. Answer i is drawn with
    the key fold_in(seed, i), whatever the others are. rows: drawn side by side; what prompts begin with is
    read once. what: named in the progress bar. All processes call it and have all answers. Without a
    tokenizer conversations are ids, and stop is given.
    """
    if not conversations:
        return []
    most = repeat(max_new) if isinstance(max_new, int) else max_new
    keys_B = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(len(conversations)))
    keys_B2 = np.asarray(jax.random.key_data(keys_B))
    settings = Settings(temperature=temperature)
    requests = [
        Request(
            prompt=_ids(conversation, tokenizer),
            max_new=longest,
            settings=settings,
            seed=int(key[0]) << 32 | int(key[1]),
            stop=tokenizer.stop if stop is None and tokenizer else tuple(stop or ()),
        )
        for conversation, longest, key in zip(conversations, most, keys_B2, strict=False)
    ]
    length = max(len(request.prompt) + request.max_new for request in requests)
    scheduler = Scheduler(model, rows=min(rows, len(requests)), max_length=length)
    return [answer.ids for answer in scheduler.complete(requests, what)]


def _ids(conversation: Messages | Sequence[int], tokenizer: Tokenizer | None) -> Sequence[int]:
    if tokenizer is None or isinstance(conversation[0], int):
        return conversation  # pyrefly: ignore[bad-return]
    return render(conversation, tokenizer, generation_prompt=True)[0]  # pyrefly: ignore[bad-argument-type]


def chats(questions: Iterable[str]) -> dict[str, Messages | list[int]]:
    """`Samples.prompts` of questions of a user, in the chat template."""
    return {text: [{"role": "user", "content": text}] for text in questions}


@dataclass(frozen=True)
class Samples:
    """samples.jsonl: what a model says to the same prompts as it learns."""

    folder: Path
    prompts: Mapping[str, Messages | list[int]]
    """Messages or ids by the text that is shown."""
    tokenizer: Tokenizer
    seed: int
    temperature: float = 0.8

    def write(self, model: Transformer, step: int) -> None:
        """Add what the model says after this step. All processes call it; the first one writes.

        Lines of this step and later are replaced: a killed run may have come further.
        """
        if not self.prompts:
            return
        found = answers(
            model,
            self.tokenizer,
            list(self.prompts.values()),
            max_new=48,
            temperature=self.temperature,
            seed=self.seed,
            what="samples",
        )
        if jax.process_index() > 0:
            return
        path = self.folder / "samples.jsonl"
        before = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
        lines = [line for line in before if json.loads(line)["step"] < step]
        for prompt, ids in zip(self.prompts, found, strict=True):
            text = self.tokenizer.decode([i for i in ids if i not in self.tokenizer.stop])
            line = {"step": step, "prompt": prompt, "completion": text}
            lines.append(json.dumps(line, ensure_ascii=False))
            say(f"  {prompt!r} -> {text!r}")
        write_whole(path, "".join(line + "\n" for line in lines))
