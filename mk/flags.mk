# Flags by CONFIG and by file suffix: name_avx2.c is compiled for AVX2, and so on. All other files are portable, including
# name_neon.c, since NEON is part of AArch64. name_neondot.c and so on are for optional extensions.
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wmissing-prototypes \
        -Wvla -Wpointer-arith $(if $(CI),-Werror)
COMMON := -std=c11 -D_GNU_SOURCE -Iinclude -fvisibility=hidden -fno-math-errno -ffp-contract=off -fPIC -pthread $(WARN)
OPT_release := -O3 -g
OPT_debug := -O0 -g3 -DQNI_DEBUG
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DQNI_DEBUG
OPT_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer -DQNI_DEBUG
OPT_cov := -O0 -g --coverage
OPT_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
            -DQNI_DEBUG
OPT_simde := -O2 -g -DQNI_EMULATE_AVX512
OPT_simde-asan := $(OPT_asan) -DQNI_EMULATE_AVX512
OPT := $(OPT_$(CONFIG))
$(if $(OPT),,$(error CONFIG=$(CONFIG): unknown; one of release debug asan tsan cov fuzz simde simde-asan))

# GCC 12 for AArch64 fails with an internal compiler error when it vectorizes the loop m = fmax(m, fabs(x)).
ifeq ($(ARCH),aarch64)
COMMON += -fno-builtin-fmax
endif

TEXT_PKGS := jansson libpcre2-8 libutf8proc
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(TEXT_PKGS) 2>/dev/null)
PKG_LIBS := $(or $(shell $(PKG_CONFIG) --libs $(TEXT_PKGS) 2>/dev/null),-ljansson -lpcre2-8 -lutf8proc)
EDIT_LIBS := $(or $(shell $(PKG_CONFIG) --libs libedit 2>/dev/null),-ledit)

CFLAGS_ALL = $(COMMON) $(OPT) $(PKG_CFLAGS) $(CFLAGS) $(ISA_FLAGS)
LDFLAGS_ALL = $(filter -fsanitize=% --coverage,$(OPT)) -pthread $(LDFLAGS)

ISA_avx2 := -mavx2 -mfma -mf16c
ISA_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni $(ISA_avx2)
ISA_avx512bf16 := $(ISA_avx512) -mavx512bf16
ISA_neondot := -march=armv8.2-a+dotprod
ISA_neonbf16 := -march=armv8.2-a+bf16
ISA_neoni8mm := -march=armv8.2-a+i8mm
# The accumulators of a tile fill the registers: GCC spills some if it schedules before register allocation.
ISA_neon := $(if $(findstring clang,$(CC)),,-fno-schedule-insns)
# CONFIG=simde and simde-asan compile the AVX-512 files for AVX2, for the tests. A vector then takes two registers, and the
# compiler warns that passing vectors changes the ABI.
ifneq ($(filter simde simde-asan,$(CONFIG)),)
ISA_avx512 := $(ISA_avx2) -include tests/emulate/avx512.h -Wno-psabi
ISA_avx512bf16 := $(ISA_avx512)
endif
