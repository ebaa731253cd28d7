"""Weights in and out: the model of any folder.

In: a folder of ours, of Hugging Face or PEFT, a file of llama2.c. Out: a Transformer, or such a folder.

    from jaxtrain.weights import load_pretrained, save_pretrained

folder.py       the model of a folder, whatever kind it is of
families.py     the tables of the Hugging Face families
huggingface.py  load_pretrained, save_pretrained
peft.py         PEFT's folders
llama2c.py      the weights of llama2.c
convert.py      `jaxtrain convert`
"""

from typing import Any

__all__ = ["load_pretrained", "save_pretrained"]


def __getattr__(name: str) -> Any:
    """JAX is imported when weights are asked for, not with a config."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxtrain.weights import huggingface

    return getattr(huggingface, name)
