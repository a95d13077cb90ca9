/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer for tests that modify its parts. */
#ifndef QNI_TEST_TOKENIZERS_H
#define QNI_TEST_TOKENIZERS_H

#include <jansson.h>

/* tokenizer.json of a small valid tokenizer: 256 bytes (id = byte), "ab" 256, "abc" 257, added "<|a|>" 258 (special)
 * and "<b>" 259. Free it with json_decref. */
json_t *small_tokenizer(void);

#endif
