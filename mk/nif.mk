# The NIF of bindings/elixir: built against the public headers and linked with the static library.
NIF_SRC := $(wildcard bindings/elixir/c_src/*.c)
NIF_OBJ := $(NIF_SRC:%.c=$(B)/%.o)
NIF_LIB := $(B)/quern_nif.so
# Evaluated on demand; Debian's location first, since asking Erlang takes a third of a second.
ERL_INCLUDE = $(or $(wildcard /usr/lib/erlang/usr/include),$(shell erl -noshell -eval \
    'io:put_chars(filename:join([code:root_dir(),"usr","include"])),halt().' 2>/dev/null))

$(NIF_OBJ): private ISA_FLAGS = -isystem $(ERL_INCLUDE)

$(NIF_LIB): $(NIF_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -shared -Wl,--exclude-libs,ALL -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lm -ldl

# Reference results of the C API, for the tests of the bindings.
DIGESTS := $(B)/bindings/elixir/test/digests
$(DIGESTS): $(B)/bindings/elixir/test/digests.o $(SUPPORT_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lcmocka -lm

# The C side of `mix quern.bench --c`.
NIF_BENCH := $(B)/bindings/elixir/bench/generate_direct
$(NIF_BENCH): $(B)/bindings/elixir/bench/generate_direct.o $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lm

.PHONY: nif nif-digests nif-bench
nif-digests: $(DIGESTS)
nif-bench: $(NIF_BENCH)
nif: $(NIF_LIB) ## the NIF of bindings/elixir (needs erlang-dev; mix calls this)

-include $(NIF_OBJ:.o=.d) $(DIGESTS).d $(NIF_BENCH).d
