"""Environments of verifiers and of OpenEnv, played to their reward."""

import sys
from contextlib import contextmanager
from threading import Thread

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import catalog

TASKSET = """
import verifiers.v1 as vf

class Data(vf.TaskData):
    word: str

class Backwards(vf.Task[Data]):
    @vf.reward(weight=0.5)
    async def right(self, trace: vf.Trace) -> float:
        return float(trace.last_reply == self.data.word[::-1])

    @vf.reward(weight=0.5)
    async def short(self, trace: vf.Trace) -> float:
        return float(trace.num_turns == 1)

class Words(vf.Taskset[Backwards, vf.TasksetConfig]):
    def load(self):
        for word in ("stone", "water", "cloud", "grass"):
            data = Data(word=word, prompt=f"Turn {word} round.", system_prompt="Be brief.")
            yield Backwards(data, self.config.task)

__all__ = ["Words"]
"""
GAME = """
import verifiers.v1 as vf

class Data(vf.TaskData):
    number: int

class Number(vf.Task[Data]):
    pass

class Config(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()

class Guessing(vf.Env[Config]):
    async def run(self, task, agents):
        async with agents.player.interaction(task) as interaction:
            said, tries = await interaction.turn("From 1 to 9?"), 1
            while not said.terminated and int(said.last_reply) != task.data.number:
                said, tries = await interaction.turn("No."), tries + 1
        interaction.trace.record_reward("found", 0.0 if said.terminated else 1 / tries)

class Numbers(vf.Taskset[Number, vf.TasksetConfig]):
    INFINITE = True

    def load(self):
        number = 0
        while True:
            number = number % 9 + 1
            yield Number(Data(number=number), self.config.task)

__all__ = ["Guessing", "Numbers"]
"""


@pytest.fixture
def tasksets(tmp_path, monkeypatch):
    """Tasksets that are installed: `words_turned` and `numbers_guessed`."""
    pytest.importorskip("verifiers.v1", reason="verifiers is not installed")
    (tmp_path / "words_turned.py").write_text(TASKSET)
    (tmp_path / "numbers_guessed.py").write_text(GAME)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("words_turned", "numbers_guessed"):
        sys.modules.pop(name, None)


def test_a_taskset_of_questions_pays_for_the_answer(tasksets):
    task = catalog.find("verifiers:words-turned")
    first, *others = task.load()
    assert len(others) == 3
    world = first.begin()
    assert [one["content"] for one in world.start()] == ["Be brief.", "Turn stone round."]
    reply = world.step("enots")
    assert (reply.done, reply.reward) == (True, 1.0)
    world = first.begin()
    world.start()
    assert world.step("stone").reward == 0.5


def test_an_environment_is_played_turn_by_turn(tasksets):
    task = catalog.find("verifiers:numbers-guessed")
    assert len(task.load()) == 200
    assert len(task.load(split="practice")) == 2_000
    world = task.load()[2].begin()
    assert [one["content"] for one in world.start()] == ["From 1 to 9?"]
    reply = world.step("1")
    assert (reply.text, reply.done) == ("No.", False)
    reply = world.step("3")
    assert (reply.reward, reply.done) == (0.5, True)


def test_an_episode_ends_with_its_turns_and_with_an_answer_that_is_none(tasksets):
    item = catalog.find("verifiers:numbers-guessed").load()[2]
    world = item.begin()
    world.start()
    replies = [world.step("1") for _ in range(item.turns)]
    assert [reply.done for reply in replies] == [False] * 7 + [True]
    world = item.begin()
    world.start()
    reply = world.step("none of them")
    assert (reply.reward, reply.done) == (0, True)


def test_what_is_no_taskset_is_said(tasksets):
    with pytest.raises(UserError, match="verifiers:no_such"):
        catalog.find("verifiers:no_such")


@contextmanager
def served():
    """The address of a server whose environment pays for the next number, three times."""
    http_server = pytest.importorskip(
        "openenv.core.env_server.http_server", reason="OpenEnv is not installed"
    )
    import uvicorn
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import Action, Observation, State

    class Said(Action):
        number: int

    class Seen(Observation):
        number: int

    class Counting(Environment):
        SUPPORTS_CONCURRENT_SESSIONS = True

        def reset(self, seed=None, episode_id=None, **given):
            self.at, self.state_ = seed, State()
            return Seen(number=self.at, done=False, reward=0.0)

        def step(self, action, timeout_s=None, **given):
            reward, self.at = float(action.number == self.at + 1), self.at + 1
            self.state_.step_count += 1
            return Seen(number=self.at, done=self.state_.step_count == 3, reward=reward)

        @property
        def state(self):
            return self.state_

    app = http_server.create_app(Counting, Said, Seen, max_concurrent_envs=8)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_an_openenv_server_is_played_to_its_reward():
    pytest.importorskip("verifiers.v1", reason="verifiers is not installed")
    with served() as url:
        item = catalog.find(f"openenv:{url}").load()[5]
        world = item.begin()
        (first,) = world.start()
        assert '"number": 5' in first["content"]
        reply = world.step("6")
        assert '"number": 6' in reply.text and not reply.done
        world.step('{"number": 9}')
        reply = world.step('{"number": 8}')
        assert (reply.reward, reply.done) == (2.0, True)
        # more than the server has sessions: each ends with its world
        for _ in range(20):
            item.begin().start()
