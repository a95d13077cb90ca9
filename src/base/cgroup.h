/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of Linux control groups (containers), versions 1 and 2. */
#ifndef QNI_CGROUP_H
#define QNI_CGROUP_H

#include <stdint.h>

/* The tightest of all groups that this process is in, from its own up to the root of each mounted hierarchy. */
typedef struct qni_cgroup_limits {
    int32_t n_cpu;              /* whole CPUs of the quota, and those of the cpuset, at least 1; 0: no limit */
    uint64_t memory_bytes;      /* UINT64_MAX: no limit */
    uint64_t memory_left_bytes; /* limit - usage, at least 1; UINT64_MAX: no limit */
} qni_cgroup_limits;

/*
 * Read them. Whatever is missing or malformed counts as no limit.
 *
 * root   comes before each path: "" for this machine; tests make trees of their own. Read are ROOT/proc/self/cgroup,
 *        ROOT/proc/self/mountinfo and the groups' files below the mount points that these name.
 * CPU    quota / period, rounded down.
 * Memory the hard limit and, in version 2, memory.high: above it the kernel throttles the group almost to a stop. File
 *        pages on the inactive list are not counted as usage: the kernel drops them first, as MemAvailable assumes of
 *        the whole machine, and reading a checkpoint fills memory with them.
 */
void qni_cgroup_read(qni_cgroup_limits *out, const char *root);

#endif
