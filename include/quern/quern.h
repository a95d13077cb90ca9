/* SPDX-License-Identifier: Apache-2.0 */
/** @file quern.h
 * Quern: dense Qwen3 language models, natively. This header includes all the others.
 *
 *   level 1, primitives   device.h tensor.h ops.h        the fused Qwen3 layer under your own model code
 *   level 2, model        model.h tokenizer.h chat.h     a Hugging Face directory in,
 *                         sampler.h session.h            generated text out
 *
 * Conventions of every header:
 *
 * Shapes    written {B, T, N, D}; row-major, the last index fastest.
 * Errors    a function that can fail returns qn_status, QN_OK being 0. Its last argument is a caller-owned
 *           `qn_error *`, which may be NULL. Outputs come first, and are written only on success.
 * Checks    everything is checked before anything is computed: after an error every output and every cache is byte
 *           for byte what it was. Bad arguments are errors too, never a crash of the process.
 * Ownership `T **out` gives an object to the caller; a returned `const T *` is borrowed from its parent. open/close
 *           for devices, files and models, create/free for objects; close and free accept NULL.
 * Options   structs whose every field may be zero; a NULL options pointer means all zeros.
 * Threads   said by each header. There is no global state. The library never prints, exits, reads the environment,
 *           installs signal handlers or changes the floating-point state.
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
