# Benchmarks: bench/ops times the ops of the cpu backend against the machine's roofs.
BENCH_SRC := bench/ops.c bench/roof_portable.c $(if $(filter x86_64,$(ARCH)),bench/roof_avx2.c)
BENCH_OBJ := $(BENCH_SRC:%.c=$(B)/%.o)

$(B)/bench/ops: $(BENCH_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lm

.PHONY: bench
bench: $(B)/bench/ops ## time the ops of the cpu backend (options: build/release/bench/ops)
	@$<

-include $(BENCH_OBJ:.o=.d)
