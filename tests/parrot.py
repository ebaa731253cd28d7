"""A small model of the quickstart's kind that was taught to answer, and servers around it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import uvicorn

from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime import web
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.serve.engine import Engine
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer, train
from jaxtrain.tokenize.tool_text import DESCRIBED
from jaxtrain.train.losses import token_loss
from jaxtrain.weights import folder as store

XSS = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
TALK = {
    "What is two and two?": "Two and two is four.",
    "Show me a page.": XSS,
    "Count.": " ".join(str(n) for n in range(1, 30)),
    "Say it in German: good day": "Guten Tag, schöner Frühling! 🌷",
}
"""What the model knows by heart."""
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        },
    },
}
SUM = [
    {"role": "user", "content": "What is 2 + 3?"},
    {
        "role": "assistant",
        "content": "I add.",
        "tool_calls": [
            {"type": "function", "function": {"name": "add", "arguments": '{"x": 2, "y": 3}'}},
        ],
    },
    {"role": "tool", "content": "5"},
    {"role": "assistant", "content": "It is 5."},
]
"""And with a tool."""
VOCABULARY, LENGTH = 512, 240


LINES = [f"{question} {answer}" for question, answer in TALK.items()] * 4


def write_model(found: Path) -> None:
    """A model overfitted to `TALK` and `SUM` (some seconds), as a finished stage leaves it."""
    tokenizer = train([*LINES, *["".join(DESCRIBED), json.dumps(ADD)] * 2], VOCABULARY)
    config = ModelConfig(
        vocab_size=VOCABULARY, layers=2, d_model=64, heads=4, kv_heads=2, head_dim=16, d_hidden=128,
        max_length=256,
    )  # fmt: skip
    talk = [render(said, tokenizer) for said in _talk()]
    batch = _batch([talk, [render(SUM, tokenizer, tools=[ADD])]], tokenizer.pad)
    with jax.set_mesh(meshes.make(meshes.MeshConfig(), jax.devices()[:1])):
        batch = meshes.put_batch(batch, jax.sharding.get_mesh())
        model = jax.jit(lambda: Transformer(config, jax.random.key(0)))()
        rule = optax.adam(5e-3)

        @jax.jit
        def step(model, state):
            gradient = jax.grad(lambda model: token_loss(model, batch)[0])(model)
            updates, state = rule.update(gradient, state)
            return optax.apply_updates(model, updates), state

        state = jax.jit(rule.init)(model)
        for _ in range(150):
            model, state = step(model, state)
        _write(found, config, tokenizer, model)


def _talk() -> Iterator[list[dict[str, str]]]:
    for question, answer in TALK.items():
        yield [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _batch(rows: list[list[tuple[list[int], list[int]]]], pad: int) -> dict[str, np.ndarray]:
    """Ids and masks as rows of `LENGTH`, several conversations in a row."""
    kinds = {"tokens": np.int32, "targets": np.int32, "loss_weights": np.float32, "segment_ids": np.int32}
    kinds |= {"positions": np.int32}
    batch = {name: np.zeros((len(rows), LENGTH), kind) for name, kind in kinds.items()}
    batch["tokens"][:] = batch["targets"][:] = pad
    for row, conversations in enumerate(rows):
        start = 0
        for segment, (ids, mask) in enumerate(conversations, 1):
            here = slice(start, start + len(ids) - 1)
            assert here.stop <= LENGTH
            batch["tokens"][row, here], batch["targets"][row, here] = ids[:-1], ids[1:]
            batch["loss_weights"][row, here], batch["segment_ids"][row, here] = mask[1:], segment
            batch["positions"][row, here] = np.arange(len(ids) - 1)
            start = here.stop
    return batch


def write_rambler(found: Path) -> None:
    """A larger model of drawn weights whose likeliest text never ends by itself, and takes its time."""
    config = ModelConfig(
        vocab_size=320, layers=6, d_model=512, heads=8, kv_heads=8, head_dim=64, d_hidden=1536, max_length=256
    )
    with jax.set_mesh(meshes.make(meshes.MeshConfig(), jax.devices()[:1])):
        tokenizer = train(LINES, 320)
        model = jax.jit(lambda: Transformer(config, jax.random.key(1)))()
        ends = np.isin(np.arange(320), (tokenizer.end, tokenizer.eos))
        model.head_DV[...] *= ~ends  # a score of 0 is not the highest
        _write(found, config, tokenizer, model)


def _write(found: Path, config: ModelConfig, tokenizer: Tokenizer, model: Transformer) -> None:
    found.mkdir(parents=True)
    store.write_about(config, None, found)
    tokenizer.save(found / "tokenizer")
    checkpoints = Checkpoints(found / "checkpoint")
    checkpoints.save(1, model, {"step": jax.numpy.int32(1)})
    checkpoints.close()
    (found / "manifest.json").write_text(json.dumps({"stage": "finetune", "fingerprint": "by hand"}))


def make_engine(folder: Path, **limits: int) -> Engine:
    """On one device."""
    with jax.set_mesh(meshes.make(meshes.MeshConfig(), jax.devices()[:1])):
        return Engine(folder, **limits)


@contextmanager
def serving(app: Any, **limits: Any) -> Iterator[str]:
    """The address of a real server around `app.asgi`, on a thread of its own."""
    server = uvicorn.Server(web.settings(app.asgi, timeout_graceful_shutdown=5, **limits))
    socket = web.listen("127.0.0.1", 0)
    socket.listen()  # who comes before the thread serves waits, and is not refused
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
