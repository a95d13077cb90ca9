# Sources of the library and the command, without kernels for architectures other than the compiler's target.
LIB_SRC := $(filter-out src/cpu/x86/% src/cpu/arm/% src/cuda/%,$(wildcard src/*/*.c))
ifeq ($(ARCH),x86_64)
LIB_SRC += $(wildcard src/cpu/x86/*.c)
endif
ifeq ($(ARCH),aarch64)
LIB_SRC += $(wildcard src/cpu/arm/*.c)
endif
CLI_SRC := $(filter-out %_avx2.c %_avx512.c %_avx512bf16.c %_neon.c,$(wildcard cli/*.c cli/*/*.c))
ifeq ($(ARCH),x86_64)
CLI_SRC += $(wildcard cli/dev/*_avx2.c cli/dev/*_avx512.c cli/dev/*_avx512bf16.c)
endif
ifeq ($(ARCH),aarch64)
CLI_SRC += $(wildcard cli/dev/*_neon.c)
endif
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(B)/%.o)

VERSION := $(shell sed -n 's/.*QN_VERSION_STRING "\(.*\)"/\1/p' include/quern/version.h)
SOVERSION := $(basename $(VERSION))
LIB_STATIC := $(B)/libquern.a
LIB_SHARED := $(B)/libquern.so.$(VERSION)
