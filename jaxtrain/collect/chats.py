"""Chat files to conversations: Alpaca, prompt/response, OpenAI `messages` and ShareGPT; with tools."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jaxtrain.collect.files import Unread, find, json_records
from jaxtrain.conversation import Message, is_empty, order_fault, read_calls, read_tools
from jaxtrain.document import Conversation, record_id

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "observation": "tool",
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
                messages, tools = to_messages(record), read_tools(record.get("tools"))
            except ValueError as error:
                unread[str(error)] += 1
                continue
            key = json.dumps([messages, tools] if tools else messages, ensure_ascii=False)
            yield Conversation(
                id=record_id(source.name, key),
                messages=messages,
                tools=tools,
                source=source.name,
                license=source.license,
            )


def to_messages(record: dict[str, Any]) -> list[Message]:
    """Turns of a record: an optional system turn, then user and assistant in turn, the assistant last.

    Between them may stand the assistant's tool calls and what the tools answered.
    Raises ValueError with the reason when the record does not hold such a conversation.
    """
    messages = _turns(record)
    if any(map(is_empty, messages)):
        raise ValueError("an empty turn")
    if fault := order_fault(messages):
        raise ValueError(fault)
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("the last turn has no answer")
    return messages


def _turns(record: dict[str, Any]) -> list[Message]:
    if "messages" in record or "conversations" in record:
        return [_turn(turn) for turn in record.get("messages") or record.get("conversations") or []]
    return [{"role": role, "content": content.strip()} for role, content in _question_and_answer(record)]


def _question_and_answer(record: dict[str, Any]) -> list[tuple[str, str]]:
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


def _turn(turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise ValueError("a turn that is not an object")
    role = turn.get("role") or turn.get("from")
    if role not in ROLES:
        raise ValueError(f"a turn of role {role}")
    content, calls = turn.get("content") if "content" in turn else turn.get("value"), turn.get("tool_calls")
    if role == "function_call":
        content, calls = "", _functions(content)
    if isinstance(turn.get("function_call"), dict):
        raise ValueError("a call in OpenAI's older form, function_call")
    if calls and ROLES[role] != "assistant":
        raise ValueError(f"tool calls of role {role}")
    message = {"role": ROLES[role], "content": _text("" if calls and content is None else content).strip()}
    if calls:
        message["tool_calls"] = read_calls(calls)
    if ROLES[role] == "tool" and turn.get("tool_call_id"):
        message["tool_call_id"] = _text(turn["tool_call_id"])
    return message


def _functions(value: Any) -> list[Message]:
    """Calls of a ShareGPT turn: JSON of one function with its arguments, or of several."""
    try:
        found = json.loads(_text(value))
    except ValueError:
        raise ValueError("a tool call whose arguments are no JSON object") from None
    return [{"function": function} for function in (found if isinstance(found, list) else [found])]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a turn that is not text")
    return value


def _without_template(prompt: str) -> str:
    if not prompt.startswith(ALPACA_OPENING) or ALPACA_INSTRUCTION not in prompt:
        return prompt
    question = prompt.partition(ALPACA_INSTRUCTION)[2].rpartition(ALPACA_RESPONSE)[0]
    return question.replace(ALPACA_INPUT, "\n\n")
