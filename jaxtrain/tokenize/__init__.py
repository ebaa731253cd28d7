"""Clean documents and conversations -> token records and the tokenizer that made them.

In: an artifact of clean. Out: an artifact as in docs/formats.md, section 3.
tokenizer.py    Tokenizer; byte-level BPE, trained here or OpenAI's, run by tiktoken, stored as plain text
huggingface.py  the tokenizer.json of a published model
publish.py      our own tokenizers, and those of GGUF files, as tokenizer.json
chat.py         a conversation as ids in a chat template, and the mask of what the assistant said
bounds.py       the process in which that template is rendered, and its bounds
templates.py    templates by name, and named/, their Jinja
tool_text.py    tool calls in that text, and read back from what a model wrote
records.py      rows of Parquet -> ArrayRecord files, in shards, on all cores
run.py          the stage: train the tokenizer, encode every source
"""

from jaxtrain.tokenize.tokenizer import Tokenizer

__all__ = ["Tokenizer"]
