/* SPDX-License-Identifier: Apache-2.0 */
/* Opens the objects and reads the text that the settings name. */
#include "open.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"

static char *keep_if_model(char *dir) {
    char *config = must_format("%s/config.json", dir);
    bool found = access(config, F_OK) == 0;
    free(config);
    if (found) return dir;
    free(dir);
    return NULL;
}

char *model_dir(const settings *s) {
    if (s->model) return must_format("%s", s->model);
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0) n = 0;
    self[n] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) *slash = '\0';
    char *dir = keep_if_model(must_format("%s/../models/demo", self));
    if (!dir) dir = must_format("%s/../share/quern/demo", self);
    char *plain = realpath(dir, NULL); /* no ".." in messages */
    if (!plain) return dir;
    free(dir);
    return plain;
}

int open_device(qn_device **out, const settings *s, const char *name, bool compose) {
    qn_device_options options = {.n_thread = (int32_t)s->threads.value, .isa = s->isa, .compose = compose};
    qn_error err;
    qn_status status = qn_device_open(out, name, &options, &err);
    if (status == QN_EINVAL && s->isa) return usage_error(NULL, "%s", err.message);
    return status ? fail_error(name, &err) : EXIT_DONE;
}

int open_model(qn_model **out, const settings *s, qn_device *device, const char *dir) {
    progress_bar bar;
    progress_begin(&bar, "loading");
    qn_model_options options = {.arith = s->arith < 0 ? QN_ARITH_AUTO : (qn_arith)s->arith,
                                .quantize = (qn_quantize)s->quantize,
                                .progress = {progress_report, &bar},
                                .log = warnings_log(s->quiet, dir)};
    qn_error err;
    qn_status status = qn_model_open(out, device, dir, &options, &err);
    progress_end(&bar);
    return status ? fail_error(dir, &err) : EXIT_DONE;
}

qn_dtype kv_dtype(const settings *s) {
    if (s->kv) return (qn_dtype)s->kv;
    return s->device && !strncmp(s->device, "cuda", 4) ? QN_DTYPE_BF16 : QN_DTYPE_F16;
}

qn_plan_options plan_options(const settings *s) {
    return (qn_plan_options){.device = s->device,
                             .isa = s->isa,
                             .n_thread = (int32_t)s->threads.value,
                             .arith = s->arith < 0 ? QN_ARITH_AUTO : (qn_arith)s->arith,
                             .quantize = (qn_quantize)s->quantize,
                             .n_ctx = (int32_t)s->n_ctx.value,
                             .kv_dtype = (qn_dtype)s->kv};
}

int open_session(qn_session **out, const settings *s, qn_model *model, const char *dir) {
    qn_session_options options = {
        .n_ctx = (int32_t)s->n_ctx.value, .kv_dtype = (qn_dtype)s->kv, .yarn = (qn_yarn_mode)s->yarn};
    qn_error err;
    return qn_session_create(out, model, &options, &err) ? fail_error(dir, &err) : EXIT_DONE;
}

bool has_tokenizer(const char *dir) {
    char *path = must_format("%s/tokenizer.json", dir);
    bool found = access(path, F_OK) == 0;
    free(path);
    return found;
}

/* Matches the end of qn_chat_template_open's message, which does not depend on the directory's name. */
static bool has_no_template(const qn_error *err) {
    static const char end[] = "no chat template";
    const size_t n = strlen(err->message), m = sizeof(end) - 1;
    return n >= m && !strcmp(err->message + n - m, end);
}

int open_chat_template(qn_chat_template **out, const settings *s, const char *dir, qn_error *missing) {
    qn_error err;
    qn_status status = s->chat_template ? qn_chat_template_open_file(out, s->chat_template, dir, &err)
                                        : qn_chat_template_open(out, dir, &err);
    if (!status) return EXIT_DONE;
    /* not every record needs a template; those that do get this reason */
    if (missing && status == QN_EUNSUPPORTED && (s->jsonl || has_no_template(&err))) {
        *missing = err;
        return EXIT_DONE;
    }
    return fail_error(s->chat_template ? s->chat_template : dir, &err);
}

/* Report a failed open or read. */
static int read_failed(const char *what, int reason) {
    if (interrupted()) return EXIT_INTERRUPTED;
    return fail(what, "%s", reason == ENOMEM ? "out of memory" : strerror(reason));
}

/* Make space for one more read. */
static bool make_room(line_input *in) {
    enum { CHUNK = 65536 };
    qn_text *text = &in->text;
    if (in->begin) {
        text->size -= in->begin;
        memmove(text->data, text->data + in->begin, text->size);
        in->begin = 0;
    }
    if (text->capacity - text->size >= CHUNK) return true;
    const size_t capacity = 2 * text->capacity + CHUNK;
    char *data = realloc(text->data, capacity);
    if (!data) return false;
    text->data = data;
    text->capacity = capacity;
    return true;
}

/* Read what is available; *late: nothing yet. */
static int read_more(line_input *in, bool waits, bool *late) {
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    *late = !waits && poll(&input, 1, 0) <= 0;
    if (*late) return EXIT_DONE;
    if (!make_room(in)) return read_failed("standard input", ENOMEM);
    ssize_t n = read(STDIN_FILENO, in->text.data + in->text.size, in->text.capacity - in->text.size);
    if (n < 0) return errno == EINTR && !interrupted() ? EXIT_DONE : read_failed("standard input", errno);
    in->text.size += (size_t)n;
    in->at_end = n == 0;
    return EXIT_DONE;
}

int read_line(line_input *in, bool waits, qn_string *line, line_state *state) {
    for (bool late = false;;) {
        const size_t n = in->text.size - in->begin;
        const char *begin = n ? in->text.data + in->begin : NULL;
        const char *end = n > in->searched ? memchr(begin + in->searched, '\n', n - in->searched) : NULL;
        in->searched = n;
        if (end || in->at_end || late) {
            const bool complete = end || (in->at_end && n);
            const size_t size = end ? (size_t)(end + 1 - begin) : complete ? n : 0;
            *state = complete ? LINE_READ : in->at_end ? LINE_END : LINE_NOT_YET;
            *line = (qn_string){begin, size};
            in->begin += size;
            if (complete) in->searched = 0;
            return interrupted() ? EXIT_INTERRUPTED : EXIT_DONE;
        }
        int code = read_more(in, waits, &late);
        if (code) return code;
    }
}

static int read_descriptor(qn_text *out, int fd, const char *what) {
    *out = (qn_text){must_realloc(NULL, 65536, 1), 0, 65536};
    for (;;) {
        if (out->capacity - out->size < 32768) {
            out->data = must_realloc(out->data, out->capacity, 2);
            out->capacity *= 2;
        }
        ssize_t n = read(fd, out->data + out->size, out->capacity - out->size - 1);
        if (n < 0 && errno == EINTR && !interrupted()) continue;
        if (n < 0) return read_failed(what, errno);
        if (!n) break;
        out->size += (size_t)n;
    }
    out->data[out->size] = '\0';
    return EXIT_DONE;
}

int read_file(qn_text *out, const char *path) {
    if (!strcmp(path, "-")) return read_descriptor(out, STDIN_FILENO, "standard input");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return read_failed(path, errno);
    int code = read_descriptor(out, fd, path);
    close(fd);
    return code;
}

int read_prompt(const settings *s, const char *name, qn_text *out, const char **what) {
    if (s->prompt && s->file) return usage_error(name, "-p and -f: only one of them");
    *what = s->prompt ? "--prompt" : s->file && strcmp(s->file, "-") != 0 ? s->file : "standard input";
    if (s->prompt) {
        size_t n = strlen(s->prompt);
        *out = (qn_text){must_realloc(NULL, n + 1, 1), n, n + 1};
        memcpy(out->data, s->prompt, n + 1);
        return EXIT_DONE;
    }
    if (!s->file && is_terminal(stdin)) return usage_error(name, "a text is needed: -p TEXT, -f FILE or a pipe");
    return read_file(out, s->file ? s->file : "-");
}

static bool is_separator(char c) {
    return c == ' ' || c == ',' || c == '\t' || c == '\n' || c == '\r';
}

int parse_ids(qn_ids *out, const char *what, const char *text, size_t size) {
    *out = (qn_ids){0};
    for (size_t i = 0; i < size;) {
        if (is_separator(text[i])) {
            i++;
            continue;
        }
        size_t begin = i;
        int64_t id = 0;
        while (i < size && text[i] >= '0' && text[i] <= '9' && id <= INT32_MAX) id = 10 * id + (text[i++] - '0');
        if (begin == i || id > INT32_MAX || (i < size && !is_separator(text[i])))
            return fail(what, "'%.*s' at byte %zu is not a token id", (int)strcspn(text + begin, " ,\t\r\n") % 40,
                        text + begin, begin);
        if (out->size == out->capacity) {
            out->capacity = out->capacity ? 2 * out->capacity : 64;
            out->data = must_realloc(out->data, out->capacity, sizeof(int32_t));
        }
        out->data[out->size++] = (int32_t)id;
    }
    return EXIT_DONE;
}

json_t *json_ids(const qn_ids *ids) {
    json_t *list = json_array();
    for (size_t i = 0; i < ids->size; i++) json_array_append_new(list, json_integer(ids->data[i]));
    return list;
}

static void set_real(double *out, const real *value) {
    if (value->given) *out = value->value;
}

void apply_sampling(qn_sampler_params *params, const sampling *wanted) {
    set_real(&params->temperature, &wanted->temperature);
    set_real(&params->top_p, &wanted->top_p);
    set_real(&params->min_p, &wanted->min_p);
    set_real(&params->repetition_penalty, &wanted->repetition_penalty);
    set_real(&params->presence_penalty, &wanted->presence_penalty);
    set_real(&params->frequency_penalty, &wanted->frequency_penalty);
    if (wanted->top_k.given) params->top_k = (int32_t)wanted->top_k.value;
    if (wanted->seed.given) params->seed = (uint64_t)wanted->seed.value;
}
