/* SPDX-License-Identifier: Apache-2.0 */
/* Copies within a call: none while it only measures its workspace. */
#include "backend.h"

qn_status qni_write(const qni_run *run, void *to, const void *from, size_t bytes) {
    return qni_scratch_measures(run->scratch) ? QN_OK : run->memory->write(run->backend, to, from, bytes, run->err);
}

qn_status qni_read(const qni_run *run, void *to, const void *from, size_t bytes) {
    return qni_scratch_measures(run->scratch) ? QN_OK : run->memory->read(run->backend, to, from, bytes, run->err);
}

qn_status qni_copy(const qni_run *run, void *to, const void *from, size_t bytes) {
    return qni_scratch_measures(run->scratch) ? QN_OK : run->memory->copy(run->backend, to, from, bytes, run->err);
}
