"""Chat records of any publisher to messages: Alpaca, prompt/response, OpenAI and ShareGPT; with tools.

What a record says beside its turns is kept: a system text, earlier turns, which answers are not to be learned
from. What cannot be kept is a ValueError with the reason.
"""

import json
import re
from contextlib import suppress
from typing import Any

from jaxtrain.conversation import Message, is_empty, is_learned, order_fault, read_calls

_NAMES = {
    "system": "system developer",
    "user": "user human prompter",
    "assistant": "assistant gpt model bot chatbot function_call",
    "tool": "tool observation",
}
ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}
TURNS = ("messages", "conversations", "conversation")
SYSTEM = ("system", "system_prompt")
QUESTIONS, INPUTS = ("instruction", "prompt", "question", "query"), ("input", "context")
ANSWERS = ("output", "response", "completion", "answer")
REASONING = ("reasoning_content", "reasoning", "thinking")
UNDESIRED = ("label", "kto_tag")
FIELDS = (*TURNS, *SYSTEM, *QUESTIONS, *INPUTS, *ANSWERS, *UNDESIRED, "history", "tools")
"""Fields of a record that are read."""
# The Alpaca template (Taori et al., 2023), in which some files keep their prompts.
ALPACA_OPENING, ALPACA_INSTRUCTION = "Below is an instruction", "### Instruction:\n"
ALPACA_INPUT, ALPACA_RESPONSE = "\n\n### Input:\n", "\n\n### Response:"
_BLANK_LINES = re.compile(r"\A(?:[ \t]*\r?\n)+")


def to_messages(record: dict[str, Any]) -> list[Message]:
    """Turns of a record: an optional system turn, then user and assistant in turn, the assistant last.

    Between them may stand the assistant's tool calls and what the tools answered. An answer that is not to be
    learned from has `weight` 0.
    Raises ValueError with the reason when the record does not hold such a conversation.
    """
    if any(map(_is_false, map(record.get, UNDESIRED))):
        raise ValueError("an answer that is labelled as undesired")
    messages = _turns(record)
    if any(map(is_empty, messages)):
        raise ValueError("an empty turn")
    if fault := order_fault(messages):
        raise ValueError(fault)
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("the last turn has no answer")
    if not any(map(is_learned, messages)):
        raise ValueError("no answer that is to be learned from")
    return messages


def _turns(record: dict[str, Any]) -> list[Message]:
    if found := next((field for field in TURNS if record.get(field) is not None), ""):
        messages = turns(record[found])
    else:
        messages = _question_and_answer(record)
    system = text(next((record[field] for field in SYSTEM if record.get(field)), ""))
    if system and messages and messages[0]["role"] == "system":
        if messages[0]["content"] == system:
            return messages
        raise ValueError("two system texts")
    return [{"role": "system", "content": system}, *messages] if system else messages


def turns(value: Any) -> list[Message]:
    """Messages of a list of turns, `{"role", "content"}` or `{"from", "value"}`, or of its JSON text."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, list):
        raise ValueError("turns that are no list")
    return [_turn(turn) for turn in value]


def _question_and_answer(record: dict[str, Any]) -> list[Message]:
    asked = next((field for field in QUESTIONS if record.get(field)), "")
    answered = next((field for field in ANSWERS if record.get(field) is not None), "")
    if not (asked and answered):
        raise ValueError(f"no known format: fields {', '.join(sorted(map(str, record))[:6])}")
    question, answer = record[asked], record[answered]
    if isinstance(question, list):  # TRL's, of messages
        return turns(question) + (turns(answer) if isinstance(answer, list) else [_said("assistant", answer)])
    given = text(next((record[field] for field in INPUTS if record.get(field)), ""))
    question = "\n\n".join(filter(None, [_without_template(text(question)), given]))
    earlier = record.get("history") or []
    if not isinstance(earlier, list) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in earlier):
        raise ValueError("a history that is no list of questions with their answers")
    pairs = [*earlier, (question, turns(answer)[-1]["content"] if isinstance(answer, list) else answer)]
    return [_said(*turn) for pair in pairs for turn in zip(("user", "assistant"), pair, strict=True)]


def _is_false(value: Any) -> bool:
    return str(value).lower() == "false"  # CSV has no other


def _said(role: str, value: Any) -> Message:
    return {"role": role, "content": text(value)}


def _turn(turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise ValueError("a turn that is not an object")
    name = turn.get("role") or turn.get("from")
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise ValueError(f"a turn of role {str(name)[:40]}")
    content, calls = turn.get("content") if "content" in turn else turn.get("value"), turn.get("tool_calls")
    if name == "function_call":
        content, calls = "", _functions(content)
    if isinstance(turn.get("function_call"), dict):
        raise ValueError("a call in OpenAI's older form, function_call")
    if calls and role != "assistant":
        raise ValueError(f"tool calls of role {name}")
    message = _said(role, "" if calls and content is None else content)
    if reasoning := next((turn[field] for field in REASONING if turn.get(field)), ""):
        # As the templates of models that reason write it.
        message["content"] = f"<think>\n{text(reasoning)}\n</think>\n\n{message['content']}"
    if turn.get("weight") not in (None, 0, 1):
        raise ValueError(f"a turn of weight {str(turn['weight'])[:20]}")
    # Not to be learned from: OpenAI's `weight`, ShareGPT's `train`, or `loss` of ms-swift.
    is_context = turn.get("weight") == 0 or any(map(_is_false, map(turn.get, ("train", "loss"))))
    if role == "assistant" and is_context:
        message["weight"] = 0
    if calls:
        message["tool_calls"] = read_calls(calls)
    if role == "tool" and turn.get("tool_call_id"):
        message["tool_call_id"] = text(turn["tool_call_id"])
    return message


def _functions(value: Any) -> list[Message]:
    """Calls of a ShareGPT turn: JSON of one function with its arguments, or of several."""
    try:
        found = json.loads(text(value))
    except ValueError:
        raise ValueError("a tool call whose arguments are no JSON object") from None
    return [{"function": function} for function in (found if isinstance(found, list) else [found])]


def text(value: Any) -> str:
    """A turn's text, or that of its parts, with the indentation of its first line: it may be code.

    Blank lines around it, spaces behind it and a single one in front go.
    """
    if isinstance(value, list):
        value = "\n".join(map(_part, value))
    if not isinstance(value, str):
        raise ValueError("a turn that is not text")
    found = _BLANK_LINES.sub("", value).rstrip()
    return found if found[:2] in ("  ", " \t") else found.removeprefix(" ")


def _part(part: Any) -> str:
    if isinstance(part, dict):
        if part.get("type", "text") not in ("text", "input_text", "output_text"):
            raise ValueError(f"a part of type {str(part['type'])[:40]}")
        part = part.get("text")
    if not isinstance(part, str):
        raise ValueError("a turn that is not text")
    return part


def _without_template(prompt: str) -> str:
    if not prompt.startswith(ALPACA_OPENING) or ALPACA_INSTRUCTION not in prompt:
        return prompt
    question = prompt.partition(ALPACA_INSTRUCTION)[2].rpartition(ALPACA_RESPONSE)[0]
    return question.replace(ALPACA_INPUT, "\n\n")
