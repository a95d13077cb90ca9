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

# Libraries that test_plugin opens.
PLUGINS := $(patsubst tests/plugin/%.c,$(B)/tests/plugin/%.so,$(wildcard tests/plugin/*.c))
$(B)/tests/test_plugin: | $(PLUGINS)
$(PLUGINS): %.so: %.o
	$(call say,LD,$@)
	$(QUIET)$(CC) -shared -o $@ $< $(LDFLAGS_ALL)

# The programs listed in tests/guarded/programs, built again with device memory that the host may not touch: an object
# linked before the library replaces its list of backends. Not with sanitizers, which already check the same programs.
GUARDED := $(if $(or $(findstring -fsanitize,$(OPT)),$(EMULATOR)),,$(shell cat tests/guarded/programs))
GUARDED_BIN := $(GUARDED:%=$(B)/tests/guarded_test_%)
GUARDED_OBJ := $(B)/tests/guarded/guarded.o

$(GUARDED_BIN): $(B)/tests/guarded_test_%: $(B)/tests/test_%.o $(GUARDED_OBJ) $(SUPPORT_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lutil -lm -ldl

# The host code of src/cuda over a stand-in for CUDA (tests/cuda/): test programs of its own, and those that
# tests/cuda/programs lists, on which it takes the place of "ref".
FAKE := $(B)/tests/cuda
FAKE_OBJ := $(patsubst src/%.c,$(FAKE)/%.o,$(wildcard src/cuda/*.c)) \
            $(patsubst tests/cuda/%.c,$(FAKE)/%.o,$(filter-out tests/cuda/test_% tests/cuda/as_ref.c tests/cuda/registry.c,$(wildcard tests/cuda/*.c)))
FAKE_TEST := $(if $(EMULATOR),,$(patsubst tests/cuda/%.c,$(B)/tests/%,$(wildcard tests/cuda/test_*.c)))
FAKE_BIN := $(if $(EMULATOR),,$(patsubst %,$(B)/tests/cuda_test_%,$(shell cat tests/cuda/programs)))
FAKE_CC = $(QUIET)$(CC) $(CFLAGS_ALL) -Itests/cuda/include -MMD -MP -c $< -o $@

$(FAKE)/cuda/%.o: src/cuda/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(FAKE_CC)

$(FAKE)/%.o: tests/cuda/%.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(FAKE_CC)

$(FAKE_TEST): $(B)/tests/%: $(FAKE)/%.o $(FAKE)/registry.o $(FAKE_OBJ) $(SUPPORT_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lutil -lm -ldl

$(FAKE_BIN): $(B)/tests/cuda_test_%: $(B)/tests/test_%.o $(FAKE)/as_ref.o $(FAKE_OBJ) $(SUPPORT_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lutil -lm -ldl

.PHONY: test test-deps test-tsan test-avx512 test-neon check check-gpu cov
test-deps:
	@tools/deps test

test: test-deps ## install what is missing, build, and run every test that needs neither a GPU nor a network
	@$(MAKE) --no-print-directory check

# Programs that ONLY does not select are not linked.
PICKED_SRC := $(if $(ONLY),$(filter $(TEST_SRC),$(wildcard $(ONLY:%=tests/*%*.c))),$(TEST_SRC))

LISTED_BIN := $(GUARDED_BIN) $(FAKE_TEST) $(FAKE_BIN)
PICKED_LISTED := $(if $(ONLY),$(foreach word,$(ONLY),$(foreach bin,$(LISTED_BIN),$(if $(findstring $(word),$(notdir $(bin))),$(bin)))),$(LISTED_BIN))

check: build $(PICKED_SRC:tests/%.c=$(B)/tests/%) $(PICKED_LISTED)
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

-include $(TEST_SRC:%.c=$(B)/%.d) $(GUARDED_OBJ:.o=.d) $(SUPPORT_OBJ:.o=.d) $(wildcard $(FAKE)/*.d $(FAKE)/cuda/*.d)
