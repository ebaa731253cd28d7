"""Preferences of any publisher to comparisons: a prompt, its answers and their ranks, 1 for the best.

Read are rankings (`completions`, `ranks`), TRL's `prompt`, `chosen`, `rejected` (text or messages, with or
without the prompt in the answers), hh-rlhf's transcripts, `question`, `response_j`, `response_k`, and
ShareGPT's `conversations` beside `chosen` and `rejected`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtrain.conversation import Message, order_fault
from jaxtrain.formats.chats import INPUTS, QUESTIONS, SYSTEM, TURNS, turns
from jaxtrain.formats.files import Unread, Unreadable
from jaxtrain.formats.rows import rows
from jaxtrain.runtime.progress import say

CHOSEN, REJECTED = ("chosen", "response_j"), ("rejected", "response_k")
FIELDS = (
    *(*TURNS, *SYSTEM, *QUESTIONS, *INPUTS, *CHOSEN, *REJECTED),
    *("completions", "completion_ids", "ranks", "rater", "simulated"),
)
"""Fields of a record that are read."""
_TURN = re.compile(r"\n\n(Human|Assistant):")


def read_comparisons(path: Path, unread: Unread) -> Iterator[dict[str, Any]]:
    """The comparisons of a JSON, JSON-lines, Parquet or CSV file; `unread` counts the rest by reason."""
    for row in rows(path, unread, FIELDS):
        try:
            yield comparison(row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            unread[str(error) if type(error) in (ValueError, Unreadable) else "no comparison"] += 1


def read_all(path: Path) -> list[dict[str, Any]]:
    """All of them; how many records are left out is said."""
    unread: Unread = Unread()
    found = list(read_comparisons(path, unread))
    for reason, count in unread.most_common():
        say(f"{count:,} records of {path} are left out: {reason}")
    return found


def comparison(row: dict[str, Any]) -> dict[str, Any]:
    """`prompt` (messages), `completions`, `completion_ids`, `ranks`, `rater`, `simulated` of a record.

    Errors: Unreadable for a comparison that says nothing; ValueError for what is none.
    """
    who = {"rater": row.get("rater") or "", "simulated": bool(row.get("simulated"))}
    if row.get("ranks") is not None:
        texts, ranks = row["completions"], row["ranks"]
        ids = row.get("completion_ids") or [[] for _ in texts]
        if not 2 <= len(ranks) == len(texts) == len(ids) or set(ranks) != set(range(1, max(ranks) + 1)):
            raise ValueError(f"ranks {ranks} do not order {len(texts)} completions")
        prompt = _messages(row["prompt"], "user")
    else:
        prompt, texts = _pair(row)
        ids, ranks = [[], []], [1, 2]
        if texts[0] == texts[1]:
            raise Unreadable("both answers are the same")
    if fault := order_fault([*prompt, {"role": "assistant", "content": ""}]):
        raise Unreadable(fault)
    return {"prompt": prompt, "completions": texts, "completion_ids": ids, "ranks": ranks, **who}


def _pair(row: dict[str, Any]) -> tuple[list[Message], list[str]]:
    """The prompt, the better answer and the worse."""
    values = [next((row[n] for n in names if row.get(n) is not None), None) for names in (CHOSEN, REJECTED)]
    if None in values:
        raise ValueError("neither ranks nor a chosen and a rejected answer")
    asked = next((row[n] for n in (*TURNS, *QUESTIONS) if row.get(n)), None)
    if asked is None and all(isinstance(value, str) for value in values):
        (prompt, one), (other, two) = map(_transcript, values)
    else:
        answers = [_messages(value, "assistant") for value in values]
        (prompt, one), (other, two) = ((a[:-1], a[-1]["content"]) for a in answers)
    if prompt != other:
        raise Unreadable("the two conversations part before the last answer")
    if asked is not None:
        more = next((row[n] for n in INPUTS if row.get(n)), "")
        question = _messages(f"{asked}\n\n{more}" if more and isinstance(asked, str) else asked, "user")
        # Answers may repeat what they answer.
        prompt = prompt if prompt and prompt[-1] == question[-1] else question + prompt
    if system := next((row[n] for n in SYSTEM if row.get(n)), ""):
        prompt = prompt if prompt[0]["role"] == "system" else [{"role": "system", "content": system}, *prompt]
    return prompt, [one, two]


def _messages(value: Any, role: str) -> list[Message]:
    """Text is one message of `role`."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    found = turns([value] if isinstance(value, dict) else value)
    if not found or any(message.get("tool_calls") for message in found):
        raise ValueError("a message without text")
    return [{"role": message["role"], "content": message["content"]} for message in found]


def _transcript(text: str) -> tuple[list[Message], str]:
    """hh-rlhf's "\\n\\nHuman: …\\n\\nAssistant: …" as the prompt and the last answer."""
    parts = _TURN.split(text)
    said = [
        {"role": {"Human": "user", "Assistant": "assistant"}[who], "content": words.strip()}
        for who, words in zip(parts[1::2], parts[2::2], strict=True)
    ]
    if parts[0].strip() or len(said) < 2 or said[-1]["role"] != "assistant":
        raise ValueError("a transcript begins with Human and ends with Assistant")
    return said[:-1], said[-1]["content"]
