# Tests: tests/test_NAME.c is one cmocka program over the static library; tests/support/*.c is linked to each.
TEST_SRC := $(wildcard tests/test_*.c)
TEST_BIN := $(TEST_SRC:tests/%.c=$(B)/tests/%)
SUPPORT_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))

$(TEST_BIN): $(B)/tests/%: $(B)/tests/%.o $(SUPPORT_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lm -ldl

.PHONY: test test-deps check
test-deps:
	@tools/deps test

test: test-deps ## install what is missing, build, and run every test that needs neither a GPU nor a network
	@$(MAKE) --no-print-directory check

check: build $(TEST_BIN)
	@tests/run $(B) $(QUERN)

-include $(TEST_SRC:%.c=$(B)/%.d) $(SUPPORT_OBJ:.o=.d)
