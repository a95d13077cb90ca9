/* SPDX-License-Identifier: Apache-2.0 */
/* Machine properties, from CPUID (AArch64: the auxiliary vector) and from Linux. */
#include "processor.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cgroup.h"
#include "memory.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* XCR0: which registers the operating system saves. */
static uint64_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has(uint32_t word, int bit) {
    return (word >> bit & 1u) != 0;
}

qni_cpu_features qni_cpu_detect(void) {
    enum { OSXSAVE = 27, AVX = 28, FMA = 12, F16C = 29 };                         /* leaf 1, ecx */
    enum { AVX2 = 5, AVX512F = 16, AVX512DQ = 17, AVX512BW = 30, AVX512VL = 31 }; /* leaf 7, ebx */
    enum { AVX512_VNNI = 11 };                                                    /* leaf 7, ecx */
    enum { AVX512_BF16 = 5 };                                                     /* leaf 7.1, eax */
    const uint64_t ymm = 0x06, zmm = 0xE6;
    qni_cpu_features f = {0};
    uint32_t eax, ebx, ecx, edx, leaf1;
    if (!__get_cpuid(1, &eax, &ebx, &leaf1, &edx)) return f;
    if (!has(leaf1, OSXSAVE) || !has(leaf1, AVX)) return f;
    uint64_t saved = read_xcr0();
    if ((saved & ymm) != ymm || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return f;
    uint32_t n_subleaf = eax;
    f.avx2_fma_f16c = has(ebx, AVX2) && has(leaf1, FMA) && has(leaf1, F16C);
    f.avx512 = (saved & zmm) == zmm && f.avx2_fma_f16c && has(ebx, AVX512F) && has(ebx, AVX512DQ) &&
               has(ebx, AVX512BW) && has(ebx, AVX512VL);
    f.avx512_vnni = f.avx512 && has(ecx, AVX512_VNNI);
    if (f.avx512 && n_subleaf >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) {
        f.avx512_bf16 = has(eax, AVX512_BF16);
    }
#if defined(QNI_EMULATE_AVX512) /* test build in which the kernels of this level are compiled to AVX2 */
    f.avx512 = f.avx512_vnni = f.avx512_bf16 = f.avx2_fma_f16c;
#endif
    return f;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

qni_cpu_features qni_cpu_detect(void) {
    const unsigned long has = getauxval(AT_HWCAP), has2 = getauxval(AT_HWCAP2);
    qni_cpu_features f = {0};
    f.neon = true; /* baseline of the architecture */
    f.neon_dotprod = (has & HWCAP_ASIMDDP) != 0;
    f.neon_bf16 = (has2 & HWCAP2_BF16) != 0;
    f.neon_i8mm = (has2 & HWCAP2_I8MM) != 0;
    return f;
}
#else
qni_cpu_features qni_cpu_detect(void) {
    return (qni_cpu_features){0};
}
#endif

/* CPUs in the affinity mask of this process. */
static int32_t count_allowed(void) {
    cpu_set_t few;
    if (sched_getaffinity(0, sizeof few, &few) == 0) return CPU_COUNT(&few) > 0 ? CPU_COUNT(&few) : 1;
    /* The kernel supports more CPUs than the fixed-size set holds. */
    enum { MANY = 1 << 16 };
    size_t bytes = CPU_ALLOC_SIZE(MANY);
    cpu_set_t *many = qni_calloc(1, bytes);
    int count = 0;
    if (many != NULL && sched_getaffinity(0, bytes, many) == 0) count = CPU_COUNT_S(bytes, many);
    qni_free(many);
    return count > 0 ? count : 1;
}

int32_t qni_cpu_count(void) {
    const int32_t n_allowed = count_allowed();
    qni_cgroup_limits limits;
    qni_cgroup_read(&limits, "");
    return limits.n_cpu > 0 && limits.n_cpu < n_allowed ? limits.n_cpu : n_allowed;
}

void qni_cpu_pin(pthread_t thread, int32_t index) {
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) == 0) return;
    int32_t left = index % CPU_COUNT(&allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || left-- > 0) continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        pthread_setaffinity_np(thread, sizeof one, &one);
        return;
    }
}

/* The rest of the first line that starts with `key`, after the colon and blanks, without the newline. */
static bool find_line(char *out, size_t size, const char *path, const char *key) {
    FILE *file = fopen(path, "re");
    if (file == NULL) return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        const char *colon = strchr(line, ':');
        if (colon == NULL) continue;
        const char *value = colon + 1 + strspn(colon + 1, " \t");
        size_t length = strcspn(value, "\n");
        if (length >= size) length = size - 1;
        memcpy(out, value, length);
        out[length] = '\0';
        found = true;
    }
    fclose(file);
    return found;
}

void qni_cpu_name(char *out, size_t size) {
    if (size == 0) return;
    if (!find_line(out, size, "/proc/cpuinfo", "model name") || out[0] == '\0') {
        const char *unknown = "unknown processor";
        size_t length = strlen(unknown) < size ? strlen(unknown) : size - 1;
        memcpy(out, unknown, length);
        out[length] = '\0';
    }
}

static uint64_t meminfo_bytes(const char *key) {
    char text[64];
    if (!find_line(text, sizeof text, "/proc/meminfo", key)) return 0;
    uint64_t kib = 0;
    for (const char *p = text; *p >= '0' && *p <= '9'; p++) {
        if (kib > UINT64_MAX / 20480) return 0;
        kib = kib * 10 + (uint64_t)(*p - '0');
    }
    return kib * 1024;
}

void qni_memory_info(uint64_t *total_bytes, uint64_t *available_bytes) {
    *total_bytes = meminfo_bytes("MemTotal:");
    *available_bytes = meminfo_bytes("MemAvailable:");
    qni_cgroup_limits limits;
    qni_cgroup_read(&limits, "");
    if (limits.memory_bytes != UINT64_MAX && (*total_bytes == 0 || limits.memory_bytes < *total_bytes)) {
        *total_bytes = limits.memory_bytes;
    }
    if (limits.memory_left_bytes != UINT64_MAX &&
        (*available_bytes == 0 || limits.memory_left_bytes < *available_bytes)) {
        *available_bytes = limits.memory_left_bytes;
    }
}
