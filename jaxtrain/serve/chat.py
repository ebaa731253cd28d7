"""ChatConfig and run(): `jaxtrain chat FOLDER`, a conversation in the terminal."""

import secrets
import sys
import time
from dataclasses import dataclass

import jax

from jaxtrain.decode.request import Request
from jaxtrain.decode.sampling import Settings
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import WholeSigned
from jaxtrain.runtime.terminal import visible
from jaxtrain.serve.engine import Engine, Held
from jaxtrain.serve.transcript import Transcript

HELP = "/clear begins anew, /retry asks again, /quit or Ctrl-D ends; Ctrl-C ends an answer"


@dataclass(frozen=True, kw_only=True)
class ChatConfig(Held):
    """Talk to a model in the terminal."""

    system: str = ""
    """The system message; empty: none."""
    temperature: float = 0.8
    """Logits are divided by it; 0: the likeliest token."""
    top_p: float = 0.95
    """Only the fewest likeliest tokens that have this share of the probability."""
    seed: WholeSigned = -1
    """The same conversation with the same seed is the same; -1: another one each time."""


def run(config: ChatConfig) -> None:
    """Read questions from standard input, write answers to standard output as they are sampled."""
    settings = Settings(temperature=config.temperature, top_p=config.top_p)
    with jax.set_mesh(meshes.make(config.mesh)):
        engine = Engine(config.model, rows=1, dtype=config.dtype, held=config.weights, max_new=config.max_new)
    first = {"role": "system", "content": config.system}
    beginning = [first] if config.system else []
    messages, seed = list(beginning), config.seed
    print(f"{visible(engine.name)}: {HELP}")
    while True:
        try:
            question = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        match question:
            case "":
                continue
            case "/quit":
                return
            case "/clear":
                messages = list(beginning)
                continue
            case "/retry":
                if messages[-1:] == [] or messages[-1]["role"] != "assistant":
                    print("there is no answer to ask for again")
                    continue
                messages.pop()
            case _ if question.startswith("/"):
                print(HELP)
                continue
            case _:
                messages.append({"role": "user", "content": question})
        seed = seed + 1 if config.seed >= 0 else secrets.randbits(32)
        try:
            prompt = engine.chat_prompt(messages)
            answer = _answer(engine, engine.request(prompt, max_new=None, settings=settings, seed=seed))
        except UserError as error:
            print(f"{visible(str(error))}; /clear begins anew")
            messages.pop()
            continue
        messages.append({"role": "assistant", "content": answer})


def _answer(engine: Engine, request: Request) -> str:
    """Print the answer as it comes; its text."""
    answer = engine.scheduler.submit(request)
    transcript = Transcript(engine.tokenizer.decode, engine.tokenizer.stop)
    try:
        while not answer.reason:
            engine.scheduler.step()
            sys.stdout.write(visible(transcript.read(answer.ids, bool(answer.reason))))
            sys.stdout.flush()
    except KeyboardInterrupt:
        engine.scheduler.cancel(answer)
        sys.stdout.write(visible(transcript.read(answer.ids, True)) + " …")
    # of the tokens behind the first, which may wait for XLA
    seconds = time.monotonic() - answer.first_token
    speed = f", {(len(answer.ids) - 1) / seconds:.1f} a second" if len(answer.ids) > 1 else ""
    print(f"\n  [{len(answer.ids)} tokens{speed}{', cut short' * (answer.reason == 'length')}]")
    return transcript.text
