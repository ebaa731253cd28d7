"""Chat templates by name, for models that came without one. What the assistant says is marked as generation.

Their wording is that of the published models (ChatML: OpenAI 2023; Llama 3, Qwen 2.5, Gemma: model cards).
Tools are written as Qwen 2.5 does (chatml, qwen) and as Llama 3.1 does (llama3); gemma and plain refuse them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtrain.tokenize.tool_text import DESCRIBED

_QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


@dataclass(frozen=True)
class NamedTemplate:
    text: str
    """Jinja, as Hugging Face's chat templates are."""
    tokens: tuple[str, ...] = ()
    """Special tokens that the tokenizer must have."""


def _read(name: str) -> str:
    return (Path(__file__).parent / "named" / f"{name}.jinja").read_text(encoding="utf-8")


def _turns(default: str = "", *, opening: str = "", role: tuple[str, str], end: str, gap: str) -> str:
    """named/turns.jinja with what stands around a role, behind a turn, and as the default system message."""
    words = {"opening": opening, "default": default, "left": role[0], "right": role[1], "end": end}
    words |= {"gap": gap, "tools_before": DESCRIBED[0], "tools_behind": DESCRIBED[1]}
    settings = "".join(f"{{% set {name} = {json.dumps(text)} %}}" for name, text in words.items())
    return settings + _read("turns")


def _chatml(default: str = "") -> NamedTemplate:
    """Turns as OpenAI's and Qwen's models have them."""
    text = _turns(default, role=("<|im_start|>", "\n"), end="<|im_end|>", gap="\n")
    return NamedTemplate(text, ("<|im_start|>", "<|im_end|>"))


OWN = _turns(opening="<|bos|>", role=("<|", "|>"), end="<|end|>", gap="")
"""The template of this project's own tokenizers (chat.py), for programs that read Jinja."""

TEMPLATES: Mapping[str, NamedTemplate] = {
    "chatml": _chatml(),
    "llama3": NamedTemplate(_read("llama3"), ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "qwen": _chatml(_QWEN_SYSTEM),
    "gemma": NamedTemplate(_read("gemma"), ("<start_of_turn>", "<end_of_turn>")),
    "plain": NamedTemplate(_read("plain")),
}
