/* SPDX-License-Identifier: Apache-2.0 */
/* Calls: binding arguments to the parameter slots of native functions; the global functions. */
#include "ast.h"
#include "str.h"

int qni_j_slots(const jspec *spec) {
    if (*spec->params == '*') return -1;
    int n = 0;
    for (const char *p = spec->params; *p != '\0'; p++) n += *p != ' ' && (p == spec->params || p[-1] == ' ');
    return n;
}

bool qni_j_slot(const jspec *spec, const char *name, size_t size, int *slot) {
    *slot = 0;
    for (const char *p = spec->params; *p != '\0'; ++*slot) {
        size_t n = strcspn(p, " ");
        if (n == size && memcmp(p, name, n) == 0) return true;
        p += n;
        p += *p == ' ';
    }
    return false;
}

qn_status qni_j_call_spec(jrun *run, const jspec *spec, jval self, jval args, size_t skip, jval kwargs, jval *out) {
    jval slots[J_MAX_ARG] = {{.kind = J_ABSENT}};
    int n = qni_j_slots(spec), slot;
    if (spec->call == NULL) return qni_j_fail(run, QN_EUNSUPPORTED, "function \"%s\" is not supported", spec->name);
    if (n < 0) {
        jval rest = args;
        if (skip > 0) {
            QN_TRY(qni_j_seq(run, SEQ_TUPLE, 0, &rest));
            rest.seq->items = args.seq->items + skip;
            rest.seq->n = args.seq->n - skip;
            rest.seq->height = args.seq->height;
        }
        slots[0] = rest;
        slots[1] = kwargs;
        return spec->call(run, self, slots, out);
    }
    size_t given = args.seq->n - skip;
    if (given > (size_t)n)
        return qni_j_fail(run, QN_EINVAL, "\"%s\" takes at most %d arguments, got %zu", spec->name, n, given);
    for (size_t i = 0; i < given; i++) slots[i] = args.seq->items[skip + i];
    for (size_t i = 0; i < kwargs.dict->n; i++) {
        jval name = kwargs.dict->pairs[2 * i];
        if (!qni_j_slot(spec, name.s, name.size, &slot) || slots[slot].kind != J_ABSENT) {
            return qni_j_fail(run, QN_EINVAL, "\"%s\" takes no argument \"%.*s\" here", spec->name, (int)name.size,
                              name.s);
        }
        slots[slot] = kwargs.dict->pairs[2 * i + 1];
    }
    for (int i = 0; i < spec->required; i++) {
        if (slots[i].kind == J_ABSENT)
            return qni_j_fail(run, QN_EINVAL, "\"%s\" needs %d arguments", spec->name, spec->required);
    }
    return spec->call(run, self, slots, out);
}

qn_status qni_j_call(jrun *run, jval callee, jval args, jval kwargs, jval *out) {
    switch ((jkind)callee.kind) {
    case J_MACRO:
        return qni_j_call_macro(run, callee.macro, args, kwargs, out);
    case J_FUNCTION:
        return qni_j_call_spec(run, callee.function, qni_j_none(), args, 0, kwargs, out);
    case J_METHOD:
        if (callee.method->self.markup) return qni_j_fail(run, QN_EUNSUPPORTED, "a method of text that is marked safe");
        return qni_j_call_spec(run, callee.method->spec, callee.method->self, args, 0, kwargs, out);
    case J_LOOP:
        return qni_j_fail(run, QN_EUNSUPPORTED, "calling a loop");
    case J_UNDEFINED:
        return qni_j_fail(run, QN_EINVAL, "'%.*s' is undefined", (int)callee.size, callee.s);
    default:
        return qni_j_fail(run, QN_EINVAL, "a %s cannot be called", qni_j_kind(callee));
    }
}

const jspec *qni_j_find_method(const jspec *specs, const char *name, size_t size) {
    for (; specs->name != NULL; specs++) {
        if (strlen(specs->name) == size && memcmp(specs->name, name, size) == 0) return specs;
    }
    return NULL;
}

/* Run a filter or test by name on args[skip …], as map, select and similar filters do. */
qn_status qni_j_run_named(jrun *run, bool test, jval name, jval self, jval args, size_t skip, jval kwargs, jval *out) {
    if (name.kind != J_STRING)
        return qni_j_fail(run, QN_EINVAL, "the name of a filter or test is a %s", qni_j_kind(name));
    const jspec *spec = test ? qni_j_find_test(name.s, name.size) : qni_j_find_filter(name.s, name.size);
    if (spec == NULL) {
        return qni_j_fail(run, QN_EUNSUPPORTED, "%s \"%.*s\" is not supported", test ? "test" : "filter",
                          (int)name.size, name.s);
    }
    QN_TRY(qni_j_step(run, 256));
    /* Filters may recurse: map('map', …). */
    QN_TRY(qni_j_deeper(run));
    return qni_j_call_spec(run, spec, self, args, skip, kwargs, out);
}

static qn_status call_range(jrun *run, jval self, const jval *arg, jval *out) {
    int64_t start = 0, stop, step = 1;
    (void)self;
    bool fine = qni_j_as_int(arg[0], &stop);
    if (fine && arg[1].kind != J_ABSENT) {
        start = stop;
        fine = qni_j_as_int(arg[1], &stop) && (arg[2].kind == J_ABSENT || qni_j_as_int(arg[2], &step));
    }
    if (arg[0].kind == J_BIG || arg[1].kind == J_BIG || arg[2].kind == J_BIG) return qni_j_fail_big(run);
    if (!fine) return qni_j_fail(run, QN_EINVAL, "range() takes integers");
    if (step == 0) return qni_j_fail(run, QN_EINVAL, "range() with a step of 0");
    bool any = step > 0 ? stop > start : start > stop;
    uint64_t span =
        step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop; /* unsigned: no overflow */
    uint64_t by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    uint64_t n = any ? (span - 1) / by + 1 : 0;
    if (n > QNI_JINJA_RANGE) return qni_j_fail(run, QN_EFULL, "range() of more than %d items", QNI_JINJA_RANGE);
    QN_TRY(qni_j_seq(run, SEQ_RANGE, (size_t)n, out));
    for (int64_t i = 0; i < (int64_t)n; i++) out->seq->items[i] = qni_j_int(start + i * step);
    return QN_OK;
}

/* dict(pairs or dict, name=value, …) */
static qn_status call_dict(jrun *run, jval self, const jval *arg, jval *out) {
    const jseq *args = arg[0].seq;
    const jdict *kwargs = arg[1].dict;
    jseq *pairs = NULL;
    (void)self;
    if (args->n > 1) return qni_j_fail(run, QN_EINVAL, "dict() takes one argument, got %zu", args->n);
    jval from = args->n == 1 ? args->items[0] : qni_j_none();
    size_t n = kwargs->n;
    if (from.kind == J_DICT) {
        n += from.dict->n;
    } else if (args->n == 1) {
        QN_TRY(qni_j_iterate(run, from, &pairs));
        n += pairs->n - pairs->first;
    }
    QN_TRY(qni_j_dict(run, n, out));
    for (size_t i = 0; from.kind == J_DICT && i < from.dict->n; i++) {
        QN_TRY(qni_j_dict_put(run, *out, from.dict->pairs[2 * i], from.dict->pairs[2 * i + 1]));
    }
    for (size_t i = pairs != NULL ? pairs->first : 0; pairs != NULL && i < pairs->n; i++) {
        jseq *pair;
        QN_TRY(qni_j_iterate(run, pairs->items[i], &pair));
        if (pair->n - pair->first != 2) return qni_j_fail(run, QN_EINVAL, "dict() of items that are not pairs");
        QN_TRY(qni_j_dict_put(run, *out, pair->items[pair->first], pair->items[pair->first + 1]));
    }
    for (size_t i = 0; i < kwargs->n; i++)
        QN_TRY(qni_j_dict_put(run, *out, kwargs->pairs[2 * i], kwargs->pairs[2 * i + 1]));
    return QN_OK;
}

static qn_status call_namespace(jrun *run, jval self, const jval *arg, jval *out) {
    jval dict;
    QN_TRY(call_dict(run, self, arg, &dict));
    jnamespace *space = qni_j_alloc(&run->arena, sizeof *space);
    if (space == NULL) return qni_j_no_memory(run);
    space->n = space->capacity = dict.dict->n;
    space->pairs = dict.dict->pairs;
    for (size_t i = 0; i < space->n; i++) {
        if (space->pairs[2 * i].kind == J_STRING) continue;
        return qni_j_fail(run, QN_EUNSUPPORTED, "a namespace with a name that is a %s",
                          qni_j_kind(space->pairs[2 * i]));
    }
    *out = (jval){.kind = J_NAMESPACE, .space = space};
    return QN_OK;
}

static qn_status call_raise(jrun *run, jval self, const jval *arg, jval *out) {
    jval text;
    (void)self;
    (void)out;
    QN_TRY(qni_j_str(run, arg[0], &text));
    return qni_j_fail(run, QN_EINVAL, "the template refuses: %.*s", (int)(text.size < 1000 ? text.size : 1000), text.s);
}

static qn_status call_strftime(jrun *run, jval self, const jval *arg, jval *out) {
    (void)self;
    return qni_j_strftime(run, arg[0], out);
}

static qn_status call_from_json(jrun *run, jval self, const jval *arg, jval *out) {
    (void)self;
    return qni_j_parse_json(run, arg[0], out);
}

const jspec *qni_j_find_global(const char *name, size_t size) {
    static const jspec globals[] = {
        {"range", "0 1 2", 1, call_range},
        {"dict", "*", 0, call_dict},
        {"namespace", "*", 0, call_namespace},
        {"raise_exception", "message", 1, call_raise},
        {"strftime_now", "format", 1, call_strftime},
        {"from_json", "0", 1, call_from_json},
        {NULL, NULL, 0, NULL},
    };
    return qni_j_find_method(globals, name, size);
}
