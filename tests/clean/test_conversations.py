"""What clean makes of a conversation with tools."""

import json

from jaxtrain.clean import chat
from jaxtrain.clean.filter import Record, examine
from jaxtrain.document import Conversation, to_row

ARGUMENTS = {"to": "ann.smith@smith-family.org", "lines": ["Dear Ann,", 3], "copy": None}
TALK = [
    {"role": "user", "content": "Please write to Ann that I am late for dinner this evening."},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "send", "arguments": json.dumps(ARGUMENTS)}}
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": '{"sent": true}'},
    {"role": "assistant", "content": "I have told her that you will be late for dinner."},
]


def judged(messages: list) -> Record:
    return examine(to_row(Conversation(id="0" * 16, messages=messages, source="chat")), chat("en"))


def test_tool_calls_stay_and_lose_personal_data() -> None:
    found = judged(TALK)
    assert found.keep
    assert [message["content"] for message in found.messages] == [turn["content"] for turn in TALK]
    function = found.messages[1]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == ARGUMENTS | {"to": "<email>"}
    assert found.replaced["email"] == 1 and "ann.smith" not in found.text
    assert found.messages[2]["tool_call_id"] == "a" and 'send({"to": "<email>"' in found.text


def test_calls_without_answers_and_turns_without_words_are_dropped() -> None:
    assert judged([*TALK[:2], TALK[3]]).reason == "turns out of order"
    assert judged(TALK[:3]).reason == "no answer at the end"
    empty = [TALK[0], {"role": "assistant", "content": ""}]
    assert judged(empty).reason == "empty turn"
    silent = [*TALK[:2], TALK[2] | {"content": ""}, TALK[3]]
    assert judged(silent).reason == "", "a tool may have nothing to say"
