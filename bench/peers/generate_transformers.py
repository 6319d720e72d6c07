#!/usr/bin/env python3
"""Serving speed of Hugging Face transformers on random weights: tokens/s. usage: generate_transformers.py [1b|135m] [cpu|cuda] [fp32|bf16]

Prints one line each for a prompt of 512 tokens, and for decoding 1 and 32 sequences after prompts of 64 tokens, greedily: what
`penstock bench prefill` and `penstock bench decode` measure for the same shapes.
"""
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE, DEVICE, PRECISION = (sys.argv[1:] + ["1b", "cpu", "bf16"][len(sys.argv) - 1:])[:3]
SHAPES = {
    "1b": dict(hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
               vocab_size=32000, max_position_embeddings=2048, tie_word_embeddings=False),
    "135m": dict(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
                 vocab_size=49152, max_position_embeddings=8192, tie_word_embeddings=True),
}
STEPS = 32


def now():
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def decode(model, sequences):
    tokens = torch.randint(100, (sequences, 64), device=DEVICE)
    out = model(tokens, use_cache=True)
    times = []
    for _ in range(STEPS + 3):
        start = now()
        tokens = out.logits[:, -1:].argmax(-1)
        out = model(tokens, past_key_values=out.past_key_values, use_cache=True)
        times.append(now() - start)
    return sequences / sorted(times[3:])[STEPS // 2]


@torch.no_grad()
def prefill(model):
    times = []
    for _ in range(8):
        tokens = torch.randint(100, (1, 512), device=DEVICE)
        start = now()
        model(tokens, use_cache=True, logits_to_keep=1)
        times.append(now() - start)
    return 512 / sorted(times[3:])[2]


torch.manual_seed(1)
torch.set_default_dtype(torch.bfloat16 if PRECISION == "bf16" else torch.float32)
with torch.device(DEVICE):
    network = LlamaForCausalLM(LlamaConfig(**SHAPES[SHAPE])).eval()
print(f"{SHAPE} {DEVICE} {PRECISION} prefill 512: {prefill(network):.0f} tokens/s")
for count in (1, 32):
    print(f"{SHAPE} {DEVICE} {PRECISION} decode x {count}: {decode(network, count):.0f} tokens/s")
