#!/usr/bin/env python3
"""Training speed of PyTorch on a GPT shape: tokens/s. usage: gpt_pytorch.py [fp32|bf16] [threads] [steps] [layers,width,heads,tokens,sequences] [cpu|cuda]

The shape that is not given is that of bench/train_throughput.yaml.
"""
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

PRECISION, THREADS, STEPS, SHAPE, DEVICE = (sys.argv[1:] + ["fp32", "2", "20", "6,384,6,256,8", "cpu"][len(sys.argv) - 1:])[:5]
L, D, H, T, B = map(int, SHAPE.split(","))
V = 256
torch.set_num_threads(int(THREADS))
torch.manual_seed(1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)
        self.register_buffer("hidden", torch.ones(T, T, dtype=torch.bool).triu(1))

    def forward(self, x):
        q, k, v = (t.view(B, T, H, D // H).transpose(1, 2) for t in self.qkv(self.n1(x)).split(D, 2))
        a = ((q @ k.transpose(-2, -1)) * (D // H) ** -0.5).masked_fill(self.hidden, float("-inf")).softmax(-1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.n2(x))))


model = nn.Sequential(nn.Embedding(V, D), *[Block() for _ in range(L)], nn.LayerNorm(D), nn.Linear(D, V, bias=False)).to(DEVICE)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
times = []
for step in range(int(STEPS) + 2):
    tokens = torch.randint(V, (B, T + 1), device=DEVICE)
    start = time.perf_counter()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=PRECISION == "bf16"):
        loss = F.cross_entropy(model(tokens[:, :-1]).float().view(-1, V), tokens[:, 1:].reshape(-1))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    times.append(time.perf_counter() - start)
print(f"{B * T / sorted(times[2:])[int(STEPS) // 2]:.0f}")
