# SPDX-License-Identifier: Apache-2.0
"""The demo model's tokenizer: 4,096 byte-level BPE tokens in Qwen3's form, from procedural and human text. usage: demo_tokenizer.py STORIES.jsonl QWEN_TOKENIZER_DIR OUT"""
import json, random, sys
from tokenizers import Tokenizer, Regex, AddedToken, models, normalizers, pre_tokenizers, decoders, trainers, processors
import demo_talk as talk
stories, tokdir, out = sys.argv[1:4]
r = random.Random(7)
text = [talk.doc(r).replace("\x00", "") for _ in range(9000)]
hum = []
for line in open(stories):
    d = json.loads(line)
    if d["tier"] == 1 or (d["oov"] <= 0.05 and r.random() < 0.5): hum.append(d["text"])
r.shuffle(hum); hum = hum[:3500]
print(sum(map(len, text)), sum(map(len, hum)))
ref = json.load(open(f"{tokdir}/tokenizer.json"))
pat = ref["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
tok = Tokenizer(models.BPE())
tok.normalizer = normalizers.NFC()
tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pat), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
tok.decoder = decoders.ByteLevel(add_prefix_space=False, use_regex=False)
tok.post_processor = processors.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
import re
strip = lambda t: re.sub(r"<\|[a-z_]+\|>|</?think>", "", t)
tok.train_from_iterator([strip(t) for t in text] + hum + ["system user assistant\n"] * 50, trainers.BpeTrainer(vocab_size=4096 - 9, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
tok.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in SPECIAL])
tok.add_tokens([AddedToken(s, normalized=False, special=False) for s in PLAIN])
assert tok.get_vocab_size() == 4096
tok.save(out)
for n, t in (("procedural", text[:500]), ("human", hum[:500])): print(n, "chars/token", sum(map(len, t)) / sum(len(e.ids) for e in tok.encode_batch(t)))
