/* SPDX-License-Identifier: Apache-2.0 */
/* generation_config.json: what is read, what is rejected, and what is logged as ignored. */
#include "support/cmocka_all.h"
#include "support/config_dir.h"
#include "support/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void refuse_generation(const char *patch, const char *removed, qn_status status, const char *why) {
    config_write("generation_config.json", patch, removed);
    config_expect(status, why, patch);
    config_write("generation_config.json", "{}", "");
}

static void merges_token_ids(void **state) {
    (void)state;
    config_write("generation_config.json", "{\"eos_token_id\":7}", "");
    config_lines l = {0};
    qn_log log = {config_count_line, &l};
    qn_model_config c = config_read("{\"eos_token_id\":[3,7,3,2]}", "", &log);
    assert_int_equal(l.n, 2);
    assert_string_equal(l.last,
                        "eos_token_id: 2 is in config.json and not in generation_config.json; it ends a text too");
    assert_int_equal(c.n_eos, 3);
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(c.eos[1], 3);
    assert_int_equal(c.eos[2], 2);
    config_write("generation_config.json", "{\"eos_token_id\":[7,3]}", "");
    config_read("{\"eos_token_id\":3}", "", &log);
    config_write("generation_config.json", "{}", "eos_token_id");
    config_read("{\"eos_token_id\":3}", "", &log);
    assert_int_equal(l.n, 2);
    assert_int_equal(config_read("{}", "eos_token_id", NULL).n_eos, 0);
    char *path = files_path(config_dir, "generation_config.json");
    assert_int_equal(remove(path), 0);
    free(path);
    c = config_read("{}", "", NULL);
    assert_int_equal(c.n_eos, 1);
    assert_int_equal(c.eos[0], 510);
    config_write("generation_config.json", "{}", "");
}

static void checks_generation_config(void **state) {
    (void)state;
    config_write("config.json", "{}", "");
    refuse_generation("{\"do_sample\":1}", "", QN_EFORMAT, "generation_config.json: do_sample must be true or false");
    refuse_generation("{\"temperature\":-1}", "", QN_EFORMAT, "temperature must be at least 0, got -1");
    refuse_generation("{\"temperature\":\"x\"}", "", QN_EFORMAT, "temperature must be a number, got \"x\"");
    refuse_generation("{\"top_k\":-1}", "", QN_EFORMAT, "top_k must be 0 to 2147483647, got -1");
    refuse_generation("{\"top_k\":1.5}", "", QN_EFORMAT, "top_k must be an integer, got 1.5");
    refuse_generation("{\"top_p\":1.5}", "", QN_EFORMAT, "top_p must be at least 0 and at most 1, got 1.5");
    refuse_generation("{\"min_p\":-0.5}", "", QN_EFORMAT, "min_p must be at least 0 and at most 1, got -0.5");
    refuse_generation("{\"repetition_penalty\":0}", "", QN_EFORMAT, "repetition_penalty must be more than 0, got 0");
    refuse_generation("{\"eos_token_id\":9999}", "", QN_EFORMAT, "eos_token_id 9999 is not below vocab_size 512");
    files_write(config_dir, "generation_config.json", "[]", 2);
    config_expect(QN_EFORMAT, "generation_config.json: must be a JSON object", "[]");
    config_write("generation_config.json", "{\"typical_p\":0.9}", "");
    config_lines l = {0};
    config_read("{}", "", &(qn_log){config_count_line, &l});
    assert_int_equal(l.n, 1);
    assert_non_null(strstr(l.last, "generation_config.json: key \"typical_p\" (0.9) is not offered and was ignored"));
    config_write("generation_config.json", "{\"typical_p\":1.0,\"temperature\":null}", "");
    config_read("{}", "", &(qn_log){config_count_line, &l});
    assert_int_equal(l.n, 1);
    config_write("generation_config.json", "{}", "");
}

/* Every unsupported setting that changes the text in transformers or vLLM is logged, and so are unknown keys;
 * default values and settings without effect on the text are not. */
static void reports_unsupported_settings(void **state) {
    (void)state;
    static const char *const ignored[] = {
        "\"stop_strings\": [\"the\"]",
        "\"begin_suppress_tokens\": [1]",
        "\"suppress_tokens\": [1]",
        "\"min_new_tokens\": 5",
        "\"min_length\": 5",
        "\"max_new_tokens\": 2048",
        "\"max_length\": 32768",
        "\"max_time\": 1.5",
        "\"encoder_repetition_penalty\": 1.2",
        "\"encoder_no_repeat_ngram_size\": 3",
        "\"no_repeat_ngram_size\": 3",
        "\"exponential_decay_length_penalty\": [5, 1.5]",
        "\"num_beams\": 4",
        "\"num_beam_groups\": 2",
        "\"num_return_sequences\": 2",
        "\"guidance_scale\": 1.5",
        "\"watermarking_config\": {\"bias\": 2.0}",
        "\"bad_words_ids\": [[1]]",
        "\"sequence_bias\": [[[1], -5.0]]",
        "\"forced_bos_token_id\": 0",
        "\"forced_eos_token_id\": 0",
        "\"penalty_alpha\": 0.6",
        "\"dola_layers\": \"high\"",
        "\"token_healing\": true",
        "\"top_h\": 0.4",
        "\"eta_cutoff\": 0.001",
        "\"epsilon_cutoff\": 0.001",
        "\"constraints\": [1]",
        "\"force_words_ids\": [[1]]",
    };
    for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++) {
        char patch[128], key[64], want[160];
        snprintf(patch, sizeof patch, "{%s}", ignored[i]);
        snprintf(key, sizeof key, "%.*s", (int)(strchr(ignored[i], ':') - ignored[i]), ignored[i]);
        snprintf(want, sizeof want, "generation_config.json: key %s (", key);
        config_lines l = {0};
        config_write("generation_config.json", patch, "");
        config_read("{}", "", &(qn_log){config_count_line, &l});
        if (l.n != 1 || strncmp(l.last, want, strlen(want)) != 0 || strstr(l.last, "not offered") == NULL) {
            fail_msg("%s: %d lines: %s", patch, l.n, l.last);
        }
        /* Such settings used to be in config.json. */
        snprintf(want, sizeof want, "config.json: key %s (", key);
        l.n = 0;
        config_write("generation_config.json", "{}", "");
        config_read(patch, "", &(qn_log){config_count_line, &l});
        if (l.n != 1 || strncmp(l.last, want, strlen(want)) != 0) fail_msg("%s: %d lines: %s", patch, l.n, l.last);
    }
    static const char defaults[] =
        "{\"num_beams\": 1, \"num_return_sequences\": 1, \"num_beam_groups\": 1, \"min_length\": 0, \"max_length\": 20,"
        " \"stop_strings\": null, \"suppress_tokens\": [], \"typical_p\": 1.0, \"encoder_repetition_penalty\": 1.0,"
        " \"guidance_scale\": 1, \"length_penalty\": 1.0, \"early_stopping\": false, \"no_repeat_ngram_size\": 0,"
        " \"use_cache\": true, \"output_scores\": false, \"transformers_version\": \"4.51.0\", \"pad_token_id\": 5,"
        " \"cache_implementation\": \"static\", \"renormalize_logits\": true, \"_from_model_config\": true,"
        " \"watermarking_config\": null, \"diversity_penalty\": 0.0}";
    config_lines l = {0};
    config_write("generation_config.json", defaults, "");
    config_read(
        "{\"temperature\": 1.0, \"top_k\": 50, \"top_p\": 1.0, \"do_sample\": false, \"repetition_penalty\": 1.0}", "",
        &(qn_log){config_count_line, &l});
    if (l.n != 0) fail_msg("%s", l.last);
    config_write("generation_config.json", "{\"of_tomorrow\": 1, \"nothing\": 0}", "");
    config_read("{}", "", &(qn_log){config_count_line, &l});
    assert_int_equal(l.n, 1);
    assert_string_equal(l.last, "generation_config.json: key \"of_tomorrow\" (1) is not known and was ignored");
    config_write("generation_config.json", "{}", "");
    l.n = 0;
    config_read("{\"temperature\": 0.5, \"min_p\": 0.1}", "", &(qn_log){config_count_line, &l});
    assert_int_equal(l.n, 2);
    assert_string_equal(l.last,
                        "config.json: key \"min_p\" (0.1) is read in generation_config.json only and was ignored");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_token_ids),
        cmocka_unit_test(checks_generation_config),
        cmocka_unit_test(reports_unsupported_settings),
    };
    return cmocka_run_group_tests(tests, config_setup, config_teardown);
}
