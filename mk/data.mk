# Data that is kept packed: FILE.xz makes FILE beside it, where tests and users look for it; .gitignore names it.
PACKED := $(wildcard models/*/*.xz tests/data/*/*.xz tests/data/*/*/*.xz)
UNPACKED := $(PACKED:.xz=)

# Another make may unpack at the same time, and its tests read: the file appears as a whole.
$(UNPACKED): %: %.xz
	$(call say,XZ,$@)
	@mkdir -p build; t=build/unpack.$$$$; xz -dc $< > $$t && mv $$t $@ || { rm -f $$t; exit 1; }

# Everything that may read it.
$(QUERN) $(TEST_BIN) $(GUARDED_BIN) $(FUZZ_BIN) $(NIF_LIB) $(DIGESTS) $(NIF_BENCH) $(B)/bench/cases: | $(UNPACKED)
