"""Greedy text and adapters beside transformers and PEFT, the same drawn weights on both sides."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from family_references import CONFIGS, load, stored, tokens, write_folder

from jaxtrain.decode.generate import generate
from jaxtrain.model import lora
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.weights import folder as store
from jaxtrain.weights import load_pretrained, peft

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


@pytest.mark.parametrize("name", ["llama3", "qwen2.5", "gemma2"])
def test_peft_loads_our_adapter_and_we_load_theirs(name, tmp_path):
    import torch  # pyrefly: ignore[missing-import]
    from peft import LoraConfig, PeftModel, get_peft_model  # pyrefly: ignore[missing-import]

    folder = folder_of(name, tmp_path)
    model = load_pretrained(folder)
    config = LoRAConfig(rank=4, alpha=8.0, rank_stabilized=name == "llama3")
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
        r=3, lora_alpha=5, target_modules=["q_proj", "o_proj", "down_proj"], init_lora_weights=False
    )
    made = get_peft_model(load(folder), their_config).eval()
    made.save_pretrained(str(tmp_path / "theirs"))
    about = tmp_path / "theirs" / peft.CONFIG
    about.write_text(json.dumps(json.loads(about.read_text()) | {"base_model_name_or_path": str(folder)}))
    with torch.no_grad():
        theirs = made(ids).logits.numpy()
    np.testing.assert_allclose(forward(store.load(tmp_path / "theirs"), tokens()), theirs, atol=1e-4)
