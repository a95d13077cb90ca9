# Tests: each tests/test_NAME.c is a cmocka program linked with the static library and tests/support/*.c. ONLY selects
# programs and scripts by words in their names, as in tests/run; TEST selects test cases by a word in theirs.
TEST_SRC := $(wildcard tests/test_*.c)
TEST_BIN := $(TEST_SRC:tests/%.c=$(B)/tests/%)
SUPPORT_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))

# The failing malloc replaces the C library's. Sanitizers already replace it, so it is left out with them.
FAULT_OBJ := $(if $(findstring -fsanitize,$(OPT)),,$(B)/tests/fault/malloc.o)
$(B)/tests/test_fault: $(FAULT_OBJ)

# The command with that malloc; tests/fault/command.c defines when it fails.
$(B)/tests/test_fault_command: | $(if $(FAULT_OBJ),$(B)/tests/quern_fault)
$(B)/tests/quern_fault: $(CLI_OBJ) $(FAULT_OBJ) $(B)/tests/fault/command.o $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) $(EDIT_LIBS) -lm

$(TEST_BIN): $(B)/tests/%: $(B)/tests/%.o $(SUPPORT_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lutil -lm -ldl

# The programs listed in tests/guarded/programs, built again with device memory that the host may not touch: an object
# linked before the library replaces its list of backends. Not with sanitizers, which already check the same programs.
GUARDED := $(if $(or $(findstring -fsanitize,$(OPT)),$(EMULATOR)),,$(shell cat tests/guarded/programs))
GUARDED_BIN := $(GUARDED:%=$(B)/tests/guarded_test_%)
GUARDED_OBJ := $(B)/tests/guarded/guarded.o

$(GUARDED_BIN): $(B)/tests/guarded_test_%: $(B)/tests/test_%.o $(GUARDED_OBJ) $(SUPPORT_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lutil -lm -ldl

.PHONY: test test-deps test-tsan test-avx512 test-neon check check-gpu cov
test-deps:
	@tools/deps test

test: test-deps ## install what is missing, build, and run every test that needs neither a GPU nor a network
	@$(MAKE) --no-print-directory check

# Programs that ONLY does not select are not linked.
PICKED_SRC := $(if $(ONLY),$(filter $(TEST_SRC),$(wildcard $(ONLY:%=tests/*%*.c))),$(TEST_SRC))

PICKED_GUARDED := $(if $(ONLY),$(foreach word,$(ONLY),$(foreach bin,$(GUARDED_BIN),$(if $(findstring $(word),$(notdir $(bin))),$(bin)))),$(GUARDED_BIN))

check: build $(PICKED_SRC:tests/%.c=$(B)/tests/%) $(PICKED_GUARDED)
	@tests/run $(B) $(QUERN)

check-gpu: test-deps ## build with CUDA, and run what needs an NVIDIA GPU
	@$(MAKE) --no-print-directory cuda
	@$(MAKE) --no-print-directory $(TEST_BIN)
	@GPU=1 sh tests/gpu.sh $(QUERN) $(B)

# Programs that start threads, for the thread sanitizer.
THREAD_TESTS := api cli cpu fault fork generate kv_overflow lifetimes model ops plan pool quant sampler session tensor

test-tsan: test-deps ## the tests of what starts threads, under the thread sanitizer
	@ONLY='$(or $(ONLY),$(THREAD_TESTS))' $(MAKE) --no-print-directory CONFIG=tsan check

# The numerical and the quick tests, with AVX-512 emulated on AVX2. AVX512_CONFIG=simde-asan adds sanitizers.
AVX512_TESTS := cpu ops quant session
AVX512_CONFIG ?= simde

test-avx512: ## the tests of kernels, ops and sessions on AVX-512, emulated (AVX512_CONFIG=simde|simde-asan)
	@tools/deps test avx512
	@ONLY='$(or $(ONLY),$(AVX512_TESTS))' $(MAKE) --no-print-directory CONFIG=$(AVX512_CONFIG) check

# The numerical and the quick tests, built for AArch64 and run by qemu. NEON_CPU=cortex-a72 is a CPU without the optional
# instructions.
NEON_CPU ?= max
NEON_TESTS := cpu ops quant pool tensor safetensors model sampler lifetimes session_goldens session_file

test-neon: ## the tests of kernels, ops and sessions on AArch64, emulated (NEON_CPU=max|cortex-a72|…)
	@tools/deps neon
	@QUICK=1 ONLY='$(or $(ONLY),$(NEON_TESTS))' EMULATOR='qemu-aarch64 -cpu $(NEON_CPU)' \
	    PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig \
	    $(MAKE) --no-print-directory CC=aarch64-linux-gnu-gcc AR=aarch64-linux-gnu-ar check

cov: test-deps ## line coverage of the tests, by file
	@$(MAKE) --no-print-directory CONFIG=cov cov-run

cov-run:
	@find build/cov -name '*.gcda' -delete 2>/dev/null || true
	-@$(MAKE) --no-print-directory CONFIG=cov check
	@tools/cov build/cov

-include $(TEST_SRC:%.c=$(B)/%.d) $(GUARDED_OBJ:.o=.d) $(SUPPORT_OBJ:.o=.d)
