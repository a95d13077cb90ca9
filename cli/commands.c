/* SPDX-License-Identifier: Apache-2.0 */
/* The option tables and the table of commands. */
#include <stdint.h>

#include <quern/quern.h>

#include "options.h"

#define AT(field) offsetof(settings, field)

static const int arith_values[] = {QN_ARITH_AUTO, QN_ARITH_F32, QN_ARITH_BF16, QN_ARITH_INT8};
static const int kv_values[] = {QN_DTYPE_F16, QN_DTYPE_BF16, QN_DTYPE_F32, QN_DTYPE_Q8};
static const int dtype_values[] = {QN_DTYPE_BF16, QN_DTYPE_F16, QN_DTYPE_F32};
static const int yarn_values[] = {QN_YARN_AUTO, QN_YARN_ON, QN_YARN_OFF};
static const int output_values[] = {OUTPUT_MD, OUTPUT_CSV, OUTPUT_JSON};
static const int quantize_values[] = {QN_QUANTIZE_Q8, QN_QUANTIZE_Q4};
static const int think_values[] = {QN_THINK_ON, QN_THINK_OFF, QN_THINK_AUTO};
static const int tool_arguments_values[] = {0, 1};
static const int reasoning_values[] = {REASONING_NONE, REASONING_DEEPSEEK};

static const option general_options[] = {
    {"-h, --help", OPTION_FLAG, AT(help), NULL, "this text", 0, 0, NULL},
    {0},
};

static const option quiet_options[] = {
    {"-q, --quiet", OPTION_FLAG, AT(quiet), NULL, "print no warnings", 0, 0, NULL},
    {0},
};

static const option model_options[] = {
    {"-m, --model", OPTION_TEXT, AT(model), "DIR",
     "checkpoint in Hugging Face's form, also a snapshot folder of its cache (default: the demo model)", 0, 0, NULL},
    {0},
};

static const option device_options[] = {
    {"-t, --threads", OPTION_WHOLE, AT(threads), "N", "threads that compute (default: one for each usable CPU)", 1, 512,
     NULL},
    {"--device", OPTION_TEXT, AT(device), "cpu|ref|cuda[:N]", "what computes (default: cpu); see quern devices", 0, 0,
     NULL},
    {"--isa", OPTION_TEXT, AT(isa), "NAME", "highest instruction set level to use: portable, avx2, avx512, ...", 0, 0,
     NULL},
    {0},
};

static const option compute_options[] = {
    {"--arith", OPTION_CHOICE, AT(arith), "auto|f32|bf16|int8",
     "arithmetic of the linears (default: auto; for verify f32)", 0, 0, arith_values},
    {"--quantize", OPTION_CHOICE, AT(quantize), "q8|q4",
     "quantize dense weights while they are loaded: to 8 bits, or most to 4; see quern quantize", 0, 0,
     quantize_values},
    {"--kv", OPTION_CHOICE, AT(kv), "f16|bf16|f32|q8",
     "type of the KV cache (default: f16, on cuda bf16; for verify f32)", 0, 0, kv_values},
    {"-c, --ctx-size", OPTION_WHOLE, AT(n_ctx), "N",
     "context in tokens (default: what the command needs, or the smaller of the model's and 4096)", 1, INT32_MAX, NULL},
    {0},
};

static const option yarn_options[] = {
    {"--yarn", OPTION_CHOICE, AT(yarn), "auto|on|off",
     "the model's YaRN scaling: when the context needs it (default), always, never", 0, 0, yarn_values},
    {0},
};

static const option prompt_options[] = {
    {"-p, --prompt", OPTION_TEXT, AT(prompt), "TEXT", "the text", 0, 0, NULL},
    {"-f, --file", OPTION_TEXT, AT(file), "FILE", "the text is in FILE (default, and with -: standard input)", 0, 0,
     NULL},
    {0},
};

static const option run_options[] = {
    {"--ids", OPTION_TEXT, AT(ids), "IDS", "the prompt as token ids, like \"1 2 3\"; prints ids, needs no tokenizer", 0,
     0, NULL},
    {"--chat", OPTION_FLAG, AT(chat), NULL, "the text is a user's message (default where the model has a template)", 0,
     0, NULL},
    {"--raw", OPTION_FLAG, AT(raw), NULL, "the text is continued as it is", 0, 0, NULL},
    {"--jsonl", OPTION_FLAG, AT(jsonl), NULL, "take a request on each line of standard input, answer each with a line",
     0, 0, NULL},
    {"-np, --parallel", OPTION_WHOLE, AT(parallel), "N",
     "with --jsonl: requests to compute at once (default: 4, or fewer where their contexts take too much memory)", 1,
     256, NULL},
    {"--stop, -r, --reverse-prompt", OPTION_TEXTS, AT(stops), "TEXT",
     "end before this text; may be given several times", 0, 0, NULL},
    {"--reasoning-format", OPTION_CHOICE, AT(reasoning_format), "none|deepseek",
     "none: reasoning stays in the text; deepseek: it is split off (default for messages)", 0, 0, reasoning_values},
    {0},
};

static const option generate_options[] = {
    {"-n, --predict, --max-tokens", OPTION_WHOLE, AT(n_predict), "N",
     "tokens at most (default: until the end of the text or a full context)", 1, INT32_MAX, NULL},
    {"--think", OPTION_CHOICE, AT(think), "on|off|auto",
     "whether the model should think first (default: auto, as the template decides)", 0, 0, think_values},
    {"--ignore-eos", OPTION_FLAG, AT(ignore_eos), NULL, "go on after an end-of-text token", 0, 0, NULL},
    {"--parse-special", OPTION_FLAG, AT(parse_special), NULL,
     "read special tokens in messages too: whoever writes them can forge turns", 0, 0, NULL},
    {0},
};

static const option template_options[] = {
    {"--chat-template", OPTION_TEXT, AT(chat_template), "FILE", "use this Jinja template instead of the model's own", 0,
     0, NULL},
    {"--chat-template-kwargs", OPTION_TEXT, AT(template_kwargs), "JSON", "an object with variables for the template", 0,
     0, NULL},
    {"--date", OPTION_TEXT, AT(date), "DATE",
     "what the template takes for now, like 2026-01-31 or 2026-01-31T12:00:00 (default: the clock)", 0, 0, NULL},
    {"--tool-arguments", OPTION_CHOICE, AT(tool_arguments), "text|object",
     "object: arguments of tool calls that are JSON text reach the template as objects (default: text, as they come)",
     0, 0, tool_arguments_values},
    {0},
};

/* Only types are checked here. Ranges are checked by the library's sampler, which names the parameter. */
static const option sampling_options[] = {
    {"--temp, --temperature", OPTION_REAL, AT(sampling.temperature), "X",
     "0: always the most likely token (sampling defaults: generation_config.json, then Qwen's advice)", 0, 1e9, NULL},
    {"--top-k", OPTION_WHOLE, AT(sampling.top_k), "N", "draw from the N most likely tokens; 0: all", 0, INT32_MAX,
     NULL},
    {"--top-p", OPTION_REAL, AT(sampling.top_p), "X", "draw from the most likely tokens that sum up to X", 0, 1, NULL},
    {"--min-p", OPTION_REAL, AT(sampling.min_p), "X", "drop tokens less likely than X times the best", 0, 1, NULL},
    {"--repeat-penalty, --repetition-penalty", OPTION_REAL, AT(sampling.repetition_penalty), "X",
     "divide the logits of tokens that are in the context; 1: none", 1e-6, 1e6, NULL},
    {"--presence-penalty", OPTION_REAL, AT(sampling.presence_penalty), "X",
     "take from the logits of tokens that were generated", -1e6, 1e6, NULL},
    {"--frequency-penalty", OPTION_REAL, AT(sampling.frequency_penalty), "X", "the same for each time", -1e6, 1e6,
     NULL},
    {"--logit-bias", OPTION_TEXTS, AT(logit_bias), "ID+X|ID-X",
     "add to the logit of a token; may be given several times", 0, 0, NULL},
    {"-s, --seed", OPTION_WHOLE, AT(sampling.seed), "N",
     "of the draws (default: a random one, told at the end; with --jsonl 0)", 0, 0x1p63, NULL},
    {0},
};

static const option tokenize_options[] = {
    {"--jsonl", OPTION_FLAG, AT(jsonl), NULL, "take {\"text\": ...} or {\"ids\": [...]} on each line of standard input",
     0, 0, NULL},
    {"--plain", OPTION_FLAG, AT(plain), NULL, "texts of special tokens are text like any other", 0, 0, NULL},
    {"--decode", OPTION_FLAG, AT(decode), NULL, "from ids to text", 0, 0, NULL},
    {0},
};

static const option perplexity_options[] = {
    {"-f, --file", OPTION_TEXT, AT(file), "FILE", "score the text in FILE; -: standard input", 0, 0, NULL},
    {"--ids", OPTION_TEXT, AT(ids), "FILE", "score the ids in FILE, separated by white space; -: standard input", 0, 0,
     NULL},
    {"--window", OPTION_WHOLE, AT(window), "N", "tokens of a window (default: 512); the incomplete tail is dropped", 1,
     INT32_MAX, NULL},
    {"--compare", OPTION_TEXT, AT(compare), "DIR",
     "report the perplexity relative to the checkpoint DIR (as it is on disk), and the mean KL divergence from it", 0,
     0, NULL},
    {0},
};

static const option verify_options[] = {
    {"--chunk", OPTION_WHOLE, AT(chunk), "N", "compute prompts in chunks of N tokens", 1, INT32_MAX, NULL},
    {"--batch", OPTION_WHOLE, AT(batch), "N",
     "compute the golden rows in a batch of N rows (at least their number), the rest random prompts", 1, 1024, NULL},
    {0},
};

static const option json_options[] = {
    {"--json", OPTION_FLAG, AT(json), NULL, "print JSON", 0, 0, NULL},
    {0},
};

static const option synth_options[] = {
    {"-s, --seed", OPTION_WHOLE, AT(sampling.seed), "N", "of the random weights (default: 0)", 0, 0x1p63, NULL},
    {"--dtype", OPTION_CHOICE, AT(dtype), "bf16|f16|f32", "type of the weights (default: bf16)", 0, 0, dtype_values},
    {0},
};

static const option bench_options[] = {
    {"--synthetic", OPTION_TEXT, AT(synthetic), "SHAPE",
     "no checkpoint: one with random weights, as quern synth writes it, for the time of loading in $TMPDIR", 0, 0,
     NULL},
    {"-p, --n-prompt", OPTION_WHOLES, AT(n_prompt), "N,...", "tokens of a prompt (default: 512); 0: no such test", 0,
     INT32_MAX, NULL},
    {"-n, --n-gen", OPTION_WHOLES, AT(n_gen), "N,...", "tokens to generate (default: 128); 0: no such test", 0,
     INT32_MAX, NULL},
    {"-d, --n-depth", OPTION_WHOLES, AT(n_depth), "N,...", "tokens that are in the context before (default: 0)", 0,
     INT32_MAX, NULL},
    {"-b, --n-parallel", OPTION_WHOLES, AT(n_parallel), "N,...",
     "sequences that generate at the same time, in common passes (default: 1)", 1, 512, NULL},
    {"-r, --repetitions", OPTION_WHOLE, AT(repetitions), "N", "times that each test is measured (default: 5)", 1, 10000,
     NULL},
    {"-o, --output", OPTION_CHOICE, AT(output), "md|csv|json", "form of the results (default: md)", 0, 0,
     output_values},
    {0},
};

static const option quantize_options[] = {
    {"--to", OPTION_CHOICE, AT(quantize), "q8|q4", "8 bits, or most in 4 bits (needed)", 0, 0, quantize_values},
    {"-t, --threads", OPTION_WHOLE, AT(threads), "N", "threads that compute (default: one for each usable CPU)", 1, 512,
     NULL},
    {0},
};

static const option *const run_groups[] = {model_options,    prompt_options,   run_options,     generate_options,
                                           sampling_options, template_options, device_options,  compute_options,
                                           yarn_options,     quiet_options,    general_options, NULL};
static const option *const chat_groups[] = {
    model_options,   generate_options, sampling_options, template_options, device_options,
    compute_options, yarn_options,     quiet_options,    general_options,  NULL};
static const option *const tokenize_groups[] = {model_options, prompt_options,  tokenize_options,
                                                quiet_options, general_options, NULL};
static const option *const render_groups[] = {model_options, template_options, quiet_options, general_options, NULL};
static const option *const sample_groups[] = {general_options, NULL};
static const option *const perplexity_groups[] = {model_options,  perplexity_options, json_options,
                                                  device_options, compute_options,    yarn_options,
                                                  quiet_options,  general_options,    NULL};
static const option *const verify_groups[] = {
    verify_options, json_options, device_options, compute_options, quiet_options, general_options, NULL};
static const option *const info_groups[] = {
    model_options, json_options, device_options, compute_options, quiet_options, general_options, NULL};
static const option *const devices_groups[] = {json_options, general_options, NULL};
static const option *const synth_groups[] = {synth_options, general_options, NULL};
static const option *const bench_groups[] = {
    model_options, bench_options, device_options, compute_options, quiet_options, general_options, NULL};
static const option *const quantize_groups[] = {quantize_options, quiet_options, general_options, NULL};

const command commands[] = {
    {"run", "", 0, 0, "generate text from a prompt",
     "Continue a prompt. The text is a user's message, or raw text for a model without chat template. The answer comes "
     "to standard output as it is made; the reasoning of a thinking model and a line of figures come to standard "
     "error. "
     "With --jsonl each line is {\"prompt\": TEXT}, {\"messages\": [...]} or {\"ids\": [...]}, with optional fields "
     "named as in the OpenAI API, and is answered by a line.",
     run_groups, command_run},
    {"chat", "", 0, 0, "hold a conversation",
     "A conversation on the terminal. Ctrl-C stops an answer, Ctrl-D ends the chat, a backslash at the end of a line "
     "continues it; /help lists the commands.",
     chat_groups, command_chat},
    {"tokenize", "", 0, 0, "turn text into token ids, and back",
     "Turn a text into token ids, separated by spaces, or ids into text. Needs the tokenizer files only.",
     tokenize_groups, command_tokenize},
    {"render", "", 0, 0, "render conversations with the chat template",
     "Each line of standard input is {\"messages\": [...], \"tools\": null or [...], \"add_generation_prompt\": bool, "
     "\"enable_thinking\": null or bool}; each is answered by {\"text\": ...}. Needs the tokenizer files only.",
     render_groups, command_render},
    {"sample", "", 0, 0, "compute sampling distributions",
     "Each line of standard input holds \"logits\" and the settings of a draw (history, prompt_len, temperature, "
     "top_k, "
     "top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, logit_bias, seed, position); each is "
     "answered by {\"probs\": [...], \"id\": n}. Needs no model.",
     sample_groups, command_sample},
    {"perplexity", "", 0, 0, "score a text",
     "Window w feeds ids wN ... wN+N-1 and scores ids wN+1 ... wN+N; nothing is shared between windows.",
     perplexity_groups, command_perplexity},
    {"verify", "PATH...", 1, -1, "compare with reference data",
     "Compute checkpoints that come with golden.safetensors or golden.json, and primitive case files, and compare with "
     "what they should give. A PATH is one of these or a folder of them. Exit code 1 if anything differs.",
     verify_groups, command_verify},
    {"info", "", 0, 0, "describe a checkpoint and the memory it takes",
     "Configuration, parameters, sizes of files and memory, KV bytes a token, and the longest context that fits, "
     "before "
     "anything is loaded.",
     info_groups, command_info},
    {"devices", "", 0, 0, "list what can compute",
     "The backends, instruction set levels and devices of this machine. Threads and memory are those that this process "
     "may use, with the limits of its control groups (containers).",
     devices_groups, command_devices},
    {"synth", "SHAPE DIR", 2, 2, "write a checkpoint with random weights",
     "SHAPE is 0.6B, 1.7B, 4B, 8B, 14B or 32B, or keys separated by commas that start from 0.6B or from the size named "
     "first: layers= d_model= heads= kv_heads= head_dim= d_ff= vocab= tied=. The directory must not exist or be empty. "
     "No tokenizer is written: copy one there to use text.",
     synth_groups, command_synth},
    {"bench", "", 0, 0, "measure speed and compare it with the machine's peak",
     "Load time, prefill and generation, optionally at a context depth and for several sequences at once: tokens, "
     "bytes "
     "and operations a second, and their share of the peak of this machine's threads, measured in the same run. Tests "
     "are the product of the lists, which are like 1,2,4 or 1-8*2 or 1-8+1.",
     bench_groups, command_bench},
    {"quantize", "IN OUT", 2, 2, "write a checkpoint with quantized weights",
     "Read the checkpoint IN and write OUT, which loads like any other, in a half or a third of the memory. OUT must "
     "not "
     "exist or be empty. q8 keeps all linears in 8 bits; q4 has 4 bits in q, k, v, gate and up, and 8 bits in the "
     "rest. "
     "Results are those of --quantize, bit for bit. The weights are in the form of MLX, which mlx-lm reads too.",
     quantize_groups, command_quantize},
    {0},
};
