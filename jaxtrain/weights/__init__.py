"""Weights in and out: the model of any folder.

In: a folder of ours, of Hugging Face, PEFT, llama.cpp or llama2.c. Out: a Transformer, or such a folder.

    from jaxtrain import weights
    source = weights.open("runs/quickstart/5_finetune")
    source.config, source.tokenizer, source.load()

folder.py       open: the model of a folder, whatever kind it is of
learners.py     full training or LoRA of any module, for every stage that begins with a folder
families.py     the tables of the Hugging Face families
config_json.py  config.json to our config and back, by them
tensors.py      which tensors hold which weights
huggingface.py  load_pretrained, save_pretrained
peft.py         PEFT's folders
gguf.py         the model and tokenizer of a GGUF file
llama2c.py      the weights of llama2.c
convert.py      `jaxtrain convert`
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxtrain.weights.folder import Source, open
    from jaxtrain.weights.huggingface import load_pretrained, save_pretrained

__all__ = ["Source", "load_pretrained", "open", "save_pretrained"]


def __getattr__(name: str) -> Any:
    """JAX is imported when weights are asked for, not with a config."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxtrain.weights import folder, huggingface

    return getattr(huggingface if name.endswith("pretrained") else folder, name)
