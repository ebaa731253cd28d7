"""The server as its clients see it: OpenAI's own client, and whatever else may come over HTTP."""

import json
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import jax
import numpy as np
import pytest
from parrot import ADD, SUM, TALK, make_engine, serving

from jaxtrain import weights
from jaxtrain.serve.app import LONGEST_BODY, ServeApp

openai = pytest.importorskip("openai", reason="openai is not installed (extra `test`)")

QUESTION = "Say it in German: good day"
LONG = {"messages": [{"role": "user", "content": "?"}], "temperature": 0, "max_tokens": 200}
GREEDY = {"model": "parrot", "temperature": 0}


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(question: str) -> list:
    return [{"role": "user", "content": question}]


def post(address: str, content, **headers) -> httpx2.Response:
    body = content if isinstance(content, bytes | str) else json.dumps(content)
    headers = {"content-type": "application/json"} | {
        name.replace("_", "-"): v for name, v in headers.items()
    }
    return httpx2.post(f"{address}/v1/chat/completions", content=body, headers=headers, timeout=60)


def idle(engine) -> bool:
    """Whether every row is free again; waits for the turn that is under way."""
    settled = threading.Event()
    for _ in range(200):
        if engine.scheduler.busy == engine.scheduler.waiting == 0:
            return True
        settled.wait(0.05)
    return False


def test_answers_whole_and_streamed(client):
    for question, answer in TALK.items():
        found = client.chat.completions.create(messages=ask(question), **GREEDY)
        assert found.choices[0].message.content == answer and found.choices[0].finish_reason == "stop"
        assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
        chunks = list(
            client.chat.completions.create(
                messages=ask(question), stream=True, stream_options={"include_usage": True}, **GREEDY
            )
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(pieces) == answer  # tokens that came while the last were sent go out together
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-2:] == [None, "stop"]
        assert chunks[-1].usage == found.usage
    assert [model.id for model in client.models.list()] == ["parrot"]
    assert client.models.retrieve("parrot").id == "parrot"


def test_tools_are_called_and_answered(client):
    """Whole and streamed: the words, then the call, never its text; then on from what the tool said."""
    asked = GREEDY | {"messages": SUM[:1], "tools": [ADD]}
    found = client.chat.completions.create(**asked).choices[0]
    (call,) = found.message.tool_calls
    assert found.finish_reason == "tool_calls" and found.message.content == "I add."
    assert (call.function.name, json.loads(call.function.arguments)) == ("add", {"x": 2, "y": 3})
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(stream=True, **asked)]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == "I add."
    (streamed,) = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
    assert streamed.index == 0 and streamed.id != call.id
    assert streamed.function.model_dump() == call.function.model_dump()
    assert chunks[-1].finish_reason == "tool_calls"
    answered = [*SUM[:1], found.message.model_dump(exclude_none=True), SUM[2] | {"tool_call_id": call.id}]
    last = client.chat.completions.create(**(asked | {"messages": answered})).choices[0]
    assert last.message.content == "It is 5." and last.finish_reason == "stop"
    assert last.message.tool_calls is None
    cut = client.chat.completions.create(max_tokens=found.message.content.count(" ") + 12, **asked).choices[0]
    assert cut.finish_reason == "length" and cut.message.tool_calls is None
    assert cut.message.content.startswith("I add.\n<tool_call>"), "half a call is text"


def test_stop_texts_and_limits(client):
    create = lambda **change: client.chat.completions.create(messages=ask("Count."), **GREEDY, **change)  # noqa: E731
    assert create(stop="7 8").choices[0].message.content == "1 2 3 4 5 6 "
    cut = create(stop=["never", "6", "5 6"], stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in cut) == "1 2 3 4 "
    short = create(max_tokens=3).choices[0]
    assert short.finish_reason == "length" and TALK["Count."].startswith(short.message.content)


def test_a_seed_repeats_whatever_else_is_asked(client):
    asked = {"model": "parrot", "messages": ask("?"), "temperature": 1.5, "max_tokens": 20}

    def create(seed: int) -> str:
        return client.chat.completions.create(seed=seed, **asked).choices[0].message.content

    alone = create(5)
    with ThreadPoolExecutor(3) as pool:  # no more may wait
        crowd = list(pool.map(create, [1, 5, 2, 3]))
    assert crowd[1] == alone and len(set(crowd)) == 4
    several = client.chat.completions.create(seed=5, n=2, **asked)
    assert [choice.message.content for choice in several.choices] == [alone, create(6)]


def test_completions_go_on_with_a_text(client, engine):
    found = client.completions.create(prompt=["a", "b"], max_tokens=4, logprobs=1, seed=1, **GREEDY)
    assert [choice.index for choice in found.choices] == [0, 1]
    with pytest.raises(openai.BadRequestError, match="not within 0 and 511"):
        client.completions.create(prompt=[[5], [512]], **GREEDY)
    told = found.choices[0].logprobs
    assert len(told.token_logprobs) == 4 and max(told.token_logprobs) <= 0
    assert [max(top.values()) for top in told.top_logprobs] == told.token_logprobs, "greedy"
    ids = engine.tokenizer.opening("a")
    echoed = client.completions.create(prompt="a", max_tokens=4, echo=True, **GREEDY)
    assert echoed.choices[0].text == "a" + found.choices[0].text and echoed.choices[0].logprobs is None
    again = client.completions.create(prompt=[ids, ids], max_tokens=4, logprobs=0, **GREEDY)
    assert [choice.text for choice in again.choices] == [found.choices[0].text] * 2
    assert again.choices[0].logprobs.token_logprobs == told.token_logprobs
    assert again.choices[0].logprobs.top_logprobs is None


def test_log_probabilities_are_of_the_bytes_that_are_said(client):
    """Also where a token is a part of a character; what is told together is the text, streamed or not."""
    asked = {"messages": ask("Say it in German: good day"), "logprobs": True, "top_logprobs": 2} | GREEDY
    whole = client.chat.completions.create(**asked).choices[0]
    chunks = client.chat.completions.create(stream=True, **asked)
    streamed = [entry for chunk in chunks for entry in (chunk.choices[0].logprobs or whole.logprobs).content]
    for entries in (whole.logprobs.content, streamed[len(whole.logprobs.content) :]):
        said = entries[:-1] if whole.finish_reason == "stop" else entries
        assert b"".join(bytes(entry.bytes) for entry in said).decode() == whole.message.content
        for entry in entries:
            assert -0.1 < entry.logprob <= 0, "it knows this by heart"
            assert [top.logprob for top in entry.top_logprobs][0] == entry.logprob
            assert len(entry.top_logprobs) == 2


def test_an_echoed_prompt_is_scored_as_by_one_full_forward(client, engine, folder):
    """As lm-eval asks: the ids of a text, one token behind it, and how likely each was."""
    with jax.set_mesh(engine.scheduler.mesh):
        model = weights.open(folder).load_to_use()
    ids = engine.tokenizer.opening("Count." * 9 + " schöner")
    asked = {"prompt": [ids, ids[:5]], "max_tokens": 1, "logprobs": 1, "echo": True} | GREEDY
    for _ in range(2):  # the second time the prompt stands in a row
        for choice, prompt in zip(client.completions.create(**asked).choices, asked["prompt"], strict=True):
            told = choice.logprobs
            assert choice.text.startswith(engine.tokenizer.decode(prompt))
            with jax.set_mesh(engine.scheduler.mesh):
                raw = np.asarray(jax.nn.log_softmax(model(np.array([prompt], np.int32))))[0]
            wanted = raw[np.arange(len(prompt) - 1), prompt[1:]]
            assert told.token_logprobs[0] is None is told.top_logprobs[0]
            np.testing.assert_allclose(told.token_logprobs[1:-1], wanted, atol=1e-4)
            best = [max(top.values()) for top in told.top_logprobs[1:-1]]
            np.testing.assert_allclose(best, raw[:-1].max(-1), atol=1e-4)
            is_best = [value == top for value, top in zip(told.token_logprobs[1:-1], best, strict=True)]
            assert is_best == (raw[:-1].argmax(-1) == prompt[1:]).tolist()
            assert told.text_offset == [len("".join(told.tokens[:n])) for n in range(len(told.tokens))]


def test_answers_in_a_form(client, address):
    """Whatever the model would say: JSON by a schema, and text by a pattern, beside one that is free."""
    pytest.importorskip("llguidance", reason="llguidance is not installed (extra `grammar`)")
    schema = {
        "type": "object",
        "properties": {"word": {"enum": ["four", "schöner"]}, "sure": {"type": "boolean"}},
        "required": ["word", "sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked = {"messages": ask("What is two and two?"), "model": "parrot"}
    with ThreadPoolExecutor(2) as pool:
        free = pool.submit(client.chat.completions.create, **GREEDY | asked)
        for temperature in (0, 1.5):
            found = client.chat.completions.create(
                response_format=form, temperature=temperature, n=2, seed=3, **asked
            )
            for choice in found.choices:
                said = json.loads(choice.message.content)
                assert choice.finish_reason == "stop" and said["word"] in ("four", "schöner")
                assert isinstance(said["sure"], bool) and len(said) == 2
        assert free.result().choices[0].message.content == TALK["What is two and two?"]
    pattern = client.completions.create(prompt="a", extra_body={"guided_regex": "[0-9]{3}-(x|y)"}, **GREEDY)
    assert re.fullmatch("[0-9]{3}-(x|y)", pattern.choices[0].text)
    for form, words in (
        ({"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}, "Invalid type: x"),
        ({"type": "json_schema"}, "json_schema.schema"),
        ({"type": "poem"}, "its type is one of text, json_object"),
    ):
        refused = post(address, {"messages": ask("x"), "response_format": form})
        assert refused.status_code == 400 and words in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 400, "not JSON"),
        ("[" * 100_000, 400, "not JSON"),
        ("[]", 400, "not a JSON object"),
        (b"\xff\xfe", 400, "not JSON"),
        ({}, 400, "messages is a list"),
        ({"messages": "hi"}, 400, 'messages is a list, not "hi"'),
        ({"messages": [{"role": "user"}]}, 400, "content of a message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "unknown role 'robot'"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "surrogate"),
        ({"messages": [{"role": "\udfff", "content": "x"}]}, 400, "surrogate"),
        ({"messages": ask("x"), "stop": "\ud800"}, 400, "surrogate"),
        ({"messages": ask("x"), "\ud800": 1}, 400, "surrogate"),
        ({"messages": SUM[:1], "tools": [{**ADD, "\ud800": 1}]}, 400, "surrogate"),
        ({"messages": ask("x"), "logprobs": True, "top_logprobs": 9}, 400, "between 0 and 5"),
        ({"messages": ask("x"), "top_logprobs": 2}, 400, "needs logprobs: true"),
        ({"messages": ask("x"), "echo": True}, 400, "echo is not supported"),
        ({"messages": ask("x"), "temperature": "hot"}, 400, "temperature is a number"),
        ({"messages": ask("x"), "temperature": -1}, 400, "temperature is -1"),
        ({"messages": ask("x"), "top_p": float("nan")}, 400, "top_p is nan"),
        ({"messages": ask("x"), "max_tokens": 0}, 400, "max_tokens is at least 1"),
        ({"messages": ask("x"), "max_tokens": 10_000}, 400, "more than the 256 that fit"),
        ({"messages": ask("x"), "max_tokens": True}, 400, "max_tokens is an integer, not true"),
        ({"messages": ask("long " * 400)}, 400, "at most 256 fit"),
        ({"messages": ask("x"), "stop": [1]}, 400, "stop is a text"),
        ({"messages": ask("x"), "n": 99}, 400, "between 1 and 64"),
        ({"messages": ask("x"), "seed": 2**70}, 400, "64-bit"),
        ({"messages": ask("x"), "frequency_penalty": 1}, 400, "frequency_penalty is not supported"),
        ({"messages": ask("x"), "tools": [{"type": "function"}]}, 400, "without the name of a function"),
        ({"messages": ask("x"), "tools": [ADD], "tool_choice": "required"}, 400, "tool_choice is not"),
        ({"messages": ask("x"), "tools": [ADD], "parallel_tool_calls": False}, 400, "parallel_tool_calls"),
        ({"messages": SUM[:2]}, 400, "must end with a user message, or a tool's"),
        ({"messages": [SUM[0], SUM[2]]}, 400, "a tool's answer without its call"),
        ({"messages": [SUM[0], SUM[1] | {"tool_calls": [{}]}, SUM[2]]}, 400, "the name of a function"),
        ({"messages": ask("x"), "surprise": 1}, 400, "surprise is not supported"),
        ({"messages": ask("x"), "model": "gpt-4"}, 404, "there is no model 'gpt-4'"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_the_reason(address, body, status, words):
    found = post(address, body)
    assert found.status_code == status and words in found.json()["error"]["message"]


def test_the_openai_client_raises_its_own_errors(client):
    with pytest.raises(openai.BadRequestError, match="temperature is 500"):
        client.chat.completions.create(model="parrot", messages=ask("x"), temperature=500)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=ask("x"))


def test_other_requests_are_refused_too(address):
    assert post(address, b"x" * (LONGEST_BODY + 1)).status_code == 413
    assert post(address, "{}", content_type="text/plain").status_code == 415
    assert post(address, "{}", content_type="APPLICATION/JSON").status_code == 400
    for method, path, status in (("GET", "/v1/chat/completions", 405), ("GET", "/v1/nothing", 404)):
        found = httpx2.request(method, address + path)
        assert found.status_code == status and path in found.json()["error"]["message"]
    for method, path, words in (
        ("POST", "/v1/embeddings", "embeddings are not supported"),
        ("GET", "/v1/models/other", "no model 'other'"),
    ):
        found = httpx2.request(method, address + path)
        assert found.status_code == 404 and words in found.json()["error"]["message"]
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (1 << 20) + b"\r\n\r\n")
        assert raw.recv(64).split()[1] in (b"400", b"431")
    assert httpx2.get(f"{address}/health").json() == {"status": "ok"}


def test_a_client_that_leaves_gives_its_row_back(rambler):
    address, engine = rambler
    with httpx2.stream("POST", f"{address}/v1/chat/completions", json=LONG | {"stream": True}) as response:
        lines = response.iter_lines()  # to be held: the connection closes with it
        assert next(lines).startswith("data: ")
        assert next(line for line in lines if '"content": "M"' in line)
        assert engine.scheduler.busy == 1
    assert idle(engine) and engine.scheduler.ended == {"length": 1, "cancelled": 1}, "1: the warm-up"
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{address}/v1/chat/completions", json=LONG | {"n": 3}, timeout=0.2)
    assert idle(engine) and engine.scheduler.ended == {"length": 1, "cancelled": 4}
    assert engine.scheduler.tokens < 4 * LONG["max_tokens"]


def test_a_full_queue_is_429_and_nothing_of_the_request_stays(rambler):
    """Two rows and three that wait: sixteen answers at once are too many."""
    address, engine = rambler
    found = post(address, LONG | {"n": 16})
    assert found.status_code == 429 and found.headers["retry-after"] == "1"
    assert "3 requests wait already" in found.json()["error"]["message"] and idle(engine)


def test_metrics_count_what_happened(address, engine):
    post(address, {"messages": ask("Count."), "temperature": 0})
    page = httpx2.get(f"{address}/metrics").text
    values = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert float(values["jaxtrain_tokens_total"]) == engine.scheduler.tokens > 100
    assert values["jaxtrain_rows"] == "2" and values["jaxtrain_rows_busy"] == "0"
    assert float(values['jaxtrain_answers_total{reason="stop"}']) == engine.scheduler.ended["stop"]
    assert float(values['jaxtrain_responses_total{path="/v1/chat/completions",status="200"}']) >= 1
    for name in ("first_token", "between_tokens"):
        key = f"jaxtrain_{name}_seconds"
        half, most = (float(values[f'{key}{{quantile="{share}"}}']) for share in (0.5, 0.95))
        assert 0 < half <= most and float(values[f"{key}_count"]) > 0


def test_a_strangers_path_does_not_stand_in_the_metrics(address):
    for path in ("/v1/a%22%7D%20boom", "/v1/" + "x" * 4000, "/v1/a%0Ab"):
        assert httpx2.post(address + path, json={}).status_code == 404
    page = httpx2.get(f"{address}/metrics").text
    assert "boom" not in page and "xxx" not in page
    sample = re.compile(r'jaxtrain_\w+({\w+="[^"\\]*"(,\w+="[^"\\]*")*})? [0-9.e+-]+')
    assert all(line.startswith("# ") or sample.fullmatch(line) for line in page.splitlines())


@pytest.fixture(scope="module")
def guarded(folder):
    """A server with a key that answers to one name, and its engine."""
    engine = make_engine(folder, rows=1)
    with serving(ServeApp(engine, api_key="k" * 16, hosts=("127.0.0.1",))) as address:
        yield address, engine


def test_a_key_is_asked_for_and_only_this_host_answers(guarded):
    address, _ = guarded
    asked = {"messages": ask("Count."), "temperature": 0}
    assert post(address, asked).status_code == 401
    assert post(address, asked, authorization="Bearer wrong").status_code == 401
    assert post(address, asked, authorization="k" * 16).status_code == 401, "a key without its scheme"
    assert post(address, asked, authorization="bearer " + "k" * 16).status_code == 200
    assert (
        httpx2.get(f"{address}/v1/models").status_code == httpx2.get(f"{address}/metrics").status_code == 401
    )
    assert httpx2.get(f"{address}/").status_code == 200, "the page itself holds nothing"
    evil = httpx2.get(f"{address}/health", headers={"host": "evil.example"})
    assert evil.status_code == 400


def test_answers_under_way_end_before_the_server_does(folder):
    engine = make_engine(folder, rows=1)
    server = ExitStack()
    address = server.enter_context(serving(ServeApp(engine)))
    asked = GREEDY | {"messages": ask("Count."), "stream": True}
    with httpx2.stream("POST", f"{address}/v1/chat/completions", json=asked, timeout=60) as response:
        lines = response.iter_lines()
        first = next(lines)
        ender = threading.Thread(target=server.close)
        ender.start()
        rest = [line for line in lines if line]
    ender.join(30)
    assert first.startswith("data: ") and rest[-1] == "data: [DONE]"
    assert '"finish_reason": "stop"' in rest[-2]
    assert not engine.is_alive and engine.scheduler.busy == 0
