"""Conversations as ids, in a chat template, and which of them the assistant said.

A model that came with its own template is spoken to in that; all others in this one (named/turns.jinja):

    <|bos|><|system|>Be brief.<|end|><|user|>Hi<|end|><|assistant|>Hello!<|end|>
                                                               ^^^^^^^^^^^^^ mask = 1

`<|end|>` of the assistant is in the mask: a model that never learns it never stops. Tools are written in
Qwen's words: a call is the assistant's and in the mask, what a tool answered is not.

A template is Jinja that may have come with the weights, so a process of its own renders it (bounds.py). What
people wrote never becomes a special token: where a message contains the text of one, that is encoded as
ordinary text.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.conversation import (
    ROLES,
    Message,
    Messages,
    is_learned,
    map_texts,
    order_fault,
    texts_in,
    with_arguments,
    without_nulls,
)
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import bounds
from jaxtrain.tokenize.bounds import BEGIN, END
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.templates import TEMPLATES
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, Tokenizer
from jaxtrain.tokenize.tool_text import TAG, Form

Tools = Sequence[Mapping[str, Any]]
Rendered = tuple[list[int], list[int]]
"""Ids, and a mask of the same length."""
Written = tuple[str, str, tuple[tuple[str, str], ...]]
"""What a tokenizer gives to a rendering: its template, its date, the texts of its tokens by name."""
Spans = list[tuple[int, int]]
FORGED = range(0xF0000, 0xFFFFE)  # a private plane of Unicode: stands for special text while rendering
_MARKED = re.compile(r"\{%[-+]?\s*generation\b")


def render(
    messages: Messages, tokenizer: Tokenizer, tools: Tools = (), *, generation_prompt: bool = False
) -> Rendered:
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
    if lost := next(filter(None, (_lost(tokenizer, with_tools) for with_tools in kinds)), ""):
        raise UserError(f"the chat template leaves out {lost}")
    messages = with_arguments(messages, json.loads)
    safe, safe_tools, forged = _without_special_text(messages, tools, tokenizer)
    text, spans = _text(safe, safe_tools, tokenizer, generation_prompt)
    if generation_prompt:
        spans = []
    elif not _is_marked(tokenizer):
        spans = _answers(safe, safe_tools, tokenizer, text)[0]
    else:
        spans = _learned(spans, [message for message in safe if message["role"] == "assistant"])
    ids, mask, begin = list[int](), list[int](), 0
    cuts = [at for at, letter in enumerate(text) if letter in forged] if forged else []
    for end in [*cuts, len(text)]:
        part, places = tokenizer.encode_trusted(text[begin:end])
        ids += part
        mask += _inside(spans, begin + np.array(places, np.int64).reshape(-1, 2))
        if end < len(text):
            ordinary = tokenizer.encode(forged[text[end]])
            ids += ordinary
            mask += _inside(spans, np.array([[end, end + 1]])) * len(ordinary)
        begin = end + 1
    if not generation_prompt and not any(mask):
        raise UserError("a conversation without an assistant message has nothing to learn from")
    return ids, mask


def _inside(spans: Spans, places_N2: np.ndarray) -> list[int]:
    """Whether each place, from where to where, lies in one of the spans, which follow one another: 1 or 0."""
    begins, ends = np.array([(-1, -1), *spans]).T
    at_N = np.searchsorted(begins, places_N2[:, 0], "right") - 1
    return (places_N2[:, 1] <= ends[at_N]).astype(int).tolist()


def renderings(messages: Messages, tokenizer: Tokenizer, tools: Tools = ()) -> list[Rendered]:
    """Ids and masks in which every answer is learnt as it is asked for: one, or one for each answer.

    Several where the template writes earlier turns otherwise when later ones follow (Qwen 3 leaves out what
    was thought): then each answer is the last of its own rendering. Errors: those of `render`.
    """
    messages = without_nulls(messages)
    answers = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    if len(answers) > 1 and tokenizer.template and not _is_marked(tokenizer):
        _check(messages, tokenizer, False)
        objects = with_arguments(messages, json.loads)
        safe, safe_tools, _ = _without_special_text(objects, tools, tokenizer)
        text, _ = _text(safe, safe_tools, tokenizer, False)
        if _answers(safe, safe_tools, tokenizer, text)[1]:
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
        raise UserError(f"wrong order of roles in a conversation: {fault}; user and assistant take turns")
    if generation_prompt and roles[-1:] not in (["user"], ["tool"]):
        raise UserError("a generation prompt must end with a user message, or a tool's")
    if not generation_prompt and "assistant" not in roles:
        raise UserError("a conversation without an assistant message has nothing to learn from")


def _is_marked(tokenizer: Tokenizer) -> bool:
    """Whether the template says itself what the assistant says; `add_generation_prompt` is no mark."""
    return bool(_MARKED.search(tokenizer.template or ""))


def form_of_calls(tokenizer: Tokenizer) -> Form:
    """How the template writes tool calls; empty where it has none, or in a form that is not read back."""
    text = sample_text(tokenizer, True)
    if f'{TAG}\n{{"name": "{_NAME}", "arguments": {{' in text:
        return "tags"
    return "bare" if f'{{"name": "{_NAME}", "parameters": {{' in text else ""


def named(tokenizer: HuggingFaceTokenizer, name: str) -> HuggingFaceTokenizer:
    """The tokenizer with the chat template of a name, or of a Jinja file.

    Errors: UserError where there is none, or the tokenizer lacks a token of it.
    """
    if name in TEMPLATES:
        lacking = [token for token in TEMPLATES[name].tokens if token not in tokenizer.special]
        if lacking:
            raise UserError(f"template {name} needs the special token {lacking[0]}; use plain")
        return dataclasses.replace(tokenizer, template=TEMPLATES[name].text)
    if not Path(name).is_file():
        raise UserError(f"template {name!r} is no file and none of {', '.join(TEMPLATES)}")
    return dataclasses.replace(tokenizer, template=Path(name).read_text(encoding="utf-8"))


_NAME, _ARGUMENT, _ANSWER, _TOOL = "probed_name", "probed_argument", "probed answer", "probed_tool"
_CALL = {"type": "function", "function": {"name": _NAME, "arguments": {"b": _ARGUMENT}}}
_PROBE: list[Message] = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "", "tool_calls": [_CALL]},
    {"role": "tool", "content": _ANSWER},
    {"role": "assistant", "content": "c"},
]
_ASKED, _SAID = "probed question", "probed statement"
_PLAIN_PROBE: list[Message] = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}]
_WORDS = {
    False: {_ASKED: "what the user says", _SAID: "what the assistant says"},
    True: {
        _TOOL: "the description of tools",
        _NAME: "tool calls",
        _ARGUMENT: "the arguments of tool calls",
        _ANSWER: "what tools answered",
    },
}
_PROBE_TOOLS = [{"type": "function", "function": {"name": _TOOL, "description": "d", "parameters": {}}}]


@lru_cache(maxsize=16)
def _probed(written: Written, with_tools: bool) -> str:
    """What a template makes of a conversation with or without a tool; nothing where it refuses one."""
    messages, tools = (_PROBE, _PROBE_TOOLS) if with_tools else (_PLAIN_PROBE, ())
    try:
        return _rendered(written, messages, tools, False)
    except UserError:
        return ""


def sample_text(tokenizer: Tokenizer, with_tools: bool = False) -> str:
    """A question and its answer, or a tool call, as the template writes them; empty where it refuses them."""
    return _probed(_written(tokenizer), with_tools)


def _lost(tokenizer: Tokenizer, with_tools: bool) -> str:
    """What a template does not write of a conversation; nothing for one that refuses it, and says so."""
    text = sample_text(tokenizer, with_tools)
    lost = next((what for probed, what in _WORDS[with_tools].items() if text and probed not in text), "")
    return f"{lost}; use one that has tools: chatml, qwen, llama3" if lost and with_tools else lost


def _without_special_text(
    messages: list[Message], tools: Tools, tokenizer: Tokenizer
) -> tuple[list[Message], list[Any], dict[str, str]]:
    """Messages and tools with a private letter for each special token's text, and what the letters mean."""
    longest_first = sorted([*tokenizer.special, BEGIN, END], key=len, reverse=True)
    everything = "\0".join(texts_in([*messages, *tools]))
    free = (chr(code) for code in FORGED if chr(code) not in everything)
    letters = {text: next(free) for text in longest_first if text in everything}

    def replaced(value: str) -> str:
        for text, letter in letters.items():
            value = value.replace(text, letter)
        return value

    return (
        [{**map_texts(message, replaced), "role": message["role"]} for message in messages],
        map_texts(list(tools), replaced),
        {letter: text for text, letter in letters.items()},
    )


def _answers(messages: Messages, tools: Tools, tokenizer: Tokenizer, whole: str) -> tuple[Spans, bool]:
    """Where in the rendered text the assistant's turns begin and end; whether some are not to be found.

    A turn begins where the prompt for it ends, and ends where the conversation up to it ends, blanks aside.
    Errors: UserError where not even the last answer is found.
    """
    spans, counted, after, rewritten = [], [], "", -1
    for n, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, _ = _text(messages[:n], tools, tokenizer, True)
        after = _finished(messages[: n + 1], tools, tokenizer)
        if whole.startswith(after) and after.startswith(before) and after != before:
            spans.append((len(before), len(after)))
        elif n == len(messages) - 1 and (begin := _begins(before, after, messages[n - 1])) is not None:
            spans.append((begin, len(after)))
        else:
            rewritten = n
            continue
        counted.append(is_learned(message))
    if after and (not spans or rewritten == len(messages) - 1):
        raise UserError("in this chat template the answers cannot be told apart; use one such as chatml")
    return [span for span, is_counted in zip(spans, counted, strict=True) if is_counted], rewritten >= 0


def _learned(spans: Spans, answers: Messages) -> Spans:
    """The marked turns without those of weight 0."""
    if all(map(is_learned, answers)):
        return spans
    if len(spans) != len(answers):
        raise UserError("the chat template does not mark each answer, so none can be left out of the loss")
    return [span for span, answer in zip(spans, answers, strict=True) if is_learned(answer)]


def _finished(messages: Messages, tools: Tools, tokenizer: Tokenizer) -> str:
    """The conversation up to the special token that ends its last answer, without what ends a document.

    That stands behind the last answer only, and not where another is asked for (Phi 3).
    """
    whole = _text(messages, tools, tokenizer, False)[0].rstrip()
    try:
        going_on, _ = _text(messages, tools, tokenizer, True)
    except UserError:  # a template that asks for an answer behind a question only
        return whole
    if going_on.startswith(whole):
        return whole
    said = str(messages[-1].get("content") or "").strip()
    same = os.path.commonprefix([whole, going_on])
    end = max((same.rfind(token) + len(token) for token in tokenizer.special if token in same), default=0)
    return whole[:end] if end and whole.rfind(said) + len(said) <= end else whole


def _begins(before: str, after: str, asked: Mapping[str, Any]) -> int | None:
    """Where the last answer begins in a text that a prompt for it does not begin word for word.

    Such a prompt may say how to answer behind the question (`<think>`), and the finished turn not.
    """
    same = len(os.path.commonprefix([before, after]))
    question = str(asked.get("content") or "").strip()
    at = before.rfind(question)
    return same if question and at >= 0 and at + len(question) <= same < len(after) else None


def _text(messages: Messages, tools: Tools, tokenizer: Tokenizer, is_asked: bool) -> tuple[str, Spans]:
    """What the template makes of messages, and where in it the template marks what the assistant says."""
    if tokenizer.template is None:
        raise UserError("this tokenizer has no chat template; put chat_template.jinja beside tokenizer.json")
    marked = _rendered(_written(tokenizer), messages, tools, is_asked)
    pieces = re.split(f"[{BEGIN}{END}]", marked)
    begins_and_ends = list(accumulate(map(len, pieces[:-1])))
    return "".join(pieces), list(zip(begins_and_ends[::2], begins_and_ends[1::2], strict=False))


def _written(tokenizer: Tokenizer) -> Written:
    names = tuple((f"{role}_token", tokenizer.names.get(role, "")) for role in ("bos", "eos", "pad"))
    return tokenizer.template or "", tokenizer.date, names


def _rendered(written: Written, messages: Messages, tools: Tools, is_asked: bool) -> str:
    template, date, names = written
    # templates ask whether there are any tools, or whether they are none
    values = {"messages": messages, "tools": tools or None, "add_generation_prompt": is_asked}
    try:
        return bounds.render(template, date, **values, **dict(names))
    except bounds.Refused as error:
        raise UserError(f"the chat template refuses a conversation: {error}") from error
