"""The tokenizer in the metadata of a GGUF file (llama.cpp), as the `tokenizer.json` that it was made from."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer

CONTROL, USER_DEFINED = 3, 4
"""Kinds of tokens that are looked for in text before it is split."""
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = BYTES | {"use_regex": True}
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(digits: str) -> list[Mapping[str, Any]]:
    pattern = {"Regex": _SPLIT % digits}
    return [{"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}, BYTES]


PRE_TOKENIZERS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "default": [GPT2],
    "gpt-2": [GPT2],
    "smollm": [{"type": "Digits", "individual_digits": True}, GPT2],
    "llama-bpe": _split("{1,3}"),
    "qwen2": _split(""),
}
"""Name of llama.cpp → how text is split before pairs are merged."""


def tokenizer_of(metadata: Mapping[str, Any], where: str) -> HuggingFaceTokenizer:
    """Errors: UserError, naming the kind, unless it is byte-level BPE or SentencePiece's."""
    said = {
        key.removeprefix("tokenizer.ggml."): value
        for key, value in metadata.items()
        if key.startswith("tokenizer.ggml.")
    }
    kind, pre = said.get("model"), said.get("pre", "default")
    if kind == "gpt2" and pre in PRE_TOKENIZERS:
        whole = _byte_level(said, pre)
    elif kind == "llama":
        whole = _sentence_piece(said)
    else:
        raise UserError(f"{where}: its tokenizer, {kind!r} split as {pre!r}, is not read")
    tokens: list[str] = said["tokens"]
    whole |= {
        "version": "1.0",
        "added_tokens": [
            {
                "id": index,
                "content": tokens[index],
                **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
                "special": token_type == CONTROL,
            }
            for index, token_type in enumerate(said.get("token_type", []))
            if token_type in (CONTROL, USER_DEFINED)
        ],
    }
    roles = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "padding_token_id"}
    names = {role: tokens[said[key]] for role, key in roles.items() if key in said}
    stops = tuple(said[key] for key in ("eos_token_id", "eot_token_id", "eom_token_id") if key in said)
    return HuggingFaceTokenizer(
        json.dumps(whole, ensure_ascii=False), names, metadata.get("tokenizer.chat_template"), stops=stops
    )


def _byte_level(said: Mapping[str, Any], pre: str) -> dict[str, Any]:
    return {
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[pre]},
        "decoder": BYTES | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate(said["tokens"])},
            "merges": [merge.split(" ") for merge in said["merges"]],
            "ignore_merges": pre == "llama-bpe",
        },
    }


def _sentence_piece(said: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs are merged in the order of the scores of what they make."""
    vocab = {token: index for index, token in enumerate(said["tokens"])}
    merges = []
    for token, score in zip(said["tokens"], said["scores"], strict=True):
        splits = [(token[:n], token[n:]) for n in range(1, len(token))]
        known = [(a, b) for a, b in splits if a in vocab and b in vocab]
        known.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(-score, pair) for pair in known]
    merges.sort(key=lambda merge: merge[0])
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    prefix = said.get("add_space_prefix", True)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": space}
    back = {"type": "Replace", "pattern": {"String": space}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    return {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [*([{"type": "Prepend", "prepend": space}] if prefix else []), replace],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *(strip if prefix else [])],
        },
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": [pair for _, pair in merges],
            "unk_token": said["tokens"][said.get("unknown_token_id", 0)],
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }
