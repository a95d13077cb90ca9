# Quern's build. `make help` lists the targets. CONFIG=release|debug|asan|tsan|cov|simde|simde-asan; objects go to
# build/CONFIG/, those for another processor than this machine's to build/CONFIG-PROCESSOR/.
CONFIG ?= release
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
AR ?= ar
PKG_CONFIG ?= pkg-config
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man

ARCH := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
BUILD := $(CONFIG)$(if $(filter $(ARCH),$(shell uname -m)),,-$(ARCH))
B := build/$(BUILD)
# The command's path is fixed for the release build: scripts rely on build/quern.
QUERN := $(if $(filter release,$(BUILD)),build/quern,$(B)/quern)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all
include mk/flags.mk
include mk/sources.mk
include mk/build.mk
include mk/test.mk
include mk/cuda.mk
include mk/nif.mk
include mk/fuzz.mk
include mk/bench.mk
include mk/install.mk
include mk/lint.mk
include mk/data.mk

all: deps ## build the library and the command (build/quern)
	@$(MAKE) --no-print-directory build
	$(if $(findstring s,$(firstword -$(MAKEFLAGS))),,@$(MAKE) --no-print-directory cuda-left-out)

.PHONY: build deps demo clean help
build: $(QUERN) $(LIB_STATIC) $(LIB_SHARED)

deps: ## install what the build needs and is missing (Debian packages; root or sudo)
	@tools/deps build

demo: deps ## build what is missing and tell a story with models/demo
	@[ -e $(QUERN) ] || echo "building $(QUERN), which takes a minute"
	@$(MAKE) --no-print-directory -s $(if $(filter -j%,$(MAKEFLAGS)),,-j$$(nproc)) build
	@$(QUERN) run --temp 0.4 --top-p 0.9 -p "Tell me a story about a dragon who is afraid of fire."

clean: ## remove build/ and unpacked data
	rm -rf build
	rm -f $(UNPACKED)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22
