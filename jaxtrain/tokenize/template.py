"""A model's own chat template: a conversation as ids, and which of them the assistant said.

The template is Jinja that came with the weights, so it runs in Jinja's sandbox. What people wrote never
becomes a special token: where a message contains the text of one, that text is encoded as ordinary text.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxtrain.conversation import Message, Messages, map_texts, texts_in, with_arguments
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.templates import TEMPLATES
from jaxtrain.tokenize.tool_text import TAG, Form

Tools = Sequence[Mapping[str, Any]]
FORGED = range(0xF0000, 0xFFFFE)  # a private plane of Unicode: stands for special text while rendering
_MARKED = re.compile(r"\{%[-+]?\s*generation\b")
BEGIN, END = "\U000ffffe", "\U000fffff"  # no characters of Unicode: around what the assistant says


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, around what the assistant says, is rendered between marks."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{BEGIN}{caller()}{END}"


def render(
    messages: Messages,
    tokenizer: HuggingFaceTokenizer,
    tools: Tools = (),
    *,
    generation_prompt: bool = False,
) -> tuple[list[int], list[int]]:
    """Ids of a conversation and a mask of the same length: 1 on the assistant's words, calls and turn's end.

    The template gets the arguments of tool calls as objects, and `tools` as they are.
    generation_prompt: end where the assistant's answer begins.
    Errors: UserError where there is no template, it refuses the messages or leaves tools out, or the
        assistant's words cannot be found in what it makes.
    """
    has_tools = bool(tools) or any(m["role"] == "tool" or m.get("tool_calls") for m in messages)
    if has_tools and tokenizer.template and (lost := _lost(tokenizer.template)):
        raise UserError(f"the chat template leaves out {lost}; use one that has tools: chatml, qwen, llama3")
    safe, safe_tools, forged = _without_special_text(with_arguments(messages, json.loads), tools, tokenizer)
    text, spans = _text(safe, safe_tools, tokenizer, generation_prompt)
    if generation_prompt:
        spans = []
    elif not _MARKED.search(tokenizer.template or ""):  # `add_generation_prompt` is no mark
        spans = _answers(safe, safe_tools, tokenizer, text)
    ids: list[int] = []
    mask: list[int] = []
    begin = 0
    for end in [*(at for at, letter in enumerate(text) if letter in forged), len(text)]:
        part = tokenizer.trusting.encode(text[begin:end], add_special_tokens=False)
        ids += part.ids
        mask += [_inside(spans, begin + start, begin + stop) for start, stop in part.offsets]
        if end < len(text):
            ordinary = tokenizer.encode(forged[text[end]])
            ids += ordinary
            mask += [_inside(spans, end, end + 1)] * len(ordinary)
        begin = end + 1
    if not generation_prompt and not any(mask):
        raise UserError("a conversation without an assistant message has nothing to learn from")
    return ids, mask


def end_of_turn(tokenizer: HuggingFaceTokenizer) -> int:
    """The special token that the template puts behind an answer; `eos` where there is none."""
    if tokenizer.template is None:
        return tokenizer.eos
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        ids, mask = render(said, tokenizer)
    except UserError:  # a template for other conversations, or that hides who speaks
        return tokenizer.eos
    last = [index for index, is_said in zip(ids, mask, strict=True) if is_said][-1]
    return last if last in tokenizer.special.values() else tokenizer.eos


def form_of_calls(tokenizer: HuggingFaceTokenizer) -> Form:
    """How the template writes tool calls; empty where it has none, or in a form that is not read back."""
    text = _probed(tokenizer.template or "")
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
            raise UserError(
                f"template {name} needs the special token {lacking[0]}, which this tokenizer lacks; use plain"
            )
        return dataclasses.replace(tokenizer, template=TEMPLATES[name].text)
    if not Path(name).is_file():
        raise UserError(f"template {name!r} is no file and none of {', '.join(TEMPLATES)}")
    return dataclasses.replace(tokenizer, template=Path(name).read_text(encoding="utf-8"))


def _inside(spans: list[tuple[int, int]], start: int, stop: int) -> int:
    return int(any(begin <= start and stop <= end for begin, end in spans))


_NAME, _ARGUMENT, _ANSWER, _TOOL = "probed_name", "probed_argument", "probed answer", "probed_tool"
_PROBE: list[Message] = [
    {"role": "user", "content": "a"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": _NAME, "arguments": {"b": _ARGUMENT}}}],
    },
    {"role": "tool", "content": _ANSWER},
    {"role": "assistant", "content": "c"},
]
_PROBE_TOOLS = [{"type": "function", "function": {"name": _TOOL, "description": "d", "parameters": {}}}]


@lru_cache(maxsize=8)
def _probed(template: str) -> str:
    """What a template makes of a conversation with a tool; nothing where it refuses one."""
    try:
        return _rendered(template, _PROBE, _PROBE_TOOLS, False, {})
    except (jinja2.TemplateError, TypeError):
        return ""


def _lost(template: str) -> str:
    """What of tools a template does not write; nothing for one that refuses them, which says so itself."""
    text = _probed(template)
    parts = {
        _TOOL: "the description of tools",
        _NAME: "tool calls",
        _ARGUMENT: "the arguments of tool calls",
        _ANSWER: "what tools answered",
    }
    return next((words for probed, words in parts.items() if text and probed not in text), "")


def _without_special_text(
    messages: list[Message], tools: Tools, tokenizer: HuggingFaceTokenizer
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


def _answers(
    messages: Messages, tools: Tools, tokenizer: HuggingFaceTokenizer, whole: str
) -> list[tuple[int, int]]:
    """Where in the rendered text each assistant's turn begins and ends.

    It begins where the prompt for it ends, and ends where the conversation up to it ends, blanks aside.
    """
    spans = []
    for n, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, _ = _text(messages[:n], tools, tokenizer, True)
        after = _text(messages[: n + 1], tools, tokenizer, False)[0].rstrip()
        if not (whole.startswith(after) and after.startswith(before)):
            raise UserError(
                "the chat template writes earlier turns otherwise when later ones follow, so what the "
                "assistant said cannot be told apart; train on one turn at a time, or use another template"
            )
        spans.append((len(before), len(after)))
    return spans


def _text(
    messages: Messages, tools: Tools, tokenizer: HuggingFaceTokenizer, generation_prompt: bool
) -> tuple[str, list[tuple[int, int]]]:
    """What the template makes of messages, and where in it the template marks what the assistant says."""
    if tokenizer.template is None:
        raise UserError(
            "this tokenizer has no chat template; put a chat_template.jinja beside its tokenizer.json"
        )
    names = {f"{role}_token": tokenizer.names.get(role, "") for role in ("bos", "eos", "pad")}
    try:
        marked = _rendered(tokenizer.template, messages, tools, generation_prompt, names)
    except (jinja2.TemplateError, TypeError) as error:
        raise UserError(f"the chat template refuses a conversation: {error}") from error
    pieces = re.split(f"([{BEGIN}{END}])", marked)
    spans, text = [], ""
    for piece in pieces:
        if piece == BEGIN:
            spans.append((len(text), len(text)))
        elif piece == END:
            spans[-1] = (spans[-1][0], len(text))
        else:
            text += piece
    return text, spans


def _rendered(
    template: str, messages: Messages, tools: Tools, generation_prompt: bool, names: Mapping[str, str]
) -> str:
    return _compiled(template).render(
        messages=messages,
        tools=tools or None,  # templates ask whether there are any, or whether they are none
        add_generation_prompt=generation_prompt,
        **names,
    )


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    """Today's date is not given (`strftime_now`): the same conversation renders the same on any day."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **how: json.dumps(value, ensure_ascii=False, **how)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
