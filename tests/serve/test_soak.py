"""64 clients at once for a minute, a third of whom leave in the middle: nobody gets another's stream."""

import asyncio
import random
import time

import httpx2
import pytest
from parrot import TALK, make_engine, serving

from jaxtrain.serve.app import ServeApp

CLIENTS, SECONDS = 64, 60.0


@pytest.mark.slow
def test_64_clients_with_random_disconnects(folder):
    engine = make_engine(folder, rows=8, queue=CLIENTS)
    engine.warm_up()
    counts = {"right": 0, "left": 0, "wrong": 0, "refused": 0}

    async def client(number: int, http: httpx2.AsyncClient, until: float) -> None:
        draw = random.Random(number)
        while time.monotonic() < until:
            question, wanted = draw.choice(sorted(TALK.items()))
            asked = {"messages": [{"role": "user", "content": question}], "temperature": 0, "stream": True}
            leaves = draw.random() < 1 / 3
            pieces = ""
            async with http.stream("POST", "/v1/chat/completions", json=asked) as response:
                if response.status_code != 200:
                    counts["refused"] += 1
                    continue
                left_after = draw.randrange(12)
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        event = httpx2.Response(200, text=line[6:]).json()
                        pieces += event["choices"][0]["delta"].get("content") or ""
                    if leaves and (left_after := left_after - 1) < 0:
                        break
            if leaves and pieces != wanted:
                counts["left" if wanted.startswith(pieces) else "wrong"] += 1
            else:
                counts["right" if pieces == wanted else "wrong"] += 1

    async def all_clients(address: str) -> None:
        limits = httpx2.Limits(max_connections=CLIENTS)
        async with httpx2.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
            until = time.monotonic() + SECONDS
            await asyncio.gather(*(client(n, http, until) for n in range(CLIENTS)))

    with serving(ServeApp(engine)) as address:
        asyncio.run(all_clients(address))
        for _ in range(200):
            if engine.scheduler.busy == engine.scheduler.waiting == 0:
                break
            asyncio.run(asyncio.sleep(0.05))  # a turn may be under way
        scheduler = engine.scheduler
        assert scheduler.busy == scheduler.waiting == 0 and engine.is_alive
        assert httpx2.get(f"{address}/health").status_code == 200
    assert counts["wrong"] == counts["refused"] == 0, counts
    assert counts["right"] > CLIENTS and counts["left"] > CLIENTS / 4
    assert scheduler.ended["cancelled"] > 0 and "error" not in scheduler.ended
