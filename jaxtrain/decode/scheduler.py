"""Continuous batching: requests come at any time, decode side by side, and free their row as they end.

The device sees two programs of fixed shape: `prefill` puts a piece of a prompt into slots of its own, and
`turn` samples one token for every row. A prompt's beginning that stands in a row already, of whichever
request, is copied from there. A request's text depends on its prompt, settings and seed alone.

    scheduler = Scheduler(model, rows=8)
    answers = scheduler.complete([Request(prompt=ids, max_new=64, stop=(end,))])

B batch, T tokens of a piece, S slots, X likeliest tokens
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtrain.decode import drafts, programs, scoring
from jaxtrain.decode.prefixes import Prefixes
from jaxtrain.decode.request import Answer, Durations, Full, Reason, Request, told
from jaxtrain.decode.slots import Decoder
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.runtime.progress import track

PIECES = (256, 32)
"""Tokens of a prompt that are read at once: as many of the first as fit, the rest by the second."""
FEWEST_SLOTS, GROWTH = 256, 4
"""Slots of a row at first, and by how much they grow when a sequence needs more; each size is a program."""


@dataclass(eq=False)
class _Lane:
    """A prompt that is being read, in slots of its own."""

    answer: Answer
    row: int
    """Where it will decode."""
    read: int
    """Tokens that stand in the slots."""
    scores: list[tuple[int, scoring.Scores]] = field(default_factory=list)
    """How many tokens of each piece, and how likely they were, where the request asks for that."""


@dataclass
class _Sent:
    """A turn that was sent and is not read yet."""

    answers: list[Answer | None]
    """Who was in each row."""
    turn: programs.Turn
    ahead: int
    is_alone: bool
    """Nothing was read of prompts between the turn before, which was of the same kind, and this one."""


class Scheduler:
    """A model that answers requests, `rows` at a time. `submit` and `cancel` may be called on any thread."""

    def __init__(
        self,
        model: Transformer,
        *,
        rows: int = 8,
        max_length: int | None = None,
        queue: int = 1024,
        guess: bool = False,
    ):
        """Lays the model out for decoding on the mesh that is set.

        rows: requests decoded side by side. max_length: tokens of prompt and answer (the model's, if None).
        queue: requests that may wait. guess: tokens by n-gram speculation where that pays; the text is the
        same, and there are twice the programs to compile.
        """
        self.mesh = jax.sharding.get_mesh()
        self.together = meshes.batch_rows()
        self.rows = -(-rows // self.together) * self.together
        self.max_length, self.queue = max_length or model.config.max_length, queue
        self.vocab_size = model.config.vocab_size
        self._decoder = jax.jit(Decoder.of)(model)
        # a DeltaNet's memory cannot forget guesses that were wrong, nor the end of another prompt
        self._rewinds = not model.config.delta_layers
        self._pace = drafts.Pace() if guess and self._rewinds else None
        # tokens that a turn may add to a row
        self._stride = 1 + (drafts.AHEAD if guess else 0)
        # slots that the longest sequence needs, room for its prompt's last piece and last two turns included
        self._most = -(-(self.max_length + 2 * self._stride - 2) // PIECES[-1]) * PIECES[-1]
        self._size = min(FEWEST_SLOTS, self._most)
        self._slots, self._lane_slots = (
            programs.empty(model.config, rows, self._size) for rows in (self.rows, self.together)
        )
        self._prefixes = Prefixes(self.rows, self.max_length)
        self._token_B = jnp.zeros((self.rows,), jnp.int32, out_sharding=P(BATCH))
        self._running: list[Answer | None] = [None] * self.rows
        self._lanes: dict[int, _Lane] = {}
        self._next: dict[int, int] = {}  # row to the last token of its prompt, which the next turn takes
        self._waiting: deque[Answer] = deque()
        self._sent: _Sent | None = None
        self._delivered = 0.0  # when a turn was read last
        self._settled: Any = None  # what `turn` is told of the rows, on the device; None: it has changed
        self._lock = threading.Condition()
        self.tokens = 0
        """Sampled so far, over all requests."""
        self.prompt_tokens = 0
        self.shared_tokens = 0
        """Those of prompts that were copied, and not read."""
        self.ended: dict[str, int] = {}
        """Requests by the reason they ended."""
        self.first_token, self.between_tokens = Durations(), Durations()

    @property
    def busy(self) -> int:
        """Rows that have a request."""
        reading = sum(not lane.answer.reason for lane in self._lanes.values())
        return sum(answer is not None for answer in self._running) + reading

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

    def complete(self, requests: Iterable[Request], what: str = "answers") -> list[Answer]:
        """The answers of all requests, in their order. what: named in the progress bar."""
        answers = []
        for request in requests:
            while len(self._waiting) >= self.queue:
                self.step()
            answers.append(self.submit(request))
        for answer in track(answers, what):
            while not answer.reason:
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
                reading = [lane.answer for lane in self._lanes.values()]
                for answer in [*self._running, *reading, *self._waiting]:
                    if answer is not None and not answer.reason:
                        self._end(answer, "cancelled" if stop.is_set() else "error")

    def wake(self) -> None:
        with self._lock:
            self._lock.notify_all()

    def step(self) -> bool:
        """Read some of the prompts, send a turn, read the one before it. False: nothing is left to do."""
        with jax.set_mesh(self.mesh):
            tokens = self._read_prompts()
            is_formed = any(answer and answer.request.allowed for answer in self._running)
            before = self._sent
            if before is not None and is_formed:  # what may come next depends on the token that came
                self._deliver(before)
            self._sent = self._send(not tokens, is_formed)
            if before is not None and not is_formed:
                self._deliver(before)
        return self.busy > 0 or self._sent is not None or bool(self._waiting)

    # --- prompts ---

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
        assert 0 <= request.likeliest <= scoring.MOST

    def _read_prompts(self) -> int:
        """Pieces of prompts; while many rows decode about as many tokens as those, so that none waits long.

        How many tokens the pieces have.
        """
        decoding = sum(answer is not None for answer in self._running)
        sizes, most = (PIECES, PIECES[0]) if 2 * decoding < self.rows else (PIECES[-1:], decoding)
        left = most
        while left > 0 and self._fill_lanes():
            self._finish_lanes()  # those that stand in a row as a whole
            left -= self._read_piece(sizes)
            self._finish_lanes()
        return most - left

    def _fill_lanes(self) -> bool:
        """Waiting requests into free lanes, each with a free row to come to. False: nothing is to be read."""
        with self._lock:
            self._lanes = {at: lane for at, lane in self._lanes.items() if not lane.answer.reason}
            kept = {lane.row for lane in self._lanes.values()}
            free = {row for row in range(self.rows) if self._running[row] is None} - kept
            chosen = []
            for at in range(self.together):
                if at not in self._lanes and self._waiting and len(free) > len(chosen):
                    answer = self._waiting.popleft()
                    # where it will be is known once the lock is free
                    self._lanes[at] = _Lane(answer, -1, 0)
                    chosen.append(at)
        for at in chosen:
            lane = self._lanes[at]
            prompt = lane.answer.request.prompt
            source, shared = self._prefixes.longest(prompt)
            lane.row = self._prefixes.least(free, source, shared)
            free.remove(lane.row)
            if lane.answer.request.score_prompt or not self._rewinds:
                shared = 0
            elif shared < len(prompt) - 1:
                # whole pieces, so that the last piece fits into the slots
                shared -= shared % PIECES[-1]
            lane.read = shared
            self._grow(len(prompt))
            if lane.read:
                places = np.int32(at), self._slots, np.int32(source), np.int32(lane.read)
                self._lane_slots = programs.insert(self._lane_slots, *places)
            self.prompt_tokens += len(prompt)
            self.shared_tokens += lane.read
        return bool(self._lanes)

    def _read_piece(self, sizes: tuple[int, ...]) -> int:
        """The next piece of every lane's prompt; how many tokens one has, 0 if all are read."""
        # a prompt's last token is left to its first turn
        left = {at: len(lane.answer.request.prompt) - 1 - lane.read for at, lane in self._lanes.items()}
        if not any(left.values()):
            return 0
        furthest = max(lane.read for lane in self._lanes.values())
        T = next(n for n in sizes if n == sizes[-1] or max(left.values()) >= n <= self._size - furthest)
        tokens_BT, targets_BT = np.zeros((2, self.together, T), np.int32)
        count_B, read_B = np.zeros((2, self.together), np.int32)
        for at, lane in self._lanes.items():
            piece = lane.answer.request.prompt[lane.read :][: T + 1]
            count_B[at], read_B[at] = len(piece) - 1, lane.read
            tokens_BT[at, : len(piece) - 1], targets_BT[at, : len(piece) - 1] = piece[:-1], piece[1:]
        wanted = [at for at, lane in self._lanes.items() if lane.answer.request.score_prompt]
        inputs = [self._put(rows) for rows in (read_B, tokens_BT, count_B, targets_BT)]
        self._lane_slots, scores = programs.prefill(self._decoder, self._lane_slots, *inputs, bool(wanted))
        for at, lane in self._lanes.items():
            lane.read += int(count_B[at])
            if at in wanted:
                lane.scores.append((int(count_B[at]), scores))
        return T

    def _finish_lanes(self) -> None:
        """Prompts that are read go to their rows."""
        for at, lane in list(self._lanes.items()):
            answer = lane.answer
            prompt = answer.request.prompt
            if lane.read < len(prompt) - 1:
                continue
            for count, scores in lane.scores:
                logprobs, _, *likeliest = (part[at, :count] for part in meshes.fetch(scores))
                answer.prompt_logprobs += logprobs.tolist()
                answer.prompt_likeliest += told(likeliest, answer.request.likeliest)
            places = np.int32(lane.row), self._lane_slots, np.int32(at), np.int32(lane.read)
            self._slots = programs.insert(self._slots, *places)
            self._prefixes.begin(lane.row, prompt)
            with self._lock:
                del self._lanes[at]
                if not answer.reason:
                    self._running[lane.row] = answer
                    self._next[lane.row] = int(prompt[-1])
                    self._settled = None

    # --- turns ---

    def _send(self, is_alone: bool, is_formed: bool) -> _Sent | None:
        """Start a turn; None where no row decodes. is_formed: requests say which tokens may come."""
        with self._lock:  # another thread may cancel: what is sent is of one moment
            running = list(self._running)
            if not any(running):
                return None
            if self._settled is None:
                requests = [answer.request if answer else None for answer in running]
                self._settled = jax.tree.map(self._put, programs.settled(requests))
            settled = self._settled
            given_B = np.full((self.rows,), -1, np.int32)
            for row, token in self._next.items():
                given_B[row] = token
            self._next.clear()
        # slots that a row may have used by now: one turn is not read yet
        self._grow(max(len(a.request.prompt) + len(a.ids) + 2 * self._stride for a in running if a))
        ahead = self._pace.ahead(is_alone) if self._pace and not is_formed else 0
        allowed = self._put(programs.allowed(running, self.vocab_size)) if is_formed else None
        self._slots, self._token_B, turn = programs.turn(
            self._decoder, self._slots, self._token_B, self._put(given_B), *settled, ahead, allowed
        )
        is_alone = is_alone and self._sent is not None and self._sent.ahead == ahead
        return _Sent(running, turn, ahead, is_alone)

    def _deliver(self, sent: _Sent) -> None:
        """A turn's tokens. A row whose request has ended meanwhile has sampled some for nothing."""
        turn = meshes.fetch(sent.turn)
        now, before = time.monotonic(), self.tokens
        rows = sum(answer is not None and not answer.reason for answer in sent.answers)
        for row, answer in enumerate(sent.answers):
            for at in range(turn.count_B[row]) if answer is not None else ():
                if not answer.reason:
                    self._take(row, answer, turn, at, now)
        if self._pace is not None and sent.is_alone and rows:
            self._pace.measured(sent.ahead, (self.tokens - before) / rows, now - self._delivered)
        self._delivered = now

    def _take(self, row: int, answer: Answer, turn: programs.Turn, at: int, now: float) -> None:
        """The next token of an answer: the one at place `at` of a turn."""
        request, choice, token = answer.request, turn.choice_TB, int(turn.choice_TB.token_B[at, row])
        best = [part[at, row][None] for part in (turn.likeliest_TBX, turn.likeliest_logprob_TBX)]
        likeliest, raw = told(best, request.likeliest), float(choice.raw_logprob_B[at, row])
        answer.likeliest += likeliest
        answer.logprobs.append(float(choice.logprob_B[at, row]))
        # the same number in both places, to the last bit
        answer.raw_logprobs.append(likeliest[0].get(token, raw) if likeliest else raw)
        # last, so that another thread finds all that is told of an id
        answer.ids.append(token)
        if answer.first_token:
            self.between_tokens.add(now - answer.latest_token)
        else:
            answer.first_token = now
            self.first_token.add(now - answer.submitted)
        answer.latest_token = now
        self._prefixes.add(row, token)
        self.tokens += 1
        over = token in request.stop or (request.is_over is not None and request.is_over(answer.ids))
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
        answer.reason = reason
        self.ended[reason] = self.ended.get(reason, 0) + 1
        if answer in self._waiting:
            self._waiting.remove(answer)
        for row, running in enumerate(self._running):
            if running is answer:
                self._running[row] = None
                self._next.pop(row, None)
                self._prefixes.touch(row)
                self._settled = None
        if answer.listen is not None:
            answer.listen(answer)

    # --- slots ---

    def _grow(self, needed: int) -> None:
        size = self._size
        while size < min(needed, self._most):
            size = min(size * GROWTH, self._most)
        if size != self._size:
            self._size = size
            self._slots, self._lane_slots = (
                programs.grown(slots, size) for slots in (self._slots, self._lane_slots)
            )

    def _put(self, rows: np.ndarray) -> jax.Array:
        sharding = NamedSharding(self.mesh, P(BATCH, *(None,) * (rows.ndim - 1)))
        if sharding.is_fully_addressable:
            return jax.device_put(rows, sharding)
        return jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__)
