# SPDX-License-Identifier: Apache-2.0
"""Train the demo model on one GPU, in minutes: workers write rows of procedural text (demo_talk.py), the trainer mixes in stories by people.

usage: train_demo.py DATA_DIR TOKENIZER_JSON OUT SECONDS
DATA_DIR holds stories.jsonl.xz; TOKENIZER_JSON is made by demo_tokenizer.py; SECONDS is the wall clock from the start to the last file
(1 minute of it goes to torch.compile on a fresh machine). OUT gets model.safetensors (Qwen3 names, bf16), half.safetensors, samples.txt, log.txt.
Then export_demo.py adds configs and goldens. Environment: BS LEN LR WARM HOLD SHARE LAYERS MAXROWS WORKERS ROWS TAIL INIT COMPILE GRAPH NGEN.
"""
import glob, json, lzma, math, os, random, re, sys, time, multiprocessing as mp
T0 = time.time()
data_dir, tokfile, out, budget = sys.argv[1:4] + [float(sys.argv[4])]
os.makedirs(out, exist_ok=True)
logf = open(f"{out}/log.txt", "a")
def log(*a):
    s = f"[{time.time()-T0:6.1f}] " + " ".join(map(str, a)); print(s, flush=True); print(s, file=logf, flush=True)
L = int(os.environ.get("LEN", 2048)); SHARD = int(os.environ.get("SHARD", 512)); ROWDIR = os.environ.get("ROWS", "/dev/shm/rows")
WORKERS = int(os.environ.get("WORKERS", 14)); MAXROWS = int(os.environ.get("MAXROWS", 160000))


def mask(ids, ims, ime, th, eth):
    """1 for tokens excluded from the loss: the user's turns, the head of each turn, the empty think block, the start of a history answer"""
    import numpy as np
    a = np.asarray(ids); m = np.zeros(len(a), np.int16)
    st = np.flatnonzero(a == ims)
    if len(st) == 0: return m
    en = np.flatnonzero(a == ime)
    for j, s in enumerate(st):
        e = en[en > s][0]; user = j % 2 == 0
        if user: m[s:e + 2] = 1                      # ... <|im_end|> and the newline
        else:
            m[s:s + HEAD] = 1
            c = s + HEAD
            if a[c] == th:
                k = c + int(np.flatnonzero(a[c:] == eth)[0])
                if k - c <= 2: m[c:k + 2] = 1        # <think> \n\n </think> \n\n comes from the template
            else: m[c] = 1
    return m


def worker(seed):
    import numpy as np
    os.nice(5)
    from tokenizers import Tokenizer
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import demo_talk as talk
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tok = Tokenizer.from_file(tokfile); S = {s: tok.token_to_id(s) for s in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")}
    r = random.Random(1000 + seed); n = 0
    buf, rows = [], []; used = 0
    while n * SHARD * WORKERS < MAXROWS:
        docs = [talk.doc(r).replace("\x00", "") for _ in range(256)]
        for e in tok.encode_batch(docs, add_special_tokens=False):
            a = np.array(e.ids + [S["<|endoftext|>"]], np.int16)
            a = a | (np.append(mask(e.ids, S["<|im_start|>"], S["<|im_end|>"], S["<think>"], S["</think>"]), np.int16(0)) << 12)
            buf.append(a); used += len(a)
            if used >= L + 1:
                rows.append(np.concatenate(buf)[:L + 1]); buf, used = [], 0
        if len(rows) >= SHARD:
            p = f"{ROWDIR}/s{seed:02d}_{n:04d}"; np.save(p + ".tmp.npy", np.stack(rows[:SHARD])); os.rename(p + ".tmp.npy", p + ".npy"); rows = rows[SHARD:]; n += 1


BAD = re.compile(r"(?:^|[ \n])a[A-Z][a-z]*\b|[.!?,]a(?=\s|$)|[^\x00-\x7f]|[a-z]{2}[A-Z]")    # quotation marks that became letters
HEAD = 3   # <|im_start|> assistant \n ; checked at the start


def human():
    import numpy as np
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(tokfile); eot = tok.token_to_id("<|endoftext|>")
    txt = []
    for n, line in enumerate(lzma.open(f"{data_dir}/stories.jsonl.xz", "rt")):
        r = json.loads(line); t = r["text"].strip()
        if n % 50 == 7 or not 120 < len(t) < 6000 or "@" in t or BAD.search(t): continue
        txt += [t] * (2 if r["tier"] == 1 else 1 if r["src"] == "FairytaleQA" or r["oov"] <= 0.062 else 0)
    random.Random(3).shuffle(txt)
    enc = [e.ids for i in range(0, len(txt), 2000) for e in tok.encode_batch(txt[i:i + 2000], add_special_tokens=False)]
    a = np.array([i for e in enc for i in e + [eot]], np.int16)
    n = len(a) // (L + 1)
    np.save(f"{ROWDIR}/human.tmp.npy", a[:n * (L + 1)].reshape(n, L + 1)); os.rename(f"{ROWDIR}/human.tmp.npy", f"{ROWDIR}/human.npy")


if __name__ != "__main__": raise SystemExit
os.makedirs(ROWDIR, exist_ok=True)
ctx = mp.get_context("fork")
seed0 = len(glob.glob(f"{ROWDIR}/s*.npy")) * 50
procs = [ctx.Process(target=worker, args=(i + seed0,), daemon=True) for i in range(WORKERS)]
if not os.path.exists(f"{ROWDIR}/human.npy"): procs.append(ctx.Process(target=human, daemon=True))
for p in procs: p.start()
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from tokenizers import Tokenizer
tok = Tokenizer.from_file(tokfile)
assert tok.encode("<|im_start|>assistant\nOnce").ids[HEAD:] == tok.encode("Once").ids and tok.get_vocab_size() == 4096
dev = "cuda" if torch.cuda.is_available() else "cpu"; GPU = dev == "cuda"; HALF = torch.bfloat16 if GPU else torch.float32
torch.manual_seed(1); torch.set_float32_matmul_precision("high")
V, HID, HEADS, KV, HD, MLP, THETA = 4096, 256, 4, 2, 64, 768, 10000.0
LAYERS = int(os.environ.get("LAYERS", 8)); BS = int(os.environ.get("BS", 32)); LR = float(os.environ.get("LR", 4e-3)); WARM = int(os.environ.get("WARM", 100)); HOLD = float(os.environ.get("HOLD", 0.4))


class Lm(nn.Module):
    """The matrices of one kind of all layers are stacked in one tensor, so that the optimizer works on whole stacks."""

    def __init__(self):
        super().__init__()
        P = lambda *s, std=0.02: nn.Parameter(torch.randn(*s) * std)
        small = 0.02 / math.sqrt(2 * LAYERS)
        self.embed = P(V, HID)
        self.q, self.k, self.v, self.o = P(LAYERS, HEADS*HD, HID), P(LAYERS, KV*HD, HID), P(LAYERS, KV*HD, HID), P(LAYERS, HID, HEADS*HD, std=small)
        self.g, self.u, self.d = P(LAYERS, MLP, HID), P(LAYERS, MLP, HID), P(LAYERS, HID, MLP, std=small)
        one = lambda *s: nn.Parameter(torch.ones(*s))
        self.n1, self.n2, self.qn, self.kn, self.nf = one(LAYERS, HID), one(LAYERS, HID), one(LAYERS, HD), one(LAYERS, HD), one(HID)

    def hidden(self, ids, cos, sin):
        B, T = ids.shape
        x = F.embedding(ids, self.embed)
        rot = lambda v: v * cos + torch.cat((-v[..., HD//2:], v[..., :HD//2]), -1) * sin
        rms = lambda x, w: F.rms_norm(x, w.shape, w, 1e-6)
        for q, k, v, o, g, u, d, n1, n2, qn, kn in zip(*(p.unbind(0) for p in (self.q, self.k, self.v, self.o, self.g, self.u, self.d, self.n1, self.n2, self.qn, self.kn))):
            h = rms(x, n1)
            Q = rot(rms(F.linear(h, q).view(B, T, HEADS, HD).transpose(1, 2).float(), qn)).to(HALF)
            K = rot(rms(F.linear(h, k).view(B, T, KV, HD).transpose(1, 2).float(), kn)).to(HALF)
            W = F.linear(h, v).view(B, T, KV, HD).transpose(1, 2).to(HALF)
            y = F.scaled_dot_product_attention(Q, K.repeat_interleave(HEADS//KV, 1), W.repeat_interleave(HEADS//KV, 1), is_causal=True)
            x = x + F.linear(y.transpose(1, 2).reshape(B, T, HEADS*HD), o)
            h = rms(x, n2)
            x = x + F.linear(F.silu(F.linear(h, g)) * F.linear(h, u), d)
        return rms(x, self.nf)

    def forward(self, ids, tgt, cos, sin):
        lg = F.linear(self.hidden(ids, cos, sin), self.embed)
        return F.cross_entropy(lg.float().view(-1, V), tgt.reshape(-1), ignore_index=-100)


def hf_state(lm):
    s = {"model.embed_tokens.weight": lm.embed, "model.norm.weight": lm.nf}
    for l in range(LAYERS):
        b = f"model.layers.{l}."
        for n, p in (("self_attn.q_proj", lm.q), ("self_attn.k_proj", lm.k), ("self_attn.v_proj", lm.v), ("self_attn.o_proj", lm.o), ("mlp.gate_proj", lm.g), ("mlp.up_proj", lm.u), ("mlp.down_proj", lm.d),
                     ("input_layernorm", lm.n1), ("post_attention_layernorm", lm.n2), ("self_attn.q_norm", lm.qn), ("self_attn.k_norm", lm.kn)): s[b + n + ".weight"] = p[l]
    return {k: v.detach().to(torch.bfloat16).cpu().contiguous() for k, v in s.items()}


lm = Lm().to(dev)
if os.environ.get("INIT"):
    from safetensors.torch import load_file
    sd = load_file(os.environ["INIT"])
    with torch.no_grad():
        for k, v in sd.items():
            if k == "model.embed_tokens.weight": lm.embed.copy_(v)
            elif k == "model.norm.weight": lm.nf.copy_(v)
            else:
                _, _, l, rest_ = k.split(".", 3)
                n = {"self_attn.q_proj": lm.q, "self_attn.k_proj": lm.k, "self_attn.v_proj": lm.v, "self_attn.o_proj": lm.o, "mlp.gate_proj": lm.g, "mlp.up_proj": lm.u, "mlp.down_proj": lm.d, "input_layernorm": lm.n1, "post_attention_layernorm": lm.n2, "self_attn.q_norm": lm.qn, "self_attn.k_norm": lm.kn}[rest_[:-len(".weight")]]
                n[int(l)].copy_(v)
log("device", torch.cuda.get_device_name() if GPU else "cpu", "parameters", sum(p.numel() for p in lm.parameters()))
ang = torch.outer(torch.arange(L).float(), THETA ** (-torch.arange(0, HD, 2).float() / HD))
cos, sin = torch.cat((ang.cos(),) * 2, -1).to(dev), torch.cat((ang.sin(),) * 2, -1).to(dev)
mats = [lm.q, lm.k, lm.v, lm.o, lm.g, lm.u, lm.d]; rest = [lm.embed, lm.n1, lm.n2, lm.qn, lm.kn, lm.nf]
mom = [torch.zeros_like(p) for p in mats]; m1 = [torch.zeros_like(p) for p in rest]; m2 = [torch.zeros_like(p) for p in rest]
hp = torch.zeros(3, device=dev)     # learning rate, 1/(1-b1^t), 1/(1-b2^t)


@torch.no_grad()
def update(mats, grads, mom, rest, grest, m1, m2, hp):
    lr = hp[0]
    for p, g, b in zip(mats, grads, mom):
        b.lerp_(g, 0.05)
        x = g.lerp(b, 0.95).to(HALF)
        tr = x.shape[1] > x.shape[2]
        if tr: x = x.mT
        x = x / (x.float().norm(dim=(1, 2), keepdim=True).to(HALF) + 1e-7)
        for _ in range(5):
            A = x @ x.mT
            x = 3.4445 * x + (-4.7750 * A + 2.0315 * A @ A) @ x
        if tr: x = x.mT
        p.mul_(1 - lr * 0.1).sub_(x.float() * (lr * 0.2 * math.sqrt(max(p.shape[1:]))))
    for p, g, a, b in zip(rest, grest, m1, m2):
        a.lerp_(g, 0.1); b.lerp_(g * g, 0.05)
        p.sub_(lr * (a * hp[1]) / ((b * hp[2]).sqrt() + 1e-8))


comp = torch.compile if os.environ.get("COMPILE", "1") == "1" else lambda f: f
fwd, upd = comp(lm), comp(update) if GPU else update
rows = torch.zeros(MAXROWS + WORKERS * SHARD, L + 1, dtype=torch.int16, device=dev); nrows = 0
idx = torch.zeros(BS, dtype=torch.int64, device=dev); hum = torch.zeros(1, L + 1, dtype=torch.int16, device=dev)
loss_s = torch.zeros((), device=dev)
xb = torch.zeros(BS, L + 1, dtype=torch.int16, device=dev)


def step():
    t = xb.long(); ids = t & 4095
    y = torch.where(t[:, 1:] >= 4096, -100, ids[:, 1:])
    with torch.autocast(dev, torch.bfloat16, enabled=GPU):
        loss = fwd(ids[:, :-1].contiguous(), y, cos, sin)
    gs = torch.autograd.grad(loss, mats + rest)
    upd(mats, list(gs[:len(mats)]), mom, rest, list(gs[len(mats):]), m1, m2, hp)
    loss_s.copy_(loss.detach())


SHARE = float(os.environ.get("SHARE", 0.08))
seen = set()
def absorb():
    global nrows, hum
    for f in sorted(glob.glob(f"{ROWDIR}/s*.npy")):
        if f in seen or ".tmp" in f: continue
        a = torch.from_numpy(np.load(f)); n = min(len(a), len(rows) - nrows)
        if n > 0: rows[nrows:nrows + n] = a[:n].to(dev); nrows += n
        seen.add(f)
    if len(hum) == 1 and os.path.exists(f"{ROWDIR}/human.npy"):
        hum = torch.from_numpy(np.load(f"{ROWDIR}/human.npy")).to(dev); log("human rows", len(hum))


def setlr(t, frac):
    s = min(1, (t + 1) / WARM) * (1 if frac < HOLD else max(0.0, (1 - frac) / (1 - HOLD)))
    hp.copy_(torch.tensor([LR * s, 1 / (1 - 0.9 ** (t + 1)), 1 / (1 - 0.95 ** (t + 1))]))


while True:
    absorb()
    if nrows >= min(4 * BS, 2000) and len(hum) > 1: break
    time.sleep(0.2)
log("rows", nrows)
rng = np.random.default_rng(0); ps = ph = 0
perm_h = rng.permutation(len(hum)); order = []


def fill(frac):
    """each new row once, then again from the start"""
    global ps, ph, order, perm_h
    share = SHARE if frac < 0.5 else SHARE - SHARE * (frac - 0.5)
    nh = int(rng.binomial(BS, share))
    if ph + nh > len(perm_h): perm_h = rng.permutation(len(hum)); ph = 0
    if ps + BS > len(order): order = rng.permutation(nrows); ps = 0
    a = torch.from_numpy(order[ps:ps + BS - nh]).to(dev); b = torch.from_numpy(perm_h[ph:ph + nh]).to(dev)
    ps += BS - nh; ph += nh
    xb[:BS - nh] = rows[a]; xb[BS - nh:] = hum[b]


setlr(0, 0); hp[0] = 0; fill(0)
graph = None
step(); log("first step", loss_s.item())
if GPU and os.environ.get("GRAPH", "1") == "1":
    try:
        s = torch.cuda.Stream(); s.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(s):
            for _ in range(3): step()
        torch.cuda.current_stream().wait_stream(s); torch.cuda.synchronize()
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g): step()
        graph = g; log("captured")
    except Exception as e:
        log("no graph:", repr(e)[:400]); torch.cuda.synchronize()
for b in mom + m1 + m2: b.zero_()


def save(name):
    from safetensors.torch import save_file
    save_file(hf_state(lm), f"{out}/{name}.tmp", metadata={"format": "pt"}); os.replace(f"{out}/{name}.tmp", f"{out}/{name}")


@torch.no_grad()
def sample(prompts, T, n=int(os.environ.get("NGEN", 330)), seed=0):
    g = torch.Generator(dev).manual_seed(seed)
    ids = [tok.encode(p, add_special_tokens=False).ids for p in prompts]; res = [list(i) for i in ids]; live = [True] * len(ids)
    for _ in range(n):
        m = max(map(len, res)); x = torch.zeros(len(res), min(L, (m + 127) // 128 * 128), dtype=torch.int64)
        for b, i in enumerate(res): x[b, :len(i)] = torch.tensor(i)
        with torch.autocast(dev, torch.bfloat16, enabled=GPU):
            h = lm.hidden(x.to(dev), cos[:x.shape[1]], sin[:x.shape[1]])
            lg = F.linear(h[torch.arange(len(res)), torch.tensor([len(i) - 1 for i in res], device=dev)], lm.embed).float()
        if T == 0: nx = lg.argmax(-1)
        else:
            v, k = (lg / T).topk(20); p = v.softmax(-1); c = p.cumsum(-1); p[(c - p) >= 0.95] = 0
            nx = k.gather(1, torch.multinomial(p, 1, generator=g))[:, 0]
        for b, t in enumerate(nx.tolist()):
            if live[b]:
                res[b].append(t)
                if t in STOP or len(res[b]) >= L: live[b] = False
        if not any(live): break
    return [tok.decode(r[len(i):], skip_special_tokens=False) for r, i in zip(res, ids)]


STOP = {tok.token_to_id("<|im_end|>"), tok.token_to_id("<|endoftext|>")}
U = lambda q, a="": f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}"
NT = "<think>\n\n</think>\n\n"
PROMPTS = [U("Tell me a story about a dog and a ball."), U("Write a story about a child named Mia.", NT), U("Hello! Can you tell me a story?"), U("Tell me a story about a dragon who is afraid of fire.", NT), U("Write a short story about a spaceship and a banana."), U("story about a vampire", NT),
           "Once upon a time", "Lily and Tom went to the park. They saw a big", "The little robot was sad because", U("Hi"), U("Who are you?"), U("What color is the sky?"), U("What is 3 + 4?"), U("Tell me about cats"), U("What is a teapot?", NT), U("Explain quantum physics", NT), U("I am sad today"), U("Why do cows eat grass?"), U("Count to five"), U("Thank you!", NT), U("What can you do?"), U("What is the opposite of hot?")]


def show(tag):
    for T in ((0.6,) if tag != "final" else (0.6, 0)):
        o = sample(PROMPTS, T)
        with open(f"{out}/samples.txt", "a") as f:
            for p, a in zip(PROMPTS, o): print(f"==== {tag} T={T} ## {p}\n>> {a}", file=f)


it, t_train, half = 0, time.time(), False
end = max(T0 + budget - float(os.environ.get("TAIL", 12)), t_train + 20)
while True:
    now = time.time(); frac = (now - t_train) / (end - t_train)
    if frac >= 1: break
    fill(frac); setlr(it, frac)
    graph.replay() if graph else step()
    it += 1
    if it % 20 == 0 and GPU: torch.cuda.synchronize()
    if it % 100 == 0 or not GPU:
        absorb()
    if it % 200 == 0 or (it < 100 and it % 20 == 0) or (not GPU and it % 10 == 0):
        log(it, "loss", round(loss_s.item(), 4), "Mtok", round(it * BS * L / 1e6, 1), "Mtok/s", round(it * BS * L / 1e6 / (time.time() - t_train), 3), "frac", round(frac, 3), "rows", nrows)
    if frac > 0.5 and not half:
        half = True; save("half.safetensors")
log("trained", it, "steps", round(it * BS * L / 1e6, 1), "Mtok, loss", loss_s.item(), "rows", nrows, "passes", round(it * BS / max(nrows, 1), 2))
save("model.safetensors"); log("saved")
for p in procs: p.terminate()
show("final"); log("samples written")
