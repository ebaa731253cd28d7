"""A model that half knows how to add two digits, as a finished stage leaves it: GRPO's beginning."""

import json
from functools import partial
from pathlib import Path

import jax

from jaxtrain.align.preference import pack
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import PATTERN, BytePairTokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import new_state
from jaxtrain.train.step import make_step
from jaxtrain.weights import folder as store

STEPS = 26
TASK = str(Path(__file__).parents[1] / "data" / "arithmetic" / "task.py")
MODEL = ModelConfig(
    vocab_size=263, layers=2, d_model=32, heads=2, kv_heads=2, head_dim=16, d_hidden=64, max_length=16
)


def write_adder(folder: Path) -> Path:
    """The folder `model` with weights and tokenizer, and all 81 sums beside it, for data/arithmetic."""
    tokenizer = BytePairTokenizer({bytes([n]): n for n in range(256)}, PATTERN)
    digits = range(1, 10)
    problems = [{"question": f"{a}+{b}", "answer": str(a + b)[::-1]} for a in digits for b in digits]
    sequences = [
        (
            render([{"role": "user", "content": problem["question"]}], tokenizer, generation_prompt=True)[0],
            [*tokenizer.encode(problem["answer"]), tokenizer.end],
        )
        for problem in problems[:80]
    ]
    rows = pack(sequences, 12, tokenizer.pad)
    optimizer = optimizers.make(OptimizerConfig(lr=1e-2, warmup_steps=5, schedule="constant"), STEPS)
    step = make_step(token_loss, optimizer)
    with jax.set_mesh(mesh := meshes.make(MeshConfig(), jax.devices()[:1])):
        model = jax.jit(partial(Transformer, MODEL))(jax.random.key(0))
        state = new_state(model, optimizer)
        for _ in range(STEPS):
            state, _ = step(state, meshes.put_batch(rows, mesh))
        out = folder / "model"
        out.mkdir(parents=True)
        store.write_about(MODEL, None, out)
        checkpoints = Checkpoints(out / "checkpoint")
        checkpoints.save(STEPS, state.model, {"step": state.step})
        checkpoints.close()
    tokenizer.save(out / "tokenizer")
    lines = "".join(json.dumps(problem) + "\n" for problem in problems)
    for name in ("tested", "practised"):
        (folder / f"{name}.jsonl").write_text(lines)
    return folder
