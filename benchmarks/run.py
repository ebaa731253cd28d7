"""Runs a benchmark, and writes the table of README.md from the results that are kept.

python benchmarks/run.py                     list them, and renew the table in README.md
python benchmarks/run.py NAME [ARGUMENT …]   run benchmarks/NAME.py, then renew the table

A benchmark writes benchmarks/results/NAME.json (some several) with machine, versions and commit. A row whose
result is not there says so.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: python benchmarks/run.py -->", "<!-- end of benchmarks -->"
LIBRARY = ("run", "record", "corpus", "smollm2")
"""Files of benchmarks/ that measure nothing themselves."""

Row = tuple[str, str, Callable[[dict[str, Any]], str], Callable[[dict[str, Any]], str]]


def _train_step(found: dict[str, Any]) -> str:
    return f"{found['tokens_per_second']:,} tokens/s, {found['share_of_ceiling']:.0%} of the best matmul"


def _beside_torch(found: dict[str, Any]) -> str:
    if found["ratio"] is None:
        return "not run beside PyTorch"
    return f"{found['ratio']:.2f} × PyTorch ({found['peer_tokens_per_second']:,})"


def _median_of_ours(pairs: list[list[float]]) -> float:
    return statistics.median(ours for ours, _ in pairs)


def _decoding(shape: str, rows: str, what: str) -> Row:
    return (
        "decode",
        what,
        lambda found: f"{found[shape][rows]['tokens_per_second']:,.0f} tokens/s",
        lambda found: f"{found[shape][rows]['ratio']:.2f} × transformers.generate",
    )


ROWS: tuple[Row, ...] = (
    ("train_step_cpu_256", "Train step, 13.7 M parameters, T 256", _train_step, _beside_torch),
    ("train_step_cpu_1024", "Train step, the same, T 1024", _train_step, _beside_torch),
    (
        "compile_time",
        "Compile 64 layers, scanned",
        lambda found: f"{found['layers']['64 layers, scanned']['compile']:.1f} s",
        lambda found: f"{found['more_for_16_times_the_layers']:+.0%} against 4 layers",
    ),
    (
        "compile_time",
        "Second start of the quickstart's pretraining",
        lambda found: f"step 1 after {found['starts'][1]['seconds']:.1f} s",
        lambda found: (
            f"{found['starts'][1]['misses']} cache misses; first start {found['starts'][0]['seconds']:.1f} s"
        ),
    ),
    (
        "scaling",
        "Step time, 8 emulated devices, fixed work a device",
        lambda found: f"{found['devices']['8']['cpu_seconds']:.2f} CPU seconds",
        lambda found: f"{found['overhead_at_8']:.2f} × eight single devices",
    ),
    (
        "feed",
        "Feed, packed batches at T 2048",
        lambda found: f"{found['million_tokens_a_second']['all sources mixed, best_fit']} M tokens/s",
        lambda found: "eight sources mixed",
    ),
    (
        "feed_wait",
        "Training waits for data",
        lambda found: f"{found['share_waiting']:.2%} of a step",
        lambda found: "quickstart",
    ),
    (
        "tokenizer",
        "Tokenize, records written",
        lambda found: f"{found['encoding']['stage_MB_s']:.1f} MB/s",
        lambda found: f"{found['encoding']['stage_over_bare_wall']:.2f} × bare tiktoken",
    ),
    (
        "clean_throughput",
        "Clean, all four filters of datatrove",
        lambda found: f"{found['megabytes_a_second']['filters']:.2f} MB/s of processor time",
        lambda found: f"{found['ratios']['filters']:.0f} × datatrove",
    ),
    (
        "dedup_scale",
        "Deduplicate a million documents",
        lambda found: (
            f"{found['results'][-1]['seconds']:,.0f} s, {found['results'][-1]['megabytes_peak']} MB"
        ),
        lambda found: f"{found['results'][-1]['documents']:,} documents, two workers",
    ),
    _decoding("quickstart", "batch 1", "Decode, quickstart's model, one row"),
    _decoding("quickstart", "batch 8", "Decode, quickstart's model, eight rows"),
    _decoding("smollm2-135m", "batch 1", "Decode, SmolLM2-135M's shape, one row"),
    _decoding("smollm2-135m", "batch 8", "Decode, SmolLM2-135M's shape, eight rows"),
    (
        "evaluate_speed",
        "Evaluate SciQ, SmolLM2-135M",
        lambda found: f"{found['sciq']['choices'] / _median_of_ours(found['sciq']['pairs']):.1f} choices/s",
        lambda found: f"{found['sciq']['ratio to the best']:.2f} × lm-eval's hf at its best batch size",
    ),
    (
        "core",
        "CORE's items beside nanochat's own code",
        lambda found: f"{found['items']} items of {len(found['tasks'])} tasks",
        lambda found: (
            f"{found['same']} of {found['clear']} verdicts, to {found['most_apart_nats_a_token']:.0e} nats"
        ),
    ),
    (
        "serving",
        "First token behind 512 that were read before, SmolLM2-135M",
        lambda found: f"{found['first token']['shared_seconds']:.2f} s",
        lambda found: f"{found['first token']['ratio']:.1f} × sooner than behind new ones",
    ),
    (
        "serving",
        "A text copied by n-gram guesses, one row",
        lambda found: f"{found['copying, 1 rows']['tokens_per_second']['guesses']:.0f} tokens/s",
        lambda found: f"{found['copying, 1 rows']['ratio']:.1f} × without guesses",
    ),
    (
        "checkpoint",
        "Save 500 MB while training goes on",
        lambda found: f"the loop waits {found['median_seconds']['blocked']:.2f} s",
        lambda found: f"{found['blocked_share_of_waiting']:.0%} of a save that is waited for",
    ),
    (
        "sandbox",
        "Judge a program that a model wrote",
        lambda found: f"{found['median_seconds']:.2f} s",
        lambda found: f"{found['seconds_of_a_sleeper']:.1f} s for one that sleeps",
    ),
)


def table() -> str:
    """Markdown: what, figure, beside what, machine."""
    lines = ["| what | figure | beside | measured on |", "|---|---|---|---|"]
    for name, what, figure, beside in ROWS:
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            lines.append(f"| {what} | not measured | | |")
            continue
        found = json.loads(path.read_text())
        link = f"[{_machine(found)}](benchmarks/results/{name}.json)"
        lines.append(f"| {what} | {figure(found)} | {beside(found)} | {link} |")
    return "\n".join(lines)


def _machine(found: dict[str, Any]) -> str:
    machine = found.get("machine", "?")
    if isinstance(machine, str):
        return machine
    return f"{machine['cores']} cores, {machine['processor']}"


def renewed(readme: str) -> str:
    """README.md with the table between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    name, *arguments = sys.argv[1:] or [""]
    known = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if path.stem not in LIBRARY)
    if name and name not in known:
        sys.exit(f"no benchmark {name!r}; there are: {', '.join(known)}")
    if name:
        script = ROOT / "benchmarks" / f"{name}.py"
        done = subprocess.run([sys.executable, str(script), *arguments], check=False)
        if done.returncode:
            sys.exit(done.returncode)
    else:
        print("\n".join(known))
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text:
        sys.exit(f"README.md has no line {BEGIN!r}")
    path.write_text(renewed(text), encoding="utf-8")


if __name__ == "__main__":
    main()
