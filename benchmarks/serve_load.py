"""Many streams at once: this server, bare decoding of as many rows, and `transformers serve`, in turn.

python benchmarks/serve_load.py FOLDER --peer .venv-peers/bin/transformers

FOLDER is a Hugging Face folder, as benchmarks/smollm2.py makes it. Every client sends its own question and
reads its stream to the end; all begin at once. A round's first token is waited for in a queue of as many
prompts as there are streams. Medians of rounds; writes benchmarks/results/serve_load_STREAMS.json.
"""

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from record import record

from jaxtrain import weights
from jaxtrain.decode.generate import generate
from jaxtrain.decode.request import Request
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.runtime import mesh
from jaxtrain.tokenize.chat import render

TEXT = Path(__file__).parents[1] / "CONTRIBUTING.md"


def questions(streams: int) -> list[str]:
    """Texts of about 60 tokens, all different."""
    words = TEXT.read_text(encoding="utf-8").split()
    return [f"Go on: {' '.join(words[4 * n : 4 * n + 32])}" for n in range(streams)]


@contextlib.contextmanager
def server(command: list[str], port: int) -> Iterator[None]:
    """A server's process, from its first answer on /health or /v1/models on."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait(60)


def stream(port: int, model: str, question: str, new: int) -> tuple[float, list[float], int]:
    """When the question was sent, when each piece of text came, and how many tokens they were."""
    asked = {"model": model, "messages": [{"role": "user", "content": question}], "stream": True}
    asked |= {"temperature": 0, "max_tokens": new, "stream_options": {"include_usage": True}}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    begun, times, tokens = time.perf_counter(), [], 0
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(asked), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(f"{response.status}: {response.read()[:500]!r}")
    for line in response:
        if line.startswith(b"data: {"):
            piece = json.loads(line[6:])
            choices = piece.get("choices") or [{}]
            tokens = (piece.get("usage") or {}).get("completion_tokens", tokens)
            if choices[0].get("delta", {}).get("content"):
                times.append(time.perf_counter())
    connection.close()
    return begun, times, tokens or len(times)


def load(port: int, model: str, asked: list[str], new: int) -> dict[str, float]:
    """One round of streams. A piece of text is a token, or some where guesses at them were right."""
    with ThreadPoolExecutor(len(asked)) as pool:
        begun = time.perf_counter()
        rows = list(pool.map(lambda question: stream(port, model, question, new), asked))
        seconds = time.perf_counter() - begun
    first = [times[0] - sent for sent, times, _ in rows if times]
    between = [b - a for _, times, _ in rows for a, b in zip(times, times[1:], strict=False)]
    return {
        "tokens_per_second": sum(tokens for _, _, tokens in rows) / seconds,
        "first_token_p50": statistics.median(first),
        "first_token_p95": float(np.quantile(first, 0.95)),
        "between_tokens_p50": statistics.median(between),
        "between_tokens_p95": float(np.quantile(between, 0.95)),
    }


def bare(folder: str, asked: list[str], new: int, rounds: int) -> dict[str, float]:
    """The same rows without a server: one static batch, the median step, and a prompt read alone."""
    source = weights.open(folder)
    model, tokenizer = source.load_to_use("float32"), source.tokenizer
    talks = [[{"role": "user", "content": question}] for question in asked]
    prompts = [render(talk, tokenizer, generation_prompt=True)[0] for talk in talks]
    longest = max(map(len, prompts))
    ids_BT, mask_BT = (np.zeros((len(prompts), longest), np.int32) for _ in range(2))
    for row, prompt in enumerate(prompts):
        ids_BT[row, : len(prompt)], mask_BT[row, : len(prompt)] = prompt, 1
    keys = jax.vmap(jax.random.key)(jnp.arange(len(prompts)))

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        answer = generate(
            model,
            jnp.asarray(ids_BT),
            jnp.asarray(mask_BT),
            keys,
            max_new=count,
            temperature=0.0,
            stop=-1,
            pad=0,
        )
        jax.block_until_ready(answer)
        return time.perf_counter() - begun

    for count in (1, new):
        seconds(count)
    reading = statistics.median(seconds(1) for _ in range(rounds))
    whole = statistics.median(seconds(new) for _ in range(rounds))
    alone = Scheduler(model, rows=1, max_length=1024)
    times = []
    for prompt in prompts[: rounds + 3]:
        request = Request(prompt=prompt, max_new=2, settings=Settings(temperature=0))
        (answer,) = alone.complete([request])
        times.append(answer.first_token - answer.submitted)
    return {
        "tokens_per_second": len(prompts) * new / whole,
        "step_seconds": (whole - reading) / (new - 1),
        "prefill_seconds": statistics.median(times[2:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--peer", help="the command `transformers` of an environment that has it")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8123)
    options = parser.parse_args()
    mesh.ensure()
    folder = str(Path(options.folder).resolve())
    ours = [sys.executable, "-m", "jaxtrain", "serve", folder, "--dtype", "float32", "--mesh.tensor", "1"]
    ours += ["--rows", str(options.streams), "--port", str(options.port), "--max_length", "1024"]
    commands = {"jaxtrain": (ours, Path(folder).name)}
    if options.peer:
        theirs = [options.peer, "serve", folder, "--port", str(options.port), "--dtype", "float32"]
        for name, flags in {"transformers": [], "transformers, batched": ["--continuous-batching"]}.items():
            commands[name] = ([*theirs, *flags], folder)
    asked, before = questions(options.streams), os.getloadavg()
    found: dict[str, object] = {"command": "python benchmarks/serve_load.py", "streams": options.streams}
    for name, (command, model) in commands.items():
        with server(command, options.port):
            load(options.port, model, asked[:2], 4)  # what is compiled, and read from disk
            rounds = [load(options.port, model, asked, options.new) for _ in range(options.rounds + 1)][1:]
        found[name] = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
        print(name, found[name], flush=True)
    found["bare decoding"] = bare(folder, asked, options.new, options.rounds)
    found["load"] = {"before": before, "after": os.getloadavg()}
    record(f"serve_load_{options.streams}", ["jax", "jaxlib"], found)


if __name__ == "__main__":
    main()
