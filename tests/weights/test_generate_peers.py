"""Greedy text and adapters beside transformers and PEFT, the same drawn weights on both sides."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from family_references import CONFIGS, load, stored, tokens, write_folder

from jaxtrain.decode.answers import answers
from jaxtrain.decode.generate import generate
from jaxtrain.model import lora
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.tokenizer import train
from jaxtrain.weights import folder as store
from jaxtrain.weights import load_pretrained, peft
from jaxtrain.weights.convert import ConvertConfig, convert

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
NEW, PROMPT = 64, 8


def folder_of(name: str, at: Path) -> Path:
    known, _ = stored(name)
    write_folder(at / name, known["config"], known["shapes"])
    return at / name


@pytest.fixture(autouse=True)
def one_device(make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        yield


@pytest.mark.parametrize("name", ["llama3", "qwen2.5", "gemma2", "mixtral"])
def test_greedy_is_transformers_generate(name, tmp_path):
    assert name in CONFIGS
    import torch  # pyrefly: ignore[missing-import]

    folder = folder_of(name, tmp_path)
    prompt = tokens()[:, :PROMPT]
    options = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    ids = torch.tensor(prompt, dtype=torch.long)
    theirs = load(folder).generate(ids, attention_mask=torch.ones_like(ids), **options)[:, PROMPT:]
    keys = jax.vmap(jax.random.key)(np.arange(len(prompt)))
    ours = generate(
        load_pretrained(folder),
        prompt,
        np.ones_like(prompt),
        keys,
        max_new=NEW,
        temperature=0.0,
        stop=-1,
        pad=0,
    )
    np.testing.assert_array_equal(ours.tokens_BN, theirs.numpy())


@pytest.mark.parametrize(
    "name", ["llama3", "qwen2.5", "gemma2", "gpt_oss", "nanochat", "deepseek_v3", "qwen3_next", "llama4"]
)
def test_peft_loads_our_adapter_and_we_load_theirs(name, tmp_path):
    import torch  # pyrefly: ignore[missing-import]
    from peft import LoraConfig, PeftModel, get_peft_model  # pyrefly: ignore[missing-import]

    folder = folder_of(name, tmp_path)
    model = load_pretrained(folder)
    # of a mixture PEFT has modules of attention alone
    of_attention = r"attention\.[qkvo]+_.*"
    targets = of_attention if model.config.experts else LoRAConfig.targets
    config = LoRAConfig(rank=4, alpha=8.0, rank_stabilized=name == "llama3", targets=targets)
    adapted = jax.jit(lora.adapt, static_argnums=1)(model, config, jax.random.key(0))
    draws = np.random.default_rng(0)
    adapters = {
        key: jax.device_put(np.asarray(like) + draws.normal(0, 0.05, like.shape).astype(np.float32))
        for key, like in lora.take(adapted).items()
    }
    peft.save(adapters, config, model.config, tmp_path / "ours", folder)
    ids = torch.tensor(tokens(), dtype=torch.long)
    with torch.no_grad():
        theirs = PeftModel.from_pretrained(load(folder), str(tmp_path / "ours"))(ids).logits.numpy()
    forward = jax.jit(lambda model, tokens: model(tokens))
    ours = np.asarray(forward(lora.put(adapted, adapters), tokens()))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(ours - np.asarray(forward(model, tokens()))).max() > 0.05

    torch.manual_seed(0)
    their_config = LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=[
            "q_a_proj" if model.config.query_rank else "q_proj",
            "o_proj",
            *(["down_proj"] if model.config.gated and not model.config.experts else []),
        ],
        init_lora_weights=False,
    )
    made = get_peft_model(load(folder), their_config).eval()
    made.save_pretrained(str(tmp_path / "theirs"))
    about = tmp_path / "theirs" / peft.CONFIG
    about.write_text(json.dumps(json.loads(about.read_text()) | {"base_model_name_or_path": str(folder)}))
    with torch.no_grad():
        theirs = made(ids).logits.numpy()
    np.testing.assert_allclose(forward(store.load(tmp_path / "theirs"), tokens()), theirs, atol=1e-4)


def test_transformers_talks_as_our_exported_model_does(config, tmp_path):
    """Prompt, ids and greedy answer, through AutoTokenizer and AutoModelForCausalLM."""
    from transformers import AutoModelForCausalLM, AutoTokenizer  # pyrefly: ignore[missing-import]

    tokenizer = train(["Hello world, what is your name?"] * 3, 280)
    shape = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    model = Transformer(shape, jax.random.key(1))
    store.write_artifact(model, tokenizer, tmp_path / "ours")
    convert(ConvertConfig(source=str(tmp_path / "ours"), out=str(tmp_path / "hf")))
    theirs = AutoTokenizer.from_pretrained(tmp_path / "hf")
    peer = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    talk = [{"role": "user", "content": "Hello, naïve world 12 345"}]
    prompt, _ = render(talk, tokenizer, generation_prompt=True)
    asked = theirs.apply_chat_template(
        talk, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert asked["input_ids"][0].tolist() == prompt
    assert peer.generation_config.eos_token_id == [tokenizer.eos, tokenizer.end]
    answer = peer.generate(**asked, do_sample=False, max_new_tokens=16)[0, len(prompt) :].tolist()
    ours = answers(model, tokenizer, [prompt], max_new=16, stop=(tokenizer.end,), temperature=0.0)
    assert ours[0] == answer
