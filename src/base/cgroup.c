/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits of control groups. /proc/self/cgroup has a line "ID:CONTROLLERS:PATH" for each version 1 hierarchy and
 * "0::PATH" for version 2; a hybrid system has both. /proc/self/mountinfo gives each hierarchy's mount point and the
 * group at the root of that mount: "/" on a host or in a cgroup namespace, the container's own group without one.
 */
#include "cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Longer paths and lines are ignored. */
enum { MAX_PATH = 1024, MAX_LINE = 4096 };

/* Concatenate two strings; false if the result is too long. */
static bool concatenate(char *out, size_t size, const char *path, const char *name) {
    const int n = snprintf(out, size, "%s%s", path, name);
    return n >= 0 && (size_t)n < size;
}

/* Read the next line without its newline; an overlong line is returned empty. */
static bool next_line(char *line, int size, FILE *file) {
    if (fgets(line, size, file) == NULL) return false;
    char *end = strchr(line, '\n');
    if (end != NULL) {
        *end = '\0';
    } else if (!feof(file)) {
        int c = getc(file);
        while (c != EOF && c != '\n') c = getc(file);
        line[0] = '\0';
    }
    return true;
}

static bool read_line(char *line, int size, const char *dir, const char *name) {
    char path[MAX_PATH];
    if (!concatenate(path, sizeof path, dir, name)) return false;
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    const bool found = next_line(line, size, file);
    fclose(file);
    return found;
}

/* Parse decimal digits; *end points past them. */
static bool parse_number(uint64_t *out, const char *text, const char **end) {
    uint64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)) {
            return false;
        }
    }
    *out = value;
    *end = p;
    return p > text;
}

/* Read a file that holds one number. False if it says "max" or -1 (no limit) or does not exist. */
static bool read_number(uint64_t *out, const char *dir, const char *name) {
    char line[64];
    const char *end;
    uint64_t value;
    if (!read_line(line, sizeof line, dir, name) || !parse_number(&value, line, &end) || *end != '\0') return false;
    *out = value;
    return true;
}

/* Read the value of a key in memory.stat. */
static bool read_stat(uint64_t *out, const char *dir, const char *key) {
    char path[MAX_PATH], line[128];
    const size_t n = strlen(key);
    const char *end;
    bool found = false;
    if (!concatenate(path, sizeof path, dir, "/memory.stat")) return false;
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    while (!found && next_line(line, sizeof line, file)) {
        found = strncmp(line, key, n) == 0 && line[n] == ' ' && parse_number(out, line + n + 1, &end) && *end == '\0';
    }
    fclose(file);
    return found;
}

/* --- one group --- */

static void limit_cpus(qni_cgroup_limits *l, uint64_t n) {
    const int32_t n_cpu = n < 1 ? 1 : n < INT32_MAX ? (int32_t)n : INT32_MAX;
    if (l->n_cpu == 0 || n_cpu < l->n_cpu) l->n_cpu = n_cpu;
}

static void limit_memory(qni_cgroup_limits *l, const char *dir, uint64_t limit, const char *usage_file,
                         const char *inactive) {
    uint64_t usage = 0, reclaimable = 0;
    if (!read_number(&usage, dir, usage_file)) usage = 0;
    if (read_stat(&reclaimable, dir, inactive)) usage -= reclaimable < usage ? reclaimable : usage;
    if (limit < 1) limit = 1; /* 0 would mean "unknown" */
    const uint64_t left = usage < limit ? limit - usage : 1;
    if (limit < l->memory_bytes) l->memory_bytes = limit;
    if (left < l->memory_left_bytes) l->memory_left_bytes = left;
}

/* Number of CPUs in a list like "0-3,8"; 0 if malformed. */
static uint64_t count_cpus(const char *list) {
    uint64_t n = 0, first, last;
    for (const char *p = list;; p++) {
        if (!parse_number(&first, p, &p)) return 0;
        last = first;
        if (*p == '-' && !parse_number(&last, p + 1, &p)) return 0;
        if (last < first || last > INT32_MAX) return 0;
        n += last - first + 1;
        if (*p == '\0') return n;
        if (*p != ',') return 0;
    }
}

static void read_cpuset(qni_cgroup_limits *l, const char *dir, const char *name) {
    char line[MAX_LINE];
    const uint64_t n = read_line(line, sizeof line, dir, name) ? count_cpus(line) : 0;
    if (n > 0) limit_cpus(l, n);
}

/* The scheduler's mask already reflects the cpuset, but a sandbox that imitates Linux may provide only one of the
 * two. */
static void read_group1(qni_cgroup_limits *l, const char *dir, bool counts_memory) {
    uint64_t quota, period, limit;
    if (read_number(&quota, dir, "/cpu.cfs_quota_us") && read_number(&period, dir, "/cpu.cfs_period_us") && quota > 0 &&
        period > 0) {
        limit_cpus(l, quota / period);
    }
    read_cpuset(l, dir, "/cpuset.effective_cpus");
    if (counts_memory && read_number(&limit, dir, "/memory.limit_in_bytes")) {
        limit_memory(l, dir, limit, "/memory.usage_in_bytes", "total_inactive_file");
    }
}

static void read_group2(qni_cgroup_limits *l, const char *dir) {
    static const char *const limits[] = {"/memory.max", "/memory.high"};
    char line[64];
    const char *end;
    uint64_t quota, period, limit;
    if (read_line(line, sizeof line, dir, "/cpu.max") && parse_number(&quota, line, &end) && *end == ' ' &&
        parse_number(&period, end + 1, &end) && *end == '\0' && quota > 0 && period > 0) {
        limit_cpus(l, quota / period);
    }
    read_cpuset(l, dir, "/cpuset.cpus.effective");
    for (int i = 0; i < 2; i++) {
        if (read_number(&limit, dir, limits[i])) limit_memory(l, dir, limit, "/memory.current", "inactive_file");
    }
}

/* --- a hierarchy --- */

/* Where a hierarchy is mounted. */
typedef struct mount {
    char point[MAX_PATH]; /* including the root directory */
    char group[MAX_PATH]; /* the part of PATH below the mount point; "" or "/a/b" */
} mount;

/* Whether a comma-separated list contains a name. */
static bool has_name(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *p = list; p != NULL; p = strchr(p, ',')) {
        if (*p == ',') p++;
        if (strncmp(p, name, n) == 0 && (p[n] == ',' || p[n] == '\0')) return true;
    }
    return false;
}

/* Unescape in place: mountinfo writes blanks and backslashes as \ooo. */
static void decode(char *text) {
    char *to = text;
    for (const char *p = text; *p != '\0'; to++) {
        if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' && p[3] >= '0' && p[3] <= '7') {
            *to = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
            p += 4;
        } else {
            *to = *p++;
        }
    }
    *to = '\0';
}

/* The part of `path` below the group `root`; NULL if it is not below it. */
static const char *path_below(const char *path, const char *root) {
    const size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(path, root, n) != 0 || (path[n] != '/' && path[n] != '\0')) return NULL;
    return strcmp(path + n, "/") == 0 ? "" : path + n;
}

/* A line of mountinfo, "ID PARENT MAJOR:MINOR ROOT POINT OPTIONS … - TYPE SOURCE OPTIONS", split in place. */
typedef struct fields {
    char *root, *point, *type, *options;
} fields;

static bool split_mount_line(fields *out, char *line) {
    char *dash = strstr(line, " - "), *save = NULL;
    if (dash == NULL) return false;
    *dash = '\0';
    char *field = strtok_r(line, " ", &save);
    for (int i = 0; i < 3 && field != NULL; i++) field = strtok_r(NULL, " ", &save);
    out->root = field;
    out->point = strtok_r(NULL, " ", &save);
    out->type = strtok_r(dash + 3, " ", &save);
    const char *source = strtok_r(NULL, " ", &save);
    out->options = strtok_r(NULL, " ", &save);
    if (out->root == NULL || out->point == NULL || source == NULL || out->options == NULL) return false;
    decode(out->root);
    decode(out->point);
    return true;
}

/* The mount of a version 1 controller, or of version 2 if NULL: the first that contains the group `path`. Otherwise
 * the first mount found, whose root group is all that is visible. */
static bool find_mount(mount *out, const char *root, const char *controller, const char *path) {
    char name[MAX_PATH], line[MAX_LINE];
    if (!concatenate(name, sizeof name, root, "/proc/self/mountinfo")) return false;
    FILE *file = fopen(name, "re");
    if (file == NULL) return false;
    const char *group = NULL;
    bool found = false;
    while (group == NULL && next_line(line, sizeof line, file)) {
        fields f = {0};
        if (!split_mount_line(&f, line)) continue;
        const bool wanted = controller != NULL ? strcmp(f.type, "cgroup") == 0 && has_name(f.options, controller)
                                               : strcmp(f.type, "cgroup2") == 0;
        if (!wanted) continue;
        group = path_below(path, f.root);
        if (found && group == NULL) continue;
        found = concatenate(out->point, sizeof out->point, root, f.point) &&
                concatenate(out->group, sizeof out->group, group != NULL ? group : "", "");
    }
    fclose(file);
    return found;
}

/* Apply the limits of the group and its ancestors. For memory, a version 1 group that does not count its children's
 * usage ends the chain. */
static void read_chain(qni_cgroup_limits *l, const mount *m, bool unified) {
    char dir[MAX_PATH];
    bool counts_memory = true;
    uint64_t hierarchy;
    if (!concatenate(dir, sizeof dir, m->point, m->group)) return;
    for (size_t own = strlen(dir), root = strlen(m->point), n = own; n >= root && n > 0;) {
        dir[n] = '\0';
        if (n < own && read_number(&hierarchy, dir, "/memory.use_hierarchy") && hierarchy == 0) counts_memory = false;
        if (unified) {
            read_group2(l, dir);
        } else {
            read_group1(l, dir, counts_memory);
        }
        if (n == root) return;
        do n--;
        while (n > root && dir[n] != '/');
    }
}

void qni_cgroup_read(qni_cgroup_limits *out, const char *root) {
    static const char *const controllers[] = {"cpu", "cpuset", "memory"};
    char name[MAX_PATH], line[MAX_LINE];
    mount m;
    *out = (qni_cgroup_limits){.memory_bytes = UINT64_MAX, .memory_left_bytes = UINT64_MAX};
    if (!concatenate(name, sizeof name, root, "/proc/self/cgroup")) return;
    FILE *file = fopen(name, "re");
    if (file == NULL) return;
    while (next_line(line, sizeof line, file)) {
        char *list = strchr(line, ':'), *path = list != NULL ? strchr(++list, ':') : NULL;
        if (path == NULL) continue;
        *path++ = '\0';
        /* A group outside the namespace has no path here. */
        if (strstr(path, "/..") != NULL) *path = '\0';
        if (*list == '\0' && find_mount(&m, root, NULL, path)) read_chain(out, &m, true);
        for (int i = 0; i < 3; i++) {
            if (has_name(list, controllers[i]) && find_mount(&m, root, controllers[i], path))
                read_chain(out, &m, false);
        }
    }
    fclose(file);
}
