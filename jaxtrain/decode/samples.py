"""samples.jsonl: what a model says to the same prompts as it learns."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxtrain.conversation import Messages
from jaxtrain.decode.answers import answers
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.files import write_whole
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.tokenizer import Tokenizer


def chats(questions: Iterable[str]) -> dict[str, Messages | list[int]]:
    """`Samples.prompts` of questions of a user, in the chat template."""
    return {text: [{"role": "user", "content": text}] for text in questions}


@dataclass(frozen=True)
class Samples:
    """Prompts, and how the answers to them are drawn."""

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
