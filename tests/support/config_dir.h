/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a model with some keys replaced, for the tests of config.json and generation_config.json. */
#ifndef TESTS_CONFIG_DIR_H
#define TESTS_CONFIG_DIR_H

#include <quern/model.h>

/* A copy of a small model without its weights' golden: d_model 64, 2 layers, 4 heads, 2 kv heads, head_dim 32, d_ff 160,
 * vocab 512, tied, f32. Made by setup, removed by teardown. */
extern char *config_dir;
int config_setup(void **state);
int config_teardown(void **state);

/* Write config.json (or another file) with the keys of `patch` replaced and those of `removed`, separated by spaces,
 * taken out. */
void config_write(const char *name, const char *patch, const char *removed);

/* Reading must fail so, with `why` in the message, and leave the result alone. */
void config_expect(qn_status status, const char *why, const char *what);
/* The same after writing config.json. */
void config_refuse(const char *patch, const char *removed, qn_status status, const char *why);

/* Write config.json and read the directory, which must succeed. */
qn_model_config config_read(const char *patch, const char *removed, const qn_log *log);

/* Lines of a log: how many, and the last one. */
typedef struct config_lines {
    int n;
    char last[256];
} config_lines;
void config_count_line(void *user, const char *text);

#endif
