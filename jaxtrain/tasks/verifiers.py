"""Environments of verifiers (Brown 2025, github.com/PrimeIntellect-ai/verifiers) and, through it, of OpenEnv.

The environment's one agent is the model that is trained: whatever asks it for a turn waits for its answer.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any

from jaxtrain.conversation import Messages
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.environment import Episode, Reply
from jaxtrain.tasks.task import Row, Split, Task, nothing


def openenv(url: str, *, measured: int = 200, practised: int = 2_000, turns: int = 8, **reset: Any) -> Task:
    """The environment of an OpenEnv server as a task of one item a seed; reset: what else it is begun with.

    The server has to take as many sessions as dialogues are played at once.
    """
    begun = [{"seed": seed, **reset} for seed in range(measured + practised)]
    return verifiers("openenv", measured=measured, turns=turns, base_url=url, resets=begun)


def verifiers(name: str, *, measured: int = 200, practised: int = 2_000, turns: int = 8, **more: Any) -> Task:
    """An installed taskset as a task, the first of it to be measured on; more: its own settings.

    Errors: UserError where there is none of that name, it refuses the settings, or it needs more than turns.
    """
    import verifiers.v1 as vf  # pyrefly: ignore[missing-import]

    try:
        env = vf.load_environment(vf.resolve_env_config({"taskset": {"id": name, **more}}))
    except (ValueError, TypeError, AttributeError, ModuleNotFoundError) as error:
        raise UserError(f"verifiers:{name}: {error}") from error
    agents = [field for field, value in env.config if isinstance(value, vf.AgentConfig)]
    kind, config = env.taskset.task_type(), env.config.taskset
    if len(agents) > 1 or kind.NEEDS_CONTAINER or env.taskset.toolsets(config) or kind.toolsets(config.task):
        raise UserError(f"verifiers:{name} needs several agents, tools or a container; name another")

    def rows(split: Split) -> list[Row]:
        first, last = {"heldout": (0, measured), "practice": (measured, measured + practised)}[split]
        return [{"task": task} for task in islice(env.taskset, first, last)]

    def parse(row: Row) -> Episode:
        return Episode(begin=lambda: _World(env, row["task"], _Agent(vf, agents[0], turns)), turns=turns)

    return Task(name=name, version=1, metric="reward", make=rows, parse=parse)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Where all environments run, in a thread of its own."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, daemon=True).start()
    return loop


class _World:
    """An episode; it is broken off once nobody holds this any more."""

    def __init__(self, env: Any, task: Any, agent: "_Agent"):
        self.agent, self.playing = agent, asyncio.run_coroutine_threadsafe(agent.play(env, task), _loop())
        weakref.finalize(self, self.playing.cancel)

    def start(self) -> Messages:
        return self.agent.told.get() or self.playing.result()

    def step(self, said: str) -> Reply:
        _loop().call_soon_threadsafe(self.agent.said.set_result, said)
        if told := self.agent.told.get():
            return Reply("\n\n".join(str(one["content"]) for one in told))
        try:
            return Reply(reward=self.playing.result(), done=True)
        except (ValueError, TypeError, LookupError, RuntimeError) as error:
            # an answer that the environment cannot take; where its server is gone, that is an OSError
            return Reply(reward=nothing("verifiers", type(error).__name__), done=True)


class _Agent:
    """The agent as its environment knows it. It holds no world, which would keep that going for ever."""

    def __init__(self, vf: Any, name: str, turns: int):
        self.vf, self.name, self.left = vf, name, turns
        self.told: SimpleQueue[Messages] = SimpleQueue()

    async def play(self, env: Any, task: Any) -> float:
        """The episode's reward; behind its last message, or an error, is an empty one."""
        about = self.vf.TraceTask(type=type(task).__name__, data=task.data)
        who = self.vf.AgentInfo(config=self.vf.AgentConfig(), name=self.name)
        self.trace = self.vf.Trace(task=about, agent=who)
        try:
            await env.run(task, SimpleNamespace(**{self.name: self}))
            await env.finalize(task, self.vf.Episode(task=about, traces=[self.trace]))
            return self.trace.reward
        finally:
            self.told.put([])

    @asynccontextmanager
    async def interaction(self, task: Any) -> AsyncIterator["_Agent"]:
        self.data = task.data
        await task.setup(self.trace, None)
        yield self
        await task.finalize(self.trace, None)
        await task.score(self.trace)

    async def run(self, task: Any) -> None:
        async with self.interaction(task):
            await self.turn()

    async def turn(self, message: Any = None) -> Any:
        """The model's answer to a message; without one, to the task's prompt."""
        vf, nodes = self.vf, self.trace.nodes
        if not self.left:
            return vf.Segment(messages=[], terminated=True)
        message = self.data.prompt if message is None else message
        told = [vf.UserMessage(content=message)] if isinstance(message, str) else list(message)
        if self.data.system_prompt and not nodes:
            told.insert(0, vf.SystemMessage(content=self.data.system_prompt))
        self.left, self.said = self.left - 1, asyncio.get_running_loop().create_future()
        self.told.put([one.model_dump() for one in told])
        answer = vf.AssistantMessage(content=await self.said)
        for one in (*told, answer):
            parent = len(nodes) - 1 if nodes else None
            nodes.append(vf.MessageNode(parent=parent, message=one, sampled=one is answer))
        return vf.Segment(messages=[answer])
