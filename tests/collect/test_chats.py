"""Chat records of four formats, and the two files in data/quickstart."""

import json
from collections import Counter
from pathlib import Path

import pytest

from jaxtrain.collect.chats import ChatSource, read_chats, to_messages

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{}\n\n### Response:\n"
)
HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def read(path: str | Path):
    unread = Counter()
    return list(read_chats(ChatSource(name="chats", paths=(str(path),)), unread)), unread


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
        ({"messages": []}, "turns do not alternate"),
        ({"messages": [HI[0], {"role": "tool", "content": "4"}, HI[1]]}, "a turn of role tool"),
        ({"messages": [HI[0], {"role": "assistant", "content": "", "tool_calls": [1]}]}, "tool turns"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "a turn that is not text"),
        ({"messages": ["Hi"]}, "a turn that is not an object"),
        ({"question": "Hi"}, "no known format: fields question"),
    ],
)
def test_what_is_no_conversation_has_a_reason(record, reason):
    with pytest.raises(ValueError, match=reason):
        to_messages(record)


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


def test_a_cut_array_says_so(tmp_path):
    path = tmp_path / "chats.json"
    path.write_bytes(Path("data/quickstart/alpaca.json").read_bytes()[:50_000])
    assert read(path) == ([], {"chats.json is damaged from here on: JSONDecodeError": 1})
