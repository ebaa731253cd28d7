"""OpenAI's JSON: requests read strictly, answers written. What cannot be done is refused by name."""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from jaxtrain.conversation import Message, read_calls, read_tools
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Answer
from jaxtrain.runtime.errors import UserError
from jaxtrain.serve.engine import Engine, Wish
from jaxtrain.serve.transcript import Transcript
from jaxtrain.tokenize.tool_text import Call as ToolCall

Kind = Literal["chat", "text"]
Json = dict[str, Any]
MOST_CHOICES = 16
"""Answers of one request: prompts times `n`."""
MOST_STOPS, LONGEST_STOP = 16, 256
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
"""Fields that say nothing about the answer."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "logit_bias": ({}, None),
    "functions": ([], None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
    "top_logprobs": (0, None),
    "best_of": (1, None),
    "echo": (False, None),
    "suffix": ("", None),
}
"""Fields that are accepted with the values that change nothing."""


class Refused(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, status: int, message: str, parameter: str | None = None):
        super().__init__(message)
        self.status, self.message, self.parameter = status, message, parameter

    def body(self) -> Json:
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.parameter, "code": None}}


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request, understood."""

    kind: Kind
    wishes: list[Wish]
    """One for each choice."""
    stream: bool
    include_usage: bool
    logprobs: bool
    prompt_tokens: int


def read(body: bytes, kind: Kind, engine: Engine) -> Call:
    """Errors: Refused."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(400, "the body is not a JSON object")
    fields = _Fields(found)
    model = fields.take("model", str, None)
    if model not in (None, "", engine.name):
        raise Refused(404, f"there is no model {model!r}; this server has {engine.name!r}", "model")
    tools = _tools(fields, engine) if kind == "chat" else []
    prompts = _chat_prompts(fields, tools, engine) if kind == "chat" else _text_prompts(fields, engine)
    wishes = _wishes(fields, prompts, engine)
    if tools:
        wishes = [replace(wish, calls=engine.form_of_calls) for wish in wishes]
    options = fields.take("stream_options", dict, {})
    logprobs = fields.take("logprobs", bool if kind == "chat" else int, None)
    if kind == "text" and logprobs not in (None, 0, 1):
        raise Refused(400, "logprobs is at most 1: only the sampled token's is told", "logprobs")
    call = Call(
        kind=kind,
        wishes=wishes,
        stream=fields.take("stream", bool, False),
        include_usage=options.get("include_usage") is True,
        logprobs=logprobs not in (None, False),
        prompt_tokens=sum(map(len, prompts)),
    )
    fields.finish()
    return call


def _wishes(fields: "_Fields", prompts: list[tuple[int, ...]], engine: Engine) -> list[Wish]:
    count = fields.take("n", int, 1)
    if not 1 <= count * len(prompts) <= MOST_CHOICES:
        raise Refused(400, f"n times the number of prompts is between 1 and {MOST_CHOICES}", "n")
    limit = fields.take("max_completion_tokens", int, None)
    older = fields.take("max_tokens", int, None)
    limit = older if limit is None else limit
    if limit is not None and limit < 1:
        raise Refused(400, "max_tokens is at least 1", "max_tokens")
    settings = {
        "temperature": fields.take("temperature", float, 1.0),
        "top_p": fields.take("top_p", float, 1.0),
        "top_k": fields.take("top_k", int, 0),
        "min_p": fields.take("min_p", float, 0.0),
        "repetition_penalty": fields.take("repetition_penalty", float, 1.0),
    }
    seed = fields.take("seed", int, None)
    if seed is not None and abs(seed) >= 2**63:
        raise Refused(400, "seed is a 64-bit integer", "seed")
    stops = fields.take("stop", (str, list), [])
    stops = tuple([stops] if isinstance(stops, str) else stops)
    if len(stops) > MOST_STOPS or not all(isinstance(s, str) and 0 < len(s) <= LONGEST_STOP for s in stops):
        raise Refused(
            400, f"stop is a text of 1 to {LONGEST_STOP} characters, or up to {MOST_STOPS} of them", "stop"
        )
    try:
        read_settings = Settings(**settings)
    except UserError as error:
        raise Refused(400, str(error), str(error).split()[0]) from None
    first = secrets.randbits(48) if seed is None else seed % 2**63
    wishes = []
    for prompt in prompts:
        wish = Wish(prompt=prompt, max_new=limit, settings=read_settings, seed=first, stop_texts=stops)
        wishes += engine.several(wish, count)
    return wishes


def _tools(fields: "_Fields", engine: Engine) -> list[Message]:
    """What the model may call. Nothing makes it call, or call one alone, so that is refused."""
    tools, choice = fields.take("tools", list, []), fields.take("tool_choice", (str, dict), "auto")
    one_alone = fields.take("parallel_tool_calls", bool, True) is False
    if choice not in ("auto", "none"):
        raise Refused(400, "tool_choice is not supported but with auto and none", "tool_choice")
    if not tools or choice == "none":
        return []
    if one_alone:
        raise Refused(400, "parallel_tool_calls is not supported but with its default", "parallel_tool_calls")
    try:
        found = read_tools(tools)
    except ValueError as error:
        raise Refused(400, f"tools: {error}", "tools") from None
    if any(tool["function"].get("strict") for tool in found):
        raise Refused(400, "tools: strict is not supported; leave it out and check the arguments", "tools")
    if not engine.form_of_calls:
        raise Refused(400, "tools is not supported: the model's chat template has no form of calls", "tools")
    return found


def _chat_prompts(fields: "_Fields", tools: list[Message], engine: Engine) -> list[tuple[int, ...]]:
    messages = fields.take("messages", list, None)
    if not messages:
        raise Refused(400, "messages is a list of at least one message", "messages")
    try:
        return [engine.chat_prompt([_message(message) for message in messages], tools)]
    except UserError as error:
        raise Refused(400, str(error), "messages") from None


def _message(message: Any) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Refused(400, "every message is an object with a role and a content", "messages")
    role = {"developer": "system"}.get(message["role"], message["role"])
    calls: Message = {}
    try:
        if role == "assistant" and message.get("tool_calls"):
            calls = {"tool_calls": read_calls(message["tool_calls"])}
    except ValueError as error:
        raise Refused(400, f"messages: {error}", "messages") from None
    if role == "tool" and isinstance(message.get("tool_call_id"), str):
        calls = {"tool_call_id": message["tool_call_id"]}
    content = message.get("content")
    if content is None and "tool_calls" in calls:
        content = ""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise Refused(400, "parts of a content are of type text", "messages")
        content = "".join(parts)
    if not isinstance(content, str):
        raise Refused(400, "the content of a message is a text, or a list of parts of type text", "messages")
    return {"role": role, "content": _text(content, "messages"), **calls}


def _text_prompts(fields: "_Fields", engine: Engine) -> list[tuple[int, ...]]:
    prompt = fields.take("prompt", (str, list), None)
    if isinstance(prompt, str):
        return [engine.text_prompt(_text(prompt, "prompt"))]
    if prompt and all(isinstance(one, str) for one in prompt):
        return [engine.text_prompt(_text(one, "prompt")) for one in prompt]
    if prompt and all(_is_integer(one) for one in prompt):
        return [tuple(prompt)]
    raise Refused(400, "prompt is a text, a list of texts, or a list of token ids", "prompt")


def _text(value: str, parameter: str) -> str:
    """Errors: Refused where JSON escapes made half a surrogate pair, which is no text."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(400, f"{parameter} has a lone surrogate, which is no character", parameter) from None
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Fields:
    """A JSON object whose fields are taken out one by one."""

    def __init__(self, found: Json):
        self._left = dict(found)

    def take(self, name: str, kind: type | tuple[type, ...], default: Any) -> Any:
        """The field, or the default where it is absent or null. Errors: Refused for another type."""
        value = self._left.pop(name, None)
        if value is None:
            return default
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if float in kinds and _is_integer(value):
            value = float(value) if abs(value) < 1e9 else value
        if isinstance(value, bool) and bool not in kinds or not isinstance(value, kinds):
            names = {str: "a text", int: "an integer", float: "a number", bool: "true or false"}
            words = " or ".join(
                names.get(one, {list: "a list", dict: "an object"}.get(one, "")) for one in kinds
            )
            raise Refused(400, f"{name} is {words}, not {json.dumps(value)[:60]}", name)
        return value

    def finish(self) -> None:
        """Errors: Refused for a field that asks for something that is not done here."""
        for name, value in self._left.items():
            if name in IGNORED or (name in NEUTRAL and value in NEUTRAL[name]):
                continue
            raise Refused(
                400, f"{name} is not supported" + (" but with its default" if name in NEUTRAL else ""), name
            )


class Writer:
    """The JSON of one call's answers."""

    def __init__(self, call: Call, engine: Engine):
        self.call, self._engine = call, engine
        prefix = "chatcmpl-" if call.kind == "chat" else "cmpl-"
        self._id, self._created = prefix + secrets.token_hex(12), int(time.time())

    def _base(self, chunk: bool) -> Json:
        kind = {"chat": "chat.completion", "text": "text_completion"}[self.call.kind]
        kind += ".chunk" if chunk and self.call.kind == "chat" else ""
        return {"id": self._id, "object": kind, "created": self._created, "model": self._engine.name}

    def whole(self, answers: list[Answer], transcripts: list[Transcript]) -> Json:
        """The body of an answer that is not streamed."""
        choices = []
        for n, (answer, transcript) in enumerate(zip(answers, transcripts, strict=True)):
            said: Json = {"text": transcript.text}
            if self.call.kind == "chat":
                calls = {"tool_calls": _written(transcript.calls)} if transcript.calls else {}
                content = transcript.text or (None if calls else "")
                said = {"message": {"role": "assistant", "content": content, **calls}}
            end = self._end(answer, range(len(answer.ids)), True, bool(transcript.calls))
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
        end = self._end(answer, new, is_over, bool(calls))
        return {**self._base(True), "choices": [{"index": n, **said, **end}]}

    def last(self, answers: list[Answer]) -> Json:
        """The chunk behind all choices, where usage was asked for."""
        return {**self._base(True), "choices": [], "usage": self.usage(answers)}

    def usage(self, answers: list[Answer]) -> Json:
        sampled = sum(len(answer.ids) for answer in answers)
        asked = self.call.prompt_tokens
        return {"prompt_tokens": asked, "completion_tokens": sampled, "total_tokens": asked + sampled}

    def _end(self, answer: Answer, new: range, is_over: bool, calls: bool) -> Json:
        logprobs = self._logprobs(answer, slice(new.start, new.stop)) if self.call.logprobs else None
        reason = "tool_calls" if calls and answer.reason == "stop" else answer.reason
        return {"logprobs": logprobs, "finish_reason": reason if is_over else None}

    def _logprobs(self, answer: Answer, new: slice) -> Json:
        """Of the model's own distribution, whatever the settings."""
        decode: Callable[[list[int]], str] = self._engine.tokenizer.decode
        tokens = [decode([token]) for token in answer.ids[new]]
        values = answer.raw_logprobs[new]
        if self.call.kind == "text":
            return {"tokens": tokens, "token_logprobs": values, "top_logprobs": None, "text_offset": []}
        entries = [
            {"token": token, "logprob": value, "bytes": list(token.encode()), "top_logprobs": []}
            for token, value in zip(tokens, values, strict=True)
        ]
        return {"content": entries, "refusal": None}


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
