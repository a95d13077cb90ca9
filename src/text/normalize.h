/* SPDX-License-Identifier: Apache-2.0 */
/* NFC as Hugging Face's tokenizers compute it (Unicode 9.0), in time linear in the text. */
#ifndef QNI_NORMALIZE_H
#define QNI_NORMALIZE_H

#include "buffer.h"

/* A segment that the normalizer changed: bytes first … end-1 of the text became out_first … out_end-1. */
typedef struct qni_nfc_edit {
    size_t first, end, out_first, out_end;
} qni_nfc_edit;

typedef struct qni_nfc_edits {
    qni_nfc_edit *edit;
    size_t n, capacity;
} qni_nfc_edits;

/* Workspace reused across calls; initialize with zeros. */
typedef struct qni_nfc {
    qn_text out;    /* the result if it differs from the input */
    int32_t *point; /* one segment, decomposed */
    size_t capacity;
    int32_t *sorted; /* for long runs of marks */
    size_t sorted_capacity;
    bool keeps_edits; /* set by the caller: record the edits of the last run, in order */
    qni_nfc_edits edits;
} qni_nfc;

/* Point *out at the normal form of UTF-8 text: the text itself if it is already normal, else a buffer that is valid
 * until the next call. Returns false when out of memory. */
bool qni_nfc_run(qni_nfc *nfc, const char *text, size_t size, const char **out, size_t *out_size);

/* Free the workspace, or only its buffers larger than keep_bytes. */
void qni_nfc_trim(qni_nfc *nfc, size_t keep_bytes);

#endif
