#!/usr/bin/env python3
"""GPipe by hand on torch.distributed (Gloo, isend and irecv): 2 processes x 1 thread, the GPT shape of gpt_pytorch.py, 8 micro-batches of one
sequence. Prints tokens/s. usage: gpipe_pytorch.py [fp32|bf16] [steps]"""
import os
import sys
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

L, D, H, T, V, M = 6, 384, 6, 256, 256, 8


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)
        self.register_buffer("hidden", torch.ones(T, T, dtype=torch.bool).triu(1))

    def forward(self, x):
        q, k, v = (t.view(1, T, H, D // H).transpose(1, 2) for t in self.qkv(self.n1(x)).split(D, 2))
        a = ((q @ k.transpose(-2, -1)) * (D // H) ** -0.5).masked_fill(self.hidden, float("-inf")).softmax(-1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(1, T, D))
        return x + self.down(F.gelu(self.up(self.n2(x))))


def step(rank, stage, optimizer, tokens, bf16):
    autocast = lambda: torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    inputs, outputs, pending = [], [], []
    for m in range(M):
        if rank == 0:
            x = tokens[m][:, :-1]
        else:
            x = torch.empty(1, T, D)
            dist.recv(x, 0)
            x.requires_grad_()
        with autocast():
            y = stage(x).float()
        if rank == 0:
            pending.append(dist.isend(y.detach(), 1))
        else:
            y = F.cross_entropy(y.view(-1, V), tokens[m][:, 1:].reshape(-1)) / M
        inputs.append(x)
        outputs.append(y)
    optimizer.zero_grad(set_to_none=True)
    for m in range(M):
        if rank == 1:
            outputs[m].backward()
            pending.append(dist.isend(inputs[m].grad, 0))
        else:
            gradient = torch.empty(1, T, D)
            dist.recv(gradient, 1)
            outputs[m].backward(gradient)
    for work in pending:
        work.wait()
    square = sum(p.grad.square().sum() for p in stage.parameters())
    dist.all_reduce(square)
    for p in stage.parameters():
        p.grad.mul_(min(1.0, 1.0 / square.sqrt().item()))
    optimizer.step()


def run(rank, precision, steps):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29741")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(1)
    blocks = [Block() for _ in range(L // 2)]
    stage = nn.Sequential(nn.Embedding(V, D), *blocks) if rank == 0 else nn.Sequential(*blocks, nn.LayerNorm(D), nn.Linear(D, V, bias=False))
    optimizer = torch.optim.AdamW(stage.parameters(), lr=1e-3)
    times = []
    for _ in range(steps + 2):
        tokens = torch.randint(V, (M, 1, T + 1))
        start = time.perf_counter()
        step(rank, stage, optimizer, tokens, precision == "bf16")
        times.append(time.perf_counter() - start)
    if rank == 0:
        print(f"{M * T / sorted(times[2:])[steps // 2]:.0f}")


if __name__ == "__main__":
    arguments = sys.argv[1:] + ["fp32", "10"][len(sys.argv) - 1:]
    mp.spawn(run, (arguments[0], int(arguments[1])), nprocs=2)
