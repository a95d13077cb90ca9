/* SPDX-License-Identifier: Apache-2.0 */
/** @file quern.h
 * Quern: native inference for dense Qwen3 language models. This header includes all the others.
 *
 *   level 1, primitives   device.h tensor.h ops.h        fused Qwen3 layers for your own model code
 *   level 2, model        model.h tokenizer.h chat.h     a Hugging Face directory in,
 *                         sampler.h session.h            generated text out
 *
 * Conventions used in all headers:
 *
 * Shapes    written {B, T, N, D}; row-major, last index fastest.
 * Errors    a function that can fail returns qn_status, QN_OK being 0. The last argument is a caller-owned
 *           `qn_error *`, which may be NULL. Outputs come first and are written only on success.
 * Checks    all arguments are validated before anything is computed. After such an error every output and every cache is
 *           unchanged, byte for byte. Invalid arguments are errors, never a crash.
 * Ownership `T **out` passes ownership to the caller; a returned `const T *` is borrowed from its parent. Devices, files
 *           and models use open/close, other objects create/free; close and free accept NULL.
 * Options   structs in which every field may be zero; a NULL options pointer means all zeros.
 * Threads   each header states its thread-safety rules. There is no global state. The library never prints, exits,
 *           reads the environment, installs signal handlers or changes the floating-point state.
 */
#ifndef QUERN_QUERN_H
#define QUERN_QUERN_H

#include "chat.h"
#include "device.h"
#include "model.h"
#include "ops.h"
#include "sampler.h"
#include "session.h"
#include "status.h"
#include "tensor.h"
#include "tokenizer.h"
#include "version.h"

#endif
