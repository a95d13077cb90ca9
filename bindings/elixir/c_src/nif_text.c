/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers. They need no device: files are opened on the loader, texts are processed on the text worker. */
#include "quern_nif.h"

typedef struct text_job {
    char *path;
    object *object;
    ErlNifBinary text;
    bool flag; /* special, skip_special */
    packed_ids ids;
} text_job;

static void finish_text(job *j) {
    const text_job *s = j->state;
    if (s->path != NULL) enif_free(s->path);
    if (s->ids.data != NULL) enif_free(s->ids.data);
}

static bool open_tokenizer(job *j) {
    const text_job *s = j->state;
    qn_error error;
    qn_tokenizer *tokenizer = NULL;
    qn_status status = qn_tokenizer_open(&tokenizer, s->path, &error);
    if (status != QN_OK) return job_error(j, status, &error);
    const int32_t n_vocab = qn_tokenizer_n_vocab(tokenizer);
    object *o = object_new(j->nif, KIND_TOKENIZER, tokenizer, j->nif->text, NULL, NULL);
    if (o == NULL) return job_error(j, QN_ENOMEM, &(qn_error){.message = "tokenizer: no memory"});
    return job_value(j, enif_make_tuple2(j->env, object_term(j->env, o), enif_make_int(j->env, n_vocab)));
}

/* Reference, Directory. */
NIF_FUNCTION(nif_tokenizer_open) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(text_job));
    char *path = call_string(&c, argv[1], "path");
    if (path != NULL) ((text_job *)c.job->state)->path = path;
    return call_submit(&c, c.nif->loader, open_tokenizer, finish_text);
}

static bool encode(job *j) {
    const text_job *s = j->state;
    qn_error error;
    qn_ids ids = {0};
    qn_status status =
        qn_tokenizer_encode_document(s->object->value, &ids, (const char *)s->text.data, s->text.size, s->flag, &error);
    (void)job_ids(j, status, &ids, &error);
    qn_ids_release(&ids);
    return true;
}

/* Reference, Tokenizer, Text, Special. */
NIF_FUNCTION(nif_tokenizer_encode) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(text_job));
    const text_job s = {.object = call_object(&c, argv[1], "tokenizer", KIND_TOKENIZER),
                        .flag = call_bool(&c, argv[3], "special")};
    if (!c.has_failed) {
        *(text_job *)c.job->state = s;
        call_binary(&c, argv[2], "text", &((text_job *)c.job->state)->text);
    }
    return call_submit(&c, c.nif->text, encode, finish_text);
}

static bool decode(job *j) {
    text_job *s = j->state;
    qn_error error;
    qn_text text = {0};
    if (!job_unpack(j, &s->ids)) return true;
    qn_status status = qn_tokenizer_decode(s->object->value, &text, s->ids.data, s->ids.n, s->flag, &error);
    if (status == QN_OK) {
        job_value(j, binary_term(j->env, text.data, text.size));
    } else {
        job_error(j, status, &error);
    }
    qn_text_release(&text);
    return true;
}

/* Reference, Tokenizer, Ids, SkipSpecial. */
NIF_FUNCTION(nif_tokenizer_decode) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(text_job));
    const text_job s = {.object = call_object(&c, argv[1], "tokenizer", KIND_TOKENIZER),
                        .flag = call_bool(&c, argv[3], "skip_special")};
    if (!c.has_failed) {
        *(text_job *)c.job->state = s;
        call_binary(&c, argv[2], "ids", &((text_job *)c.job->state)->ids.binary);
    }
    return call_submit(&c, c.nif->text, decode, finish_text);
}

static bool find_id(job *j) {
    const text_job *s = j->state;
    const int32_t id = qn_tokenizer_id(s->object->value, s->path);
    return job_value(j, id < 0 ? enif_make_atom(j->env, "nil") : enif_make_int(j->env, id));
}

/* Reference, Tokenizer, Text: returns the id of that token, or nil. */
NIF_FUNCTION(nif_tokenizer_id) {
    (void)argc;
    call c = call_begin(env, argv[0], sizeof(text_job));
    text_job s = {.object = call_object(&c, argv[1], "tokenizer", KIND_TOKENIZER)};
    s.path = call_string(&c, argv[2], "text");
    if (c.job != NULL && c.job->state != NULL) *(text_job *)c.job->state = s;
    return call_submit(&c, c.nif->text, find_id, finish_text);
}
