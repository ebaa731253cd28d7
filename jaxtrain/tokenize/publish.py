"""A tokenizer of this project as a `tokenizer.json` of the same ids, with its chat template in Jinja."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.templates import OWN
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, Tokenizer

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def published(tokenizer: Tokenizer) -> HuggingFaceTokenizer:
    """The tokenizer as other programs read it; there too a text begins with `<|bos|>`."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer
    if not isinstance(tokenizer, BytePairTokenizer):
        raise UserError(f"a {type(tokenizer).__name__} has no form as tokenizer.json")
    text = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": index,
                "content": token,
                **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
                "special": True,
            }
            for token, index in tokenizer.special.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": tokenizer.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                },
                BYTES,
            ],
        },
        "post_processor": _begins_with("<|bos|>", tokenizer.bos),
        "decoder": BYTES,
        "model": {
            "type": "BPE",
            "vocab": {_letters(token): rank for token, rank in tokenizer.ranks.items()} | tokenizer.special,
            "merges": list(_merges(tokenizer.ranks)),
            "ignore_merges": True,  # as tiktoken: a piece that is a token is not taken apart
        },
    }
    names = {"bos": "<|bos|>", "eos": "<|eos|>", "pad": "<|pad|>"}
    return HuggingFaceTokenizer(json.dumps(text, ensure_ascii=False), names, OWN)


def _begins_with(token: str, index: int) -> Mapping[str, Any]:
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, *({"Sequence": {"id": part, "type_id": 0}} for part in "AB")],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[str, str]]:
    """tiktoken merges any two neighbours that make a token, the lowest rank first: every split is a merge."""
    for token in sorted(ranks, key=lambda token: ranks[token]):
        splits = [(token[:n], token[n:]) for n in range(1, len(token))]
        known = [(a, b) for a, b in splits if a in ranks and b in ranks]
        known.sort(key=lambda split: (ranks[split[0]], ranks[split[1]]))
        yield from ((_letters(a), _letters(b)) for a, b in known)


def _letters(token: bytes) -> str:
    """GPT-2's printable letter for each byte."""
    return "".join(map(LETTERS.__getitem__, token))


_PRINTABLE = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
LETTERS = {byte: chr(byte) for byte in _PRINTABLE} | {byte: chr(256 + n) for n, byte in enumerate(_OTHERS)}
