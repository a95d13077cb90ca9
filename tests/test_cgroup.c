/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of control groups, from trees in a temporary directory laid out like real systems: versions 1, 2 and both,
 * on a host and inside a container; and from truncated, malformed or missing files. */
#include "../src/base/cgroup.h"
#include "../src/base/processor.h"
#include "support/cmocka_all.h"
#include "support/files.h"

#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_NODE = 24 };
#define NONE UINT64_MAX

#define V2(root, point)              "30 23 0:26 " root " " point " rw,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate\n"
#define V1(root, point, controllers) "31 23 0:27 " root " " point " rw - cgroup cgroup rw," controllers "\n"

/* A system: its files and the expected limits. */
typedef struct sys {
    const char *name;
    const char *group, *mounts; /* /proc/self/cgroup and mountinfo */
    struct {
        const char *path, *text;
    } files[MAX_NODE];
    int32_t n_cpu; /* 0: no limit */
    uint64_t memory, left;
} sys;

static const sys systems[] = {
    {"nothing", "", "", {{0}}, 0, NONE, NONE},
    {"no proc at all", NULL, NULL, {{0}}, 0, NONE, NONE},
    /* docker run --cpus 2.5 --memory 300m, in its own namespace */
    {"v2 container",
     "0::/\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/cpu.max", "250000 100000\n"},
      {"/sys/fs/cgroup/cpuset.cpus.effective", "0-7\n"},
      {"/sys/fs/cgroup/memory.max", "314572800\n"},
      {"/sys/fs/cgroup/memory.high", "max\n"},
      {"/sys/fs/cgroup/memory.current", "114572800\n"},
      {"/sys/fs/cgroup/memory.stat", "anon 1000\nfile 60000000\ninactive_file 50000000\nactive_file 1\n"}},
     2,
     314572800,
     250000000},
    {"v2 without limits",
     "0::/user.slice\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/user.slice/cpu.max", "max 100000\n"},
      {"/sys/fs/cgroup/user.slice/memory.max", "max\n"},
      {"/sys/fs/cgroup/user.slice/memory.high", "max\n"},
      {"/sys/fs/cgroup/user.slice/memory.current", "1000\n"}},
     0,
     NONE,
     NONE},
    /* The tightest in the chain at any level: CPUs at the root, memory.high in the middle, memory.max at the leaf. */
    {"v2 nested",
     "0::/a/b c/d\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/a/cpu.max", "300000 100000\n"},
      {"/sys/fs/cgroup/a/b c/cpu.max", "max 100000\n"},
      {"/sys/fs/cgroup/a/b c/d/cpu.max", "800000 100000\n"},
      {"/sys/fs/cgroup/a/memory.max", "9000\n"},
      {"/sys/fs/cgroup/a/memory.current", "8500\n"},
      {"/sys/fs/cgroup/a/b c/memory.high", "7000\n"},
      {"/sys/fs/cgroup/a/b c/memory.max", "8000\n"},
      {"/sys/fs/cgroup/a/b c/memory.current", "6800\n"},
      {"/sys/fs/cgroup/a/b c/d/memory.max", "9500\n"},
      {"/sys/fs/cgroup/a/b c/d/memory.current", "100\n"}},
     3,
     7000,
     200},
    /* Half a CPU is one thread; no memory left is one byte, because 0 means unknown. */
    {"less than one CPU",
     "0::/\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/cpu.max", "50000 100000\n"},
      {"/sys/fs/cgroup/memory.max", "1000\n"},
      {"/sys/fs/cgroup/memory.current", "2000\n"}},
     1,
     1000,
     1},
    {"v2 cpuset",
     "0::/s\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/cpuset.cpus.effective", "0-31\n"}, {"/sys/fs/cgroup/s/cpuset.cpus.effective", "1,4-6,9\n"}},
     5,
     NONE,
     NONE},
    /* Without a cgroup namespace: the mount's root is the container's group. */
    {"v1 container",
     "4:memory:/docker/0a1b\n3:cpuset:/docker/0a1b\n2:cpuacct,cpu:/docker/0a1b\n1:name=systemd:/docker/0a1b\n",
     "29 23 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755\n" V1("/docker/0a1b", "/sys/fs/cgroup/cpu,cpuacct",
                                                                     "cpuacct,cpu")
         V1("/docker/0a1b", "/sys/fs/cgroup/memory", "memory") V1("/docker/0a1b", "/sys/fs/cgroup/cpuset", "cpuset"),
     {{"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "50000\n"},
      {"/sys/fs/cgroup/cpuset/cpuset.cpus", "0-63\n"},
      {"/sys/fs/cgroup/cpuset/cpuset.effective_cpus", "0-63\n"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "300000000\n"},
      {"/sys/fs/cgroup/memory/memory.usage_in_bytes", "200000000\n"},
      {"/sys/fs/cgroup/memory/memory.stat", "cache 1\ninactive_file 7\ntotal_inactive_file 150000000\n"}},
     3,
     300000000,
     250000000},
    {"v1 without limits",
     "2:memory:/\n1:cpu:/\n",
     V1("/", "/sys/fs/cgroup/cpu", "cpu") V1("/", "/sys/fs/cgroup/memory", "memory"),
     {{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"}, {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}},
     0,
     NONE,
     NONE},
    /* A parent that does not count its children does not limit them; nor does any group above it. */
    {"v1 nested",
     "2:memory:/a/b\n1:cpu:/a/b\n",
     V1("/", "/sys/fs/cgroup/cpu", "cpu") V1("/", "/sys/fs/cgroup/memory", "memory"),
     {{"/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n"},
      {"/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"},
      {"/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "400000\n"},
      {"/sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n"},
      {"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "5000\n"},
      {"/sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "1000\n"},
      {"/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000\n"},
      {"/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "100\n"},
      {"/sys/fs/cgroup/memory/a/memory.use_hierarchy", "0\n"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"},
      {"/sys/fs/cgroup/memory/memory.use_hierarchy", "1\n"}},
     2,
     5000,
     4000},
    {"v1 hierarchy",
     "2:memory:/a/b\n",
     V1("/", "/sys/fs/cgroup/memory", "memory"),
     {{"/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n"},
      {"/sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "1000\n"},
      {"/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "3000\n"},
      {"/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "1100\n"},
      {"/sys/fs/cgroup/memory/a/memory.use_hierarchy", "1\n"}},
     0,
     3000,
     1900},
    /* Controllers in version 1, names in version 2. */
    {"hybrid",
     "3:memory:/m\n2:cpu,cpuacct:/c\n0::/u\n",
     V1("/", "/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct") V1("/", "/sys/fs/cgroup/memory", "memory")
         V2("/", "/sys/fs/cgroup/unified"),
     {{"/sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "100000\n"},
      {"/sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n"},
      {"/sys/fs/cgroup/unified/u/cgroup.procs", "1\n"},
      {"/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "300000000\n"},
      {"/sys/fs/cgroup/memory/m/memory.usage_in_bytes", "100000000\n"}},
     1,
     300000000,
     200000000},
    /* An unrelated mount first; blanks in a mount point. */
    {"many mounts",
     "0::/mine/job\n",
     V2("/other", "/mnt/other") V2("/mine", "/mnt/my\\040groups\\134x") V2("/", "/sys/fs/cgroup"),
     {{"/mnt/other/cpu.max", "100000 100000\n"},
      {"/mnt/my groups\\x/job/cpu.max", "600000 100000\n"},
      {"/sys/fs/cgroup/mine/job/cpu.max", "200000 100000\n"}},
     6,
     NONE,
     NONE},
    /* The path is the host's, the mount is the container's: only the mount's own group is visible. */
    {"path out of sight",
     "0::/kubepods/pod1/c2\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/cpu.max", "400000 100000\n"}},
     4,
     NONE,
     NONE},
    {"path below no mount",
     "1:cpu:/a\n0::/../x\n",
     V1("/b", "/sys/fs/cgroup/cpu", "cpu") V2("/", "/sys/fs/cgroup/unified"),
     {{"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "700000\n"},
      {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"},
      {"/sys/fs/cgroup/x/cpu.max", "100000 100000\n"},
      {"/sys/fs/cgroup/unified/cpu.max", "600000 100000\n"}},
     6,
     NONE,
     NONE},
    {"garbage in files",
     "0::/\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/cpu.max", "lots 100000\n"},
      {"/sys/fs/cgroup/cpuset.cpus.effective", "3-1\n"},
      {"/sys/fs/cgroup/memory.max", "300M\n"},
      {"/sys/fs/cgroup/memory.high", "99999999999999999999999\n"},
      {"/sys/fs/cgroup/memory.current", "1\n"}},
     0,
     NONE,
     NONE},
    {"more garbage",
     "0::/a\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/cpu.max", "100000 0\n"},
      {"/sys/fs/cgroup/a/cpu.max", "100000\n"},
      {"/sys/fs/cgroup/cpuset.cpus.effective", "0-4294967296\n"},
      {"/sys/fs/cgroup/a/cpuset.cpus.effective", "\n"},
      {"/sys/fs/cgroup/memory.max", ""},
      {"/sys/fs/cgroup/a/memory.max", "-1\n"},
      {"/sys/fs/cgroup/a/memory.high", "5000\n"},
      {"/sys/fs/cgroup/a/memory.current", "none\n"},
      {"/sys/fs/cgroup/a/memory.stat", "inactive_file\ninactive_file x\ninactive_file 18446744073709551616\n"}},
     0,
     5000,
     5000},
    /* More inactive pages than usage: the two were counted at different times. */
    {"inactive beyond usage",
     "0::/\n",
     V2("/", "/sys/fs/cgroup"),
     {{"/sys/fs/cgroup/memory.max", "5000\n"},
      {"/sys/fs/cgroup/memory.current", "100\n"},
      {"/sys/fs/cgroup/memory.stat", "inactive_file 200\n"}},
     0,
     5000,
     5000},
    {"garbage in proc",
     "\n:\n::\nx\n4:cpu\n0::\n5:cpu:relative\n0::/\n",
     "\n - \n1 2 3 4 5\n1 2 3 4 5 - cgroup2\n1 2 3 4 5 6 - cgroup2 a\n" V2("/", "/g"),
     {{"/g/cpu.max", "200000 100000\n"}},
     2,
     NONE,
     NONE},
};

static void make_parents(const char *path) {
    char *copy = strdup(path);
    assert_non_null(copy);
    for (char *slash = copy + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        (void)mkdir(copy, 0700);
        *slash = '/';
    }
    free(copy);
}

static void write_node(const char *root, const char *path, const char *text) {
    char *full = files_path(root, path + 1);
    make_parents(full);
    FILE *f = fopen(full, "w");
    if (f == NULL) fail_msg("%s cannot be written", full);
    assert_int_equal(fputs(text, f) < 0, 0);
    assert_int_equal(fclose(f), 0);
    free(full);
}

static int remove_node(const char *path, const struct stat *info, int kind, struct FTW *at) {
    (void)info, (void)kind, (void)at;
    return remove(path);
}
static void remove_tree(char *root) {
    assert_int_equal(nftw(root, remove_node, 8, FTW_DEPTH | FTW_PHYS), 0);
    free(root);
}

static void check(const char *name, const char *root, int32_t n_cpu, uint64_t memory, uint64_t left) {
    qni_cgroup_limits limits;
    memset(&limits, 0xAA, sizeof limits);
    qni_cgroup_read(&limits, root);
    if (limits.n_cpu == n_cpu && limits.memory_bytes == memory && limits.memory_left_bytes == left) return;
    fail_msg("%s: CPUs %" PRId32 ", not %" PRId32 "; memory %" PRIu64 ", not %" PRIu64 "; left %" PRIu64
             ", not %" PRIu64,
             name, limits.n_cpu, n_cpu, limits.memory_bytes, memory, limits.memory_left_bytes, left);
}

static void simulated_systems(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof systems / sizeof systems[0]; i++) {
        const sys *s = &systems[i];
        char *root = files_make_dir();
        if (s->group != NULL) write_node(root, "/proc/self/cgroup", s->group);
        if (s->mounts != NULL) write_node(root, "/proc/self/mountinfo", s->mounts);
        for (int k = 0; k < MAX_NODE && s->files[k].path != NULL; k++) {
            write_node(root, s->files[k].path, s->files[k].text);
        }
        check(s->name, root, s->n_cpu, s->memory, s->left);
        remove_tree(root);
    }
}

/* A line of some length followed by a mount with 3 CPUs, which counts whatever precedes it; and a group whose path
 * is too long, which does not count. */
static void overlong_lines_are_skipped(void **state) {
    (void)state;
    const size_t sizes[] = {100, 1000, 4094, 4095, 4096, 4097, 100000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t n = sizes[i];
        char *text = malloc(n + 200), *root = files_make_dir();
        assert_non_null(text);
        memset(text, 'x', n);
        memcpy(text, "9 8 0:1 / /overlay rw - overlay o ", 34);
        strcpy(text + n, "\n" V2("/", "/g"));
        write_node(root, "/proc/self/mountinfo", text);
        write_node(root, "/proc/self/cgroup", "0::/\n");
        write_node(root, "/g/cpu.max", "300000 100000\n");
        check("long mount", root, 3, NONE, NONE);
        memset(text, '/', n);
        memcpy(text, "0::/", 4);
        strcpy(text + n, "\n");
        write_node(root, "/proc/self/cgroup", text);
        if (n > 1024) check("long group", root, 0, NONE, NONE);
        strcat(text, "0::/\n");
        write_node(root, "/proc/self/cgroup", text);
        check("long group, then another", root, 3, NONE, NONE);
        free(text);
        remove_tree(root);
    }
}

/* The limits of this machine, whatever they are, do not exceed the machine. */
static void limits_of_this_machine(void **state) {
    (void)state;
    qni_cgroup_limits limits;
    qni_cgroup_read(&limits, "");
    assert_true(limits.n_cpu >= 0 && limits.memory_bytes > 0 && limits.memory_left_bytes > 0);
    assert_true(limits.n_cpu == 0 || qni_cpu_count() <= limits.n_cpu);
    uint64_t total, available;
    qni_memory_info(&total, &available);
    assert_true(total <= limits.memory_bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(simulated_systems),
        cmocka_unit_test(overlong_lines_are_skipped),
        cmocka_unit_test(limits_of_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
