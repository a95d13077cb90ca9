/* SPDX-License-Identifier: Apache-2.0 */
/* Append to the growing arrays that the public functions fill. */
#ifndef QNI_BUFFER_H
#define QNI_BUFFER_H

#include <quern/chat.h>

/* Each returns false when out of memory and then leaves the array unchanged. data may be NULL when size is 0. */
bool qni_text_reserve(qn_text *text, size_t more); /* capacity for `more` bytes and the terminating zero */
bool qni_text_append(qn_text *text, const char *data, size_t size);
/* Append text and its run. A run with the same trust as the last one is merged into it. */
bool qni_prompt_append(qn_prompt *prompt, const char *data, size_t size, bool trusted);
void qni_prompt_cut(qn_prompt *prompt, size_t size); /* keep only the first `size` bytes */
bool qni_ids_append(qn_ids *ids, const int32_t *data, size_t n);

#endif
