"""Answers in a form: JSON by a schema, or text by a regular expression. Needs the extra `grammar`.

The package llguidance says before each token which ones may come; it needs the bytes of every token.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer

SPACES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As json.dumps writes it: where any would do, a small model may write spaces without end."""
Allowed = Callable[[Sequence[int]], bytes]
"""Asked with the ids so far: the tokens that may come next, a bit each, the lowest bit of a byte first."""


class Grammars:
    """Of one tokenizer. Errors: UserError where llguidance is not installed."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        """vocab_size: of the model, whose rows beyond the tokenizer never come."""
        try:
            import llguidance
        except ImportError:
            raise UserError("it needs llguidance; `pip install 'jaxtrain[grammar]'`") from None
        self._package = llguidance
        self._tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Vocabulary(tokenizer)),
            n_vocab=vocab_size,
            eos_token=list(tokenizer.stop),
        )

    def check(self, form: Mapping[str, Any]) -> str:
        """The grammar of `{"schema": ..}` or `{"regex": ..}`. Errors: UserError for one that is none."""
        matcher = self._package.LLMatcher
        try:
            if "regex" in form:
                grammar = matcher.grammar_from_regex(form["regex"])
            else:
                grammar = matcher.grammar_from_json_schema(json.dumps(form["schema"]), overrides=SPACES)
        except (ValueError, RecursionError) as wrong:  # a schema that is no object, or nests without end
            raise UserError(str(wrong).split("\n")[0]) from None
        if error := matcher.validate_grammar(grammar, self._tokenizer):
            raise UserError(error.splitlines()[0])
        return grammar

    def allowed(self, grammar: str) -> Allowed:
        """For one answer."""
        matcher, read = self._package.LLMatcher(self._tokenizer, grammar, log_level=0), 0

        def allowed(ids: Sequence[int]) -> bytes:
            nonlocal read
            matcher.consume_tokens(list(ids[read:]))
            read = len(ids)
            # past its limits a matcher allows nothing but the end
            return matcher.compute_bitmask()

        return allowed


class _Vocabulary:
    """A tokenizer as llguidance wants it."""

    def __init__(self, tokenizer: Tokenizer):
        special = set(tokenizer.special.values())
        self.eos_token_id, self.bos_token_id = tokenizer.eos, tokenizer.bos
        self.special_token_ids = sorted(special)
        self.tokens = [tokenizer.token_bytes(index) for index in range(tokenizer.vocab_size)]
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        return self._encode(text)
