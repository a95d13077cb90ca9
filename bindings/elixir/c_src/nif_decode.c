/* SPDX-License-Identifier: Apache-2.0 */
/* Decodes numbers, names and texts. Terms are untrusted: each is checked before use. */
#include "quern_nif.h"

#include <string.h>

const char *const dtype_names[] = {[QN_DTYPE_DEFAULT] = "nil",
#define DTYPE_NAME(name, value, bytes, text) [QN_DTYPE_##name] = text,
                                   QN_DTYPE_MAP(DTYPE_NAME)
#undef DTYPE_NAME
                                       NULL};
const char *const arith_names[] = {"auto", "f32", "bf16", "int8", NULL};

/* Only small terms are written out: formatting takes time proportional to size, and a message is one line of UTF-8. */
term_text text_of(ErlNifEnv *env, ERL_NIF_TERM term) {
    static const char *const kinds[] = {[ERL_NIF_TERM_TYPE_ATOM] = "an atom",
                                        [ERL_NIF_TERM_TYPE_BITSTRING] = "a binary",
                                        [ERL_NIF_TERM_TYPE_FLOAT] = "a float",
                                        [ERL_NIF_TERM_TYPE_FUN] = "a function",
                                        [ERL_NIF_TERM_TYPE_INTEGER] = "a large number",
                                        [ERL_NIF_TERM_TYPE_LIST] = "a list",
                                        [ERL_NIF_TERM_TYPE_MAP] = "a map",
                                        [ERL_NIF_TERM_TYPE_PID] = "a process",
                                        [ERL_NIF_TERM_TYPE_PORT] = "a port",
                                        [ERL_NIF_TERM_TYPE_REFERENCE] = "a reference",
                                        [ERL_NIF_TERM_TYPE_TUPLE] = "a tuple"};
    term_text out = {""};
    char atom[48];
    double number;
    ErlNifSInt64 whole;
    const int type = (int)enif_term_type(env, term);
    const int n_kind = (int)(sizeof kinds / sizeof *kinds);
    const char *kind = type >= 0 && type < n_kind && kinds[type] != NULL ? kinds[type] : "something else";
    if (enif_get_int64(env, term, &whole)) {
        enif_snprintf(out.text, sizeof out.text, "%lld", (long long)whole);
    } else if (enif_get_double(env, term, &number)) {
        enif_snprintf(out.text, sizeof out.text, "%g", number);
    } else {
        bool plain = enif_get_atom(env, term, atom, sizeof atom, ERL_NIF_LATIN1) > 0;
        for (const char *p = atom; plain && *p != 0; p++) plain = *p >= 0x20 && *p < 0x7F;
        enif_snprintf(out.text, sizeof out.text, "%s", plain ? atom : kind);
    }
    return out;
}

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

bool job_unpack(job *j, packed_ids *ids) {
    if (ids->binary.size % sizeof *ids->data != 0) {
        return !job_error(j, QN_EINVAL, &(qn_error){.message = "ids: must be packed, 4 bytes each"});
    }
    ids->n = ids->binary.size / sizeof *ids->data;
    ids->data = enif_alloc(ids->binary.size + sizeof *ids->data);
    if (ids->data == NULL) return !job_error(j, QN_ENOMEM, &(qn_error){.message = "ids: no memory"});
    if (ids->n > 0) memcpy(ids->data, ids->binary.data, ids->binary.size);
    return true;
}

qn_dtype call_dtype(call *c, ERL_NIF_TERM term, const char *name) {
    return (qn_dtype)call_choice(c, term, name, dtype_names);
}
