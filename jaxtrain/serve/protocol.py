"""OpenAI's requests, read strictly. What cannot be done is refused by name."""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtrain.conversation import Message, read_calls, read_tools
from jaxtrain.decode.request import Request
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scoring import MOST
from jaxtrain.runtime.errors import UserError
from jaxtrain.serve.engine import Engine
from jaxtrain.tokenize.tool_text import Form

Kind = Literal["chat", "text"]
Json = dict[str, Any]
Prompt = tuple[list[int], str]
"""Ids and, of completions, their text."""
MOST_CHOICES = 64
"""Answers of one request: prompts times `n`."""
MOST_STOPS, LONGEST_STOP = 16, 256
WORDS: Mapping[type, str] = {
    **{str: "a text", int: "an integer", float: "a number"},
    **{bool: "true or false", list: "a list", dict: "an object"},
}
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
"""Fields that say nothing about the answer."""
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "logit_bias": ({}, None),
    "functions": ([], None),
    "modalities": (["text"], None),
    "best_of": (1, None),
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


@contextmanager
def refusing(parameter: str, before: str = "", kind: type[Exception] = UserError) -> Iterator[None]:
    """What is wrong with a parameter, as an error of this kind says it, is an answer with status 400."""
    try:
        yield
    except kind as error:
        raise Refused(400, f"{before}{error}", parameter) from None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request, understood."""

    kind: Kind
    requests: list[Request]
    """One for each choice."""
    prompt_tokens: int
    stop_texts: tuple[str, ...]
    calls: Form
    """How tool calls are written, where the model may make some."""
    stream: bool
    include_usage: bool
    logprobs: bool
    echoes: list[str] = field(default_factory=list)
    """The prompt of each choice, which its text begins with; empty: it does not."""


def read(body: bytes, kind: Kind, engine: Engine) -> Call:
    """Errors: Refused."""
    try:
        found = json.loads(body)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        # JSON escapes made half a surrogate pair
        raise Refused(400, "a text or a name in the body has a lone surrogate, no character") from None
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
    count = fields.take("n", int, 1)
    if not 1 <= count * len(prompts) <= MOST_CHOICES:
        raise Refused(400, f"n times the number of prompts is between 1 and {MOST_CHOICES}", "n")
    stream, options = fields.take("stream", bool, False), fields.take("stream_options", dict, {})
    echo = kind == "text" and fields.take("echo", bool, False)
    if echo and stream:
        raise Refused(400, "echo is not supported with stream", "echo")
    logprobs, likeliest = _logprobs(fields, kind)
    stop_texts, asked = _stop_texts(fields), _settings(fields)
    asked |= {"likeliest": likeliest, "score_prompt": echo and logprobs}
    first, grammar = asked.pop("seed"), _grammar(fields, engine)
    with refusing("messages" if kind == "chat" else "prompt"):
        requests = [
            engine.request(prompt, stop_texts=stop_texts, seed=first + n, grammar=grammar, **asked)
            for prompt, _ in prompts
            for n in range(count)
        ]
    call = Call(
        kind=kind,
        requests=requests,
        prompt_tokens=sum(len(prompt) for prompt, _ in prompts),
        stop_texts=stop_texts,
        calls=engine.form_of_calls if tools else "",
        stream=stream,
        include_usage=options.get("include_usage") is True,
        logprobs=logprobs,
        echoes=[text for _, text in prompts for _ in range(count)] if echo else [],
    )
    fields.finish()
    return call


def _logprobs(fields: "_Fields", kind: Kind) -> tuple[bool, int]:
    """Whether log-probabilities are told, and of how many of the likeliest tokens beside each."""
    if kind == "chat":
        wanted, name = fields.take("logprobs", bool, False), "top_logprobs"
        likeliest = fields.take(name, int, 0)
        if likeliest and not wanted:
            raise Refused(400, "top_logprobs needs logprobs: true", name)
    else:
        name = "logprobs"
        given = fields.take(name, int, None)
        wanted, likeliest = given is not None, given or 0
    if not 0 <= likeliest <= MOST:
        raise Refused(400, f"{name} is between 0 and {MOST}", name)
    return wanted, likeliest


def _grammar(fields: "_Fields", engine: Engine) -> str:
    """Of `response_format`, and of `regex` as vLLM has it; empty: none is asked for."""
    form, regex = fields.take("response_format", dict, {}), fields.take("guided_regex", str, None)
    match form.get("type", "text"):
        case "text":
            asked = {} if regex is None else {"regex": regex}
        case "json_object":
            asked = {"schema": {"type": "object"}}
        case "json_schema" if isinstance(found := form.get("json_schema"), dict) and "schema" in found:
            asked = {"schema": found["schema"]}
        case _:
            kinds = "text, json_object, and json_schema with its json_schema.schema"
            raise Refused(400, f"response_format: its type is one of {kinds}", "response_format")
    name = "response_format" if regex is None else "guided_regex"
    if regex is not None and form:
        raise Refused(400, "guided_regex and response_format are not supported together", name)
    with refusing(name, f"{name}: "):
        return engine.grammars.check(asked) if asked else ""


def _stop_texts(fields: "_Fields") -> tuple[str, ...]:
    stops = fields.take("stop", (str, list), [])
    stops = tuple([stops] if isinstance(stops, str) else stops)
    if len(stops) > MOST_STOPS or not all(isinstance(s, str) and 0 < len(s) <= LONGEST_STOP for s in stops):
        words = f"stop is a text of 1 to {LONGEST_STOP} characters, or up to {MOST_STOPS} of them"
        raise Refused(400, words, "stop")
    return stops


def _settings(fields: "_Fields") -> Json:
    """`max_new`, `settings` and `seed` of every request."""
    limit = fields.take("max_completion_tokens", int, None)
    older = fields.take("max_tokens", int, None)
    limit = older if limit is None else limit
    if limit is not None and limit < 1:
        raise Refused(400, "max_tokens is at least 1", "max_tokens")
    neutral = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    settings = {name: fields.take(name, type(value), value) for name, value in neutral.items()}
    seed = fields.take("seed", int, None)
    if seed is not None and abs(seed) >= 2**63:
        raise Refused(400, "seed is a 64-bit integer", "seed")
    seed = secrets.randbits(48) if seed is None else seed % 2**63
    try:
        return {"max_new": limit, "settings": Settings(**settings), "seed": seed}
    except UserError as error:
        raise Refused(400, str(error), str(error).split()[0]) from None


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
    with refusing("tools", "tools: ", ValueError):
        found = read_tools(tools)
    if any(tool["function"].get("strict") for tool in found):
        raise Refused(400, "tools: strict is not supported; leave it out and check the arguments", "tools")
    if not engine.form_of_calls:
        raise Refused(400, "tools is not supported: the model's chat template has no form of calls", "tools")
    return found


def _chat_prompts(fields: "_Fields", tools: list[Message], engine: Engine) -> list[Prompt]:
    messages = fields.take("messages", list, None)
    if not messages:
        raise Refused(400, "messages is a list of at least one message", "messages")
    with refusing("messages"):
        return [(engine.chat_prompt([_message(message) for message in messages], tools), "")]


def _message(message: Any) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Refused(400, "every message is an object with a role and a content", "messages")
    role = {"developer": "system"}.get(message["role"], message["role"])
    calls: Message = {}
    if role == "assistant" and message.get("tool_calls"):
        with refusing("messages", "messages: ", ValueError):
            calls = {"tool_calls": read_calls(message["tool_calls"])}
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
    return {"role": role, "content": content, **calls}


def _text_prompts(fields: "_Fields", engine: Engine) -> list[Prompt]:
    prompt = fields.take("prompt", (str, list), None)
    if isinstance(prompt, str) or prompt and all(_is_integer(one) for one in prompt):
        prompt = [prompt]
    if not prompt or not all(isinstance(one, str) or _is_ids(one) for one in prompt):
        raise Refused(400, "prompt is a text or a list of token ids, or a list of such", "prompt")
    tokenizer = engine.tokenizer
    known = range(min(tokenizer.vocab_size, engine.scheduler.vocab_size))
    if any(id not in known for one in prompt if not isinstance(one, str) for id in one):
        raise Refused(400, f"a token of the prompt is not within 0 and {known[-1]}", "prompt")
    return [
        (tokenizer.opening(one), one) if isinstance(one, str) else (one, tokenizer.decode(one))
        for one in prompt
    ]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_integer(one) for one in value)


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
            words = " or ".join(WORDS[one] for one in kinds)
            raise Refused(400, f"{name} is {words}, not {json.dumps(value)[:60]}", name)
        return value

    def finish(self) -> None:
        """Errors: Refused for a field that asks for something that is not done here."""
        for name, value in self._left.items():
            if name in IGNORED or (name in NEUTRAL and value in NEUTRAL[name]):
                continue
            default = " but with its default" if name in NEUTRAL else ""
            raise Refused(400, f"{name} is not supported{default}", name)
