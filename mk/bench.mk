# Benchmarks: bench/ops times the ops of the cpu backend against the machine's roofline, measured as in the command;
# bench/cases times the primitives on the test cases.
OPS_OBJ := $(B)/bench/ops.o $(filter $(B)/cli/dev/roof%,$(CLI_OBJ))
CASES_OBJ := $(B)/bench/cases.o $(B)/tests/support/problem.o

$(B)/bench/ops: $(OPS_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lm

$(B)/bench/cases: $(CASES_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lm

.PHONY: bench bench-cases
bench: $(B)/bench/ops ## time the ops of the cpu backend (options: build/release/bench/ops)
	@$<

bench-cases: test-deps ## time the primitives at the cases of the tests
	@$(MAKE) --no-print-directory $(B)/bench/cases
	@$(B)/bench/cases

-include $(B)/bench/ops.d $(B)/bench/cases.d
