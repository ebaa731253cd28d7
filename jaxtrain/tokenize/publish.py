"""Other tokenizers as a `tokenizer.json` of the same ids: this project's own, and those of GGUF files."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.huggingface import LETTERS, HuggingFaceTokenizer
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, Tokenizer

if TYPE_CHECKING:
    import tokenizers

Token = TypeVar("Token", str, bytes)
CONTROL, USER_DEFINED = 3, 4
"""Kinds of tokens that are looked for in text before it is split."""
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {"llama-bpe": _SPLIT % "{1,3}", "qwen2": _SPLIT % ""}
BYTE_LEVEL = ("default", "gpt-2", "smollm", *SPLITS)
"""llama.cpp's names of how text is split before pairs are merged: by a pattern, or as GPT-2 does."""
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def published(tokenizer: Tokenizer) -> HuggingFaceTokenizer:
    """The tokenizer as other programs read it; there too a text begins with `<|bos|>`."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer
    if not isinstance(tokenizer, BytePairTokenizer):
        raise UserError(f"a {type(tokenizer).__name__} has no form as tokenizer.json")
    import tokenizers as lib  # of an extra

    ranks = tokenizer.ranks
    vocab = {_letters(token): rank for token, rank in ranks.items()} | tokenizer.special
    pairs = [(_letters(a), _letters(b)) for a, b in merges(sorted(ranks, key=ranks.__getitem__), ranks)]
    # As tiktoken: a piece that is a token is not taken apart.
    model = lib.Tokenizer(lib.models.BPE(vocab, pairs, ignore_merges=True))
    by_pattern = lib.pre_tokenizers.Split(lib.Regex(tokenizer.pattern), "isolated")
    to_letters = lib.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = lib.pre_tokenizers.Sequence([by_pattern, to_letters])
    model.decoder = lib.decoders.ByteLevel()
    model.post_processor = lib.processors.TemplateProcessing(
        single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", tokenizer.bos)]
    )
    model.add_special_tokens([lib.AddedToken(token, normalized=False) for token in tokenizer.special])
    return HuggingFaceTokenizer(model.to_str(), tokenizer.names, tokenizer.template)


def same_ids(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether a token's id is the same in both, whatever form and chat template each has."""
    if isinstance(one, BytePairTokenizer) and isinstance(other, BytePairTokenizer):
        return one.fingerprint == other.fingerprint
    return published(one).vocabulary_fingerprint == published(other).vocabulary_fingerprint


def merges(tokens: Iterable[Token], ranks: Mapping[Token, int]) -> Iterator[tuple[Token, Token]]:
    """Every split of a token into two tokens; `tokens` is in the order in which they are merged.

    So merges tiktoken, and SentencePiece: any two neighbours that make a token.
    """
    for token in tokens:
        splits = [(token[:n], token[n:]) for n in range(1, len(token))]
        known = [(a, b) for a, b in splits if a in ranks and b in ranks]
        yield from sorted(known, key=lambda split: (ranks[split[0]], ranks[split[1]]))


def _letters(token: bytes) -> str:
    """GPT-2's printable letter for each byte."""
    return "".join(map(LETTERS.__getitem__, token))


def tokenizer_of(metadata: Mapping[str, Any], where: str) -> HuggingFaceTokenizer:
    """The tokenizer in the metadata of a GGUF file (llama.cpp), with its chat template.

    Errors: UserError, naming the kind, unless it is byte-level BPE or SentencePiece's.
    """
    import tokenizers as lib  # of an extra

    begin = "tokenizer.ggml."
    said = {key.removeprefix(begin): value for key, value in metadata.items() if key.startswith(begin)}
    kind, pre = said.get("model"), said.get("pre", "default")
    if kind == "gpt2" and pre in BYTE_LEVEL:
        model = _byte_level(said, pre)
    elif kind == "llama":
        model = _sentence_piece(said)
    else:
        raise UserError(f"{where}: its tokenizer, {kind!r} split as {pre!r}, is not read")
    tokens: list[str] = said["tokens"]
    for kind, add in ((CONTROL, model.add_special_tokens), (USER_DEFINED, model.add_tokens)):
        kinds = zip(tokens, said.get("token_type", []), strict=False)
        add([lib.AddedToken(token, normalized=False) for token, found in kinds if found == kind])
    roles = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "padding_token_id"}
    names = {role: tokens[said[key]] for role, key in roles.items() if key in said}
    stops = tuple(said[key] for key in ("eos_token_id", "eot_token_id", "eom_token_id") if key in said)
    return HuggingFaceTokenizer(model.to_str(), names, metadata.get("tokenizer.chat_template"), stops=stops)


def _byte_level(said: Mapping[str, Any], pre: str) -> "tokenizers.Tokenizer":
    import tokenizers as lib

    vocab = {token: index for index, token in enumerate(said["tokens"])}
    pairs = [tuple(merge.split(" ")) for merge in said["merges"]]
    model = lib.Tokenizer(lib.models.BPE(vocab, pairs, ignore_merges=pre == "llama-bpe"))
    if pre == "qwen2":
        model.normalizer = lib.normalizers.NFC()
    steps = []
    if pre in SPLITS:
        steps.append(lib.pre_tokenizers.Split(lib.Regex(SPLITS[pre]), "isolated"))
    elif pre == "smollm":
        steps.append(lib.pre_tokenizers.Digits(individual_digits=True))
    steps.append(lib.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre not in SPLITS))
    model.pre_tokenizer = lib.pre_tokenizers.Sequence(steps)
    model.decoder = lib.decoders.ByteLevel()
    return model


def _sentence_piece(said: Mapping[str, Any]) -> "tokenizers.Tokenizer":
    """Pairs are merged in the order of the scores of what they make."""
    import tokenizers as lib

    tokens: list[str] = said["tokens"]
    vocab = {token: index for index, token in enumerate(tokens)}
    scores = dict(zip(tokens, said["scores"], strict=True))
    pairs = list(merges(sorted(tokens, key=lambda token: -scores[token]), vocab))
    unknown = tokens[said.get("unknown_token_id", 0)]
    model = lib.Tokenizer(lib.models.BPE(vocab, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    to_space, back = lib.normalizers.Replace(" ", SPACE), lib.decoders.Replace(SPACE, " ")
    decoders = [back, lib.decoders.ByteFallback(), lib.decoders.Fuse()]
    if said.get("add_space_prefix", True):
        model.normalizer = lib.normalizers.Sequence([lib.normalizers.Prepend(SPACE), to_space])
        decoders.append(lib.decoders.Strip(" ", 1, 0))
    else:
        model.normalizer = to_space
    model.decoder = lib.decoders.Sequence(decoders)
    return model
