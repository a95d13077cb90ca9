# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of train_demo.py -> a model folder: configs, tokenizer_config.json, golden.json; prints held-out figures, against an older model if given.

usage: export_demo.py CHECKPOINT TOKENIZER_JSON QWEN_TOKENIZER_DIR STORIES.jsonl OUT [OLD_MODEL]
"""
import json, math, os, shutil, sys, time, random
import torch, torch.nn.functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
torch.set_grad_enabled(False); torch.set_num_threads(2)
ck, tokf, tokdir, stories, out = sys.argv[1:6]; os.makedirs(out, exist_ok=True)
V, HID, LAYERS, HEADS, KV, HD, MLP = 4096, 256, 8, 4, 2, 64, 768
shutil.copy(tokf, f"{out}/tokenizer.json"); tok = Tokenizer.from_file(tokf)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]; PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
EOT, IMS, IME = [tok.token_to_id(s) for s in SPECIAL]
sd = load_file(ck); save_file(sd, f"{out}/model.safetensors", metadata={"format": "pt"})
json.dump({"architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
           "bos_token_id": EOT, "eos_token_id": IME, "head_dim": HD, "hidden_act": "silu", "hidden_size": HID,
           "initializer_range": 0.02, "intermediate_size": MLP, "max_position_embeddings": 2048,
           "max_window_layers": LAYERS, "model_type": "qwen3", "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
           "num_key_value_heads": KV, "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 10000,
           "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
           "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False, "vocab_size": V}, open(f"{out}/config.json", "w"), indent=2)
json.dump({"bos_token_id": EOT, "do_sample": True, "eos_token_id": [IME, EOT], "pad_token_id": EOT,
           "temperature": 0.6, "top_k": 20, "top_p": 0.95, "transformers_version": "4.51.0"}, open(f"{out}/generation_config.json", "w"), indent=2)
tc = json.load(open(f"{tokdir}/tokenizer_config.json"))
tc["added_tokens_decoder"] = {str(tok.token_to_id(s)): {"content": s, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": s in SPECIAL} for s in SPECIAL + PLAIN}
tc["additional_special_tokens"] = ["<|im_start|>", "<|im_end|>"]; tc["model_max_length"] = 2048
json.dump(tc, open(f"{out}/tokenizer_config.json", "w"), indent=2, ensure_ascii=False)


def model(d):
    m = Qwen3ForCausalLM.from_pretrained(d, dtype=torch.float32).eval()
    return m


m = model(out)
held = []
for n, line in enumerate(open(stories)):
    r = json.loads(line); t = r["text"].strip()
    if n % 50 == 7 and 120 < len(t) < 6000 and "@" not in t and (r["tier"] == 1 or r["src"] == "FairytaleQA" or r["oov"] <= 0.045): held.append((r["tier"], t))
random.Random(1).shuffle(held)
import demo_talk as talk
rr = random.Random(987654321)
proc = [talk.doc(rr).replace("\x00", "") for _ in range(60)]
# golden's unseen text: first half human stories, second half stories and chats from an unused seed
L = 512
ids = []
def add(texts, n):
    a = []
    for t in texts:
        a += tok.encode(t, add_special_tokens=False).ids + [EOT]
        if len(a) >= n: return a[:n]
    raise SystemExit("too little text")
ids = add([t for _, t in held], 10 * L) + add(proc, 10 * L + 1)
c = torch.tensor(ids)


def nll(m, c, L=512):
    s, n = 0.0, 0
    for i in range(0, len(c) - 1, L):
        w = c[i:i + L + 1][None]
        s += F.cross_entropy(m(w[:, :-1]).logits.float().view(-1, m.config.vocab_size), w[0, 1:], reduction="sum").item(); n += w.shape[1] - 1
    return s, n


s1, n1 = nll(m, c[:10 * L + 1]); s2, n2 = nll(m, c[10 * L:])
print("held-out human ppl", math.exp(s1 / n1), "procedural ppl", math.exp(s2 / n2), "together", math.exp((s1 + s2) / (n1 + n2)), n1 + n2)
prompts = ["Once upon a time", "Lily and Tom went to the park. They saw a big", "The little robot was sad because"]
conv = ["Tell me a story about a dog and a ball.", "Write a story about a child named Mia.", "Hello! Can you tell me a story?"]
pid = [tok.encode(p).ids for p in prompts]
pid += [tok.encode(f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n").ids for q in conv]
pid += [tok.encode(f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n").ids for q in conv]
gold = []
for a in pid:
    cur, past, g, mg = torch.tensor([a]), None, [], []
    for _ in range(160):
        o = m(cur, past_key_values=past, use_cache=True); past = o.past_key_values
        t2 = o.logits[0, -1].float().topk(2)
        g.append(int(t2.indices[0])); mg.append(round(float(t2.values[0] - t2.values[1]), 5)); cur = t2.indices[:1][None]
    gold.append({"prompt": tok.decode(a, skip_special_tokens=False), "prompt_ids": a, "greedy_ids": g, "margins": mg, "text": tok.decode(g, skip_special_tokens=False)})
    print("----", gold[-1]["prompt"], "=>", gold[-1]["text"][:300], flush=True)
json.dump({"greedy": gold, "held_out": {"windows": 20, "length": L, "ids": ids, "mean_nll": (s1 + s2) / (n1 + n2), "perplexity": math.exp((s1 + s2) / (n1 + n2))}}, open(f"{out}/golden.json", "w"))
# comparison per character with the old model
if len(sys.argv) < 7: raise SystemExit
old, otok = model(sys.argv[6]), Tokenizer.from_file(f"{sys.argv[6]}/tokenizer.json")
for name, texts in (("human, tier 1 (simple modern stories)", [t for k, t in held if k == 1][:25]), ("human, classics", [t for k, t in held if k > 1][:15]), ("procedural stories and chats", proc[:40])):
    for nm, mm, tt in (("old", old, otok), ("new", m, tok)):
        s = n = ch = 0
        for t in texts:
            a, b = nll(mm, torch.tensor([tt.token_to_id("<|endoftext|>")] + tt.encode(t, add_special_tokens=False).ids), 1024); s += a; n += b; ch += len(t)
        print(f"{name}: {nm} bits/char {s / ch / math.log(2):.4f}  ppl/token {math.exp(s / n):.2f}", flush=True)
