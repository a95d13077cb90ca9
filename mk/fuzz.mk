# Fuzzing with libFuzzer: tests/fuzz/fuzz_NAME.c over the library's sources, all built by clang with address and
# undefined-behavior sanitizers into build/fuzz. New inputs go to build/fuzz/corpus/NAME; tests/fuzz/corpus/NAME is only read.
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_NAMES := $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%)
FUZZ_BIN := $(FUZZ_NAMES:%=$(B)/fuzz_%)
SECONDS ?= 60

.PHONY: fuzz fuzz-deps fuzz-build $(FUZZ_NAMES:%=fuzz-%)
fuzz-deps:
	@tools/deps fuzz

fuzz: fuzz-deps ## fuzz each target for SECONDS=60 (one of them: make fuzz-NAME)
	@$(MAKE) --no-print-directory CONFIG=fuzz CC=clang fuzz-build
	@$(MAKE) --no-print-directory -k $(FUZZ_NAMES:%=fuzz-%)

$(FUZZ_NAMES:%=fuzz-%): fuzz-%: fuzz-deps
	@$(MAKE) --no-print-directory CONFIG=fuzz CC=clang build/fuzz/fuzz_$*
	@tools/fuzz $* $(SECONDS)

$(B)/tests/fuzz/%.o: private CFLAGS += -Wno-missing-prototypes
fuzz-build: $(FUZZ_BIN)

$(FUZZ_BIN): $(B)/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ -fsanitize=fuzzer $(LDFLAGS_ALL) $(PKG_LIBS) -lm

-include $(FUZZ_SRC:%.c=$(B)/%.d)
