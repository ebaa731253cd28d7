"""Questions for a model to answer: the first user turn of clean conversations."""

from dataclasses import dataclass
from pathlib import Path

from jaxtrain import artifact
from jaxtrain.conversation import Message
from jaxtrain.document import Conversation, read_records, source_files
from jaxtrain.feed.shuffle import key
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    messages: list[Message]
    ids: list[int]
    """Rendered, ending in `<|assistant|>`."""
    answer: Message | None
    """What the conversation says to it."""


def load(
    folder: str | Path, tokenizer: Tokenizer, longest: int, part: int = 0, parts: int = 1
) -> list[Prompt]:
    """Questions of at most `longest` tokens, each once, in the order of a hash of their text.

    folder: a clean artifact. part, parts: every question belongs to one of `parts` disjoint parts, by its
    hash, so that what people compare and what a policy is trained on never meet.
    """
    artifact.require(folder, "clean")
    found: dict[int, Prompt] = {}
    for file in source_files(Path(folder) / "conversations"):
        for record in read_records(file, Conversation):
            turns = [message for message in record.messages if message["role"] != "system"]
            hashed = key("question", turns[0]["content"])
            if hashed % parts != part or hashed in found:
                continue
            messages = [{"role": "user", "content": turns[0]["content"]}]
            ids = render(messages, tokenizer, generation_prompt=True)[0]
            if len(ids) <= longest:
                found[hashed] = Prompt(messages, ids, turns[1] if len(turns) > 1 else None)
    if not found:
        raise UserError(f"{folder} has no question of at most {longest} tokens; raise the longest prompt")
    return [found[hashed] for hashed in sorted(found)]
