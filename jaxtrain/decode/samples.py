"""samples.jsonl: what a model says to the same prompts as it learns."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxtrain.conversation import Messages
from jaxtrain.decode.answers import answers
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.files import write_whole
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True)
class Samples:
    """Prompts, and how the answers to them are drawn."""

    path: Path
    prompts: dict[str, Messages | list[int]]
    """Messages or ids by the text that is shown."""
    tokenizer: Tokenizer
    seed: int = 0
    temperature: float = 0.8
    max_new: int = 48

    @classmethod
    def of_chat(
        cls,
        folder: Path,
        tokenizer: Tokenizer,
        questions: Sequence[str],
        seed: int,
        temperature: float = 0.8,
    ) -> "Samples":
        """Questions of a user, in the chat template."""
        prompts: dict[str, Messages | list[int]]
        prompts = {text: [{"role": "user", "content": text}] for text in questions}
        return cls(folder / "samples.jsonl", prompts, tokenizer, seed, temperature)

    def write(self, model: Transformer, step: int) -> None:
        """Add what the model says after this step. All processes call it; the first one writes.

        Lines of this step and later are replaced: a killed run may have come further.
        """
        if not self.prompts:
            return
        asked, settings = list(self.prompts.values()), {"seed": self.seed, "temperature": self.temperature}
        found = answers(model, self.tokenizer, asked, max_new=self.max_new, what="samples", **settings)
        if jax.process_index() > 0:
            return
        before = self.path.read_text(encoding="utf-8").split("\n")[:-1] if self.path.is_file() else []
        lines = [line for line in before if json.loads(line)["step"] < step]
        for prompt, ids in zip(self.prompts, found, strict=True):
            text = self.tokenizer.decode([i for i in ids if i not in self.tokenizer.stop])
            line = {"step": step, "prompt": prompt, "completion": text}
            lines.append(json.dumps(line, ensure_ascii=False))
            say(f"  {prompt!r} -> {text!r}")
        write_whole(self.path, "".join(line + "\n" for line in lines))
