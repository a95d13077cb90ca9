/* SPDX-License-Identifier: Apache-2.0 */
/* Decodes numbers, names and texts. Terms are untrusted: each is checked before use. */
#include "quern_nif.h"

#include <string.h>

int64_t call_int(call *c, ERL_NIF_TERM term, const char *name, int64_t low, int64_t high) {
    ErlNifSInt64 value = 0;
    if (c->has_failed) return low;
    if (!enif_get_int64(c->env, term, &value)) {
        call_fail(c, "%s: must be a whole number, got %s", name, text_of(c->env, term).text);
    } else if (value < low || value > high) {
        call_fail(c, "%s: must be %lld to %lld, got %lld", name, (long long)low, (long long)high, (long long)value);
    } else {
        return value;
    }
    return low;
}

double call_number(call *c, ERL_NIF_TERM term, const char *name) {
    double value = 0;
    ErlNifSInt64 whole = 0;
    if (c->has_failed || enif_get_double(c->env, term, &value)) return value;
    if (enif_get_int64(c->env, term, &whole)) return (double)whole;
    call_fail(c, "%s: must be a number, got %s", name, text_of(c->env, term).text);
    return 0;
}

bool call_bool(call *c, ERL_NIF_TERM term, const char *name) {
    return call_choice(c, term, name, (const char *const[]){"false", "true", NULL}) == 1;
}

int call_choice(call *c, ERL_NIF_TERM term, const char *name, const char *const *names) {
    char text[32] = "";
    if (c->has_failed) return 0;
    if (enif_get_atom(c->env, term, text, sizeof text, ERL_NIF_LATIN1) > 0) {
        for (int i = 0; names[i] != NULL; i++) {
            if (strcmp(names[i], text) == 0) return i;
        }
    }
    char list[160] = "";
    for (int i = 0; names[i] != NULL; i++) {
        const size_t at = strlen(list);
        enif_snprintf(list + at, sizeof list - at, "%s%s", i == 0 ? "" : ", ", names[i]);
    }
    call_fail(c, "%s: must be one of %s, got %s", name, list, text_of(c->env, term).text);
    return 0;
}

unsigned call_length(call *c, ERL_NIF_TERM list, const char *name, unsigned most) {
    unsigned n = 0;
    ERL_NIF_TERM head, rest = list;
    if (c->has_failed) return 0;
    while (n <= most && enif_get_list_cell(c->env, rest, &head, &rest)) n++;
    if (n <= most && enif_is_empty_list(c->env, rest)) return n;
    if (n <= most) {
        call_fail(c, "%s: must be a list, got %s", name, n == 0 ? text_of(c->env, list).text : "an improper one");
    } else {
        call_fail(c, "%s: must be a list of at most %u, got a longer one", name, most);
    }
    return 0;
}

char *call_string(call *c, ERL_NIF_TERM term, const char *name) {
    enum { MOST = 65536 };
    ErlNifBinary binary = {0};
    if (c->has_failed) return NULL;
    if (!enif_inspect_binary(c->env, term, &binary)) {
        call_fail(c, "%s: must be a binary, got %s", name, text_of(c->env, term).text);
    } else if (binary.size > MOST) {
        call_fail(c, "%s: must be at most %d bytes, got %llu", name, MOST, (unsigned long long)binary.size);
    } else if (memchr(binary.data, 0, binary.size) != NULL) {
        call_fail(c, "%s: holds a zero byte", name);
    }
    char *text = call_alloc(c, binary.size + 1, 1);
    if (text != NULL) memcpy(text, binary.data, binary.size);
    return text;
}

qn_dtype call_dtype(call *c, ERL_NIF_TERM term, const char *name) {
    return (qn_dtype)call_choice(c, term, name, dtype_names);
}
