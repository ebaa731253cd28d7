"""Messages of a conversation: the order of their turns, and tool calls in OpenAI's form.

    {"role": "user", "content": "What is 2 + 3?"}
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "add", "arguments": '{"x": 2, "y": 3}'}}]}
    {"role": "tool", "tool_call_id": "a", "content": "5"}
    {"role": "assistant", "content": "It is 5."}

Arguments are a JSON object, as text. An assistant's message with `"weight": 0` is context: the loss does not
count it. What a message does not have is absent, or null in a Parquet file.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

Message = dict[str, Any]
Messages = Sequence[Mapping[str, Any]]

TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""Parquet type of messages without tools."""
_FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
_CALL = pa.struct([("id", pa.string()), ("type", pa.string()), ("function", _FUNCTION)])
_OF_TOOLS = [("tool_calls", pa.list_(_CALL)), ("tool_call_id", pa.string())]
MESSAGES = pa.list_(pa.struct([*TURNS.value_type, *_OF_TOOLS, ("weight", pa.int8())]))
"""Parquet type of messages."""

ROLES = ("system", "user", "assistant", "tool")
_FOLLOWS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
    "call": ("tool",),
    "tool": ("tool", "assistant"),
}
_UNANSWERED, _UNASKED = "a tool call without its answer", "a tool's answer without its call"


def order_fault(messages: Messages) -> str:
    """Why the turns are out of order; empty where they are not.

    At most one system message, first; then user and assistant in turn. Where the assistant calls tools, one
    answer for each call stands before it speaks again; ids, where both have one, say which is whose.
    """
    before, waiting = "", list[str]()
    for message in messages:
        role = message["role"]
        if role not in _FOLLOWS[before]:
            fault = {"call": _UNANSWERED}.get(before, _UNASKED if role == "tool" else "")
            return fault or "turns do not alternate from user to assistant"
        if role == "tool":
            found = message.get("tool_call_id")
            mine = [n for n, known in enumerate(waiting) if not found or not known or known == found]
            if not mine:
                return _UNASKED
            waiting.pop(mine[0])
        elif waiting:
            return _UNANSWERED
        calls = message.get("tool_calls") if role == "assistant" else None
        if calls:
            waiting = [call.get("id") or "" for call in calls]
        before = "call" if calls else role
    return _UNANSWERED if before == "tool" and waiting else ""


def is_learned(message: Mapping[str, Any]) -> bool:
    """Whether the loss counts a message: it is the assistant's, and of a weight that is not 0."""
    return message["role"] == "assistant" and message.get("weight") != 0


def is_empty(message: Mapping[str, Any]) -> bool:
    """Whether a message says nothing; a tool may have nothing to say."""
    return not message["content"] and not message.get("tool_calls") and message["role"] != "tool"


def read_calls(value: Any) -> list[Message]:
    """Tool calls in OpenAI's form, from that or with arguments that are an object (as Hugging Face has them).

    Errors: ValueError for what is no list of such calls.
    """
    if not isinstance(value, list):
        raise ValueError("tool calls that are no list")
    return [_call(call) for call in value]


def _call(call: Any) -> Message:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError("a tool call without the name of a function")
    if call.get("type") not in (None, "function"):
        raise ValueError("a tool call of another type than function")
    arguments = function.get("arguments")
    try:
        found = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("a tool call whose arguments are no JSON object")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    named = {"id": call["id"]} if isinstance(call.get("id"), str) and call["id"] else {}
    return {**named, "type": "function", "function": {"name": function["name"], "arguments": text}}


def read_tools(value: Any) -> list[Message]:
    """Descriptions of tools in OpenAI's form, from that, from functions alone, or from JSON text of either.

    Errors: ValueError for what is no list of such descriptions.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value or "[]")
        except ValueError:
            raise ValueError("tools that are no JSON") from None
    if not isinstance(value or [], list):
        raise ValueError("tools that are no list")
    return [_tool(tool) for tool in value or []]


def _tool(tool: Any) -> Message:
    found = {"type": "function", "function": tool} if isinstance(tool, dict) and "name" in tool else tool
    function = found.get("function") if isinstance(found, dict) and found.get("type") == "function" else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise ValueError("a tool without the name of a function")
    return found


def without_nulls(value: Any) -> Any:
    """Messages as Parquet gives them, without what they do not have; their values likewise."""
    if isinstance(value, Mapping):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return list(map(without_nulls, value)) if isinstance(value, list | tuple) else value


def with_arguments(messages: Messages, change: Callable[[Any], Any]) -> list[Message]:
    """The messages, with `change` of the arguments of every tool call."""
    found = []
    for message in messages:
        calls = [
            {**call, "function": {**call["function"], "arguments": change(call["function"]["arguments"])}}
            for call in message.get("tool_calls") or []
        ]
        found.append({**message, "tool_calls": calls} if calls else dict(message))
    return found


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with `change` of every text in it, names of fields included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(name): map_texts(item, change) for name, item in value.items()}
    return [map_texts(item, change) for item in value] if isinstance(value, list | tuple) else value


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a JSON value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        value = list(value.values())
    for item in value if isinstance(value, list | tuple) else ():
        yield from texts_in(item)


def said(message: Mapping[str, Any]) -> str:
    """The text of a message: its content, and a line `name(arguments)` for each tool that it calls."""
    functions = [call["function"] for call in message.get("tool_calls") or []]
    calls = [f"{function['name']}({function['arguments']})" for function in functions]
    return "\n".join([message["content"]] * bool(message["content"]) + calls)


def transcript(messages: Messages) -> str:
    """The turns as one text."""
    return "\n\n".join(f"{message['role']}: {said(message)}" for message in messages)
