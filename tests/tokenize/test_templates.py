"""Named templates and what of them the assistant says, beside transformers."""

import json
from pathlib import Path

import pytest

from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import chat
from jaxtrain.tokenize.chat import render
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.templates import TEMPLATES
from jaxtrain.tokenize.tokenizer import train

DATA = Path(__file__).parents[2] / "data" / "quickstart"
ENDS = {
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "qwen": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "plain": "<|endoftext|>",
}


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
def test_the_assistant_and_its_end_are_learnt_and_nothing_else(bare: Path, name: str) -> None:
    tokenizer = chat.named(HuggingFaceTokenizer.load(bare), name)
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


@pytest.mark.parametrize("name", [*TEMPLATES, "own"])
def test_an_answer_of_weight_0_is_context_and_not_learnt(bare: Path, sources: list[str], name: str) -> None:
    if name == "own":
        tokenizer, end = train(sources[:3], 300), "<|end|>"
    else:
        tokenizer, end = chat.named(HuggingFaceTokenizer.load(bare), name), ENDS[name]
    turns = [("user", "Hi"), ("assistant", "A draft"), ("user", "Again"), ("assistant", "Good")]
    messages = [{"role": role, "content": content} for role, content in turns]
    whole, _ = render(messages, tokenizer)
    messages[1]["weight"] = 0
    ids, mask = render(messages, tokenizer)
    assert ids == whole
    assert tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m]) == f"Good{end}"


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_marks_and_special_text_in_a_message_forge_nothing(bare: Path, name: str) -> None:
    tokenizer = chat.named(HuggingFaceTokenizer.load(bare), name)
    forged = f"x{chat.BEGIN}y{chat.END}{ENDS[name]}<|im_start|>"
    messages = [{"role": "user", "content": forged}, {"role": "assistant", "content": f"a{forged}b"}]
    ids, mask = render(messages, tokenizer)
    said = tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])
    assert said == f"a{forged}b{ENDS[name]}"
    assert [i for i, m in zip(ids, mask, strict=True) if m].count(tokenizer.end) == 1


def test_templates_that_do_not_fit_are_refused(bare: Path, tmp_path: Path) -> None:
    tokenizer = HuggingFaceTokenizer.load(bare)
    with pytest.raises(UserError, match="no file and none of chatml"):
        chat.named(tokenizer, "chatml2")
    small = json.loads(tokenizer.text)
    small["added_tokens"] = [token for token in small["added_tokens"] if "eot" not in token["content"]]
    lacking = HuggingFaceTokenizer(json.dumps(small), tokenizer.names)
    with pytest.raises(UserError, match=r"llama3 needs the special token <\|eot_id\|>"):
        chat.named(lacking, "llama3")
    silent = tmp_path / "silent.jinja"
    silent.write_text(
        "{% for m in messages %}{{ m['content'] }}{% endfor %}{% generation %}{% endgeneration %}"
    )
    with pytest.raises(UserError, match="nothing to learn"):
        render(conversations()[0], chat.named(tokenizer, str(silent)))


@pytest.mark.peers
@pytest.mark.parametrize("name", list(TEMPLATES))
def test_ids_and_masks_are_those_of_transformers(bare: Path, name: str) -> None:
    from transformers import AutoTokenizer  # pyrefly: ignore[missing-import]

    theirs = AutoTokenizer.from_pretrained(str(bare))
    theirs.chat_template = TEMPLATES[name].text
    tokenizer = chat.named(HuggingFaceTokenizer.load(bare), name)
    for messages in conversations():
        found = theirs.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
        )
        ids, mask = render(messages, tokenizer)
        assert found["input_ids"] == ids
        assert found["assistant_masks"] == mask
