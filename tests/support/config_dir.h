/* SPDX-License-Identifier: Apache-2.0 */
/* A model's files with some keys replaced, for the tests of config.json and generation_config.json. */
#ifndef TESTS_CONFIG_DIR_H
#define TESTS_CONFIG_DIR_H

#include <quern/model.h>

/* A copy of a small model, without its golden file: d_model 64, 2 layers, 4 heads, 2 KV heads, head_dim 32, d_ff 160,
 * vocab 512, tied, f32. Created by setup, removed by teardown. */
extern char *config_dir;
int config_setup(void **state);
int config_teardown(void **state);

/* Write config.json (or another file) with the keys of `patch` replaced and the space-separated keys of `removed`
 * deleted. */
void config_write(const char *name, const char *patch, const char *removed);

/* Reading must fail with this status and `why` in the message, and leave the result unchanged. */
void config_expect(qn_status status, const char *why, const char *what);
/* The same, after writing config.json. */
void config_refuse(const char *patch, const char *removed, qn_status status, const char *why);

/* Write config.json, then read the directory, which must succeed. */
qn_model_config config_read(const char *patch, const char *removed, const qn_log *log);

/* A log that counts its lines and keeps the last one. */
typedef struct config_lines {
    int n;
    char last[256];
} config_lines;
void config_count_line(void *user, const char *text);

#endif
