# The CUDA backend, libquern-cuda.so: `make cuda`, with NVIDIA's nvcc 12.4 or later. It is opened when a `cuda` device is asked
# for; a build without it lacks nothing else. It resolves nothing from its host: the few files that both use are in both.
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
# sm_80 for Ampere, sm_90a for Hopper with its own instructions, and PTX for what comes after.
CUDA_ARCH ?= -gencode=arch=compute_80,code=sm_80 -gencode=arch=compute_90a,code=sm_90a \
             -gencode=arch=compute_90,code=compute_90
CB := $(B)/cuda
CUDA_SHARED := src/backend/scratch.c src/backend/transfer.c src/backend/compose.c src/backend/dtype.c
CUDA_SRC := $(wildcard src/cuda/*.c) $(CUDA_SHARED)
CUDA_KERNELS := $(wildcard src/cuda/*.cu)
CUDA_OBJ := $(CUDA_SRC:%.c=$(CB)/%.o) $(CUDA_KERNELS:%.cu=$(CB)/%.cu.o)
LIB_CUDA := $(if $(filter release,$(BUILD)),build/libquern-cuda.so,$(B)/libquern-cuda.so)

.PHONY: cuda
cuda: ## libquern-cuda.so, for NVIDIA GPUs (needs nvcc 12.4 or later)
ifeq ($(NVCC),)
	@echo "nvcc was not found: CUDA is left out (set NVCC=, or install NVIDIA's CUDA toolkit)" >&2; exit 1
else
	@$(MAKE) --no-print-directory build $(LIB_CUDA)
endif

$(CB)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(QUIET)$(CC) $(CFLAGS_ALL) -isystem $(CUDA_HOME)/include -MMD -MP -c $< -o $@

$(CB)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC,$<)
	$(QUIET)$(NVCC) -std=c++17 -O3 -lineinfo --expt-relaxed-constexpr -Iinclude $(CUDA_ARCH) -Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions -MMD -MP -MF $(@:.o=.d) -c $< -o $@

$(LIB_CUDA): $(CUDA_OBJ)
	$(call say,LD,$@)
	$(QUIET)$(CXX) -shared -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL -Wl,-z,defs \
	    -Wl,--enable-new-dtags,-rpath,'$$ORIGIN:$(CUDA_HOME)/lib64' -o $@ $^ \
	    -L$(CUDA_HOME)/lib64 -lcudart_static -lcublasLt -ldl -lrt -lpthread

-include $(CUDA_OBJ:.o=.d)
