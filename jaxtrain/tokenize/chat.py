"""The chat template: a conversation as ids, and which of them the assistant said.

A model that came with its own template is spoken to in that (template.py); all others in this one:

    <|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>
                                                               ^^^^^^^^^^^^^ mask = 1

`<|end|>` of the assistant is in the mask: a model that never learns it never stops.
"""

from collections.abc import Mapping, Sequence

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import template
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")


def render(
    messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer, *, generation_prompt: bool = False
) -> tuple[list[int], list[int]]:
    """Ids of a conversation and a mask of the same length: 1 on what the assistant says and its `<|end|>`.

    messages: at most one system message first, then user and assistant in turn, each
        `{"role": ..., "content": ...}`.
    generation_prompt: end with `<|assistant|>`, for the model to go on; the last message is then the user's.
    Errors: UserError for an unknown role, a wrong order, or no assistant to learn from.
    """
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return template.render(messages, tokenizer, generation_prompt=generation_prompt)
    _check(messages, generation_prompt)
    special = tokenizer.special
    ids, mask = [tokenizer.bos], [0]
    for message in messages:
        content = tokenizer.encode(message["content"])
        ids += [special[f"<|{message['role']}|>"], *content, special["<|end|>"]]
        mask += [0] + [int(message["role"] == "assistant")] * (len(content) + 1)
    if generation_prompt:
        ids.append(special["<|assistant|>"])
        mask.append(0)
    return ids, mask


def _check(messages: Sequence[Mapping[str, str]], generation_prompt: bool) -> None:
    roles = [message["role"] for message in messages]
    for role in roles:
        if role not in ROLES:
            raise UserError(f"unknown role {role!r} in a conversation; roles are {', '.join(ROLES)}")
    turns = roles[1:] if roles[:1] == ["system"] else roles
    if turns != [("user", "assistant")[i % 2] for i in range(len(turns))]:
        raise UserError(
            "wrong order of roles in a conversation; after an optional system message user and "
            "assistant take turns, the user first"
        )
    if generation_prompt and turns[-1:] != ["user"]:
        raise UserError("a generation prompt must end with a user message")
    if not generation_prompt and "assistant" not in turns:
        raise UserError("a conversation without an assistant message has nothing to learn from")
