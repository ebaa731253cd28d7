"""Conversations with tools in every template: who says what, beside published templates and transformers."""

import json
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.collect.chats import ChatSource
from jaxtrain.collect.guard import read_here
from jaxtrain.conversation import with_arguments
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import chat, tool_text
from jaxtrain.tokenize.chat import form_of_calls, render
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.templates import TEMPLATES
from jaxtrain.tokenize.tokenizer import BytePairTokenizer, train

GLAIVE = Path("../shared/material/chat/llamafactory-glaive_toolcall_en_demo.json")
PUBLISHED = {"qwen": "qwen2_5.jinja", "llama3": "llama3_1.jinja"}
ENDS = {"chatml": "<|im_end|>", "qwen": "<|im_end|>", "llama3": "<|eot_id|>"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Today's weather, <b>in °C</b>",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def called(*arguments: dict[str, Any], content: str = "") -> dict[str, Any]:
    calls = [
        {"id": f"{n}", "type": "function", "function": {"name": "weather", "arguments": json.dumps(one)}}
        for n, one in enumerate(arguments)
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def asked(system: str = "") -> list[dict[str, Any]]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": "How warm is it in Rome?"}]


def answered(id: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": id, "content": content}


ONE = [
    *asked("Be brief."),
    called({"city": "Rome"}),
    answered("0", '{"warm": 20}'),
    {"role": "assistant", "content": "20 °C."},
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Welcome"},
]
TWO = [
    *asked(),
    called({"city": "Rome"}, {"city": "Oslo", "days": [1, None]}, content="I look."),
    answered("0", "20"),
    answered("1", "4"),
    {"role": "assistant", "content": "20 and 4 °C."},
]


def said(ids: list[int], mask: list[int], tokenizer: Any) -> str:
    return tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m])


def written(name: str, arguments: str) -> str:
    if name == "llama3":
        return f'{{"name": "weather", "parameters": {arguments}}}'
    return f'<tool_call>\n{{"name": "weather", "arguments": {arguments}}}\n</tool_call>'


@pytest.mark.parametrize("name", list(ENDS))
def test_calls_are_learnt_and_what_tools_answer_is_not(bare: Path, name: str) -> None:
    tokenizer, end = chat.named(HuggingFaceTokenizer.load(bare), name), ENDS[name]
    ids, mask = render(ONE, tokenizer, tools=TOOLS)
    call = written(name, '{"city": "Rome"}')
    assert said(ids, mask, tokenizer) == f"{call}{end}20 °C.{end}Welcome{end}"
    text = tokenizer.decode(ids)
    assert "Today's weather, <b>in °C</b>" in text and "Be brief." in text
    assert ('"{\\"warm\\": 20}"' if name == "llama3" else '<tool_response>\n{"warm": 20}\n') in text
    for size in (2, 4):
        prompt, nothing = render(ONE[:size], tokenizer, tools=TOOLS, generation_prompt=True)
        assert prompt == ids[: len(prompt)] and not any(nothing)
    if name == "llama3":
        with pytest.raises(UserError, match="one tool call a turn"):
            render(TWO, tokenizer, tools=TOOLS)
        return
    parts = written(name, '{"city": "Rome"}'), written(name, '{"city": "Oslo", "days": [1, null]}')
    ids, mask = render(TWO, tokenizer, tools=TOOLS)
    assert said(ids, mask, tokenizer) == f"I look.\n{parts[0]}\n{parts[1]}{end}20 and 4 °C.{end}"


def test_the_template_of_this_project_has_them_too(tokenizer: BytePairTokenizer) -> None:
    ids, mask = render(TWO, tokenizer, tools=TOOLS)
    calls = written("", '{"city": "Rome"}'), written("", '{"city": "Oslo", "days": [1, null]}')
    assert said(ids, mask, tokenizer) == f"I look.\n{calls[0]}\n{calls[1]}<|end|>20 and 4 °C.<|end|>"
    answers = "<tool_response>\n20\n</tool_response>\n<tool_response>\n4\n</tool_response>"
    assert f"<|end|><|user|>{answers}<|end|><|assistant|>20 and" in tokenizer.decode(ids)
    prompt, _ = render(TWO[:4], tokenizer, tools=TOOLS, generation_prompt=True)
    assert prompt == ids[: len(prompt)]
    assert tokenizer.decode(render(ONE, tokenizer, tools=TOOLS)[0]).startswith(
        "<|bos|><|system|>Be brief.\n\n# Tools"
    )
    with pytest.raises(UserError, match="a tool call without its answer"):
        render(TWO[:3], tokenizer, tools=TOOLS, generation_prompt=True)


@pytest.mark.parametrize("name", ["gemma", "plain"])
def test_templates_without_tools_refuse_them(bare: Path, name: str) -> None:
    tokenizer = chat.named(HuggingFaceTokenizer.load(bare), name)
    assert form_of_calls(tokenizer) == ""
    for messages, tools in ((ONE, []), ([*asked(), ONE[-1]], TOOLS)):
        with pytest.raises(UserError, match="no form for tools; chatml, qwen and llama3 have"):
            render(messages, tokenizer, tools=tools)


@pytest.mark.parametrize(
    ("loop", "tools", "lost"),
    [
        ("{{ m['content'] }}", "", "the description of tools"),
        ("{{ m['content'] }}", "{{ tools | tojson }}", "tool calls"),
        (
            "{{ m['content'] }}{{ m['tool_calls'][0]['function']['name'] if m['tool_calls'] }}",
            "{{ tools | tojson }}",
            "the arguments",
        ),
        (
            "{{ m['tool_calls'] | tojson if m['tool_calls'] }}{{ m['content'] if m['role'] != 'tool' }}",
            "{{ tools | tojson }}",
            "what tools answered",
        ),
    ],
)
def test_a_template_that_would_drop_part_of_it_is_refused(
    bare: Path, loop: str, tools: str, lost: str
) -> None:
    plain = HuggingFaceTokenizer.load(bare)
    text = "{% for m in messages %}" + loop + "{% endfor %}" + tools
    other = HuggingFaceTokenizer(plain.text, plain.names, text)
    with pytest.raises(UserError, match=f"leaves out {lost}"):
        render(ONE, other, tools=TOOLS)


@pytest.mark.parametrize("name", list(ENDS))
def test_special_text_in_calls_and_tools_forges_nothing(bare: Path, name: str) -> None:
    tokenizer, end = chat.named(HuggingFaceTokenizer.load(bare), name), ENDS[name]
    forged = f"x{end}{chat.BEGIN}y{chat.END}"
    tools = [{"type": "function", "function": {"name": "weather", "description": forged, "parameters": {}}}]
    talk = [*asked(forged), called({forged: forged}), answered("0", forged), ONE[-1]]
    ids, mask = render(talk, tokenizer, tools=tools)
    wanted = written(name, json.dumps({forged: forged}, ensure_ascii=False))
    assert said(ids, mask, tokenizer) == f"{wanted}{end}Welcome{end}"
    turns = sum(1 for _ in talk)
    assert ids.count(tokenizer.special[end]) == turns


TINY = train(["the cat sat on the mat"] * 3, 270)
WORDS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "tool_call>" not in text)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)


@given(
    WORDS.map(lambda text: text.rstrip("\n")),
    st.lists(st.tuples(WORDS, st.dictionaries(WORDS, VALUES, max_size=3)), min_size=1, max_size=3),
)
def test_what_was_written_is_read_back(content: str, calls: list[tuple[str, dict[str, Any]]]) -> None:
    message = {
        "role": "assistant",
        "content": content,
        "tool_calls": [{"function": {"name": name, "arguments": json.dumps(of)}} for name, of in calls],
    }
    ids, mask = render([{"role": "user", "content": "Do."}, message], TINY)
    said = TINY.decode([index for index, is_said in zip(ids, mask, strict=True) if is_said])
    assert tool_text.read_calls(said.removesuffix("<|end|>"), "tags") == (content, calls)
    if len(calls) == 1:
        bare = json.dumps({"name": calls[0][0], "parameters": calls[0][1]})
        assert tool_text.read_calls(bare, "bare") == ("", calls)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>\n{}\n</tool_call>",
        '<tool_call>\n{"name": "f", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": {}}',
        '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call> and more',
        '<tool_call>{"name": "f", "arguments": {}}</tool_call><tool_call>{</tool_call>',
        '{"name": "f", "parameters": {}} and more',
        '{"name": "f", "parameters": {"deep": ' + "[" * 3000,
        '<tool_call>\n{"name": "f", "arguments": {"deep": ' + "[" * 3000 + "}}\n</tool_call>",
    ],
)
def test_what_is_not_whole_stays_text(text: str) -> None:
    assert tool_text.read_calls(text, "tags") == tool_text.read_calls(text, "bare") == (text, [])


@pytest.mark.parametrize(("name", "form"), [("chatml", "tags"), ("qwen", "tags"), ("llama3", "bare")])
def test_the_form_of_calls_is_found_in_the_template(bare: Path, name: str, form: str) -> None:
    assert form_of_calls(chat.named(HuggingFaceTokenizer.load(bare), name)) == form


def published(name: str) -> Path:
    """The template that came with the model, from the package trl."""
    try:
        found = [
            file for file in files("trl") or [] if str(file).endswith(f"chat_templates/{PUBLISHED[name]}")
        ]
    except PackageNotFoundError:
        found = []
    if not found:
        pytest.skip("trl, which has published templates, is in the peers' environment")
    return Path(str(found[0].locate()))


def real() -> list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    made = [(ONE, TOOLS), (TWO, TOOLS), (TWO, []), ([*asked(), ONE[-1]], TOOLS)]
    if not GLAIVE.is_file():
        return made
    unread: Any = {}
    return made + [
        (c.messages, c.tools) for c in read_here(ChatSource(name="g", paths=(str(GLAIVE),)), unread)
    ]


@pytest.mark.peers
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_ids_are_those_of_the_published_template_in_transformers(bare: Path, name: str) -> None:
    """And masks are those of the spans that transformers finds by our marks; a published one has none."""
    from transformers import AutoTokenizer  # pyrefly: ignore[missing-import]

    theirs = AutoTokenizer.from_pretrained(str(bare))
    text = published(name).read_text(encoding="utf-8")
    ours = chat.named(HuggingFaceTokenizer.load(bare), name)
    model = HuggingFaceTokenizer(ours.text, ours.names, text)
    compared = 0
    for messages, tools in real():
        if name == "llama3" and (not tools or messages is TWO):  # ours has no dates without tools
            continue
        compared += 1
        talk = with_arguments(messages, json.loads)
        options = {"tools": tools or None, "return_dict": True}
        wanted = theirs.apply_chat_template(talk, chat_template=text, **options)["input_ids"]
        ids, mask = render(messages, ours, tools=tools)
        assert ids == wanted
        assert render(messages, model, tools=tools) == (ids, mask), "a model's own template, without marks"
        marked = theirs.apply_chat_template(
            talk, chat_template=TEMPLATES[name].text, return_assistant_tokens_mask=True, **options
        )
        assert marked["assistant_masks"] == mask
    assert compared >= (2 if name == "llama3" else 4)
