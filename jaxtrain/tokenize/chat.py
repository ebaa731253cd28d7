"""The chat template: a conversation as ids, and which of them the assistant said.

A model that came with its own template is spoken to in that; all others in this one (named/turns.jinja):

    <|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>
                                                               ^^^^^^^^^^^^^ mask = 1

`<|end|>` of the assistant is in the mask: a model that never learns it never stops. Tools are written in
Qwen's words: a call is the assistant's and in the mask, what a tool answered is not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtrain.conversation import ROLES, Messages, order_fault, without_nulls
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import template
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, Tokenizer


def render(
    messages: Messages,
    tokenizer: Tokenizer,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    generation_prompt: bool = False,
) -> tuple[list[int], list[int]]:
    """Ids of a conversation and a mask of the same length: 1 on what the assistant says and its `<|end|>`.

    messages: at most one system message first, then user and assistant in turn, with tool calls and what
        tools answered between them (conversation.py).
    tools: the tools that the assistant may call.
    generation_prompt: end with `<|assistant|>`, for the model to go on; the last message is then the user's
        or a tool's.
    Errors: UserError for an unknown role, a wrong order, or no assistant to learn from.
    """
    messages = without_nulls(messages)
    _check_roles(messages)
    if isinstance(tokenizer, BytePairTokenizer):
        _check_order(messages, generation_prompt)
    return template.render(messages, tokenizer, tools, generation_prompt=generation_prompt)


def renderings(
    messages: Messages, tokenizer: Tokenizer, *, tools: Sequence[Mapping[str, Any]] = ()
) -> list[tuple[list[int], list[int]]]:
    """What is trained on: `render`, or one of it for each answer where a template rewrites earlier turns."""
    if isinstance(tokenizer, BytePairTokenizer):
        return [render(messages, tokenizer, tools=tools)]
    messages = without_nulls(messages)
    _check_roles(messages)
    return template.renderings(messages, tokenizer, tools)


def _check_roles(messages: Messages) -> None:
    """A template writes a role as it is, so one made up could hold the text of a special token."""
    for message in messages:
        if message["role"] not in ROLES:
            raise UserError(
                f"unknown role {message['role']!r} in a conversation; roles are {', '.join(ROLES)}"
            )


def _check_order(messages: Messages, generation_prompt: bool) -> None:
    roles = [message["role"] for message in messages]
    if fault := order_fault(messages):
        raise UserError(
            f"wrong order of roles in a conversation: {fault}; after an optional system message user and "
            "assistant take turns, the user first"
        )
    if generation_prompt and roles[-1:] not in (["user"], ["tool"]):
        raise UserError("a generation prompt must end with a user message, or a tool's")
    if not generation_prompt and "assistant" not in roles:
        raise UserError("a conversation without an assistant message has nothing to learn from")
