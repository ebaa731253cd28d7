"""PyTorch's side of `train_step.py`: the same decoder as a user of PyTorch would write it.

python benchmarks/peers/torch_gpt.py --layers 6 --width 384 …     in an environment with torch

torch.compile, scaled_dot_product_attention, fused AdamW, clipped gradients; `--bf16` computes in bfloat16. It
says `ready` when it has compiled, then takes as many steps as each line of its input asks for and answers
with seconds a step: so it can be timed in turn with ours, each while the other waits.
"""

import argparse
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x, cos, sin):
        batch, length, width = x.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1)
        )
        query, key = turned(query, cos, sin), turned(key, cos, sin)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


def turned(x, cos, sin):
    """Rotary positions, halves paired."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.attention = Attention(width, heads)
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attention_norm(x), cos, sin)
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(functional.silu(gate) * up)


class Decoder(nn.Module):
    def __init__(self, shape: argparse.Namespace):
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(
            Block(shape.width, shape.heads, shape.hidden) for _ in range(shape.layers)
        )
        self.norm = nn.RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocab, bias=False)
        half = shape.width // shape.heads // 2
        angles = torch.arange(shape.length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, tokens, targets):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x)).float()
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("layers", "width", "heads", "hidden", "vocab", "length", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    shape = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high" if device == "cuda" else "highest")
    decoder = Decoder(shape).to(device)
    optimizer = torch.optim.AdamW(
        decoder.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    loss_of = torch.compile(decoder)
    rows = torch.randint(0, shape.vocab, (shape.batch, shape.length + 1), device=device)

    def step() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=shape.bf16):
            loss = loss_of(rows[:, :-1], rows[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    for _ in range(3):
        step().item()
    parameters = sum(weight.numel() for weight in decoder.parameters())
    say(
        {"ready": True, "torch": torch.__version__, "parameters": parameters, "matmul": matmul(shape, device)}
    )
    for line in sys.stdin:
        begun = time.perf_counter()
        for _ in range(int(line)):
            loss = step()
        loss.item()
        say({"seconds": (time.perf_counter() - begun) / int(line), "loss": loss.item()})


def matmul(shape: argparse.Namespace, device: str) -> float:
    """FLOP/s of the largest product of the step, [B·T, D] by [D, 2F], best of several."""
    dtype = torch.bfloat16 if shape.bf16 else torch.float32
    left = torch.randn(shape.batch * shape.length, shape.width, device=device, dtype=dtype)
    right = torch.randn(shape.width, 2 * shape.hidden, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        begun = time.perf_counter()
        out = left @ right
        out[0, 0].item()
        best = min(best, time.perf_counter() - begun)
    return 2 * left.shape[0] * shape.width * 2 * shape.hidden / best


def say(found: dict) -> None:
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
