"""Answers in OpenAI's JSON: whole, or in chunks as their tokens come."""

import json
import secrets
import time
from itertools import accumulate
from typing import Any

from jaxtrain.decode.request import Answer, Likeliest
from jaxtrain.serve.engine import Engine
from jaxtrain.serve.protocol import Call
from jaxtrain.serve.transcript import Transcript
from jaxtrain.tokenize.tool_text import Call as ToolCall

Json = dict[str, Any]


class Writer:
    """The JSON of one call's answers, which it reads as their ids come."""

    def __init__(self, call: Call, engine: Engine, answers: list[Answer]):
        self.call, self._engine, self._answers = call, engine, answers
        prefix = "chatcmpl-" if call.kind == "chat" else "cmpl-"
        self._id, self._created = prefix + secrets.token_hex(12), int(time.time())
        tokenizer = engine.tokenizer
        self._transcripts = [
            Transcript(tokenizer.decode, tokenizer.stop, call.stop_texts, call.calls) for _ in answers
        ]
        # of each choice: ids that have been told of, and characters of those of which log-probabilities have
        self._told, self._offsets = [0] * len(answers), [0] * len(answers)
        self._ended = [False] * len(answers)

    def _base(self, chunk: bool) -> Json:
        kind = {"chat": "chat.completion", "text": "text_completion"}[self.call.kind]
        kind += ".chunk" if chunk and self.call.kind == "chat" else ""
        return {"id": self._id, "object": kind, "created": self._created, "model": self._engine.name}

    def whole(self) -> Json:
        """The body of an answer that is not streamed."""
        choices = []
        for n, (answer, transcript) in enumerate(zip(self._answers, self._transcripts, strict=True)):
            transcript.read(answer.ids, True)
            echo = self.call.echoes[n] if self.call.echoes else ""
            said: Json = {"text": echo + transcript.text}
            if self.call.kind == "chat":
                calls = {"tool_calls": _written(transcript.calls)} if transcript.calls else {}
                content = transcript.text or (None if calls else "")
                said = {"message": {"role": "assistant", "content": content, **calls}}
            choices.append({"index": n, **said, **self._end(n, True)})
        return {**self._base(False), "choices": choices, "usage": self._usage()}

    def first(self, n: int) -> Json | None:
        """The chunk that opens a choice."""
        if self.call.kind == "text":
            return None
        delta = {"role": "assistant", "content": ""}
        choice = {"index": n, "delta": delta, "logprobs": None, "finish_reason": None}
        return {**self._base(True), "choices": [choice]}

    def piece(self, n: int) -> Json | None:
        """A chunk with a choice's new text, at the end with its tool calls; None where nothing is new."""
        answer, transcript = self._answers[n], self._transcripts[n]
        is_over = bool(answer.reason)  # read before the ids: then they are all
        text = transcript.read(answer.ids, is_over)
        if self._ended[n] or not (text or is_over):
            return None
        self._ended[n] = is_over
        said: Json = {"text": text}
        if self.call.kind == "chat":
            delta: Json = {"content": text} if text else {}
            if transcript.calls:
                calls = enumerate(_written(transcript.calls))
                delta["tool_calls"] = [{"index": at, **call} for at, call in calls]
            said = {"delta": delta}
        return {**self._base(True), "choices": [{"index": n, **said, **self._end(n, is_over)}]}

    def last(self) -> Json:
        """The chunk behind all choices, where usage was asked for."""
        return {**self._base(True), "choices": [], "usage": self._usage()}

    def _usage(self) -> Json:
        sampled = sum(len(answer.ids) for answer in self._answers)
        asked = self.call.prompt_tokens
        return {"prompt_tokens": asked, "completion_tokens": sampled, "total_tokens": asked + sampled}

    def _end(self, n: int, is_over: bool) -> Json:
        answer, transcript = self._answers[n], self._transcripts[n]
        new, self._told[n] = slice(self._told[n], transcript.count), transcript.count
        told = {"chat": self._chat_logprobs, "text": self._text_logprobs}[self.call.kind]
        logprobs = told(n, answer, new) if self.call.logprobs else None
        reason = "tool_calls" if transcript.calls and answer.reason == "stop" else answer.reason
        return {"logprobs": logprobs, "finish_reason": reason if is_over else None}

    # --- log-probabilities, of the model's own distribution whatever the settings ---

    def _text_logprobs(self, n: int, answer: Answer, new: slice) -> Json:
        """Of the prompt's tokens too, where it is echoed; nothing is known of its first."""
        ids, values, likeliest = answer.ids[new], answer.raw_logprobs[new], answer.likeliest[new]
        if self.call.echoes:
            ids = [*answer.request.prompt, *ids]
            values = [None, *answer.prompt_logprobs, *values]
            likeliest = [None, *answer.prompt_likeliest, *likeliest]
        tokens = [self._token(token) for token in ids]
        *offsets, self._offsets[n] = accumulate(map(len, tokens), initial=self._offsets[n])
        top = [self._named(some) for some in likeliest] if answer.request.likeliest else None
        return {"tokens": tokens, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}

    def _named(self, likeliest: Likeliest | None) -> dict[str, float] | None:
        """By their text; of several tokens of the same text the likeliest."""
        if likeliest is None:
            return None
        return {self._token(token): value for token, value in reversed(likeliest.items())}

    def _chat_logprobs(self, n: int, answer: Answer, new: slice) -> Json:
        entries = [self._entry(*pair) for pair in zip(answer.ids[new], answer.raw_logprobs[new], strict=True)]
        told = answer.likeliest[new] or [{}] * len(entries)
        for entry, likeliest in zip(entries, told, strict=True):
            entry["top_logprobs"] = [self._entry(*pair) for pair in likeliest.items()]
        return {"content": entries, "refusal": None}

    def _entry(self, token: int, value: float) -> Json:
        """`bytes`: of a part of a character too, so that those of all tokens together are the content's."""
        whole = self._engine.tokenizer.token_bytes(token)
        return {"token": self._token(token), "logprob": value, "bytes": list(whole)}

    def _token(self, token: int) -> str:
        return self._engine.tokenizer.token_bytes(token).decode("utf-8", errors="replace")


def _written(calls: list[ToolCall]) -> list[Json]:
    """Tool calls in OpenAI's form, each with an id of its own."""
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
        }
        for name, arguments in calls
    ]
