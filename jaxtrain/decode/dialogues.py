"""Dialogues between a model and a world: token in, token out.

What the model sampled stays the ids that it sampled: a dialogue grows by them, and by the ids of what the
world replied (`continuation`). No text of the model's is ever tokenized again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import jax
import numpy as np

from jaxtrain.conversation import Message, Messages
from jaxtrain.runtime import distributed
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.environment import (
    Environment,
    Episode,
    NoAnswer,
    answered,
    as_messages,
    described,
    within,
)
from jaxtrain.tasks.task import GRADED_AT_ONCE, Exercise, grades
from jaxtrain.tokenize.chat import form_of_calls, render
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.tokenize.tool_text import Call, read_calls

Played = Exercise | Episode
Drawn = tuple[list[int], list[float]]
"""Ids of an answer, its end among them if it came, and the log-probability with which each was drawn."""
Draw = Callable[[list[list[int]], list[int], int], Sequence[Drawn]]
"""(ids so far of dialogues, the dialogues' numbers, which answer of theirs it is) to an answer of each."""
Reason = Literal["", "done", "turns", "time", "length"]
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass
class Dialogue:
    """One item as it is played."""

    ids: list[int]
    """The whole dialogue as the model read and wrote it."""
    opening: int
    """How many of `ids` stood before the first answer."""
    mask: list[int] = field(default_factory=list)
    """Of the ids behind the opening: 1 where the model sampled it."""
    logprobs: list[float] = field(default_factory=list)
    """Of the ids behind the opening: with which log-probability it was drawn; 0 where it was not."""
    messages: list[Message] = field(default_factory=list)
    """The same in words, to be read and never to be tokenized; on the first process only."""
    said: str = ""
    """The last answer's text up to a stop, without calls of tools."""
    reward: float = 0.0
    turns: int = 0
    calls: int = 0
    failed: int = 0
    """Calls that a tool did not take."""
    reason: Reason = ""
    """Why it ended: by itself, or by the limit that it met. Empty while it goes on."""
    is_cut: bool = False
    """Whether the last answer met its limit of tokens before it ended."""
    seconds: float = 0.0
    """That the world and the tools took."""

    def add(self, ids: Sequence[int], sampled: int, logprobs: Sequence[float] = ()) -> None:
        self.ids += ids
        self.mask += [sampled] * len(ids)
        self.logprobs += logprobs or [0.0] * len(ids)


def play(
    items: Sequence[Played],
    openings: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    draw: Draw,
    *,
    tokens: int,
    room: int,
) -> list[Dialogue]:
    """Play every item to its end; all that go on answer together.

    openings: of each item (`opening`). tokens: of an answer at most. room: of a dialogue at most.
    Of several processes the first alone has worlds and tools; what they reply is sent to the others.
    """
    dialogues = [Dialogue(list(ids), len(ids)) for ids in openings]
    players = [
        _Player(item, one, tokenizer, room - tokens) for item, one in zip(items, dialogues, strict=True)
    ]
    turn = 0
    with ThreadPoolExecutor(GRADED_AT_ONCE) as side_by_side:
        while going := [n for n, one in enumerate(dialogues) if not one.reason]:
            drawn = draw([dialogues[n].ids for n in going], going, turn)
            for n, (ids, logprobs) in zip(going, drawn, strict=True):
                dialogues[n].add(ids, 1, logprobs)
            replies: list[list[int]] = [[] for _ in going]
            if jax.process_index() == 0:
                said = [ids for ids, _ in drawn]
                replies = list(side_by_side.map(lambda n, ids: players[n].reply(ids), going, said))
            for n, ids in zip(going, _sent(replies, [dialogues[n] for n in going], room), strict=True):
                dialogues[n].add(ids, 0)
            turn += 1
    return dialogues


def opening(item: Played, tokenizer: Tokenizer) -> list[int]:
    """Ids before the first answer: what is asked, in the chat template, with the tools."""
    if isinstance(item, Exercise) and not item.chat:
        return [*beginning(tokenizer), *tokenizer.encode(item.prompt)]
    if item.tools and not form_of_calls(tokenizer):
        raise UserError("the chat template has no form of tool calls that is read back; use chatml or llama3")
    told = _told(item.begin())
    return render(told, tokenizer, tools=[*map(described, item.tools)], generation_prompt=True)[0]


def _told(world: Environment) -> list[Message]:
    told = world.start()
    return [{"role": "user", "content": told}] if isinstance(told, str) else [dict(one) for one in told]


def continuation(
    replies: Messages, tokenizer: Tokenizer, *, tools: Sequence[Mapping[str, Any]] = (), calls: Messages = ()
) -> list[int]:
    """Ids that follow the end of an answer as it was sampled: what it is told, and where the next one begins.

    The answer is in no message: its ids stay what the model said, and nothing of it is tokenized again.
    replies: the user's message, or those of the tools that the answer called.
    tools, calls: the tools, and the answer's calls, for a template that looks at them.
    Errors: UserError where the template refuses the messages, or writes an answer otherwise once it is told
        something.
    """
    answer = {
        "role": "assistant",
        "content": "" if calls else "a",
        **({"tool_calls": calls} if calls else {}),
    }
    said: Messages = [{"role": "user", "content": "a"}, answer]
    before, mask = render(said, tokenizer, tools=tools)
    ids, _ = render([*said, *replies], tokenizer, tools=tools, generation_prompt=True)
    end = len(mask) - mask[::-1].index(1)
    if ids[:end] != before[:end]:
        raise UserError(
            "the chat template writes an answer otherwise when something follows it, so a dialogue cannot go "
            "on from what was sampled; use another template, such as chatml"
        )
    return ids[end:]


def ending(item: Played, tokenizer: Tokenizer) -> int:
    """The token behind which an answer to the item is over."""
    return tokenizer.eos if isinstance(item, Exercise) and not item.chat else tokenizer.end


def beginning(tokenizer: Tokenizer) -> list[int]:
    """What stands before a text: `bos` for models of this project, else what the tokenizer puts there."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.trusting.encode("", add_special_tokens=True).ids
    return [tokenizer.bos]


def graded(items: Sequence[Played], dialogues: Sequence[Dialogue]) -> dict[str, np.ndarray]:
    """Grades of the dialogues by metric, float64 [items]; the items are of one task."""
    if isinstance(items[0], Episode):
        return {"reward": np.array([one.reward for one in dialogues])}
    return grades(items, [one.said for one in dialogues])


def until(text: str, stops: Sequence[str]) -> str:
    """`text` before the first stop."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))]


class _Player:
    """Plays one dialogue with its world, which is made when it is first asked."""

    def __init__(self, item: Played, dialogue: Dialogue, tokenizer: Tokenizer, longest: int):
        """longest: a prompt of so many tokens leaves room for an answer."""
        self.item, self.dialogue, self.tokenizer, self.longest = item, dialogue, tokenizer, longest
        self.tools, self.end = [*map(described, item.tools)], ending(item, tokenizer)

    def reply(self, ids: list[int]) -> list[int]:
        """What the world adds to an answer; nothing where the dialogue ends, which then has its reason."""
        one = self.dialogue
        if not one.turns:
            one.messages += _told(self.world)
        one.turns, has_end = one.turns + 1, ids[-1:] == [self.end]
        whole = self.tokenizer.decode([token for token in ids if token != self.end])
        text = until(whole, self.item.stops)
        one.is_cut = not has_end and text == whole
        form = form_of_calls(self.tokenizer)
        one.said, calls = read_calls(text, form) if self.item.tools else (text, [])
        called = as_messages(calls)
        said: Message = {"role": "assistant", "content": one.said}
        one.messages.append(said | ({"tool_calls": called} if calls else {}))
        begun = time.monotonic()
        messages, is_over = self._tools(calls) if calls else self._world(one.said)
        one.seconds += time.monotonic() - begun
        limits: dict[Reason, bool] = {
            "done": is_over,
            "turns": one.turns >= self.item.turns,
            "time": one.seconds >= self.item.seconds,
        }
        one.reason = next((reason for reason, is_met in limits.items() if is_met), "")
        if one.reason:
            return []
        told = continuation(messages, self.tokenizer, tools=self.tools, calls=called)
        added = told if has_end else [self.end, *told]
        if len(one.ids) + len(added) > self.longest:
            one.reason = "length"
            return []
        one.messages += messages
        return added

    @cached_property
    def world(self) -> Environment:
        return self.item.begin()

    @property
    def _left(self) -> float:
        """Seconds of the world and the tools."""
        return max(0.0, self.item.seconds - self.dialogue.seconds)

    def _tools(self, calls: list[Call]) -> tuple[list[Message], bool]:
        messages, failed = answered(calls, self.item.tools, self._left)
        self.dialogue.calls += len(calls)
        self.dialogue.failed += failed
        return messages, False

    def _world(self, said: str) -> tuple[list[Message], bool]:
        try:
            reply = within(self._left, self.world.step, said)
        except NoAnswer:  # its time is over, and so is the dialogue
            return [], False
        self.dialogue.reward += reply.reward
        return [{"role": "user", "content": reply.text}], reply.done


def _sent(replies: list[list[int]], dialogues: list[Dialogue], room: int) -> list[list[int]]:
    """The first process's replies on all of them, and with them the dialogues' state."""
    if jax.process_count() == 1:
        return replies
    ids = np.full((len(replies), room), -1, np.int32)
    for row, reply in zip(ids, replies, strict=True):
        row[: len(reply)] = reply
    state = [
        (REASONS.index(one.reason), one.reward, one.turns, one.calls, one.failed, one.is_cut)
        for one in dialogues
    ]
    ids, numbers = distributed.from_first(ids), distributed.from_first(np.array(state, np.float64))
    for one, (reason, reward, turns, calls, failed, is_cut) in zip(dialogues, numbers.tolist(), strict=True):
        one.reason, one.reward, one.turns = REASONS[int(reason)], reward, int(turns)
        one.calls, one.failed, one.is_cut = int(calls), int(failed), bool(is_cut)
    return [row[row >= 0].tolist() for row in ids]
