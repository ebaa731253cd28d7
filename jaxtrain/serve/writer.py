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
    """The JSON of one call's answers."""

    def __init__(self, call: Call, engine: Engine):
        self.call, self._engine = call, engine
        prefix = "chatcmpl-" if call.kind == "chat" else "cmpl-"
        self._id, self._created = prefix + secrets.token_hex(12), int(time.time())
        # characters of each choice's text whose log-probabilities have been told
        self._offsets = [0] * len(call.requests)

    def _base(self, chunk: bool) -> Json:
        kind = {"chat": "chat.completion", "text": "text_completion"}[self.call.kind]
        kind += ".chunk" if chunk and self.call.kind == "chat" else ""
        return {"id": self._id, "object": kind, "created": self._created, "model": self._engine.name}

    def whole(self, answers: list[Answer], transcripts: list[Transcript]) -> Json:
        """The body of an answer that is not streamed."""
        choices = []
        for n, (answer, transcript) in enumerate(zip(answers, transcripts, strict=True)):
            echo = self.call.echoes[n] if self.call.echoes else ""
            said: Json = {"text": echo + transcript.text}
            if self.call.kind == "chat":
                calls = {"tool_calls": _written(transcript.calls)} if transcript.calls else {}
                content = transcript.text or (None if calls else "")
                said = {"message": {"role": "assistant", "content": content, **calls}}
            end = self._end(n, answer, range(len(answer.ids)), True, bool(transcript.calls))
            choices.append({"index": n, **said, **end})
        return {**self._base(False), "choices": choices, "usage": self.usage(answers)}

    def first(self, n: int) -> Json | None:
        """The chunk that opens a choice."""
        if self.call.kind == "text":
            return None
        delta = {"role": "assistant", "content": ""}
        choice = {"index": n, "delta": delta, "logprobs": None, "finish_reason": None}
        return {**self._base(True), "choices": [choice]}

    def piece(
        self, n: int, answer: Answer, text: str, new: range, is_over: bool, calls: list[ToolCall]
    ) -> Json:
        """A chunk with new text, and at the end the tool calls; `new`: places of the ids that it tells of."""
        said: Json = {"text": text}
        if self.call.kind == "chat":
            delta: Json = {"content": text} if text else {}
            if calls:
                delta["tool_calls"] = [{"index": at, **call} for at, call in enumerate(_written(calls))]
            said = {"delta": delta}
        end = self._end(n, answer, new, is_over, bool(calls))
        return {**self._base(True), "choices": [{"index": n, **said, **end}]}

    def last(self, answers: list[Answer]) -> Json:
        """The chunk behind all choices, where usage was asked for."""
        return {**self._base(True), "choices": [], "usage": self.usage(answers)}

    def usage(self, answers: list[Answer]) -> Json:
        sampled = sum(len(answer.ids) for answer in answers)
        asked = self.call.prompt_tokens
        return {"prompt_tokens": asked, "completion_tokens": sampled, "total_tokens": asked + sampled}

    def _end(self, n: int, answer: Answer, new: range, is_over: bool, calls: bool) -> Json:
        told = {"chat": self._chat_logprobs, "text": self._text_logprobs}[self.call.kind]
        logprobs = told(n, answer, slice(new.start, new.stop)) if self.call.logprobs else None
        reason = "tool_calls" if calls and answer.reason == "stop" else answer.reason
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
