"""What clean does to one record by itself: normal form, language, rules, benchmark overlap, personal data.

The engine maps these functions over a source; `reason` in what they return is empty for a record that passes.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from jaxtrain.classify import linear
from jaxtrain.clean import contamination, gibberish, language, personal, quality, text, toxicity, urls
from jaxtrain.conversation import (
    MESSAGES,
    Message,
    is_empty,
    map_texts,
    order_fault,
    said,
    transcript,
    with_arguments,
    without_nulls,
)

Row = dict[str, Any]

LISTED_WORDS, PERPLEXITY = "listed_words", "character_perplexity"
_PERSONAL = [(f"personal_{kind}", pa.int32()) for kind in personal.KINDS]
_DECISION = [(name, pa.string()) for name in ("text", "language", "reason", "benchmark")]
CONVERSATION_RESULT = pa.schema([*_DECISION, *_PERSONAL, ("messages", MESSAGES)])


def signal_names(classifiers: dict[str, str], word_lists: bool, reference: bool) -> tuple[str, ...]:
    """The signal columns of a clean artifact."""
    scores = [f"score_{name}" for name in score_names(classifiers)]
    optional = (LISTED_WORDS,) * word_lists + (PERPLEXITY,) * reference
    return (*quality.SIGNALS, "language_score", *scores, *optional)


def score_names(classifiers: dict[str, str]) -> list[str]:
    """`NAME` of a classifier of two labels; `NAME_LABEL` of each label where there are more, as of topics."""
    found = []
    for name, folder in classifiers.items():
        labels = linear.labels(folder)
        found += [name] if len(labels) == 2 else [f"{name}_{label}" for label in labels]
    return found


def document_result(signals: Iterable[str]) -> pa.Schema:
    """The columns that examining a document gives."""
    return pa.schema([*_DECISION, *_PERSONAL, *((name, pa.float32()) for name in signals)])


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
    licenses: tuple[str, ...] = ()
    """SPDX identifiers to keep; none: any licence, also an unknown one."""
    listed_words: float = 1.0
    """Largest share (0 to 1) of words that stand on one of `word_lists`."""
    perplexity: float | None = None
    """Largest perplexity of characters after `reference`; gibberish is above 50. None: no limit."""
    scores: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Least and largest probability (0 to 1) by classifier, or by `NAME_LABEL` where it has more than two
    labels; others only measure."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """Everything that one record is judged by. It travels to the workers as JSON; files are read there."""

    rules: Rules
    languages: tuple[str, ...]
    conversation_language_score: float
    benchmarks: tuple[str, ...]
    blocked_urls: tuple[str, ...]
    word_lists: tuple[str, ...]
    reference: tuple[str, ...]
    classifiers: dict[str, str]

    @classmethod
    def of(cls, described: Row) -> "Examination":
        """From what `dataclasses.asdict` and JSON made of one."""
        return cls(**(described | {"rules": Rules(**described["rules"])}))

    @property
    def signals(self) -> tuple[str, ...]:
        return signal_names(self.classifiers, bool(self.word_lists), bool(self.reference))

    @cached_property
    def _phrases(self) -> contamination.Benchmarks:
        return contamination.load(tuple(self.benchmarks))

    @cached_property
    def _blocked(self) -> urls.Blocklist:
        return urls.Blocklist.read(self.blocked_urls)

    @cached_property
    def _listed(self) -> toxicity.WordLists:
        return toxicity.WordLists.read(self.word_lists)

    @cached_property
    def _characters(self) -> gibberish.CharacterModel:
        return gibberish.CharacterModel.read(self.reference)

    @cached_property
    def _classifiers(self) -> dict[str, linear.Classifier]:
        return {name: linear.load(folder) for name, folder in self.classifiers.items()}

    def document(self, row: Row) -> Row:
        """Cleaned `text`, `language`, `reason`, counts of personal data, and signals of one document."""
        rules = self.rules
        preset = replace(quality.preset_named(rules.preset), as_it_stands=False)
        verdict = quality.judge(row["text"], preset)
        found, score, reason = row["language"], None, ""
        if rules.licenses and row["license"] not in rules.licenses:
            reason = "license"
        elif self.blocked_urls and self._blocked.holds(row["url"]):
            reason = "blocked url"
        if rules.language_score is not None:
            probabilities = language.detect(verdict.text)
            found = next(iter(probabilities), "")
            score = sum(probabilities.get(name, 0.0) for name in self.languages)
            if not reason and probabilities and score < rules.language_score:
                reason = "language"
        signals = verdict.signals | {"language_score": score} | self._scores(verdict.text)
        reason = reason or verdict.reason or self._broken_score(signals)
        benchmark = "" if reason else self._phrases.find(verdict.text)
        redacted, counts = personal.redact(verdict.text, rules.personal)
        return {
            "text": redacted,
            "language": found,
            "reason": contamination.REASON if benchmark else reason,
            "benchmark": benchmark,
            **_counts(counts),
            **signals,
        }

    def conversation(self, row: Row) -> Row:
        """The same for a conversation: cleaned `messages`, and their transcript as `text`."""
        counts = Counter[str]()

        def redacted(value: str) -> str:
            cleaned, found = personal.redact(value)
            counts.update(found)
            return cleaned

        messages = [
            {**message, "content": redacted(text.normalize_turn(message["content"]))}
            for message in with_arguments(
                without_nulls(row["messages"]),
                lambda found: json.dumps(map_texts(json.loads(found), redacted), ensure_ascii=False),
            )
        ]
        whole = transcript(messages)
        probabilities = language.detect(
            "\n".join(message["content"] for message in messages if message["role"] != "tool")
        )
        reason = _turn_fault(messages)
        score = sum(probabilities.get(name, 0.0) for name in self.languages)
        if not reason and probabilities and score < self.conversation_language_score:
            reason = "language"
        benchmark = "" if reason else self._phrases.find(whole)
        return {
            "text": whole,
            "language": next(iter(probabilities), ""),
            "reason": contamination.REASON if benchmark else reason,
            "benchmark": benchmark,
            **_counts(counts),
            "messages": messages,
        }

    def _scores(self, text: str) -> Row:
        scores: Row = {}
        for name, model in self._classifiers.items():
            if len(model.labels) == 2:
                scores[f"score_{name}"] = model.score(text)
            else:
                of = zip(model.labels, model.probabilities(text).tolist(), strict=True)
                scores |= {f"score_{name}_{label}": probability for label, probability in of}
        if self.word_lists:
            scores[LISTED_WORDS] = self._listed.share(text)
        if self.reference:
            scores[PERPLEXITY] = self._characters.perplexity(text)
        return scores

    def _broken_score(self, signals: Row) -> str:
        if signals.get(LISTED_WORDS, 0.0) > self.rules.listed_words:
            return "too many listed words"
        if self.rules.perplexity is not None and signals[PERPLEXITY] > self.rules.perplexity:
            return "gibberish"
        for name, (low, high) in self.rules.scores.items():
            if not low <= signals[f"score_{name}"] <= high:
                return f"classifier {name}"
        return ""


def answers(messages: list[Message]) -> str:
    """What the assistant says, as one text."""
    return "\n\n".join(said(message) for message in messages if message["role"] == "assistant")


def _turn_fault(messages: list[Message]) -> str:
    if any(is_empty(message) for message in messages):
        return "empty turn"
    if not messages or messages[-1]["role"] != "assistant":
        return "no answer at the end"
    if order_fault(messages):
        return "turns out of order"
    if any(turn["role"] == "assistant" and _REFUSAL.search(turn["content"]) for turn in messages):
        return "refusal boilerplate"
    return ""


def _counts(counts: dict[str, int]) -> Row:
    return {f"personal_{kind}": counts.get(kind, 0) for kind in personal.KINDS}
