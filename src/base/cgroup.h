/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of Linux control groups (containers), versions 1 and 2. */
#ifndef QNI_CGROUP_H
#define QNI_CGROUP_H

#include <stdint.h>

/* The tightest limits of all groups that contain this process, from its own group to the root of each mounted
 * hierarchy. */
typedef struct qni_cgroup_limits {
    int32_t n_cpu;              /* whole CPUs allowed by quota and cpuset, at least 1; 0: no limit */
    uint64_t memory_bytes;      /* UINT64_MAX: no limit */
    uint64_t memory_left_bytes; /* limit - usage, at least 1; UINT64_MAX: no limit */
} qni_cgroup_limits;

/*
 * Read the limits. Anything missing or malformed counts as no limit.
 *
 * root   prefix of every path: "" for this machine; tests build their own trees. Reads ROOT/proc/self/cgroup,
 *        ROOT/proc/self/mountinfo and the groups' files under the mount points named there.
 * CPU    quota / period, rounded down.
 * Memory the hard limit and, in version 2, memory.high: above it the kernel throttles the group almost to a stop.
 *        Inactive file pages do not count as usage. The kernel reclaims them first, MemAvailable makes the same
 *        assumption, and reading a checkpoint fills memory with them.
 */
void qni_cgroup_read(qni_cgroup_limits *out, const char *root);

#endif
