"""What clean does to one record by itself: normal form, language, rules, benchmark overlap, personal data.

The engine maps these functions over a source; `reason` in what they return is empty for a record that passes.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from jaxtrain.clean import contamination, language, personal, quality, text
from jaxtrain.tasks.overlap import Phrases

Row = dict[str, Any]
Message = dict[str, str]

SIGNALS = (*quality.SIGNALS, "language_score")
_PERSONAL = [(f"personal_{kind}", pa.int32()) for kind in personal.KINDS]
_DECISION = [("text", pa.string()), ("language", pa.string()), ("reason", pa.string()), *_PERSONAL]
DOCUMENT_RESULT = pa.schema(_DECISION + [(name, pa.float32()) for name in SIGNALS])
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
CONVERSATION_RESULT = pa.schema([*_DECISION, ("messages", _MESSAGES)])

_REFUSAL = re.compile(
    r"\bas an AI(?: language model| assistant|,)|\bas a (?:large )?language model, I\b", re.I
)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How the documents of one source are judged."""

    preset: str
    """Quality limits: `web`, `prose`, `code`, or one published family, such as `gopher_quality`."""
    language_score: float | None = 0.65
    """Least probability (0 to 1) that the text is in one of `languages`; None: not asked, as for code."""
    personal: tuple[str, ...] = personal.KINDS
    """Kinds of personal data that become placeholders."""


def document(row: Row, rules: Rules, languages: tuple[str, ...], phrases: Phrases) -> Row:
    """Cleaned `text`, `language`, `reason`, counts of personal data, and signals of one document."""
    preset = replace(quality.preset_named(rules.preset), as_it_stands=False)
    verdict = quality.judge(row["text"], preset)
    found, score, reason = row["language"], None, ""
    if rules.language_score is not None:
        probabilities = language.detect(verdict.text)
        found = next(iter(probabilities), "")
        score = sum(probabilities.get(name, 0.0) for name in languages)
        reason = "language" if probabilities and score < rules.language_score else ""
    reason = reason or verdict.reason
    if not reason and phrases.find(verdict.text):
        reason = contamination.REASON
    redacted, counts = personal.redact(verdict.text, rules.personal)
    return {
        "text": redacted,
        "language": found,
        "reason": reason,
        **_counts(counts),
        **verdict.signals,
        "language_score": score,
    }


def conversation(row: Row, language_score: float, languages: tuple[str, ...], phrases: Phrases) -> Row:
    """The same for a conversation: cleaned `messages`, and their transcript as `text`."""
    messages, counts = [], dict.fromkeys(personal.KINDS, 0)
    for message in row["messages"]:
        content, found = personal.redact(text.normalize_turn(message["content"]))
        messages.append({"role": message["role"], "content": content})
        counts = {kind: counts[kind] + found[kind] for kind in counts}
    whole = transcript(messages)
    probabilities = language.detect("\n".join(message["content"] for message in messages))
    reason = _turn_fault(messages)
    if not reason and probabilities and sum(probabilities.get(x, 0.0) for x in languages) < language_score:
        reason = "language"
    if not reason and phrases.find(whole):
        reason = contamination.REASON
    return {
        "text": whole,
        "language": next(iter(probabilities), ""),
        "reason": reason,
        **_counts(counts),
        "messages": messages,
    }


def transcript(messages: list[Message]) -> str:
    """The turns as one text."""
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _turn_fault(messages: list[Message]) -> str:
    turns = messages[1:] if messages and messages[0]["role"] == "system" else messages
    if any(not message["content"] for message in messages):
        return "empty turn"
    if not turns or turns[-1]["role"] != "assistant":
        return "no answer at the end"
    if any(turn["role"] != ("user", "assistant")[i % 2] for i, turn in enumerate(turns)):
        return "turns out of order"
    if any(turn["role"] == "assistant" and _REFUSAL.search(turn["content"]) for turn in turns):
        return "refusal boilerplate"
    return ""


def _counts(counts: dict[str, int]) -> Row:
    return {f"personal_{kind}": counts.get(kind, 0) for kind in personal.KINDS}
