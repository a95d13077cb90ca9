# Tests: tests/test_NAME.c is one cmocka program over the static library; tests/support/*.c is linked to each.
TEST_SRC := $(wildcard tests/test_*.c)
TEST_BIN := $(TEST_SRC:tests/%.c=$(B)/tests/%)
SUPPORT_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))

# The failing malloc takes the place of the C library's, which sanitizers have already taken.
FAULT_OBJ := $(if $(filter asan tsan fuzz,$(CONFIG)),,$(B)/tests/fault/malloc.o)
$(B)/tests/test_fault: $(FAULT_OBJ)

$(TEST_BIN): $(B)/tests/%: $(B)/tests/%.o $(SUPPORT_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lm -ldl

.PHONY: test test-deps check cov
test-deps:
	@tools/deps test

test: test-deps ## install what is missing, build, and run every test that needs neither a GPU nor a network
	@$(MAKE) --no-print-directory check

check: build $(TEST_BIN)
	@tests/run $(B) $(QUERN)

cov: test-deps ## line coverage of the tests, by file
	@$(MAKE) --no-print-directory CONFIG=cov cov-run

cov-run:
	@find build/cov -name '*.gcda' -delete 2>/dev/null || true
	-@$(MAKE) --no-print-directory CONFIG=cov check
	@tools/cov build/cov

-include $(TEST_SRC:%.c=$(B)/%.d) $(SUPPORT_OBJ:.o=.d)
