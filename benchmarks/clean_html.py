"""HTML to clean text: speed on a folder of pages, and F1 on the article extraction benchmark.

    python benchmarks/clean_html.py --pages FOLDER [--megabytes 120] --articles FOLDER [--out RESULT.json]

Speed is of one process from the bytes of a page to its verdict and sketch: encoding, main text, the filters
of `web`, MinHash. F1 is that of the benchmark (Scrapinghub 2020): shared 4-grams of words between the
extracted text and the annotated article, averaged over pages.
"""

import argparse
import gzip
import json
import os
import platform
import sys
import time
from collections import Counter
from pathlib import Path
from typing import get_args

from resiliparse.parse.encoding import bytes_to_str, detect_encoding

from jaxtrain.clean import dedup, judge, web
from jaxtrain.collect.web import Extractor, main_text


def decoded(data: bytes) -> str:
    return bytes_to_str(data, detect_encoding(data, from_html_meta=True) or "utf-8")


def speed(folder: Path, megabytes: float) -> dict:
    filters = web("en")
    pages, size, text_size, kept, spent = 0, 0, 0, 0, Counter()
    for path in sorted(folder.rglob("*.html")):
        if not path.is_file() or size > megabytes * 1e6:
            continue
        data = path.read_bytes()
        begun = time.process_time()
        text, _ = main_text(decoded(data))
        extracted = time.process_time()
        verdict = judge(text, *filters)
        dedup.sketch(verdict.text)
        spent.update(extract=extracted - begun, clean=time.process_time() - extracted)
        pages, size, text_size = pages + 1, size + len(data), text_size + len(text.encode())
        kept += verdict.keep
    total = spent["extract"] + spent["clean"]
    return {
        "pages": pages,
        "kept": kept,
        "megabytes_html": round(size / 1e6, 1),
        "megabytes_text": round(text_size / 1e6, 1),
        "html_megabytes_a_second_a_core": round(size / 1e6 / total, 2),
        "extract_html_megabytes_a_second": round(size / 1e6 / spent["extract"], 2),
        "clean_text_megabytes_a_second": round(text_size / 1e6 / spent["clean"], 2),
    }


def four_grams(text: str) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)) if words)


def articles(folder: Path) -> dict:
    truth = json.loads((folder / "ground-truth.json").read_text())
    found = {}
    for name in get_args(Extractor):
        precisions, recalls = [], []
        try:
            for key, article in truth.items():
                page = decoded(gzip.decompress((folder / f"html/{key}.html.gz").read_bytes()))
                text, _ = main_text(page, name)
                true, guess = four_grams(article["articleBody"]), four_grams(text)
                shared = sum((true & guess).values())
                precisions.append(shared / max(sum(guess.values()), 1))
                recalls.append(shared / max(sum(true.values()), 1))
        except ModuleNotFoundError as error:
            found[name] = f"not run: {error}"
            continue
        precision, recall = sum(precisions) / len(truth), sum(recalls) / len(truth)
        found[name] = {
            "pages": len(truth),
            "precision": round(precision, 3),
            "recall": round(recall, 3),
            "f1": round(2 * precision * recall / (precision + recall), 3),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pages", type=Path)
    parser.add_argument("--megabytes", type=float, default=120)
    parser.add_argument("--articles", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
    }
    if arguments.articles:
        report["articles"] = articles(arguments.articles)
    if arguments.pages:
        report["speed"] = speed(arguments.pages, arguments.megabytes)
    text = json.dumps(report, indent=2) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
