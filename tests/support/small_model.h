/* SPDX-License-Identifier: Apache-2.0 */
/* A model with a tokenizer that opens in a millisecond: tests/data/models/tied-f32 with a byte-level tokenizer of 266
 * ids. */
#ifndef QNI_TEST_SMALL_MODEL_H
#define QNI_TEST_SMALL_MODEL_H

/* A temporary directory with all its files; remove it with files_remove_dir. */
char *small_model_make(void);

#endif
