"""A reward model for others: `jaxtrain align score` behind HTTP, `jaxtrain align export` for Hugging Face.

curl localhost:8001/score --json '{"prompt": "Hi", "completions": ["Hello!", "What?"]}'
{"scores": [1.25, -0.5], "cut": [false, false]}
"""

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxtrain import artifact, weights
from jaxtrain.align import reward_model as rewards
from jaxtrain.align.comparisons import answer_rows
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.tokenize.chat import render
from jaxtrain.weights import save_pretrained

if TYPE_CHECKING:
    from starlette.applications import Starlette

LONGEST_BODY = 1024 * 1024
"""Bytes of a request; more is refused."""
MOST = 64
"""Completions of a request at most."""


HEADS = ("ForCausalLM", "LMHeadModel")
"""Ends of the names of architectures with a language model's head."""


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """`align score`: serve a reward model's scores over HTTP."""

    model: str
    """Folder of the reward model's artifact."""
    host: str = "127.0.0.1"
    """Address to listen on: only this machine, unless you say otherwise. It asks nobody who they are."""
    port: int = 8001
    """TCP port; 0: a free one."""
    hosts: tuple[str, ...] = ()
    """Names that the server is reached by, beside those of this machine; `*`: any."""


class Scorer:
    """A reward model and what it needs to read text; one request is computed at a time."""

    def __init__(self, folder: str):
        self.length: int = artifact.require(folder, "align")["config"]["length"]
        self.tokenizer = weights.open(folder).tokenizer
        self._mesh = meshes.make(meshes.MeshConfig(), jax.devices()[:1])
        self._lock = threading.Lock()
        with jax.set_mesh(self._mesh):
            self.model = rewards.load(folder)

    def score(self, prompt: str | Sequence[dict[str, str]], completions: Sequence[str]) -> dict[str, Any]:
        """A score of each completion, and whether the prompt lost its beginning for its sake."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        begins = render(messages, self.tokenizer, generation_prompt=True)[0]
        rows = [[*begins, *self.tokenizer.encode(text), self.tokenizer.end] for text in completions]
        with self._lock, jax.set_mesh(self._mesh):
            found = rewards.score(
                self.model, answer_rows(rows, self.length, self.tokenizer.pad), batch_size=8
            )
        return {"scores": found.tolist(), "cut": [len(ids) > self.length for ids in rows]}


def application(scorer: Scorer, hosts: tuple[str, ...] = ("*",)) -> "Starlette":
    """POST /score: JSON of `prompt` (text or messages) and `completions` to `scores` and `cut`.

    hosts: names of this server; requests for another are refused.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from jaxtrain.runtime import web

    async def answer(request: Request) -> Response:
        if not web.is_json(request):
            return JSONResponse({"error": "send the request as application/json"}, 415)
        try:
            prompt, completions = parse(await web.body(request, LONGEST_BODY))
            return JSONResponse(await run_in_threadpool(scorer.score, prompt, completions))
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 400)

    return Starlette(
        routes=[Route("/score", answer, methods=["POST"])],
        middleware=[web.known_hosts(hosts)],
        exception_handlers={ClientDisconnect: web.gone},
    )


def parse(body: bytes) -> tuple[str | list[dict[str, str]], list[str]]:
    """Prompt and completions of a request; UserError says what is wrong with it."""
    try:
        row = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the body is no JSON ({error})") from error
    if not isinstance(row, dict) or set(row) != {"prompt", "completions"}:
        raise UserError("send an object with `prompt` and `completions`, and nothing else")
    prompt, completions = row["prompt"], row["completions"]
    if not isinstance(completions, list) or not 1 <= len(completions) <= MOST:
        raise UserError(f"`completions` is a list of 1 to {MOST} texts")
    if not all(isinstance(text, str) for text in completions):
        raise UserError("every one of `completions` is a text")
    if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(map(_is_message, prompt))):
        raise UserError("`prompt` is a text, or a list of messages, each with `role` and `content`")
    return prompt, completions


def _is_message(given: Any) -> bool:
    is_named = isinstance(given, dict) and set(given) == {"role", "content"}
    return is_named and all(isinstance(value, str) for value in given.values())


def serve(config: ScoreConfig) -> None:
    """Serve until interrupted."""
    import uvicorn

    from jaxtrain.runtime import web

    with web.listen(config.host, config.port) as listening:
        app = application(Scorer(config.model), (*web.LOOPBACK, config.host, *config.hosts))
        say(f"align score: POST http://{config.host}:{listening.getsockname()[1]}/score")
        uvicorn.Server(web.settings(app)).run(sockets=[listening])


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """`align export`: write a reward model as a Hugging Face folder."""

    model: str
    """Folder of the reward model's artifact."""
    out: str
    """Folder to write; it must not exist."""


def export(config: ExportConfig) -> Path:
    """The folder written: config.json, safetensors, and the tokenizer's files.

    `AutoModelForSequenceClassification.from_pretrained` reads it. It scores at the last token that is not
    padding, as `RewardModel` does; give it conversations rendered by the model's template, `<|end|>` last.
    """
    out = Path(config.out)
    if out.exists():
        raise UserError(f"{out} exists; name a new folder")
    meshes.ensure()
    model = rewards.load(config.model)
    tokenizer = weights.open(config.model).tokenizer
    save_pretrained(model.transformer, out)
    _write_head(out, np.asarray(model.score_D[...])[None])
    described = json.loads((out / "config.json").read_text())
    (architecture,) = described["architectures"]
    base = next(architecture.removesuffix(head) for head in HEADS if architecture.endswith(head))
    described |= {
        "architectures": [f"{base}ForSequenceClassification"],
        "num_labels": 1,
        "id2label": {"0": "reward"},
        "label2id": {"reward": 0},
        "problem_type": "regression",
        "pad_token_id": tokenizer.pad,
    }
    (out / "config.json").write_text(json.dumps(described, indent=2) + "\n")
    tokenizer.save(out)
    return out


def _write_head(folder: Path, score_1D: np.ndarray) -> None:
    """Put `score.weight` where the language model's head was, or into the last file."""
    files = sorted(folder.glob("model*.safetensors"))
    tensors = {file: load_file(file) for file in files}
    for part in tensors.values():
        part.pop("lm_head.weight", None)
    tensors[files[-1]]["score.weight"] = score_1D.astype(np.float32)
    for file, part in tensors.items():
        save_file(part, file, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        described: dict[str, Any] = json.loads(index.read_text())
        described["weight_map"] = {name: file.name for file, part in tensors.items() for name in part}
        sizes = (tensor.nbytes for part in tensors.values() for tensor in part.values())
        described["metadata"]["total_size"] = sum(sizes)
        index.write_text(json.dumps(described, indent=2) + "\n")
