/* SPDX-License-Identifier: Apache-2.0 */
/* Terms that are numbers, names and texts. Terms are untrusted: each is checked before it is used. */
#include "quern_nif.h"

#include <string.h>

const char *const dtype_names[] = {[QN_DTYPE_DEFAULT] = "nil",
#define DTYPE_NAME(name, value, bytes, text) [QN_DTYPE_##name] = text,
                                   QN_DTYPE_MAP(DTYPE_NAME)
#undef DTYPE_NAME
                                       NULL};
const char *const arith_names[] = {"auto", "f32", "bf16", "int8", NULL};

int64_t call_int(call *c, ERL_NIF_TERM term, const char *name, int64_t low, int64_t high) {
    ErlNifSInt64 value = 0;
    if (c->has_failed) return low;
    if (!enif_get_int64(c->env, term, &value)) {
        call_fail(c, "%s: must be a whole number, got %T", name, term);
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
    call_fail(c, "%s: must be a number, got %T", name, term);
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
    call_fail(c, "%s: must be one of %s, got %T", name, list, term);
    return 0;
}

ErlNifBinary call_binary(call *c, ERL_NIF_TERM term, const char *name) {
    ErlNifBinary binary = {0};
    if (c->has_failed) return binary;
    if (!enif_is_binary(c->env, term)) {
        call_fail(c, "%s: must be a binary, got %T", name, term);
        return binary;
    }
    /* A large binary is shared, not copied. */
    enif_inspect_binary(c->job->env, enif_make_copy(c->job->env, term), &binary);
    return binary;
}

char *call_string(call *c, ERL_NIF_TERM term, const char *name) {
    const ErlNifBinary binary = call_binary(c, term, name);
    if (!c->has_failed && memchr(binary.data, 0, binary.size) != NULL) call_fail(c, "%s: holds a zero byte", name);
    char *text = call_alloc(c, binary.size + 1, 1);
    if (text != NULL) memcpy(text, binary.data, binary.size);
    return text;
}

int32_t *call_ids(call *c, ERL_NIF_TERM term, const char *name, size_t *n) {
    const ErlNifBinary packed = call_binary(c, term, name);
    if (!c->has_failed && packed.size % sizeof(int32_t) != 0) call_fail(c, "%s: must be packed ids of 4 bytes", name);
    *n = packed.size / sizeof(int32_t);
    int32_t *ids = call_alloc(c, *n, sizeof *ids);
    if (ids != NULL && *n > 0) memcpy(ids, packed.data, packed.size);
    return ids;
}

qn_dtype call_dtype(call *c, ERL_NIF_TERM term, const char *name) {
    return (qn_dtype)call_choice(c, term, name, dtype_names);
}
