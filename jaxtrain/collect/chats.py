"""Chat files to conversations: Alpaca, prompt/response, OpenAI `messages` and ShareGPT records."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxtrain.collect.files import Unread, find, json_records
from jaxtrain.document import Conversation, record_id

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
# The Alpaca template (Taori et al., 2023), in which some files keep their prompts.
ALPACA_OPENING, ALPACA_INSTRUCTION = "Below is an instruction", "### Instruction:\n"
ALPACA_INPUT, ALPACA_RESPONSE = "\n\n### Input:\n", "\n\n### Response:"


@dataclass(frozen=True, kw_only=True)
class ChatSource:
    """Conversations of people with an assistant."""

    name: str
    """Name of the source and of its file."""
    paths: tuple[str, ...]
    """JSON or JSON-lines files (plain, gzip, bzip2, xz) or glob patterns."""
    license: str = ""
    """SPDX identifier of the conversations."""


def read_chats(source: ChatSource, unread: Unread) -> Iterator[Conversation]:
    """A conversation a record, in the order of the files; `unread` counts the rest by reason."""
    for path in find(source.name, source.paths):
        for record in json_records(path, unread):
            try:
                messages = to_messages(record)
            except ValueError as error:
                unread[str(error)] += 1
                continue
            yield Conversation(
                id=record_id(source.name, json.dumps(messages, ensure_ascii=False)),
                messages=messages,
                source=source.name,
                license=source.license,
            )


def to_messages(record: dict[str, Any]) -> list[dict[str, str]]:
    """Turns of a record: an optional system turn, then user and assistant in turn, the assistant last.

    Raises ValueError with the reason when the record does not hold such a conversation.
    """
    messages = [{"role": role, "content": content.strip()} for role, content in _turns(record)]
    roles = [m["role"] for m in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not all(m["content"] for m in messages):
        raise ValueError("an empty turn")
    if not spoken or spoken != [("user", "assistant")[i % 2] for i in range(len(spoken))]:
        raise ValueError("turns do not alternate from user to assistant")
    if spoken[-1] != "assistant":
        raise ValueError("the last turn has no answer")
    return messages


def _turns(record: dict[str, Any]) -> list[tuple[str, str]]:
    if "messages" in record or "conversations" in record:
        return [_turn(turn) for turn in record.get("messages") or record.get("conversations") or []]
    if "instruction" in record and "output" in record:
        question = [_text(record["instruction"]), _text(record.get("input") or "")]
        turns = [("user", "\n\n".join(filter(None, question))), ("assistant", _text(record["output"]))]
    elif "prompt" in record and ("response" in record or "completion" in record):
        answer = record["response"] if "response" in record else record["completion"]
        turns = [("user", _without_template(_text(record["prompt"]))), ("assistant", _text(answer))]
    else:
        raise ValueError(f"no known format: fields {', '.join(sorted(record)[:6])}")
    system = _text(record.get("system") or "")
    return [("system", system), *turns] if system else turns


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise ValueError("a turn that is not an object")
    role = turn.get("role") or turn.get("from")
    if role not in ROLES or turn.get("tool_calls"):
        raise ValueError("tool turns" if role in ROLES else f"a turn of role {role}")
    return ROLES[role], _text(turn.get("content") if "content" in turn else turn.get("value"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a turn that is not text")
    return value


def _without_template(prompt: str) -> str:
    if not prompt.startswith(ALPACA_OPENING) or ALPACA_INSTRUCTION not in prompt:
        return prompt
    question = prompt.partition(ALPACA_INSTRUCTION)[2].rpartition(ALPACA_RESPONSE)[0]
    return question.replace(ALPACA_INPUT, "\n\n")
