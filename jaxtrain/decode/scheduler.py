"""Continuous batching: requests come at any time, decode side by side, and free their row as they end.

The device sees two programs of fixed shape: `_prefill` puts a piece of a prompt into slots of its own, and
`_turn` samples one token for every row. A request's text depends on its prompt, settings and seed alone.

    scheduler = Scheduler(model, rows=8)
    answers = scheduler.complete([Request(prompt=ids, max_new=64, stop=(end,))])

B batch, T tokens of a piece, S slots
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain.decode.sampling import Choice, Sampling, Settings, choose
from jaxtrain.decode.slots import Decoder, Slots, append, grown, insert, new_slots
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH

PIECES = (256, 32)
"""Tokens of a prompt that are read at once: as many of the first as fit, the rest by the second."""
FEWEST_SLOTS, GROWTH = 256, 4
"""Slots of a row at first, and by how much they grow when a sequence needs more; each size is a program."""

Reason = Literal["", "stop", "length", "cancelled", "error"]


class Full(UserError):
    """No more requests are taken now."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of the model."""

    prompt: Sequence[int]
    """Ids, at least one."""
    max_new: int
    """Tokens of the answer at most."""
    settings: Settings = field(default_factory=Settings)
    seed: int = 0
    """The same request with the same seed has the same answer."""
    stop: tuple[int, ...] = ()
    """Ids that end the answer; the one that came is its last token."""
    is_over: Callable[[Sequence[int]], bool] | None = None
    """Asked with the ids so far after every token (`ends_with(decode, texts)`): true ends the answer."""


@dataclass(eq=False)
class Answer:
    """What has come of a request so far. Ids are kept as they were sampled; nothing is tokenized again."""

    request: Request
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """log p of each id under the distribution that it was sampled from."""
    raw_logprobs: list[float] = field(default_factory=list)
    """log p of each id under the model's own distribution."""
    reason: Reason = ""
    """Why it ended; empty while it goes on."""
    submitted: float = 0.0
    first_token: float = 0.0
    finished: float = 0.0
    """Seconds of `time.monotonic`."""
    listen: Callable[["Answer"], None] | None = None


def ends_with(
    decode: Callable[[Sequence[int]], str], texts: Iterable[str]
) -> Callable[[Sequence[int]], bool]:
    """For `Request.is_over`: whether the decoded answer contains one of `texts`."""
    texts = tuple(texts)
    longest = max((len(text.encode()) for text in texts), default=0)

    def is_over(ids: Sequence[int]) -> bool:
        tail = decode(ids[-longest - 8 :])  # a token is a byte at least; the first may be half a character
        return any(text in tail for text in texts)

    return is_over


class Scheduler:
    """A model that answers requests, `rows` at a time. `submit` and `cancel` may be called on any thread."""

    def __init__(
        self,
        model: Transformer,
        *,
        rows: int = 8,
        max_length: int | None = None,
        queue: int = 1024,
        dtype: str | None = None,
    ):
        """Lays the model out for decoding on the mesh that is set.

        rows: requests decoded side by side. max_length: tokens of prompt and answer (the model's, if None).
        queue: requests that may wait. dtype: of keys and values, the model's if None.
        """
        self.mesh = jax.sharding.get_mesh()
        self.together = meshes.batch_rows()
        self.rows = -(-rows // self.together) * self.together
        self.max_length, self.queue = max_length or model.config.max_length, queue
        self.vocab_size = model.config.vocab_size
        self._dtype = dtype
        self._decoder = jax.jit(Decoder.of)(model)
        self._size = min(FEWEST_SLOTS, self._most)
        self._slots = self._new_slots(self.rows)
        self._token_B = jnp.zeros((self.rows,), jnp.int32, out_sharding=P(BATCH))
        self._running: list[Answer | None] = [None] * self.rows
        self._next: dict[int, int] = {}  # row to the last token of its prompt, which the next turn takes
        self._waiting: deque[Answer] = deque()
        self._sent: tuple[list[Answer | None], Choice] | None = None  # the turn that is not read yet
        self._settled: Any = None  # what `_turn` is told of the rows, on the device; None: it has changed
        self._lock = threading.Condition()
        self.tokens = 0
        """Sampled so far, over all requests."""
        self.prompt_tokens = 0
        self.ended: dict[str, int] = {}
        """Requests by the reason they ended."""

    @property
    def _most(self) -> int:
        """Slots that the longest sequence needs, room for its prompt's last piece included."""
        return -(-self.max_length // PIECES[-1]) * PIECES[-1]

    @property
    def busy(self) -> int:
        """Rows that decode a request."""
        return sum(answer is not None for answer in self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, request: Request, listen: Callable[[Answer], None] | None = None) -> Answer:
        """Queue a request; `listen` is called after each token and at the end, on the decoding thread.

        Errors: Full where too many wait; UserError where the request cannot be met.
        """
        self._check(request)
        answer = Answer(request, submitted=time.monotonic(), listen=listen)
        with self._lock:
            if len(self._waiting) >= self.queue:
                raise Full(f"{len(self._waiting)} requests wait already; try again later")
            self._waiting.append(answer)
            self._lock.notify()
        return answer

    def cancel(self, answer: Answer) -> None:
        """End a request; its row is free at the next turn."""
        with self._lock:
            if not answer.reason:
                self._end(answer, "cancelled")

    def complete(self, requests: Iterable[Request]) -> list[Answer]:
        """The answers of all requests, in their order."""
        answers = []
        for request in requests:
            while len(self._waiting) >= self.queue:
                self.step()
            answers.append(self.submit(request))
        while any(not answer.reason for answer in answers):
            self.step()
        return answers

    def run(self, stop: threading.Event) -> None:
        """Serve until `stop` is set (call `wake` after it); what is under way then ends as cancelled."""
        try:
            while not stop.is_set():
                if not self.step():
                    with self._lock:
                        self._lock.wait_for(lambda: bool(self._waiting) or stop.is_set())
        finally:
            with self._lock:
                for answer in [*self._running, *self._waiting]:
                    if answer is not None:
                        self._end(answer, "cancelled" if stop.is_set() else "error")

    def wake(self) -> None:
        with self._lock:
            self._lock.notify_all()

    def step(self) -> bool:
        """Admit what fits, send a turn, read the one before it. False: nothing is left to do."""
        with jax.set_mesh(self.mesh):
            self._admit()
            read, self._sent = self._sent, self._send()
            if read is not None:
                self._read(*read)
        return self.busy > 0 or self._sent is not None or bool(self._waiting)

    # --- admission ---

    def _check(self, request: Request) -> None:
        length = len(request.prompt)
        if not length or request.max_new < 1:
            raise UserError("a request needs a prompt of at least one token, and max_new of at least one")
        if length + request.max_new > self.max_length:
            raise UserError(
                f"a prompt of {length} tokens and an answer of {request.max_new} are more than the "
                f"{self.max_length} that fit; shorten the prompt or lower max_new"
            )
        if not all(0 <= token < self.vocab_size for token in request.prompt):
            raise UserError(f"a token of the prompt is not within 0 and {self.vocab_size - 1}")

    def _admit(self) -> None:
        """Waiting requests into free rows, as many as are read together; the rest after the next turn."""
        with self._lock:
            free = [row for row, answer in enumerate(self._running) if answer is None]
            chosen: list[Answer] = []
            while self._waiting and len(chosen) < min(len(free), self.together):
                chosen.append(self._waiting.popleft())
            for row, answer in zip(free, chosen, strict=False):
                self._running[row] = answer
        if not chosen:
            return
        self._grow(max(len(answer.request.prompt) for answer in chosen))
        slots = self._new_slots(self.together)
        prompts = [np.asarray(answer.request.prompt, np.int32) for answer in chosen]
        read = 0
        longest = max(map(len, prompts)) - 1  # a prompt's last token is left to its first turn
        while read < longest:
            T = next((size for size in PIECES if longest - read >= size), PIECES[-1])
            tokens_BT = np.zeros((self.together, T), np.int32)
            count_B = np.zeros((self.together,), np.int32)
            for b, prompt in enumerate(prompts):
                piece = prompt[:-1][read : read + T]
                tokens_BT[b, : len(piece)], count_B[b] = piece, len(piece)
            slots = _prefill(self._decoder, slots, self._put(tokens_BT), self._put(count_B))
            read += T
        for b, (row, answer) in enumerate(zip(free, chosen, strict=False)):
            self._slots = _insert(self._slots, np.int32(row), slots, np.int32(b))
            self._next[row] = int(answer.request.prompt[-1])
            self.prompt_tokens += len(answer.request.prompt)
        self._settled = None

    # --- turns ---

    def _send(self) -> tuple[list[Answer | None], Choice] | None:
        """The rows' requests and what the device will have for them; None where no row decodes."""
        with self._lock:  # another thread may cancel: what is sent is of one moment
            running = list(self._running)
            if not any(running):
                return None
            if self._settled is None:
                self._settled = self._settle(running)
            settled = self._settled
            given_B = np.full((self.rows,), -1, np.int32)
            for row, token in self._next.items():
                given_B[row] = token
            self._next.clear()
        self._grow(1 + max(self._used(answer) for answer in running if answer))
        self._slots, choice = _turn(self._decoder, self._slots, self._token_B, self._put(given_B), *settled)
        self._token_B = choice.token_B
        return running, choice

    def _settle(self, running: list[Answer | None]) -> Any:
        """What `_turn` is told of the rows until one of them changes, on the device."""
        requests = [answer.request if answer else None for answer in running]
        settings = [request.settings if request else Settings(temperature=0) for request in requests]
        seeds = np.array([request.seed & (2**63 - 1) if request else 0 for request in requests], np.uint64)
        lengths = [len(request.prompt) if request else 0 for request in requests]
        host = (
            Sampling.of(settings),
            np.stack([seeds >> np.uint64(32), seeds & np.uint64(2**32 - 1)], 1).astype(np.uint32),
            np.array(lengths, np.int32),
            np.array([request is not None for request in requests], np.int32),
        )
        return jax.tree.map(self._put, host)

    def _read(self, answers: list[Answer | None], choice: Choice) -> None:
        """Deliver a turn's tokens. A row whose request has ended meanwhile has sampled one for nothing."""
        tokens, logprobs, raw = jax.device_get((choice.token_B, choice.logprob_B, choice.raw_logprob_B))
        now = time.monotonic()
        for row, answer in enumerate(answers):
            if answer is None or answer.reason:
                continue
            answer.ids.append(int(tokens[row]))
            answer.logprobs.append(float(logprobs[row]))
            answer.raw_logprobs.append(float(raw[row]))
            answer.first_token = answer.first_token or now
            self.tokens += 1
            request = answer.request
            over = answer.ids[-1] in request.stop or (
                request.is_over is not None and request.is_over(answer.ids)
            )
            with self._lock:
                if answer.reason:
                    pass  # cancelled just now
                elif over:
                    self._end(answer, "stop")
                elif len(answer.ids) >= request.max_new:
                    self._end(answer, "length")
                elif answer.listen is not None:
                    answer.listen(answer)

    def _end(self, answer: Answer, reason: Reason) -> None:
        """With the lock held."""
        answer.reason, answer.finished = reason, time.monotonic()
        self.ended[reason] = self.ended.get(reason, 0) + 1
        if answer in self._waiting:
            self._waiting.remove(answer)
        for row, running in enumerate(self._running):
            if running is answer:
                self._running[row] = None
                self._next.pop(row, None)
                self._settled = None
        if answer.listen is not None:
            answer.listen(answer)

    def _used(self, answer: Answer) -> int:
        """Slots that a row may have used by now: one turn is not read yet."""
        return len(answer.request.prompt) + len(answer.ids) + 1

    # --- slots ---

    def _grow(self, needed: int) -> None:
        size = self._size
        while size < min(needed, self._most):
            size = min(size * GROWTH, self._most)
        if size != self._size:
            self._size = size
            self._slots = _grown(self._slots, size)

    def _new_slots(self, rows: int) -> Slots:
        return _empty(self._decoder.config, rows, self._size, self._dtype)

    def _put(self, rows: np.ndarray) -> jax.Array:
        spec = P(BATCH, *(None,) * (rows.ndim - 1))
        return jax.device_put(rows, NamedSharding(self.mesh, spec))


_empty = jax.jit(new_slots, static_argnums=(0, 1, 2, 3))
_grown = partial(jax.jit, static_argnums=1)(grown)
_insert = partial(jax.jit, donate_argnums=0)(insert)


@partial(jax.jit, donate_argnums=1)
def _prefill(decoder: Decoder, slots: Slots, tokens_BT: jax.Array, count_B: jax.Array) -> Slots:
    return append(decoder, slots, tokens_BT, count_B)[1]


@partial(jax.jit, donate_argnums=1)
def _turn(
    decoder: Decoder,
    slots: Slots,
    token_B: jax.Array,
    given_B: jax.Array,
    sampling: Sampling,
    seed_B2: jax.Array,
    prompt_length_B: jax.Array,
    is_active_B: jax.Array,
) -> tuple[Slots, Choice]:
    """The next token of every row; `given_B` ≥ 0: it follows this one, the last of its prompt."""
    token_B = jnp.where(given_B >= 0, given_B, token_B)
    hidden_B1D, slots = append(decoder, slots, token_B[:, None], is_active_B)
    logits_BV = decoder.shell.logits(hidden_B1D)[:, 0]
    keys_B = jax.random.wrap_key_data(seed_B2)
    n_B = slots.used_B - prompt_length_B
    return slots, choose(logits_BV, sampling, keys_B, n_B, slots.tokens_BS, slots.used_B)
