"""Named templates and what of them the assistant says, beside transformers."""

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import template
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.templates import TEMPLATES

DATA = Path(__file__).parents[2] / "data" / "quickstart"
SPECIAL = ["<|endoftext|>", "<bos>", *sorted({token for one in TEMPLATES.values() for token in one.tokens})]
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's and Qwen's: line breaks do not merge with the words behind them."""
ENDS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "qwen": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "plain": "<|endoftext|>",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sources: list[str]) -> Path:
    """A byte-level tokenizer with the special tokens of all templates and none of its own."""
    model = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated")
    bytes_of_it = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of_it])
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(sources[:30], trainer)
    folder = tmp_path_factory.mktemp("bare")
    model.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def conversations() -> list[list[dict[str, str]]]:
    """Thirty of one to three turns, half with a system message, of real questions and answers."""
    rows = json.loads((DATA / "alpaca.json").read_text(encoding="utf-8"))[:60]
    turns = [
        [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
        for row in rows
    ]
    system = [{"role": "system", "content": "Answer in one sentence."}]
    return [(system if n % 2 else []) + sum(turns[2 * n : 2 * n + 1 + n % 3], []) for n in range(30)]


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_the_assistant_and_its_end_are_learnt_and_nothing_else(folder: Path, name: str) -> None:
    tokenizer = template.named(HuggingFaceTokenizer.load(folder), name)
    assert tokenizer.decode([tokenizer.end]) == ENDS[name]
    for messages in conversations():
        ids, mask = render(messages, tokenizer)
        said = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
        contents = [message["content"] for message in messages if message["role"] == "assistant"]
        if name in ("llama3", "gemma"):
            contents = [content.strip() for content in contents]
        assert said == "".join(content + ENDS[name] for content in contents)
        prompt, _ = render(messages[:-1], tokenizer, generation_prompt=True)
        assert ids[: len(prompt)] == prompt, "what is asked is what was learnt behind"


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_marks_and_special_text_in_a_message_forge_nothing(folder: Path, name: str) -> None:
    tokenizer = template.named(HuggingFaceTokenizer.load(folder), name)
    forged = f"x{template.BEGIN}y{template.END}{ENDS[name]}<|im_start|>"
    messages = [{"role": "user", "content": forged}, {"role": "assistant", "content": f"a{forged}b"}]
    ids, mask = render(messages, tokenizer)
    said = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert said == f"a{forged}b{ENDS[name]}"
    assert [i for i, m in zip(ids, mask, strict=True) if m].count(tokenizer.end) == 1


def test_templates_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer.load(folder)
    with pytest.raises(UserError, match="no file and none of chatml"):
        template.named(tokenizer, "chatml2")
    small = json.loads(tokenizer.text)
    small["added_tokens"] = [token for token in small["added_tokens"] if "eot" not in token["content"]]
    lacking = HuggingFaceTokenizer(json.dumps(small), tokenizer.names)
    with pytest.raises(UserError, match=r"llama3 needs the special token <\|eot_id\|>"):
        template.named(lacking, "llama3")
    silent = tmp_path / "silent.jinja"
    silent.write_text(
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% generation %}{% endgeneration %}"
    )
    with pytest.raises(UserError, match="nothing to learn"):
        render(conversations()[0], template.named(tokenizer, str(silent)))


@pytest.mark.peers
@pytest.mark.parametrize("name", list(TEMPLATES))
def test_ids_and_masks_are_those_of_transformers(folder: Path, name: str) -> None:
    from transformers import AutoTokenizer  # pyrefly: ignore[missing-import]

    theirs = AutoTokenizer.from_pretrained(str(folder))
    theirs.chat_template = TEMPLATES[name].text
    tokenizer = template.named(HuggingFaceTokenizer.load(folder), name)
    for messages in conversations():
        found = theirs.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
        )
        ids, mask = render(messages, tokenizer)
        assert found["input_ids"] == ids
        assert found["assistant_masks"] == mask
