/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C side of `mix quern.bench --c`: generate MODEL N PROMPT [THREADS]. For each input line it runs one greedy
 * generation of N tokens with qn_generate and prints a line "tokens seconds" for those after the first, as seen by the
 * caller.
 */
#include <quern/quern.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct times {
    double first_s, last_s;
    int n;
} times;

static bool on_token(void *user, const qn_token *token) {
    times *t = user;
    (void)token;
    t->last_s = now_s();
    if (t->n++ == 0) t->first_s = t->last_s;
    return true;
}

static bool on_text(void *user, qn_piece piece, const char *text, size_t size) {
    (void)user;
    (void)piece;
    (void)text;
    return size > 0;
}

int main(int argc, char **argv) {
    qn_device *device = NULL;
    qn_model *model = NULL;
    qn_tokenizer *tokenizer = NULL;
    qn_error err = {.message = "usage: generate MODEL N PROMPT [THREADS]"};
    qn_device_options options = {.n_thread = argc > 4 ? (int32_t)strtol(argv[4], NULL, 10) : 0};
    if (argc < 4 || qn_device_open(&device, NULL, &options, &err) ||
        qn_model_open(&model, device, argv[1], NULL, &err) || qn_tokenizer_open(&tokenizer, argv[1], &err)) {
        return fprintf(stderr, "generate: %s\n", err.message), 1;
    }
    qn_sampler_params sampler;
    qn_sampler_defaults(model, QN_SAMPLER_NEUTRAL, &sampler);
    sampler.temperature = 0;
    for (int c; (c = getchar()) != EOF;) {
        if (c != '\n') continue;
        times t = {0};
        qn_session *session = NULL;
        const qn_generate_args args = {.prompt = argv[3],
                                       .sampler = &sampler,
                                       .n_predict = (int32_t)strtol(argv[2], NULL, 10),
                                       .ignore_eos = true,
                                       .on_token = on_token,
                                       .on_text = on_text,
                                       .user = &t};
        if (qn_session_create(&session, model, &(qn_session_options){.n_ctx = 1024}, &err) ||
            qn_generate(session, tokenizer, &args, NULL, &err)) {
            return fprintf(stderr, "generate: %s\n", err.message), 1;
        }
        qn_session_free(session);
        printf("%d %.9f\n", t.n - 1, t.last_s - t.first_s);
        fflush(stdout);
    }
    qn_tokenizer_close(tokenizer);
    qn_model_close(model);
    qn_device_close(device);
    return 0;
}
