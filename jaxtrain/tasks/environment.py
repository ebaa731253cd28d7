"""Environments: what a model acts in turn by turn, and tools that it may call on the way.

class Guess:
    def start(self) -> str:
        return "I think of a number from 1 to 9."

    def step(self, said: str) -> Reply:
        return Reply("Higher!") if said != "7" else Reply(reward=1.0, done=True)

Episode(begin=Guess, turns=5)
"""

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints

from jaxtrain.conversation import Message, Messages

_KINDS: dict[Any, str] = {
    **{str: "string", int: "integer", float: "number", bool: "boolean"},
    **{list: "array", dict: "object"},
}
"""Of JSON Schema, by the type of an argument."""


@dataclass(frozen=True)
class Reply:
    """What an environment makes of an answer."""

    text: str = ""
    """Told to the model as the user's message, for its next answer."""
    reward: float = 0.0
    """For this answer; those of a dialogue add up."""
    done: bool = False
    """The dialogue is over."""


class Environment(Protocol):
    """One dialogue's world."""

    def start(self) -> str | Messages:
        """What the model is told first: the user's message, or a system message and that."""

    def step(self, said: str) -> Reply:
        """What follows from an answer."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """An item of a task in which the model acts; its only grade is `reward`, the sum of what it was paid."""

    begin: Callable[[], Environment]
    """A new world, the same every time."""
    tools: tuple[Callable[..., Any], ...] = ()
    """Functions that an answer may call in place of acting (`described`)."""
    stops: tuple[str, ...] = ()
    """An answer ends before the first of these."""
    turns: int = 8
    """Most answers, calls of tools among them."""
    tokens: int = 256
    """Most tokens of an answer."""
    seconds: float = 60.0
    """Most time that the world and the tools of a dialogue take together."""
    chance: float = 0.0

    def behind(self, text: str) -> "Episode":
        raise ValueError("an episode has no solved examples before it")


def described(tool: Callable[..., Any]) -> dict[str, Any]:
    """A function as a chat template shows it to the model: its name, first line of doc, and arguments' types.

    Errors: ValueError for an argument whose type is none that JSON has.
    """
    hints, properties, required = get_type_hints(tool), {}, []
    for name, parameter in inspect.signature(tool).parameters.items():
        properties[name] = _schema(name, hints.get(name))
        if parameter.default is parameter.empty:
            required.append(name)
    about = (inspect.getdoc(tool) or "").split("\n")[0]
    schema = {"type": "object", "properties": properties, "required": required}
    function = {"name": tool.__name__, "description": about, "parameters": schema}
    return {"type": "function", "function": function}


def _schema(name: str, kind: Any) -> dict[str, Any]:
    if get_origin(kind) is Literal:
        return {"type": _KINDS[type(get_args(kind)[0])], "enum": list(get_args(kind))}
    plain = get_origin(kind) or kind
    if plain not in _KINDS:
        raise ValueError(
            f"argument {name} of a tool is of type {kind}; give it one of {', '.join(_KINDS.values())}"
        )
    items = {"items": _schema(name, get_args(kind)[0])} if plain is list and get_args(kind) else {}
    return {"type": _KINDS[plain]} | items


CALL_SECONDS = 10.0
"""That a tool has for one call."""
Result = TypeVar("Result")


class NoAnswer(Exception):
    """A tool or a world has not come back in the time that it had."""


def within(seconds: float, function: Callable[..., Result], *given: Any, **named: Any) -> Result:
    """`function(*given, **named)`; NoAnswer after so many seconds.

    A thread cannot be ended: what hangs stays in one of its own, which nobody waits for, also not at the end.
    """
    found: Future[Result] = Future()

    def work() -> None:
        try:
            found.set_result(function(*given, **named))
        except BaseException as error:
            found.set_exception(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found.done():
        raise NoAnswer(f"{function.__name__} did not answer within {seconds:.3g} seconds")
    return found.result()


Calls = Sequence[tuple[str, Mapping[str, Any]]]
"""Names and arguments, as `tool_text.read_calls` finds them."""


def answered(calls: Calls, tools: Sequence[Callable[..., Any]], seconds: float) -> tuple[list[Message], int]:
    """Run the calls of an answer in their order, in this process: what the tools say, and how many failed.

    What goes wrong in a tool is its answer, `error: …`: it is the model's to mend; also that a call took more
    than CALL_SECONDS, or all of them more than `seconds`.
    """
    by_name, messages, failed = {tool.__name__: tool for tool in tools}, [], 0
    end = time.monotonic() + seconds
    for number, (name, arguments) in enumerate(calls):
        try:
            if name not in by_name:
                raise ValueError(f"no tool {name}; there are {', '.join(by_name)}")
            _check(described(by_name[name])["function"]["parameters"], arguments)
            left = max(0.0, min(CALL_SECONDS, end - time.monotonic()))
            said = within(left, by_name[name], **arguments)
            text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
        except Exception as error:  # whatever a tool raises, the model called it
            text, failed = f"error: {error or type(error).__name__}", failed + 1
        messages.append({"role": "tool", "tool_call_id": _id(number), "content": text})
    return messages, failed


def as_messages(calls: Calls) -> list[Message]:
    """Calls in OpenAI's form (conversation.py)."""
    return [
        {
            "id": _id(number),
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
        }
        for number, (name, arguments) in enumerate(calls)
    ]


def _id(number: int) -> str:
    """Nine letters and digits, as Mistral's templates want them."""
    return f"call{number:05d}"


def _check(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    properties = schema["properties"]
    if unknown := sorted(set(arguments) - set(properties)):
        raise ValueError(f"no argument {unknown[0]}; there are {', '.join(properties)}")
    if lacking := [name for name in schema["required"] if name not in arguments]:
        raise ValueError(f"argument {lacking[0]} is missing")
    for name, value in arguments.items():
        wanted = properties[name]["type"]
        kinds = {"number": ("number", "integer")}.get(wanted, (wanted,))
        if _KINDS.get(type(value)) not in kinds or value not in properties[name].get("enum", [value]):
            raise ValueError(f"argument {name} is no {properties[name].get('enum', wanted)}")
