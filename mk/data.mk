# Compressed data: FILE.xz is unpacked to FILE beside it, where tests and users expect it; .gitignore lists it.
PACKED := $(wildcard models/*/*.xz tests/data/*/*.xz tests/data/*/*/*.xz)
UNPACKED := $(PACKED:.xz=)

# Another make may unpack at the same time while its tests read, so the file is replaced atomically.
$(UNPACKED): %: %.xz
	$(call say,XZ,$@)
	@mkdir -p build; t=build/unpack.$$$$; xz -dc $< > $$t && mv $$t $@ || { rm -f $$t; exit 1; }

# All targets that may read it.
$(QUERN) $(TEST_BIN) $(GUARDED_BIN) $(FAKE_TEST) $(FAKE_BIN) $(FUZZ_BIN) $(NIF_LIB) $(DIGESTS) $(NIF_BENCH) $(B)/bench/cases: | $(UNPACKED)
