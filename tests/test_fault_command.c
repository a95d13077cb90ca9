/* SPDX-License-Identifier: Apache-2.0 */
/* Makes every allocation fail once in each command: the n-th alone, and the n-th with all that follow. A run must
 * exit with code 0 and its normal output, or with 1 and an error line; never by a signal, and never with partial
 * output files. build/…/tests/quern_fault is the command linked with fault/malloc.c; sanitizer builds have none. */
#include "support/cmocka_all.h"
#include "support/files.h"
#include "support/small_model.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ARGUMENTS = 16, REPORT_FD = 9 };

typedef struct scenario {
    const char *name;
    const char *arguments[MAX_ARGUMENTS]; /* "MODEL" and "OUT" stand for paths */
    const char *input;                    /* standard input, in which "OUT" is also replaced; NULL: none */
    const char *varies;                   /* from here to `end` the output varies between runs; NULL: nowhere */
    char end;
    bool writes; /* to OUT */
} scenario;

static char *model_dir, *work_dir, *program;

typedef struct outcome {
    int status;
    bool refused;
    char *out, *err;
} outcome;

static void outcome_free(outcome *o) {
    free(o->out);
    free(o->err);
}

static void redirect(const char *name, int to) {
    char *path = files_path(work_dir, name);
    int fd = open(path, to == STDIN_FILENO ? O_RDONLY : O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, to) < 0) _exit(98);
    close(fd);
    free(path);
}

/* fault: the value of QUERN_FAULT. */
static outcome run(const scenario *s, const char *fault) {
    char *paths[2] = {model_dir, files_path(work_dir, "new")};
    const char *argv[MAX_ARGUMENTS + 2] = {"quern"};
    for (int i = 0; s->arguments[i] != NULL; i++) {
        const char *a = s->arguments[i];
        argv[i + 1] = strcmp(a, "MODEL") == 0 ? paths[0] : strcmp(a, "OUT") == 0 ? paths[1] : a;
    }
    int report[2];
    assert_int_equal(pipe(report), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        setenv("QUERN_FAULT", fault, 1);
        setenv("QUERN_FAULT_REPORT", "9", 1);
        redirect("in", STDIN_FILENO);
        redirect("out", STDOUT_FILENO);
        redirect("err", STDERR_FILENO);
        if (dup2(report[1], REPORT_FD) < 0) _exit(98);
        execv(program, (char *const *)(uintptr_t)argv);
        _exit(98);
    }
    close(report[1]);
    outcome o = {0};
    char byte = '?';
    while (read(report[0], &byte, 1) < 0 && errno == EINTR) continue;
    close(report[0]);
    assert_int_equal(waitpid(pid, &o.status, 0), pid);
    o.refused = byte == 'y';
    char *out = files_path(work_dir, "out"), *err = files_path(work_dir, "err");
    o.out = files_read(out, NULL);
    o.err = files_read(err, NULL);
    free(out);
    free(err);
    free(paths[1]);
    return o;
}

/* Whether two outputs are equal, except for the part that varies between runs. */
static bool alike(const scenario *s, const char *a, const char *b) {
    while (*a != '\0' && *b != '\0') {
        if (s->varies != NULL && strncmp(a, s->varies, strlen(s->varies)) == 0) {
            const char end[] = {s->end, '\0'};
            a += strcspn(a, end);
            b += strcspn(b, end);
            continue;
        }
        if (*a++ != *b++) return false;
    }
    return *a == *b;
}

/* Whether a run left what it should: a complete directory or file named "new", or nothing. Removes it. */
static bool check_left(const scenario *s, bool done) {
    int n = 0;
    DIR *stream = opendir(work_dir);
    assert_non_null(stream);
    for (struct dirent *e; (e = readdir(stream)) != NULL;) n += strncmp(e->d_name, "new", 3) == 0;
    closedir(stream);
    char *path = files_path(work_dir, "new"), *weights = files_path(path, "model.safetensors");
    bool whole = false;
    if (access(weights, R_OK) == 0) {
        char *config = files_path(path, "config.json");
        whole = access(config, R_OK) == 0;
        free(config);
        files_remove_dir(path);
    } else {
        if (access(path, R_OK) == 0) {
            char *text = files_read(path, NULL);
            whole = strlen(text) > 2 && strcmp(text + strlen(text) - 2, "}\n") == 0;
            free(text);
        }
        unlink(path);
        free(path);
    }
    free(weights);
    return n == 0 ? !(s->writes && done) : n == 1 && whole && s->writes;
}

static void check(const scenario *s, const char *fault, const outcome *o, const outcome *right) {
    bool done = WIFEXITED(o->status) && WEXITSTATUS(o->status) == 0;
    bool failed = WIFEXITED(o->status) && WEXITSTATUS(o->status) == 1;
    const char *wrong = NULL;
    if (!done && !failed) wrong = "ends so";
    if (done && !alike(s, o->out, right->out)) wrong = "says that it is done and prints something else";
    if (failed && strstr(o->err, "quern: ") == NULL && strstr(o->out, "{\"error\": \"") == NULL) wrong = "says nothing";
    if (!check_left(s, done)) wrong = "leaves something else";
    if (wrong != NULL) {
        fail_msg("%s, allocation %s: %s: status %x, stdout \"%.300s\", stderr \"%.300s\"", s->name, fault, wrong,
                 (unsigned)o->status, o->out, o->err);
    }
}

static void sweep(const scenario *s, const char *mode, long dense, long grain) {
    char input[1024], *out_path = files_path(work_dir, "new");
    const char *text = s->input != NULL ? s->input : "", *out = strstr(text, "OUT");
    int before = out != NULL ? (int)(out - text) : (int)strlen(text);
    snprintf(input, sizeof input, "%.*s%s%s", before, text, out != NULL ? out_path : "", out != NULL ? out + 3 : "");
    files_write(work_dir, "in", input, strlen(input));
    free(out_path);
    outcome right = run(s, "0");
    if (right.status != 0) fail_msg("%s: status %x: %s", s->name, (unsigned)right.status, right.err);
    check(s, "none", &right, &right);
    bool refused = true;
    for (long n = 1; refused; n += n < dense ? 1 : 1 + n / grain) {
        char fault[32];
        snprintf(fault, sizeof fault, "%ld%s", n, mode);
        outcome o = run(s, fault);
        check(s, fault, &o, &right);
        /* without a report it ended early: an allocation failed */
        refused = o.refused || o.status != 0;
        outcome_free(&o);
    }
    outcome_free(&right);
}

#define MESSAGE "{\"role\":\"user\",\"content\":\"a long text, longer than any small buffer: the thin man in the inn\"}"

static const scenario scenarios[] = {
    {.name = "sample",
     .arguments = {"sample"},
     .input = "{\"logits\":[1,2,3,4.5,2.25e0],\"history\":[1,2,3],\"logit_bias\":{\"2\":1.5}}\n"},
    {.name = "tokenize", .arguments = {"tokenize", "-m", "MODEL"}, .input = "the thin man <|im_end|>"},
    {.name = "tokenize --jsonl",
     .arguments = {"tokenize", "-m", "MODEL", "--jsonl"},
     .input = "{\"text\":\"the thin\"}\n{\"text\":\"man\"}\n"},
    {.name = "decode",
     .arguments = {"tokenize", "-m", "MODEL", "--decode", "--jsonl"},
     .input = "{\"ids\":[1,2,256,3]}\n"},
    {.name = "render",
     .arguments = {"render", "-m", "MODEL"},
     .input = "{\"messages\":[" MESSAGE "],\"tools\":[{\"name\":\"f\"}]}\n"},
    {.name = "run", .arguments = {"run", "-m", "MODEL", "-t", "1", "-n", "4", "-s", "1", "-p", "the man"}},
    {.name = "run --ids", .arguments = {"run", "-m", "MODEL", "-t", "1", "-n", "4", "-s", "1", "--ids", "1 2 3"}},
    {.name = "run --jsonl",
     .arguments = {"run", "-m", "MODEL", "-t", "1", "--jsonl"},
     .input = "{\"messages\":[" MESSAGE "],\"max_tokens\":3,\"logprobs\":2}\n"
              "{\"ids\":[1,2],\"max_tokens\":2,\"stop\":[\"zz\"]}\n",
     .varies = "\"timings\"",
     .end = '}'},
    {.name = "chat",
     .arguments = {"chat", "-m", "MODEL", "-t", "1", "-n", "3", "-s", "1", "-c", "256"},
     .input = "Hello\n/save OUT\n/system Be kind.\n/stats\nAnd then\\\nmore?\n",
     .writes = true},
    {.name = "verify",
     .arguments = {"verify", "-t", "1", "tests/data/models/tied-f32", "tests/data/primitives/case0.safetensors"}},
    {.name = "perplexity",
     .arguments = {"perplexity", "-m", "MODEL", "-t", "1", "-f", "-", "--window", "8", "--json"},
     .input = "the thin man in the inn"},
    {.name = "info", .arguments = {"info", "-m", "MODEL", "--json"}, .varies = "\"ctx_fits\"", .end = '}'},
    /* processor details and usable levels are reported as far as memory allows */
    {.name = "devices", .arguments = {"devices", "--json"}, .varies = "\"description\"", .end = '\n'},
    {.name = "synth",
     .arguments = {"synth", "layers=1,d_model=32,heads=2,kv_heads=1,head_dim=16,d_ff=32,vocab=64", "OUT"},
     .writes = true},
    {.name = "quantize", .arguments = {"quantize", "--to", "q8", "-t", "1", "MODEL", "OUT"}, .writes = true},
};

static void one_allocation_fails(void **state) {
    (void)state;
    if (program == NULL) skip();
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) sweep(&scenarios[i], "", 120, 12);
}

static void all_allocations_fail_from_one(void **state) {
    (void)state;
    if (program == NULL) skip();
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++) sweep(&scenarios[i], "+", 30, 4);
}

/* Find the command beside this program. */
static int find(void **state) {
    (void)state;
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    program = files_path(self, "quern_fault");
    if (getenv("EMULATOR") != NULL || access(program, X_OK) != 0) {
        free(program);
        program = NULL;
    }
    model_dir = small_model_make();
    work_dir = files_make_dir();
    return 0;
}

static int remove_outputs(void **state) {
    (void)state;
    free(program);
    files_remove_dir(model_dir);
    files_remove_dir(work_dir);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_allocation_fails),
        cmocka_unit_test(all_allocations_fail_from_one),
    };
    return cmocka_run_group_tests(tests, find, remove_outputs);
}
