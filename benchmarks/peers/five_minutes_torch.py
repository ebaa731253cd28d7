"""PyTorch's side of `five_minutes.py`: the decoder of torch_gpt.py, trained under a clock on rows of a file.

python benchmarks/peers/five_minutes_torch.py SPEC.json      in an environment with torch

torch.compile, scaled_dot_product_attention, fused AdamW with the decay and the rates of ours, clipped
gradients. The last line that it prints is its result in JSON.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch_gpt import Decoder

CURVE = 100
"""Points of the curve at most; there the loss is waited for, and the clock read."""
PACE = 10
"""Steps between two looks at the clock while the pace is found."""


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(spec["seed"])
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    decoder = Decoder(argparse.Namespace(**spec["shape"])).to(device)
    first = {name: value.clone() for name, value in decoder.state_dict().items()}
    loss_of = torch.compile(decoder)

    def loss(batch):
        tokens, targets = (torch.from_numpy(part.astype(np.int64)).to(device) for part in batch)
        with torch.autocast(device, torch.bfloat16, enabled=spec["bf16"]):
            return loss_of(tokens, targets)

    def train(steps: int, seconds: float, every: int) -> tuple[int, float, list[list[float]]]:
        """Steps that were taken, in how long without the first, and the curve."""
        decoder.load_state_dict(first)
        optimizer, curve, begun = adamw(decoder), [], None
        for step, batch in enumerate(rows(spec["rows"])):
            for group in optimizer.param_groups:
                group["lr"] = rate(spec, step, steps)
            found = loss(batch)
            found.backward()
            nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            is_last = step + 1 == steps
            if begun is None or is_last or (step + 1) % every == 0:
                value, begun = found.item(), begun or time.perf_counter()
                took = time.perf_counter() - begun
                curve.append([round(took, 3), round(value, 4)])
                if is_last or took >= seconds:
                    return step + 1, took, curve
        raise SystemExit("the rows are over before the time; raise --most")

    taken, took, _ = train(10**9, spec["seconds"] / 20, PACE)
    planned = max(2, 1 + int(spec["seconds"] * (taken - 1) / took))
    taken, took, curve = train(planned, spec["seconds"], max(1, planned // CURVE))
    nats = 0.0
    with torch.no_grad():
        for tokens, targets in rows(spec["heldout"]):
            nats += loss((tokens, targets)).item() * int((targets >= 0).sum())
    bits = nats / math.log(2) / spec["bytes"]
    result = {"planned": planned, "steps": taken, "seconds": took, "bits_per_byte": bits, "curve": curve}
    print(json.dumps(result | {"torch": torch.__version__}))


def rows(file: str) -> Iterator[np.ndarray]:
    """Batches [2, B, T]: tokens, and targets where one counts, else -100."""
    yield from np.load(file, mmap_mode="r")


def adamw(decoder: Decoder) -> torch.optim.Optimizer:
    """Matrices decay, embedding and norms do not."""
    still = [
        weight for name, weight in decoder.named_parameters() if weight.ndim < 2 or name == "embedding.weight"
    ]
    rest = [weight for weight in decoder.parameters() if not any(weight is one for one in still)]
    groups = [{"params": rest, "weight_decay": 0.1}, {"params": still, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95), eps=1e-8, fused=True)


def rate(spec: dict, step: int, steps: int) -> float:
    """The learning rate of a step: warmup from 0 over a twentieth, then linear to the final share."""
    warmup = steps // 20
    if step < warmup:
        return spec["lr"] * (step + 1) / (warmup + 1)
    share = min(1.0, (step - warmup) / max(1, steps - warmup - 1))
    return spec["lr"] * (1 - share * (1 - spec["final_share"]))


if __name__ == "__main__":
    main()
