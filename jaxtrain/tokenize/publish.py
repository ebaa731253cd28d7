"""A tokenizer of this project as a `tokenizer.json` of the same ids, with its chat template in Jinja."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.huggingface import LETTERS, HuggingFaceTokenizer
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, Tokenizer

Token = TypeVar("Token", str, bytes)


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
