# Lints. Each is a separate target; `make lint` runs them all and reports every problem.
LINTED := $(wildcard src/*/*.[ch] src/*/*/*.[ch] cli/*.[ch] cli/*/*.[ch] include/quern/*.h tests/*.[ch] tests/*/*.[ch] \
          bindings/elixir/*/*.[ch])
LINTED_CUDA := $(wildcard src/cuda/*.cu src/cuda/*.cuh)
# cli/dev/roof_neon.c has an assembler directive that clang-tidy rejects.
TIDIED := $(filter-out cli/dev/roof_neon.c $(if $(CUDA_HOME),,src/cuda/%),$(filter %.c,$(LINTED)))
LINTS := lint-format lint-tidy lint-includes lint-source lint-docs lint-headers lint-symbols lint-cycles lint-scripts lint-man \
         lint-elixir lint-cuda

.PHONY: lint lint-deps lint-all format $(LINTS)
lint-deps:
	@tools/deps lint

lint: lint-deps ## layout, clang-tidy, include rules, symbols, circles, headers, docs, scripts, man pages
	@$(MAKE) --no-print-directory -k lint-all

lint-all: $(LINTS)

lint-format:
	@clang-format --dry-run --Werror $(LINTED) $(LINTED_CUDA)

format: ## lay out all sources with clang-format
	@clang-format -i $(LINTED) $(LINTED_CUDA)

# One stamp per file, so that unchanged files are not checked again.
$(B)/tidy/%_avx2.c.ok: private ISA_FLAGS := $(ISA_avx2)
$(B)/tidy/%_avx512.c.ok: private ISA_FLAGS := $(ISA_avx512)
$(B)/tidy/%_avx512bf16.c.ok: private ISA_FLAGS := $(ISA_avx512bf16)
AARCH64 := --target=aarch64-linux-gnu
$(B)/tidy/src/cpu/arm/%.c.ok: private ISA_FLAGS := $(AARCH64)
$(B)/tidy/src/cpu/arm/%_neondot.c.ok: private ISA_FLAGS := $(AARCH64) $(ISA_neondot)
$(B)/tidy/src/cpu/arm/%_neonbf16.c.ok: private ISA_FLAGS := $(AARCH64) $(ISA_neonbf16)
$(B)/tidy/src/cpu/arm/%_neoni8mm.c.ok: private ISA_FLAGS := $(AARCH64) $(ISA_neoni8mm)
$(B)/tidy/src/cuda/%.c.ok: private ISA_FLAGS = -isystem $(CUDA_HOME)/include
$(B)/tidy/tests/cuda/%.c.ok: private ISA_FLAGS = -Itests/cuda/include
$(B)/tidy/bindings/elixir/%.c.ok: private ISA_FLAGS = -isystem $(ERL_INCLUDE)
$(B)/tidy/%.c.ok: %.c .clang-tidy $(wildcard include/quern/*.h src/*/*.h bindings/elixir/c_src/*.h)
	@mkdir -p $(@D)
	@clang-tidy --quiet $< -- $(filter-out -Wno% -W%,$(COMMON)) $(PKG_CFLAGS) $(ISA_FLAGS) > $@.log 2>/dev/null || \
	    { cat $@.log; exit 1; }
	@touch $@

lint-tidy: $(TIDIED:%=$(B)/tidy/%.ok)

lint-includes lint-source lint-docs lint-headers:
	@CC='$(CC)' NVCC='$(if $(NO_CUDA),,$(NVCC))' CUDA_HOME='$(CUDA_HOME)' tools/lint/$(@:lint-%=%)

lint-symbols: $(LIB_STATIC) $(LIB_SHARED)
	@tools/lint/symbols $(LIB_STATIC) $(LIB_SHARED)

# If it was built.
lint-cuda: $(if $(NO_CUDA),,$(wildcard $(LIB_CUDA)))
	@[ ! -e $(LIB_CUDA) ] || tools/lint/cuda $(LIB_CUDA) $(CB) $(CUDA_HOME)

lint-cycles: $(LIB_OBJ) $(NIF_OBJ)
	@tools/lint/cycles $^

lint-scripts:
	@for f in tools/deps tools/nvcc-wheels tools/fuzz tools/mutants tools/lint/* tests/run .ci/* tests/*.sh; do [ ! -e $$f ] || sh -n $$f || exit 1; done
	@for f in $$(git ls-files '*.py'); do python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' $$f || exit 1; done
	@for f in completion/*.bash; do [ ! -e $$f ] || bash -n $$f || exit 1; done
	@for f in completion/_*; do [ ! -e $$f ] || zsh -n $$f || exit 1; done

lint-man:
	@for f in man/*.1; do [ ! -e $$f ] || [ -z "$$(groff -man -ww -z $$f 2>&1 | tee /dev/stderr)" ] || exit 1; done

lint-elixir:
	@cd bindings/elixir && mix format --check-formatted
