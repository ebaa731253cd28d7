"""Turns, tool calls, and that a Parquet file gives back what was written."""

from pathlib import Path
from typing import Any

import pytest

from jaxtrain.conversation import order_fault, read_calls, read_tools, transcript
from jaxtrain.document import Conversation, read_records, write_records

FUNCTION = {"name": "add", "arguments": '{"x": 2}'}


def calls(*ids: str) -> list[dict[str, Any]]:
    return [{"id": one, "type": "function", "function": FUNCTION} for one in ids]


def turns(text: str) -> list[dict[str, Any]]:
    """`s`, `u`, `a`; `c12`: calls of 1 and 2; `t1`: what 1 answered; `t`: an answer without an id."""
    found = []
    for part in text.split():
        role = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "t": "tool"}[part[0]]
        message: dict[str, Any] = {"role": role, "content": "x"}
        if part[0] == "c":
            message["tool_calls"] = calls(*part[1:])
        elif part[1:]:
            message["tool_call_id"] = part[1:]
        found.append(message)
    return found


@pytest.mark.parametrize(
    "text",
    ["u a", "s u a u a", "u c1 t1 a", "u c1 t a u a", "u c12 t2 t1 a", "u c1 t1 c2 t2 a", "u c1", "u c1 t1"],
)
def test_turns_in_order(text: str) -> None:
    assert order_fault(turns(text)) == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a", "alternate"),
        ("u u", "alternate"),
        ("u a s", "alternate"),
        ("u t1 a", "answer without its call"),
        ("u a t1", "answer without its call"),
        ("u c1 t2 a", "answer without its call"),
        ("u c1 t1 t1 a", "answer without its call"),
        ("u c1 a", "call without its answer"),
        ("u c1 u", "call without its answer"),
        ("u c12 t1 a", "call without its answer"),
        ("u c12 t1", "call without its answer"),
    ],
)
def test_turns_out_of_order(text: str, fault: str) -> None:
    assert fault in order_fault(turns(text))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("x", "no list"),
        ([{}], "without the name"),
        ([{"function": {"name": "", "arguments": "{}"}}], "without the name"),
        ([{"function": {"name": "f", "arguments": "[1]"}}], "no JSON object"),
        ([{"function": {"name": "f", "arguments": "{"}}], "no JSON object"),
        ([{"function": {"name": "f"}}], "no JSON object"),
        ([{"type": "custom", "function": FUNCTION}], "another type"),
    ],
)
def test_what_is_no_call_is_refused(found: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_calls(found)


def test_tools_are_read_from_three_forms() -> None:
    add = {"name": "add", "parameters": {}}
    wanted = [{"type": "function", "function": add}]
    assert (
        read_tools(wanted) == read_tools([add]) == read_tools('[{"name": "add", "parameters": {}}]') == wanted
    )
    assert read_tools(None) == read_tools("") == read_tools("[]") == []
    for wrong in ("{", [1], {"name": "add"}, [{"type": "function"}]):
        with pytest.raises(ValueError, match="tool"):
            read_tools(wrong)


def test_conversations_with_tools_come_back_as_they_were(tmp_path: Path) -> None:
    talk = turns("s u c12 t2 t1 a")
    talk[2]["content"] = ""
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"required": None, "é": [1]}}}]
    records = [
        Conversation(id="0" * 16, messages=talk, source="chat", tools=tools),
        Conversation(id="1" * 16, messages=turns("u a"), source="chat"),
    ]
    write_records(tmp_path / "chat.parquet", Conversation, records)
    assert list(read_records(tmp_path / "chat.parquet", Conversation)) == records
    assert transcript(talk[1:4]) == 'user: x\n\nassistant: add({"x": 2})\nadd({"x": 2})\n\ntool: x'
