"""A model's own chat template: a conversation as ids, and which of them the assistant said.

The template is Jinja that came with the weights, so it runs in Jinja's sandbox. What people wrote never
becomes a special token: where a message contains the text of one, that text is encoded as ordinary text.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer

Messages = Sequence[Mapping[str, Any]]
FORGED = range(0xF0000, 0xFFFFE)  # a private plane of Unicode: stands for special text while rendering


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, around what the assistant says, renders as what is inside."""

    tags = {"generation"}

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render(
    messages: Messages, tokenizer: HuggingFaceTokenizer, *, generation_prompt: bool = False
) -> tuple[list[int], list[int]]:
    """Ids of a conversation and a mask of the same length: 1 on the assistant's words and the turn's end.

    generation_prompt: end where the assistant's answer begins.
    Errors: UserError where there is no template, it refuses the messages, or the assistant's words cannot be
        found in what it makes.
    """
    safe, forged = _without_special_text(messages, tokenizer)
    text = _text(safe, tokenizer, generation_prompt)
    spans = [] if generation_prompt else _answers(safe, tokenizer, text)
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


def _inside(spans: list[tuple[int, int]], start: int, stop: int) -> int:
    return int(any(begin <= start and stop <= end for begin, end in spans))


def _without_special_text(
    messages: Messages, tokenizer: HuggingFaceTokenizer
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The messages with a private letter in place of each special token's text, and what the letters mean."""
    longest_first = sorted(tokenizer.special, key=len, reverse=True)
    everything = "".join(str(message.get("content")) for message in messages)
    free = (chr(code) for code in FORGED if chr(code) not in everything)
    letters = {text: next(free) for text in longest_first if text in everything}
    safe = []
    for message in messages:
        content = message.get("content")
        for text, letter in letters.items():
            content = content.replace(text, letter) if isinstance(content, str) else content
        safe.append({**message, "content": content})
    return safe, {letter: text for text, letter in letters.items()}


def _answers(messages: Messages, tokenizer: HuggingFaceTokenizer, whole: str) -> list[tuple[int, int]]:
    """Where in the rendered text each assistant's turn begins and ends.

    It begins where the prompt for it ends, and ends where the conversation up to it ends, blanks aside.
    """
    spans = []
    for n, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _text(messages[:n], tokenizer, True)
        after = _text(messages[: n + 1], tokenizer, False).rstrip()
        if not (whole.startswith(after) and after.startswith(before)):
            raise UserError(
                "the chat template writes earlier turns otherwise when later ones follow, so what the "
                "assistant said cannot be told apart; train on one turn at a time, or use another template"
            )
        spans.append((len(before), len(after)))
    return spans


def _text(messages: Messages, tokenizer: HuggingFaceTokenizer, generation_prompt: bool) -> str:
    if tokenizer.template is None:
        raise UserError(
            "this tokenizer has no chat template; put a chat_template.jinja beside its tokenizer.json"
        )
    names = {f"{role}_token": tokenizer.names.get(role, "") for role in ("bos", "eos", "pad")}
    try:
        return _compiled(tokenizer.template).render(
            messages=messages, add_generation_prompt=generation_prompt, **names
        )
    except jinja2.TemplateError as error:
        raise UserError(f"the chat template refuses a conversation: {error}") from error


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
