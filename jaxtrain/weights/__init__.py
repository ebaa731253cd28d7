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
huggingface.py  load_pretrained, save_pretrained: config.json and safetensors
peft.py         PEFT's folders
gguf.py         the model and tokenizer of a GGUF file
llama2c.py      the weights of llama2.c
convert.py      `jaxtrain convert`
"""

from jaxtrain.weights.folder import Source, open
from jaxtrain.weights.huggingface import load as load_pretrained
from jaxtrain.weights.huggingface import save as save_pretrained

__all__ = ["Source", "load_pretrained", "open", "save_pretrained"]
