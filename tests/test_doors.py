"""Every stage that takes a model takes every kind of folder: one small model in all of them, a step of each.

In a quick run each kind and each stage comes up; `-m slow` tries every pair.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gguf_file
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGUFWriter
from jax.sharding import Mesh
from safetensors.numpy import load_file, save_file
from stage_run import Inputs, config
from tiny_run import tiny

from jaxtrain import cli, pipeline, weights
from jaxtrain.evaluate.run import EvaluateConfig
from jaxtrain.model import lora
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.plan.run import PlanConfig
from jaxtrain.plan.run import plan as plan_of
from jaxtrain.rate.run import RateConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.serve.engine import Engine
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.publish import published, same_ids
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights import folder as store
from jaxtrain.weights.convert import ConvertConfig, convert
from jaxtrain.weights.learners import base_of, learner_of

__all__ = ["tiny"]
LLAMA = ModelConfig(
    vocab_size=1024,
    layers=1,
    d_model=32,
    heads=2,
    kv_heads=1,
    head_dim=16,
    d_hidden=48,
    max_length=128,
    qk_norm=False,
    norm_eps=1e-5,
)
"""Of the one shape that all kinds can hold."""
KINDS = (
    *("ours", "adapters", "hugging face", "base names", "sharded", "PEFT", "PEFT on ours"),
    *("llama2.c", "GGUF"),
)


forward = jax.jit(lambda model, tokens: model(tokens))


def one_device() -> Mesh:
    return meshes.make(meshes.MeshConfig(), jax.devices()[:1])


def write_llama2c(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """The first format: a header, then each kind of tensor, of all layers."""
    shape = LLAMA
    header = [shape.d_model, shape.d_hidden, shape.layers, shape.heads, shape.kv_heads]
    parts = [np.array([*header, -shape.vocab_size, shape.max_length], "<i4")]
    pairs = lambda x: x.reshape(-1, 2, shape.head_dim // 2, x.shape[-1]).swapaxes(1, 2)  # noqa: E731
    layer = [
        *("input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        *("post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"),
    ]
    parts.append(tensors["model.embed_tokens.weight"])
    for name in layer:
        weight = tensors[f"model.layers.0.{name}.weight"]
        parts.append(pairs(weight) if name.endswith(("q_proj", "k_proj")) else weight)
    angles = np.zeros(2 * shape.max_length * shape.head_dim // 2, np.float32)
    parts += [tensors["model.norm.weight"], angles, tensors["lm_head.weight"]]
    path.write_bytes(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))


def add_tokenizer(tokenizer: HuggingFaceTokenizer, writer: GGUFWriter) -> None:
    """As byte-level BPE in the metadata of a GGUF file."""
    said = json.loads(tokenizer.text)["model"]
    tokens = sorted(vocabulary := said["vocab"], key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tokenizer.special else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in said["merges"]])
    for role in ("bos", "eos", "pad"):
        getattr(writer, f"add_{role}_token_id")(tokenizer.id_of(role))
    writer.add_eot_token_id(tokenizer.end)
    writer.add_chat_template(tokenizer.template)


@pytest.fixture(scope="module")
def kinds(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder, or file, of a kind. Adapters change the model; all else is the same."""
    made = tmp_path_factory.mktemp("kinds")
    tokenizer = Tokenizer.load(tiny / "runs" / "tiny" / "3_tokenize")
    with (
        jax.set_mesh(one_device()),
        pytest.MonkeyPatch.context() as patch,
    ):
        model = jax.jit(lambda: Transformer(LLAMA, jax.random.key(0)))()
        store.write_artifact(model, tokenizer, made / "ours")
        convert(ConvertConfig(source=str(made / "ours"), out=str(made / "hugging face")))
        about = LoRAConfig(rank=2)
        adapters = lora.take(jax.jit(lora.adapt, static_argnums=1)(model, about, jax.random.key(0)))
        for base, out in (("ours", "adapters"), ("hugging face", "others")):
            (made / out).mkdir()
            store.write_about(model.config, tokenizer, made / out)
            store.write_adapter(made / out, made / base, about)
            checkpoints = Checkpoints(made / out / "checkpoint")
            checkpoints.save(0, jax.tree.map(lambda x: x + 0.01, adapters), {"step": jnp.int32(0)})
            checkpoints.close()
        convert(ConvertConfig(source=str(made / "others"), out=str(made / "PEFT")))
        convert(ConvertConfig(source=str(made / "adapters"), out=str(made / "PEFT on ours")))
        patch.setattr("jaxtrain.weights.huggingface.FILE_BYTES", 20_000)
        convert(ConvertConfig(source=str(made / "ours"), out=str(made / "sharded")))
    assert len(list((made / "sharded").glob("*.safetensors"))) > 2
    tensors = load_file(made / "hugging face" / "model.safetensors")
    shutil.copytree(made / "hugging face", made / "base names")
    bare = {name.removeprefix("model."): weight for name, weight in tensors.items()}
    save_file(bare, made / "base names" / "model.safetensors", {"format": "pt"})
    (made / "llama2.c").mkdir()
    published(tokenizer).save(made / "llama2.c")
    write_llama2c(made / "llama2.c" / "model.bin", tensors)
    (made / "GGUF").mkdir()
    speaks = partial(add_tokenizer, published(tokenizer))
    gguf_file.write(made / "GGUF" / "model.gguf", made / "hugging face", None, "llama", speaks)
    return lambda kind: str(made / kind / ("model.bin" if kind == "llama2.c" else ""))


def learns(stage: str, tiny: Path, model: str, out: Path) -> None:
    """One step of a stage that trains."""
    inputs = Inputs(tiny / "runs" / "tiny", tiny)
    if stage == "grpo":
        problems = [{"question": f"{n}+1", "answer": str(n + 1)} for n in range(16)]
        for name in ("tested", "practised"):
            (out / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in problems))
        inputs = Inputs(inputs.tiny, out)
    asked = config(stage, inputs, out / "made")
    sizes: dict[str, Any] = {"ppo": {"sample_questions": ()}, "finetune": {"sample_questions": ()}}.get(
        stage, {}
    )
    sizes |= {"teacher": model} if stage == "distill" else {}
    sizes |= {"epochs": 1, "minibatches": 1} if stage in ("ppo", "grpo") else {}
    sizes |= {"measured": 2} if stage in ("ppo", "grpo", "distill") else {}
    train = dataclasses.replace(asked.train, steps=1, checkpoint_every=1)
    made = pipeline.make(dataclasses.replace(asked, model=model, train=train, **sizes))
    assert np.isfinite(json.loads((made / "manifest.json").read_text())["counts"]["steps"])


@dataclasses.dataclass
class Begins:
    """What every stage that begins with a model has of its config."""

    model: str
    lora: LoRAConfig
    train: TrainConfig


def adapt(tiny: Path, model: str, out: Path) -> None:
    """New adapters stand on it, and find it again."""
    tokens = np.arange(16, dtype=np.int32)[None]
    settings = TrainConfig(optimizer=OptimizerConfig(), steps=1)
    with jax.set_mesh(one_device()):
        source = weights.open(model)
        learner = learner_of(Begins(model, LoRAConfig(rank=2), settings), out, source.config)
        np.testing.assert_allclose(
            forward(base_of(learner), tokens), forward(source.load(), tokens), atol=1e-5
        )
        assert source.load_to_use("bfloat16").embedding_VD[...].dtype == jnp.bfloat16
    assert store.read_adapter(out)["base"] == Path(model)


def plan(tiny: Path, model: str, out: Path) -> None:
    file = out / "5.py"
    file.write_text(
        "from jaxtrain.finetune.run import FinetuneConfig\n"
        f"config = FinetuneConfig(model={model!r}, data='none', out='none')\n"
    )
    assert "GiB" in plan_of(PlanConfig(config=str(file), topology="h100:1"), [])


def into_another(tiny: Path, model: str, out: Path) -> None:
    convert(ConvertConfig(source=model, out=str(out / "made"), merge=True))
    assert weights.open(out / "made").load().config.vocab_size == LLAMA.vocab_size


def evaluate(tiny: Path, model: str, out: Path) -> None:
    quick = {"tasks": (), "questions": ("Hi?",), "length": 32}
    made = pipeline.make(EvaluateConfig(models={"one": model}, out=str(out / "made"), **quick))
    assert json.loads((made / "results.json").read_text())["answers"][0]["model"] == "one"


def rate(tiny: Path, model: str, out: Path) -> None:
    quick = {"prompts": 8, "answers": 2, "longest_prompt": 48, "max_new": 4, "raters": 2, "rated_twice": 1}
    conversations = str(tiny / "runs" / "tiny" / "2_clean")
    pipeline.make(RateConfig(model=model, conversations=conversations, out=str(out / "made"), **quick))


def serve(tiny: Path, model: str, out: Path) -> None:
    with jax.set_mesh(one_device()):
        engine = Engine(model, rows=1)
        engine.warm_up()
        assert engine.parameters > 30_000 and engine.chat_prompt([{"role": "user", "content": "Hi?"}])


def chat(tiny: Path, model: str, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        lines = iter(["Hi?", "/quit"])
        patch.setattr("builtins.input", lambda _: next(lines))
        cli.main(["chat", model, "--max_new", "2", "--mesh.data", "8", "--mesh.tensor", "1"])


LEARN = ("finetune", "reward", "preference", "ppo", "grpo", "distill")
STAGES: dict[str, Callable[[Path, str, Path], None]] = {
    **{name: lambda *given, name=name: learns(name, *given) for name in LEARN},
    **{one.__name__: one for one in (adapt, plan, into_another, evaluate, rate, serve, chat)},
}
QUICK = {(kind, stage) for kind in KINDS for stage in ("adapt", "plan")}
QUICK |= {(kind, stage) for kind, stage in zip(KINDS, ("into_another", "serve", "chat") * 3, strict=True)}
CELLS = [
    pytest.param(kind, stage, marks=[] if (kind, stage) in QUICK else pytest.mark.slow)
    for kind in KINDS
    for stage in STAGES
]


@pytest.mark.parametrize(("kind", "stage"), CELLS)
def test_a_stage_takes_a_kind_of_folder(kind, stage, kinds, tiny, tmp_path):
    STAGES[stage](tiny, kinds(kind), tmp_path)


def test_all_kinds_hold_the_same_model(kinds):
    tokens, ids = np.arange(8, dtype=np.int32)[None], {}
    with jax.set_mesh(one_device()):
        found = {kind: np.asarray(forward(weights.open(kinds(kind)).load(), tokens)) for kind in KINDS}
    for kind, logits in found.items():
        like = "adapters" if kind.startswith("PEFT") or kind == "adapters" else "ours"
        np.testing.assert_allclose(logits, found[like], atol=1e-5, err_msg=kind)
        tokenizer = weights.open(kinds(kind)).tokenizer
        assert same_ids(tokenizer, weights.open(kinds("ours")).tokenizer), kind
        ids[kind] = tokenizer.encode("What ends?")
    assert np.abs(found["adapters"] - found["ours"]).max() > 1e-2 and len(set(map(tuple, ids.values()))) == 1
