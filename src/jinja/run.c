/* SPDX-License-Identifier: Apache-2.0 */
/* Run statements: scopes, loops, macros, output. */
#include "../text/buffer.h"
#include "ast.h"

/* What the rest of a block does after a statement. */
typedef enum jflow {
    FLOW_ON,
    FLOW_BREAK,
    FLOW_CONTINUE,
} jflow;

static qn_status run_block(jrun *run, jscope *scope, const jblock *block, jflow *flow);

static qn_status emit(jrun *run, const char *s, size_t size, bool trusted) {
    qn_prompt *out = run->out;
    if (size > QNI_JINJA_OUTPUT || out->text.size - run->out_start > QNI_JINJA_OUTPUT - size) {
        return qni_j_fail(run, QN_EFULL, "the text grows beyond %d bytes", (int)QNI_JINJA_OUTPUT);
    }
    QN_TRY(qni_j_step(run, size));
    if (!qni_prompt_append(out, s, size, trusted)) return qni_j_fail(run, QN_ENOMEM, "out of memory");
    return QN_OK;
}

static QNI_J_APART qn_status emit_text(jrun *run, jval text) {
    if (text.mixed == 0) return emit(run, text.s, text.size, text.trusted);
    for (size_t at = 0, n; at < text.size; at += n) {
        bool trusted = qni_j_run_at(text, at, &n);
        QN_TRY(emit(run, text.s + at, n, trusted));
    }
    return QN_OK;
}

static qn_status new_scope(jrun *run, jscope *outer, jscope **out) {
    *out = qni_j_alloc(&run->arena, sizeof **out);
    if (*out == NULL) return qni_j_no_memory(run);
    (*out)->outer = outer;
    return QN_OK;
}

qn_status qni_j_bind(jrun *run, jscope *scope, int32_t id, jval value) {
    if (scope->n > 16) QN_TRY(qni_j_step(run, scope->n * 4));
    for (size_t i = 0; i < scope->n; i++) {
        if (scope->items[i].id == id) {
            scope->items[i].value = value;
            return QN_OK;
        }
    }
    if (scope->n == scope->capacity) {
        size_t wanted = scope->capacity > 0 ? 2 * scope->capacity : 4;
        jbinding *grown = qni_j_alloc(&run->arena, wanted * sizeof *grown);
        if (grown == NULL) return qni_j_no_memory(run);
        if (scope->n > 0) memcpy(grown, scope->items, scope->n * sizeof *grown);
        scope->items = grown;
        scope->capacity = wanted;
    }
    scope->items[scope->n++] = (jbinding){id, value};
    return QN_OK;
}

static QNI_J_APART qn_status set_namespace(jrun *run, jscope *scope, const jnode *target, jval value) {
    jval v;
    jnode name = {.kind = N_NAME, .line = target->line, .id = target->id, .value = run->jinja->ids[target->id]};
    QN_TRY(qni_j_eval(run, scope, &name, &v));
    if (v.kind != J_NAMESPACE)
        return qni_j_fail(run, QN_EINVAL, "cannot assign to an attribute of a %s", qni_j_kind(v));
    jnamespace *space = v.space;
    QN_TRY(qni_j_step(run, space->n * 4));
    for (size_t i = 0; i < space->n; i++) {
        jval known = space->pairs[2 * i];
        if (known.size == target->value.size && memcmp(known.s, target->value.s, known.size) == 0) {
            space->pairs[2 * i + 1] = value;
            return QN_OK;
        }
    }
    if (space->n == space->capacity) {
        size_t wanted = space->capacity > 0 ? 2 * space->capacity : 4;
        jval *grown = qni_j_alloc(&run->arena, wanted * 2 * sizeof *grown);
        if (grown == NULL) return qni_j_no_memory(run);
        if (space->n > 0) memcpy(grown, space->pairs, space->n * 2 * sizeof *grown);
        space->pairs = grown;
        space->capacity = wanted;
    }
    space->pairs[2 * space->n] = target->value;
    space->pairs[2 * space->n + 1] = value;
    space->n++;
    return QN_OK;
}

qn_status qni_j_assign(jrun *run, jscope *scope, const jnode *target, jval value) {
    QN_TRY(qni_j_deeper(run));
    if (target->kind == N_NAME) return qni_j_bind(run, scope, target->id, value);
    if (target->kind == N_NS_REF) return set_namespace(run, scope, target, value);
    jseq *seq;
    QN_TRY(qni_j_iterate(run, value, &seq));
    if (seq->n - seq->first != target->list.n) {
        return qni_j_fail(run, QN_EINVAL, "%zu names for %zu values", target->list.n, seq->n - seq->first);
    }
    for (size_t i = 0; i < target->list.n; i++) {
        QN_TRY(qni_j_assign(run, scope, target->list.items[i], seq->items[seq->first + i]));
    }
    return QN_OK;
}

/* Fetch the next item that passes the filter. */
qn_status qni_j_loop_fetch(jrun *run, jloop *loop, bool *any, jval *out) {
    *any = false;
    while (!*any && loop->at < loop->n) {
        QN_TRY(qni_j_step(run, 0));
        *out = loop->items[loop->at++];
        *any = true;
        if (loop->node == NULL) return QN_OK;
        jscope *inner;
        jval test;
        QN_TRY(new_scope(run, loop->scope, &inner));
        QN_TRY(qni_j_assign(run, inner, loop->node->a, *out));
        QN_TRY(qni_j_eval(run, inner, loop->node->c, &test));
        *any = qni_j_truth(test);
    }
    return QN_OK;
}

static qn_status next_item(jrun *run, jloop *loop, bool *any) {
    jval item;
    if (loop->peeked) {
        *any = true;
        item = loop->after;
        loop->peeked = false;
    } else {
        QN_TRY(qni_j_loop_fetch(run, loop, any, &item));
    }
    if (!*any) return QN_OK;
    loop->index0++;
    loop->has_before = loop->index0 > 0;
    loop->before = loop->current;
    loop->current = item;
    return QN_OK;
}

static QNI_J_APART qn_status run_for(jrun *run, jscope *scope, const jnode *node, jflow *flow) {
    jval items;
    jseq *seq;
    QN_TRY(qni_j_eval(run, scope, node->b, &items));
    run->line = node->line;
    QN_TRY(qni_j_iterate(run, items, &seq));
    jloop *loop = qni_j_alloc(&run->arena, sizeof *loop);
    if (loop == NULL) return qni_j_no_memory(run);
    *loop = (jloop){.node = node->c != NULL ? node : NULL,
                    .scope = scope,
                    .items = seq->items + seq->first,
                    .n = seq->n - seq->first,
                    .index0 = -1,
                    .length = -1};
    jscope *inner = NULL;
    jflow inside = FLOW_ON;
    for (;;) {
        bool any;
        QN_TRY(next_item(run, loop, &any));
        if (!any) break;
        if (inner == NULL || inner->captured) QN_TRY(new_scope(run, scope, &inner));
        inner->n = 0;
        QN_TRY(qni_j_bind(run, inner, ID_LOOP, (jval){.kind = J_LOOP, .loop = loop}));
        QN_TRY(qni_j_assign(run, inner, node->a, loop->current));
        inside = FLOW_ON;
        QN_TRY(run_block(run, inner, &node->body, &inside));
        if (inside == FLOW_BREAK) break;
    }
    if (loop->index0 >= 0 || node->other.n == 0) return QN_OK;
    QN_TRY(new_scope(run, scope, &inner));
    return run_block(run, inner, &node->other, flow);
}

/* Capture the text of a block as a string: its output is removed from the prompt again. */
static QNI_J_APART qn_status capture(jrun *run, jscope *scope, const jblock *block, jval *out) {
    const qn_prompt *prompt = run->out;
    size_t start = prompt->text.size;
    jflow flow = FLOW_ON;
    jbuf buf = {0};
    QN_TRY(run_block(run, scope, block, &flow));
    size_t end = prompt->text.size, i = prompt->n_run;
    while (end > start) end -= prompt->runs[--i].size; /* the run that contains start may have begun earlier */
    QN_TRY(qni_j_reserve(run, &buf, prompt->text.size - start));
    for (size_t at = start; i < prompt->n_run; at = end) {
        end += prompt->runs[i].size;
        QN_TRY(qni_j_put(run, &buf, prompt->text.data + at, end - at, prompt->runs[i++].trusted));
    }
    qni_prompt_cut(run->out, start);
    *out = qni_j_buf_text(&buf);
    return QN_OK;
}

static QNI_J_APART qn_status capture_filtered(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jscope *inner;
    jval text, hole = run->hole;
    QN_TRY(new_scope(run, scope, &inner));
    QN_TRY(capture(run, inner, &node->body, &text));
    run->hole = text;
    QN_TRY(qni_j_eval(run, scope, node->b, out));
    run->hole = hole;
    return QN_OK;
}

static QNI_J_APART qn_status make_macro(jrun *run, jscope *scope, const jmacro_def *def, jval *out) {
    jmacro *macro = qni_j_alloc(&run->arena, sizeof *macro);
    if (macro == NULL) return qni_j_no_memory(run);
    macro->def = def;
    macro->scope = scope;
    for (; scope != NULL && !scope->captured; scope = scope->outer) scope->captured = true;
    *out = (jval){.kind = J_MACRO, .macro = macro};
    return QN_OK;
}

static QNI_J_APART qn_status run_call_block(jrun *run, jscope *scope, const jnode *node, jval *out) {
    jval caller;
    jscope *inner;
    QN_TRY(make_macro(run, scope, node->def, &caller));
    /* The callee and arguments come from the call; the caller is passed as an additional keyword. */
    QN_TRY(new_scope(run, scope, &inner));
    jargs args = node->a->args;
    jval positional, keywords, callee, value;
    QN_TRY(qni_j_eval(run, scope, node->a->a, &callee));
    QN_TRY(qni_j_seq(run, SEQ_TUPLE, args.n_positional, &positional));
    QN_TRY(qni_j_dict(run, args.n - args.n_positional + 1, &keywords));
    for (size_t i = 0; i < args.n; i++) {
        QN_TRY(qni_j_eval(run, scope, args.items[i], &value));
        if (i < args.n_positional) {
            positional.seq->items[i] = value;
        } else {
            QN_TRY(qni_j_dict_put(run, keywords, args.names[i - args.n_positional], value));
        }
    }
    QN_TRY(qni_j_dict_put(run, keywords, qni_j_literal("caller"), caller));
    run->line = node->line;
    return qni_j_call(run, callee, positional, keywords, out);
}

static bool same_text(jval a, jval b) {
    return a.size == b.size && memcmp(a.s, b.s, a.size) == 0;
}

static QNI_J_APART qn_status bind_keywords(jrun *run, jscope *scope, const jmacro_def *def, const jdict *keywords,
                                           bool *given) {
    for (size_t i = 0; i < keywords->n; i++) {
        jval name = keywords->pairs[2 * i], value = keywords->pairs[2 * i + 1];
        size_t at = 0;
        QN_TRY(qni_j_step(run, def->n_param * 4));
        while (at < def->n_param && !same_text(def->names[at], name)) at++;
        if (at < def->n_param && !given[at]) {
            given[at] = true;
            QN_TRY(qni_j_bind(run, scope, def->params[at], value));
        } else if (at == def->n_param && def->wants_caller && qni_j_text_is(name, "caller")) {
            QN_TRY(qni_j_bind(run, scope, ID_CALLER, value));
        } else {
            return qni_j_fail(run, QN_EINVAL, "macro \"%.*s\" takes no keyword \"%.*s\" here", (int)def->name.size,
                              def->name.s, (int)name.size, name.s);
        }
    }
    return QN_OK;
}

qn_status qni_j_call_macro(jrun *run, const jmacro *macro, jval args, jval kwargs, jval *out) {
    const jmacro_def *def = macro->def;
    jscope *scope;
    QN_TRY(new_scope(run, macro->scope, &scope));
    if (args.seq->n > def->n_param) {
        return qni_j_fail(run, QN_EINVAL, "macro \"%.*s\" takes at most %zu arguments, got %zu", (int)def->name.size,
                          def->name.s, def->n_param, args.seq->n);
    }
    bool *given = qni_j_alloc(&run->arena, def->n_param);
    if (given == NULL) return qni_j_no_memory(run);
    if (def->wants_caller) QN_TRY(qni_j_bind(run, scope, ID_CALLER, qni_j_undefined("caller", 6)));
    for (size_t i = 0; i < args.seq->n; i++) {
        given[i] = true;
        QN_TRY(qni_j_bind(run, scope, def->params[i], args.seq->items[i]));
    }
    QN_TRY(bind_keywords(run, scope, def, kwargs.dict, given));
    for (size_t i = 0; i < def->n_param; i++) {
        if (given[i]) continue;
        jval value = qni_j_undefined(def->names[i].s, def->names[i].size);
        size_t first = def->n_param - def->n_default;
        if (i >= first) QN_TRY(qni_j_eval(run, scope, def->defaults[i - first], &value));
        QN_TRY(qni_j_bind(run, scope, def->params[i], value));
    }
    return capture(run, scope, &def->body, out);
}

static QNI_J_APART qn_status run_with(jrun *run, jscope *scope, const jnode *node, jflow *flow) {
    jscope *inner;
    QN_TRY(new_scope(run, scope, &inner));
    for (size_t i = 0; i < node->list.n; i += 2) {
        jval value;
        QN_TRY(qni_j_eval(run, scope, node->list.items[i + 1], &value));
        QN_TRY(qni_j_assign(run, inner, node->list.items[i], value));
    }
    return run_block(run, inner, &node->body, flow);
}

static QNI_J_APART qn_status print(jrun *run, jval v) {
    QN_TRY(qni_j_str(run, v, &v));
    return emit_text(run, v);
}

static QNI_J_APART qn_status run_if(jrun *run, jscope *scope, const jnode *node, jflow *flow) {
    for (; node != NULL; node = node->c) {
        jval test = qni_j_bool(true);
        if (node->a != NULL) QN_TRY(qni_j_eval(run, scope, node->a, &test));
        if (qni_j_truth(test)) return run_block(run, scope, &node->body, flow);
    }
    return QN_OK;
}

static qn_status run_value(jrun *run, jscope *scope, const jnode *node, jval *v) {
    switch ((jnode_kind)node->kind) {
    case N_SET:
        return qni_j_eval(run, scope, node->b, v);
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
        return capture_filtered(run, scope, node, v);
    case N_MACRO:
    case N_GENERATION:
        return make_macro(run, scope, node->def, v);
    case N_CALL_BLOCK:
        return run_call_block(run, scope, node, v);
    default:
        return qni_j_eval(run, scope, node->a, v);
    }
}

/* Statements that compute a value and then store or print it. */
static QNI_J_APART qn_status run_simple(jrun *run, jscope *scope, const jnode *node) {
    jval v, none, nothing;
    QN_TRY(run_value(run, scope, node, &v));
    run->line = node->line;
    switch ((jnode_kind)node->kind) {
    case N_SET:
    case N_SET_BLOCK:
        return qni_j_assign(run, scope, node->a, v);
    case N_MACRO:
        return qni_j_bind(run, scope, node->id, v);
    case N_GENERATION:
        QN_TRY(qni_j_seq(run, SEQ_TUPLE, 0, &none));
        QN_TRY(qni_j_dict(run, 0, &nothing));
        QN_TRY(qni_j_call_macro(run, v.macro, none, nothing, &v));
        return print(run, v);
    default:
        return print(run, v);
    }
}

static qn_status run_statement(jrun *run, jscope *scope, const jnode *node, jflow *flow) {
    run->line = node->line;
    switch ((jnode_kind)node->kind) {
    case N_TEXT:
        return emit(run, node->value.s, node->value.size, true);
    case N_IF:
        return run_if(run, scope, node, flow);
    case N_FOR:
        return run_for(run, scope, node, flow);
    case N_WITH:
        return run_with(run, scope, node, flow);
    case N_BREAK:
    case N_CONTINUE:
        *flow = node->kind == N_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
        return QN_OK;
    default:
        return run_simple(run, scope, node);
    }
}

static qn_status run_block(jrun *run, jscope *scope, const jblock *block, jflow *flow) {
    QN_TRY(qni_j_deeper(run));
    for (size_t i = 0; i < block->n && *flow == FLOW_ON; i++) {
        QN_TRY(qni_j_step(run, 0));
        QN_TRY(run_statement(run, scope, block->items[i], flow));
    }
    return QN_OK;
}

/* Mark as trusted the strings under that key in a list's objects. */
static void trust_key(jval list, const char *key) {
    for (size_t i = 0; list.kind == J_SEQ && i < list.seq->n; i++) {
        jval item = list.seq->items[i];
        for (size_t k = 0; item.kind == J_DICT && k < item.dict->n; k++) {
            jval *pair = &item.dict->pairs[2 * k];
            if (qni_j_text_is(pair[0], key) && pair[1].kind == J_STRING) pair[1].trusted = true;
        }
    }
}

static QNI_J_APART qn_status run_all(jrun *run, const qni_jinja_var *vars, size_t n_var) {
    jscope *scope;
    jflow flow = FLOW_ON;
    QN_TRY(new_scope(run, NULL, &scope));
    for (size_t i = 0; i < n_var; i++) {
        jval value;
        QN_TRY(qni_j_step(run, run->jinja->n_id * 4));
        for (size_t id = 0; id < run->jinja->n_id; id++) {
            if (!same_text(run->jinja->ids[id], qni_j_literal(vars[i].name))) continue;
            QN_TRY(qni_j_from_json(run, vars[i].value, vars[i].trusted ? J_JSON_TRUSTED : 0, &value));
            if (vars[i].trusted_key != NULL) trust_key(value, vars[i].trusted_key);
            QN_TRY(qni_j_bind(run, scope, (int32_t)id, value));
        }
    }
    /* The template's own variables get an inner scope, which its macros see. */
    QN_TRY(new_scope(run, scope, &scope));
    return run_block(run, scope, &run->jinja->body, &flow);
}

bool qni_jinja_reads(const qni_jinja *jinja, const char *name) {
    for (size_t id = N_FIXED_ID; id < jinja->n_id; id++) {
        if (qni_j_text_is(jinja->ids[id], name)) return jinja->uses[id] & USE_READ;
    }
    return false;
}

bool qni_jinja_contains(const qni_jinja *jinja, const char *text) {
    return memmem(jinja->source, jinja->source_size, text, strlen(text)) != NULL;
}

qn_status qni_jinja_render(const qni_jinja *jinja, qn_prompt *prompt, const qni_jinja_var *vars, size_t n_var,
                           const qni_jinja_time *now, qn_error *err) {
    size_t start = prompt->text.size;
    jrun run = {.jinja = jinja, .out = prompt, .out_start = start, .err = err, .line = 1, .steps = QNI_JINJA_STEPS};
    run.arena.limit = QNI_JINJA_MEMORY;
    run.stack = qni_stack_here();
    if (now != NULL) run.now = *now;
    qn_status status = emit(&run, NULL, 0, true);
    if (status == QN_OK) status = run_all(&run, vars, n_var);
    if (status != QN_OK) qni_prompt_cut(prompt, start);
    qni_j_arena_free(&run.arena);
    return status;
}
