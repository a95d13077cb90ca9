# The CUDA backend, libquern-cuda.so: `make cuda`, with NVIDIA's nvcc 12.4 or later. It is opened when a `cuda` device is asked
# for; a build without it lacks nothing else. It resolves nothing from its host: the few files that both use are in both.
# NVCC= names the compiler, and CUDA_HOME= the toolkit if that is not the folder above it; `tools/deps cuda` fetches one
# into build/nvcc where none that will do is installed.
ifeq ($(origin NVCC),undefined)
NVCC := $(firstword $(wildcard build/nvcc/bin/nvcc) $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
endif
# Not from the environment, where it may be that of another nvcc.
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(realpath $(shell command -v $(NVCC) 2>/dev/null)))
NVCC_RELEASE = $(shell $(NVCC) --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
NVCC_OLD = $(shell printf '12.4\n%s\n' '$(NVCC_RELEASE)' | sort -CV || echo old)
# Why there can be no CUDA; empty: there can.
NO_CUDA = $(if $(NVCC),$(if $(NVCC_OLD),$(NVCC) $(if $(NVCC_RELEASE),is $(NVCC_RELEASE)$(COMMA) and 12.4 or later is needed,is no CUDA compiler)),nvcc was not found)

# sm_80 for Ampere, sm_90a for Hopper with its own instructions, and PTX for what comes after.
CUDA_ARCH ?= -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a \
             -gencode=arch=compute_90,code=compute_90
NVCC_FLAGS = -std=c++17 -O3 -lineinfo --expt-relaxed-constexpr -Iinclude $(CUDA_ARCH) -Xptxas=-v \
             -Xcompiler=-fPIC,-fvisibility=hidden,-fno-exceptions $(if $(CI),-Werror=all-warnings)
CB := $(B)/cuda
CUDA_SHARED := src/backend/scratch.c src/backend/transfer.c src/backend/compose.c src/backend/dtype.c src/backend/quant_codes.c
CUDA_SRC := $(wildcard src/cuda/*.c) $(CUDA_SHARED)
CUDA_KERNELS := $(wildcard src/cuda/*.cu)
CUDA_OBJ := $(CUDA_SRC:%.c=$(CB)/%.o) $(CUDA_KERNELS:%.cu=$(CB)/%.cu.o)
LIB_CUDA := $(if $(filter release,$(BUILD)),build/libquern-cuda.so,$(B)/libquern-cuda.so)

.PHONY: cuda cuda-usable cuda-left-out
cuda: ## libquern-cuda.so, for NVIDIA GPUs (needs nvcc 12.4 or later; NVCC=, CUDA_HOME=)
	@$(if $(NO_CUDA),echo 'make cuda: $(NO_CUDA) (NVCC= names another; tools/deps cuda fetches one)' >&2; exit 1,\
	    $(MAKE) --no-print-directory build $(LIB_CUDA))

cuda-usable:
	@$(if $(NO_CUDA),exit 1,:)

# One line for those who build or install without it.
cuda-left-out:
	@[ -e $(LIB_CUDA) ] || echo 'CUDA is left out: $(or $(NO_CUDA),`make cuda` adds it)'

$(CB)/flags: FORCE
	@mkdir -p $(@D); line='$(NVCC) $(NVCC_FLAGS)'; echo "$$line" | cmp -s - $@ || echo "$$line" > $@

$(CB)/%.o: %.c $(B)/flags $(CB)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(QUIET)$(CC) $(CFLAGS_ALL) -isystem $(CUDA_HOME)/include -MMD -MP -c $< -o $@

# What ptxas says of each kernel stays in FILE.cu.log, for tools/lint/cuda; warnings and errors are shown.
$(CB)/%.cu.o: %.cu $(CB)/flags
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(QUIET)$(NVCC) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@ >$(@:.o=.log) 2>&1; rc=$$?; \
	    grep -vE '^ptxas info |^ +[0-9]+ bytes stack frame' $(@:.o=.log) >&2; exit $$rc

$(LIB_CUDA): $(CUDA_OBJ) mk/cuda.map
	$(call say,LD,$@)
	$(QUIET)$(CXX) -shared -static-libstdc++ -static-libgcc -Wl,--version-script=mk/cuda.map -Wl,-z,defs \
	    -Wl,--enable-new-dtags,-rpath,'$$ORIGIN:$(CUDA_HOME)/lib64' -o $@ $(CUDA_OBJ) \
	    -L$(CUDA_HOME)/lib64 -lcudart_static -lcublasLt -ldl -lrt -lpthread

-include $(CUDA_OBJ:.o=.d)
