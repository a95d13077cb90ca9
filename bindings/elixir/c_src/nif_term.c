/* SPDX-License-Identifier: Apache-2.0 */
/* Makes terms, and texts of terms for messages. */
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

ERL_NIF_TERM error_term(ErlNifEnv *env, qn_status status, const char *message) {
    char name[32];
    const char *from = qn_status_name(status);
    size_t i = 0;
    for (; from[i] != 0 && i + 1 < sizeof name; i++) {
        name[i] = (char)(from[i] >= 'A' && from[i] <= 'Z' ? from[i] - 'A' + 'a' : from[i]);
    }
    name[i] = 0;
    const ERL_NIF_TERM detail = enif_make_tuple2(env, enif_make_atom(env, name), string_term(env, message));
    return enif_make_tuple2(env, enif_make_atom(env, "error"), detail);
}

ERL_NIF_TERM binary_term(ErlNifEnv *env, const void *data, size_t size) {
    ERL_NIF_TERM term;
    unsigned char *to = enif_make_new_binary(env, size, &term);
    if (to != NULL && size > 0) memcpy(to, data, size);
    return term;
}

ERL_NIF_TERM string_term(ErlNifEnv *env, const char *text) {
    return binary_term(env, text, strlen(text));
}

ERL_NIF_TERM map_put(ErlNifEnv *env, ERL_NIF_TERM map, const char *key, ERL_NIF_TERM value) {
    ERL_NIF_TERM out = map;
    enif_make_map_put(env, map, enif_make_atom(env, key), value, &out);
    return out;
}

ERL_NIF_TERM ids_term(ErlNifEnv *env, const int32_t *ids, size_t n) {
    ERL_NIF_TERM list = enif_make_list(env, 0);
    while (n-- > 0) list = enif_make_list_cell(env, enif_make_int(env, ids[n]), list);
    return list;
}
