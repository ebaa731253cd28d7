"""What a shared beginning and guesses save, and what streaming costs: the same scheduler with and without.

python benchmarks/serving.py FOLDER     a Hugging Face folder, as benchmarks/smollm2.py makes it

First token: prompts of 512 tokens and 16 more; the 512 were read by a request before, or are new. Guesses: a
text to be copied, greedily. Streaming: seconds of the event loop for the text of one answer. In turns,
medians; the load of the machine is written beside.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from record import record

from jaxtrain import weights
from jaxtrain.decode.request import Request
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.runtime import mesh
from jaxtrain.serve.transcript import Transcript
from jaxtrain.tokenize.tokenizer import Tokenizer

SHARED, OWN, NEW = 512, 16, 96
TEXT = Path(__file__).parents[1] / "CONTRIBUTING.md"
GREEDY = Settings(temperature=0)


def first_tokens(scheduler: Scheduler, rounds: int) -> dict[str, float]:
    """Seconds from a request to its first token."""
    rng, times = np.random.default_rng(0), {"new": [], "shared": []}

    def ask(beginning: list[int]) -> float:
        own = rng.integers(5, scheduler.vocab_size, OWN).tolist()
        (answer,) = scheduler.complete([Request(prompt=[*beginning, *own], max_new=2, settings=GREEDY)])
        return answer.first_token - answer.submitted

    for _ in range(rounds + 1):
        beginning = rng.integers(5, scheduler.vocab_size, SHARED).tolist()
        times["new"].append(ask(beginning))
        times["shared"].append(ask(beginning))
    new, shared = (statistics.median(of[1:]) for of in times.values())  # the first round compiles
    return {"new_seconds": new, "shared_seconds": shared, "ratio": new / shared}


def copying(schedulers: dict[str, Scheduler], tokenizer: Tokenizer, rows: int, rounds: int) -> dict:
    """Tokens a second of an answer that repeats what stands in its prompt."""
    ids = tokenizer.encode(TEXT.read_text(encoding="utf-8"))[:160]
    requests = [
        Request(prompt=[*ids[n:], *ids[n : n + 24]], max_new=NEW, settings=GREEDY)
        for n in range(0, 3 * rows, 3)
    ]
    speeds: dict[str, list[float]] = {name: [] for name in schedulers}
    said: dict[str, list[list[int]]] = {}
    for _ in range(rounds + 1):
        for name, scheduler in schedulers.items():
            begun = time.perf_counter()
            answers = scheduler.complete(requests)
            seconds = time.perf_counter() - begun
            speeds[name].append(sum(len(answer.ids) for answer in answers) / seconds)
            said[name] = [answer.ids for answer in answers]
    medians = {name: statistics.median(of[1:]) for name, of in speeds.items()}
    ratio = statistics.median(a / b for a, b in zip(*(of[1:] for of in speeds.values()), strict=True))
    same = len({str(ids) for ids in said.values()}) == 1
    return {"tokens_per_second": medians, "ratio": ratio, "identical_tokens": same}


def streaming(tokenizer: Tokenizer) -> dict[str, float]:
    """Seconds of processor time for the text of one answer by its tokens."""
    ids, found = tokenizer.encode(TEXT.read_text(encoding="utf-8") * 40)[:16_000], {}
    for count in (1000, 8000, 16_000):
        transcript, answer = Transcript(tokenizer.decode, tokenizer.stop), []
        begun = time.process_time()
        for token in ids[:count]:
            answer.append(token)
            transcript.read(answer, False)
        found[f"{count} tokens"] = time.process_time() - begun
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    mesh.ensure()
    source = weights.open(options.folder)
    model, tokenizer = source.load_to_use("float32"), source.tokenizer
    before = os.getloadavg()
    found: dict[str, object] = {"command": "python benchmarks/serving.py", "streaming": streaming(tokenizer)}
    for rows in (1, 8):
        limits = {"rows": rows, "max_length": 1024}
        schedulers = {"guesses": Scheduler(model, guess=True, **limits), "none": Scheduler(model, **limits)}
        if rows == 1:
            found["first token"] = first_tokens(schedulers["none"], options.rounds)
        found[f"copying, {rows} rows"] = copying(schedulers, tokenizer, rows, options.rounds)
    found["load"] = {"before": before, "after": os.getloadavg()}
    record("serving", ["jax", "jaxlib"], found)


if __name__ == "__main__":
    main()
