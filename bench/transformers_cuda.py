# SPDX-License-Identifier: Apache-2.0
"""Decoding and prefill of transformers on a GPU, for bench/peers.md: transformers_cuda.py CHECKPOINT..."""
import sys
import time

import torch
from transformers import AutoModelForCausalLM, StaticCache

CONTEXT, WARM_UP, TOKENS, PROMPT = 128, 30, 120, 4096


def seconds(run):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    result = run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin, result


def prefill(model, ids):
    run = lambda: model(ids, logits_to_keep=1)
    run()
    return PROMPT / sorted(seconds(run)[0] for _ in range(3))[1]


def decode(model, ids):
    cache = StaticCache(config=model.config, max_cache_len=512)
    positions = torch.arange(CONTEXT, device="cuda")
    out = model(ids[:, :CONTEXT], past_key_values=cache, cache_position=positions, logits_to_keep=1)
    step = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
    token, position, times = out.logits[:, -1:].argmax(-1), torch.tensor([CONTEXT], device="cuda"), []
    for _ in range(WARM_UP + TOKENS):
        took, out = seconds(lambda: step(token.clone(), past_key_values=cache, cache_position=position))
        token, position = out.logits[:, -1:].argmax(-1).clone(), position + 1
        times.append(took)
    return 1 / sorted(times[WARM_UP:])[TOKENS // 2]


for name in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16, device_map="cuda").eval()
    ids = torch.randint(0, model.config.vocab_size, (1, PROMPT), device="cuda")
    with torch.no_grad():
        print(f"{name}: prefill of {PROMPT}: {prefill(model, ids):.0f} tok/s", flush=True)
        print(f"{name}: decoding behind {CONTEXT}: {decode(model, ids):.1f} tok/s", flush=True)
