"""From a Hugging Face folder whose padding is its end of text: packed, fine-tuned, it answers and stops."""

import json
from pathlib import Path

import jax
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxtrain.decode.answers import answers
from jaxtrain.document import Conversation, Document, record_id, write_records
from jaxtrain.finetune.run import FinetuneConfig, run
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize import run as tokenize
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.weights import folder as store
from jaxtrain.weights import save_pretrained

TALK = {"What is two and two?": "Four.", "And three and four?": "Seven, I think.", "Bye!": "Goodbye, friend."}
MESH = MeshConfig(fsdp=4, tensor=2)


def conversation(question: str, answer: str | None = None) -> list[dict[str, str]]:
    said = [{"role": "user", "content": question}]
    return said if answer is None else [*said, {"role": "assistant", "content": answer}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn weights, and a tokenizer without chat tokens, whose padding is its end of text."""
    folder = tmp_path_factory.mktemp("base") / "model"
    model = tokenizers.Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator([*TALK, *TALK.values()] * 3, trainer)
    shape = ModelConfig(
        vocab_size=320, layers=2, d_model=64, heads=4, kv_heads=2, head_dim=16, d_hidden=96, max_length=64,
        qk_norm=False,
    )  # fmt: skip
    with jax.set_mesh(meshes.make(MESH)):
        save_pretrained(jax.jit(lambda: Transformer(shape, jax.random.key(0)))(), folder)
    model.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.fixture(scope="module")
def tokens(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conversations a few times over, so that some are held out, in the plain template."""
    clean = tmp_path_factory.mktemp("data") / "clean"
    talks = [
        Conversation(id=record_id("talk", str(n)), source="talk", messages=conversation(question, answer))
        for n, (question, answer) in enumerate(list(TALK.items()) * 12)
    ]
    write_records(clean / "conversations" / "talk.parquet", Conversation, talks)
    one = Document(id=record_id("none", "0"), text="nothing", source="none")
    write_records(clean / "documents" / "none.parquet", Document, [one])
    (clean / "mixture.json").write_text(json.dumps({"none": 1.0}))
    (clean / "manifest.json").write_text(json.dumps({"stage": "clean", "fingerprint": "by hand"}))
    config = tokenize.TokenizeConfig(
        documents=str(clean), tokenizer=str(folder), template="plain", out=str(clean.parent / "tokens")
    )
    return tokenize.run(config)


def test_it_learns_to_answer_and_to_stop(folder: Path, tokens: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(
        model=str(folder),
        data=str(tokens),
        out=str(tmp_path / "model"),
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=1e-2, warmup_steps=2, schedule="linear", weight_decay=0.0),
            mesh=MESH,
            steps=60,
            microbatches=2,
            evaluate_every=60,
            checkpoint_every=60,
        ),
        batch_size=8,
        heldout_share=0.1,
        sample_questions=("Bye!",),
    )
    answered = run(config)
    tokenizer = Tokenizer.load(answered / "tokenizer")
    assert tokenizer.pad == tokenizer.eos == tokenizer.end
    prompts = [render(conversation(question), tokenizer, generation_prompt=True)[0] for question in TALK]
    with jax.set_mesh(meshes.make(MESH)):
        found = answers(
            store.load(answered), tokenizer, prompts, max_new=24, stop=(tokenizer.end,), temperature=0.0
        )  # fmt: skip
    assert [tokenizer.decode(ids) for ids in found] == [f"{said}<|endoftext|>" for said in TALK.values()]


def test_another_tokenizer_is_refused(folder: Path, tokens: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    changed = json.loads((other / "tokenizer.json").read_text())
    changed["model"]["merges"].pop()
    (other / "tokenizer.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="was made with another tokenizer"):
        run(
            FinetuneConfig(
                model=str(other),
                data=str(tokens),
                out=str(tmp_path / "model"),
                train=TrainConfig(optimizer=OptimizerConfig(), mesh=MESH, steps=1),
            )
        )
