"""Chat records of four formats, and the two files in data/quickstart."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.guard import read_here
from jaxtrain.formats.chats import to_messages

GLAIVE = Path("../shared/material/chat/llamafactory-glaive_toolcall_en_demo.json")

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{}\n\n### Response:\n"
)
CALLS = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.50}'}}]
HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def read(path: str | Path):
    unread = Counter()
    return list(read_here(ChatSource(name="chats", paths=(str(path),)), unread)), unread


@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"prompt": "Hi", "response": "Hello"},
        {"prompt": " Hi\n", "completion": "Hello"},
        {"messages": HI},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "tools": ""},
        {"prompt": ALPACA.format("Hi"), "response": "Hello"},
    ],
)
def test_formats(record):
    assert to_messages(record) == HI


def test_system_turns_and_inputs():
    record = {"system": "Be brief.", "instruction": "Translate", "input": "chat", "output": "cat"}
    assert to_messages(record) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Translate\n\nchat"},
        {"role": "assistant", "content": "cat"},
    ]
    assert to_messages({"messages": [{"role": "system", "content": "S"}, *HI, *HI]})[1:] == HI + HI


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"instruction": "Hi", "output": " "}, "an empty turn"),
        ({"messages": HI[:1]}, "the last turn has no answer"),
        ({"messages": HI[::-1]}, "turns do not alternate"),
        ({"messages": []}, "the last turn has no answer"),
        ({"messages": [HI[0], {"role": "tool", "content": "4"}, HI[1]]}, "a tool's answer without its call"),
        (
            {"messages": [HI[0], {"role": "assistant", "content": "", "tool_calls": [1]}]},
            "name of a function",
        ),
        ({"messages": [HI[0], HI[1] | {"function_call": {"name": "f"}}]}, "older form, function_call"),
        ({"messages": [HI[0] | {"tool_calls": CALLS}, HI[1]]}, "tool calls of role user"),
        ({"messages": [HI[0], HI[1] | {"tool_calls": CALLS}, HI[0], HI[1]]}, "call without its answer"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "a part of type image"),
        ({"messages": ["Hi"]}, "a turn that is not an object"),
        ({"question": "Hi"}, "no known format: fields question"),
    ],
)
def test_what_is_no_conversation_has_a_reason(record, reason):
    with pytest.raises(ValueError, match=reason):
        to_messages(record)


def test_tool_calls_of_both_formats_are_the_same():
    called = {"role": "assistant", "content": "", "tool_calls": CALLS}
    messages = [HI[0], called, {"role": "tool", "tool_call_id": "a", "content": "4"}, HI[1]]
    assert to_messages({"messages": messages}) == messages
    as_null = [HI[0], called | {"content": None}, *messages[2:]]
    assert to_messages({"messages": as_null}) == messages
    sharegpt = [("human", "Hi"), ("function_call", '{"name": "f", "arguments": {"x": 1.5}}')]
    sharegpt += [("observation", "4"), ("gpt", "Hello")]
    found = to_messages({"conversations": [{"from": role, "value": value} for role, value in sharegpt]})
    functions = {"type": "function", "function": {"name": "f", "arguments": '{"x": 1.5}'}}
    assert found == [
        HI[0],
        {"role": "assistant", "content": "", "tool_calls": [functions]},
        {"role": "tool", "content": "4"},
        HI[1],
    ]


@pytest.mark.skipif(not GLAIVE.is_file(), reason="the tool calls of LLaMA-Factory are not there")
def test_real_tool_calls_are_kept():
    """300 conversations, as many calls, answers and described tools as are in the file."""
    found, unread = read(GLAIVE)
    assert len(found) == 300 and not unread
    raw = GLAIVE.read_text(encoding="utf-8")
    messages = [message for conversation in found for message in conversation.messages]
    assert sum(len(message.get("tool_calls", [])) for message in messages) == raw.count('"function_call"')
    assert sum(message["role"] == "tool" for message in messages) == raw.count('"observation"')
    described = [json.loads(record["tools"]) for record in json.loads(raw)]
    assert [[tool["function"] for tool in c.tools] for c in found] == described


def test_real_files():
    dolly, unread = read("data/quickstart/dolly_hhrlhf.jsonl")
    assert len(dolly) == 1000 and not unread
    assert dolly[0].messages[0] == {"role": "user", "content": "what is kangen water?"}
    assert not any("###" in c.messages[0]["content"] for c in dolly)
    alpaca, _ = read("data/quickstart/alpaca.json")
    assert len(alpaca) == 999
    assert alpaca[0].messages[0]["content"] == "Describe a process of making crepes."


def test_malformed_lines_are_counted_and_the_rest_is_read(tmp_path):
    lines = [
        json.dumps({"prompt": "Hi", "response": "Hello"}),
        '{"prompt": "Hi", "resp',
        "[1]",
        "",
        '{"a": 1}',
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(lines))
    found, unread = read(path)
    assert [c.messages for c in found] == [HI]
    assert unread == {"not a JSON object": 2, "no known format: fields a": 1}


def test_unknown_columns_of_a_table_with_semicolons_are_told_one_by_one(tmp_path):
    path = tmp_path / "chats.csv"
    path.write_bytes("Frage;Antwort\r\nWie heißt du?;Müller, Österreich\r\n".encode("cp1252"))
    assert read(path) == ([], {"no known format: fields Antwort, Frage": 1})
    path.write_bytes("prompt;response\r\nHi;Hello\r\n".encode("utf-8-sig"))
    assert [c.messages for c in read(path)[0]] == [HI]


def test_a_cut_array_says_so(tmp_path):
    path = tmp_path / "chats.json"
    path.write_bytes(Path("data/quickstart/alpaca.json").read_bytes()[:50_000])
    found, unread = read(path)
    whole, _ = read(Path("data/quickstart/alpaca.json"))
    assert len(found) > 50 and found == whole[: len(found)]
    assert unread == {"an element of chats.json that is no JSON": 1}


def test_what_a_record_says_beside_its_turns_is_kept():
    """Fields as in OpenAI's, ShareGPT's, LLaMA-Factory's, TRL's and DeepSeek's files."""
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello", "train": False}]
    more = [{"from": "human", "value": "Code?"}, {"from": "gpt", "value": "\n    return x\n"}]
    beside = {"conversations": turns + more, "system": "Be brief."}
    assert [(m["role"], m["content"], m.get("weight")) for m in to_messages(beside)] == [
        ("system", "Be brief.", None),
        ("user", "Hi", None),
        ("assistant", "Hello", 0),
        ("user", "Code?", None),
        ("assistant", "    return x", None),
    ]
    parts = [{"type": "text", "text": "Add"}, {"type": "text", "text": "2 and 2"}]
    thought = {"role": "assistant", "content": "4", "reasoning_content": "two twice", "weight": 1}
    asked = [{"role": "developer", "content": "Calculate."}, {"role": "user", "content": parts}]
    assert to_messages({"prompt": asked, "completion": [thought]}) == [
        {"role": "system", "content": "Calculate."},
        {"role": "user", "content": "Add\n2 and 2"},
        {"role": "assistant", "content": "<think>\ntwo twice\n</think>\n\n4"},
    ]
    history = {"instruction": "c", "input": "d", "output": "e", "history": [["a", "b"]]}
    assert [m["content"] for m in to_messages(history)] == ["a", "b", "c\n\nd", "e"]
    drafts = [{"train": False}, {"train": "False"}, {"loss": False}, {"weight": 0.0}]
    untaught = [{"conversations": [turns[0], {"from": "gpt", "value": "Hello"} | mark]} for mark in drafts]
    undesired = [{"prompt": "a", "completion": "b", "label": label} for label in (False, "false")]
    for bad in untaught + undesired:
        with pytest.raises(ValueError, match=r"undesired|no answer that is to be learned from"):
            to_messages(bad)


@pytest.mark.parametrize("end", ["parquet", "jsonl", "json", "csv"])
def test_chats_of_every_kind_of_file(tmp_path, end):
    rows = [{"prompt": "Hi", "completion": "Hello"}, {"prompt": "Hi", "completion": "Hello"}]
    path = tmp_path / f"chats.{end}"
    match end:
        case "parquet":
            pq.write_table(pa.table({name: [row[name] for row in rows] for name in rows[0]}), path)
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case "json":
            path.write_text(json.dumps(rows, indent=1))
        case "csv":
            path.write_text("prompt,completion\nHi,Hello\nHi,Hello\n")
    found, unread = read(path)
    assert [c.messages for c in found] == [HI] * 2 and not unread
