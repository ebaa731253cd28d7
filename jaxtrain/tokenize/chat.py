"""Conversations as ids, and which of them the assistant said.

A model that came with its own template is spoken to in that; all others in this one (named/turns.jinja):

    <|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>
                                                               ^^^^^^^^^^^^^ mask = 1

`<|end|>` of the assistant is in the mask: a model that never learns it never stops. Tools are written in
Qwen's words: a call is the assistant's and in the mask, what a tool answered is not.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtrain.conversation import ROLES, Messages, is_learned, order_fault, with_arguments, without_nulls
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import template
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, Tokenizer

Tools = Sequence[Mapping[str, Any]]


def render(
    messages: Messages, tokenizer: Tokenizer, *, tools: Tools = (), generation_prompt: bool = False
) -> tuple[list[int], list[int]]:
    """Ids of a conversation and a mask of the same length: 1 on the assistant's words, calls and turn's end.

    The template gets the arguments of tool calls as objects, and `tools`, which the assistant may call, as
    they are. Where it writes earlier turns otherwise when later ones follow, the mask has the last answer
    alone (`renderings` learns all).
    generation_prompt: end where the assistant's answer begins.
    Errors: UserError for an unknown role, no assistant to learn from, where there is no template, it refuses
        the messages or leaves tools out, or the assistant's words cannot be found in what it makes; in this
        project's own template for a wrong order too: at most one system message first, then user and
        assistant in turn, with tool calls and what tools answered between them.
    """
    messages = without_nulls(messages)
    _check(messages, tokenizer, generation_prompt)
    has_tools = bool(tools) or any(m["role"] == "tool" or m.get("tool_calls") for m in messages)
    kinds = (False, True) if has_tools else (False,)
    if lost := next(filter(None, (template.lost(tokenizer, with_tools) for with_tools in kinds)), ""):
        raise UserError(f"the chat template leaves out {lost}")
    messages = with_arguments(messages, json.loads)
    safe, safe_tools, forged = template.without_special_text(messages, tools, tokenizer)
    text, spans = template.text_of(safe, safe_tools, tokenizer, generation_prompt)
    if generation_prompt:
        spans = []
    elif not template.is_marked(tokenizer):
        spans = template.answers(safe, safe_tools, tokenizer, text)[0]
    else:
        spans = template.learned(spans, [message for message in safe if message["role"] == "assistant"])
    ids, mask, begin = list[int](), list[int](), 0
    for end in [*(at for at, letter in enumerate(text) if letter in forged), len(text)]:
        part, places = tokenizer.encode_trusted(text[begin:end])
        ids += part
        is_said = {place: _inside(spans, begin + place[0], begin + place[1]) for place in set(places)}
        mask += map(is_said.__getitem__, places)
        if end < len(text):
            ordinary = tokenizer.encode(forged[text[end]])
            ids += ordinary
            mask += [_inside(spans, end, end + 1)] * len(ordinary)
        begin = end + 1
    if not generation_prompt and not any(mask):
        raise UserError("a conversation without an assistant message has nothing to learn from")
    return ids, mask


def _inside(spans: list[tuple[int, int]], start: int, stop: int) -> int:
    return int(any(begin <= start and stop <= end for begin, end in spans))


def renderings(
    messages: Messages, tokenizer: Tokenizer, *, tools: Tools = ()
) -> list[tuple[list[int], list[int]]]:
    """Ids and masks in which every answer is learnt as it is asked for: one, or one for each answer.

    Several where the template writes earlier turns otherwise when later ones follow (Qwen 3 leaves out what
    was thought): then each answer is the last of its own rendering. Errors: those of `render`.
    """
    messages = without_nulls(messages)
    answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    if len(answers) > 1 and tokenizer.template and not template.is_marked(tokenizer):
        _check(messages, tokenizer, False)
        objects = with_arguments(messages, json.loads)
        safe, safe_tools, _ = template.without_special_text(objects, tools, tokenizer)
        text, _ = template.text_of(safe, safe_tools, tokenizer, False)
        if template.answers(safe, safe_tools, tokenizer, text)[1]:
            learned = [n for n in answers if is_learned(messages[n])]
            return [render(messages[: n + 1], tokenizer, tools=tools) for n in learned]
    return [render(messages, tokenizer, tools=tools)]


def end_of_turn(tokenizer: Tokenizer) -> int:
    """The special token that the template puts behind an answer; `eos` where there is none."""
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        ids, mask = render(said, tokenizer)
    except UserError:  # there is no template, or one for other conversations, or that hides who speaks
        return tokenizer.eos
    special = set(tokenizer.special.values())
    learnt = [index for index, is_said in zip(ids, mask, strict=True) if is_said and index in special]
    return learnt[-1] if learnt else tokenizer.eos


def _check(messages: Messages, tokenizer: Tokenizer, generation_prompt: bool) -> None:
    roles = [message["role"] for message in messages]
    # A template writes a role as it is, so one made up could hold the text of a special token.
    if unknown := [role for role in roles if role not in ROLES]:
        raise UserError(f"unknown role {unknown[0]!r} in a conversation; roles are {', '.join(ROLES)}")
    if not isinstance(tokenizer, BytePairTokenizer):
        return  # its template checks what it takes
    if fault := order_fault(messages):
        raise UserError(
            f"wrong order of roles in a conversation: {fault}; after an optional system message user and "
            "assistant take turns, the user first"
        )
    if generation_prompt and roles[-1:] not in (["user"], ["tool"]):
        raise UserError("a generation prompt must end with a user message, or a tool's")
    if not generation_prompt and "assistant" not in roles:
        raise UserError("a conversation without an assistant message has nothing to learn from")
