/* SPDX-License-Identifier: Apache-2.0 */
/* Appending to the growing arrays that the public functions fill. */
#ifndef QNI_BUFFER_H
#define QNI_BUFFER_H

#include <quern/chat.h>

/* Each returns false when there is no memory (the array is untouched then). data may be NULL when size is 0. */
bool qni_text_reserve(qn_text *text, size_t more); /* room for `more` bytes and the zero byte */
bool qni_text_append(qn_text *text, const char *data, size_t size);
/* Text and its run, which is joined with the last one where both are trusted alike. */
bool qni_prompt_append(qn_prompt *prompt, const char *data, size_t size, bool trusted);
void qni_prompt_cut(qn_prompt *prompt, size_t size); /* leaves the first `size` bytes */
bool qni_ids_append(qn_ids *ids, const int32_t *data, size_t n);

#endif
