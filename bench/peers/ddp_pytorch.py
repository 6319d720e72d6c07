#!/usr/bin/env python3
"""PyTorch's DistributedDataParallel (Gloo) on the GPT shape of bench/overlap.yaml, 2 replicas x 1 thread on a core each.

usage: ddp_pytorch.py [fp32|bf16] [sequences per replica] [steps] [link GB/s | network]

Prints tokens/s or, with a link, the milliseconds of a step without all-reduce, with it after the backward pass, and overlapped by DDP: an emulated link is a
thread that sleeps for a bucket's time and then reduces it, as Penstock's shaped_link does; "network" takes the network as it is. Starts both replicas,
or is the one that RANK says.
"""
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

PRECISION, B, STEPS, LINK = (sys.argv[1:] + ["bf16", "4", "10", "0"][len(sys.argv) - 1:])[:4]
MEASURE_LINK = LINK != "0"
B, STEPS, LINK = int(B), int(STEPS), 0 if LINK == "network" else float(LINK) * 1e9
L, D, H, T, V, RANKS = 6, 384, 6, 256, 256, 2


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)
        self.hidden = torch.ones(T, T, dtype=torch.bool).triu(1)

    def forward(self, x):
        q, k, v = (t.view(B, T, H, D // H).transpose(1, 2) for t in self.qkv(self.n1(x)).split(D, 2))
        a = ((q @ k.transpose(-2, -1)) * (D // H) ** -0.5).masked_fill(self.hidden, float("-inf")).softmax(-1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(B, T, D))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Link:
    """A communication hook: "none" reduces nothing, "after" when finish() is called, "overlap" at once, each through the emulated link."""

    def __init__(self, mode):
        self.mode, self.thread, self.left = mode, ThreadPoolExecutor(1), []

    def reduce(self, tensor, done):
        def work():
            time.sleep(tensor.numel() * 4 / LINK if LINK else 0)
            dist.all_reduce(tensor)
            done.set_result(tensor.div_(RANKS))
        self.thread.submit(work)

    def __call__(self, _state, bucket):
        done = torch.futures.Future()
        if self.mode == "overlap":
            self.reduce(bucket.buffer(), done)
        else:
            if self.mode == "after":
                self.left.append(bucket.buffer())
            done.set_result(bucket.buffer())
        return done

    def finish(self):
        for tensor in self.left:
            done = torch.futures.Future()
            self.reduce(tensor, done)
            done.wait()
        self.left = []


def make(mode):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Embedding(V, D), *[Block() for _ in range(L)], nn.LayerNorm(D), nn.Linear(D, V, bias=False))
    ddp = DistributedDataParallel(net, gradient_as_bucket_view=True)
    link = None
    if mode != "plain":
        link = Link(mode)
        ddp.register_comm_hook(None, lambda state, bucket, hook=link: hook(state, bucket))
    return ddp, torch.optim.AdamW(ddp.parameters(), lr=1e-3), link, []


def step(ddp, optimizer, link, times):
    tokens = torch.randint(V, (B, T + 1))
    dist.barrier()
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=PRECISION == "bf16"):
        loss = F.cross_entropy(ddp(tokens[:, :-1]).float().view(-1, V), tokens[:, 1:].reshape(-1))
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    if link:
        link.finish()
    nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)
    optimizer.step()
    times.append(time.perf_counter() - start)


def main(rank):
    if "RANK" not in os.environ:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank % len(os.sched_getaffinity(0))]})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    runs = [make(mode) for mode in (("none", "after", "overlap") if MEASURE_LINK else ("plain",))]
    for _ in range(STEPS + 2):
        for run in runs:
            step(*run)
    if rank == 0:
        medians = [sorted(times[2:])[STEPS // 2] for *_, times in runs]
        if MEASURE_LINK:
            none, after, overlap = (1000 * m for m in medians)
            print(f"without {none:.1f} ms, after {after - none:+.1f} ms, overlapped {overlap - none:+.1f} ms, hidden {100 * (1 - (overlap - none) / (after - none)):.1f} %")
        else:
            print(f"{RANKS * B * T / medians[0]:.0f}")
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    if "RANK" in os.environ:
        main(int(os.environ["RANK"]))
    else:
        mp.spawn(main, nprocs=RANKS)
