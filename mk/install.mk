# Installation: set PREFIX (/usr/local), DESTDIR, or single directories (BINDIR LIBDIR INCLUDEDIR DATADIR MANDIR …).
# The command finds the demo model at ../share/quern/demo and libquern-cuda.so, if that was built, at ../lib, relative to
# itself; libquern.so finds it beside itself. With a LIBDIR of another name the command asks the dynamic linker for it.
BASHCOMPDIR ?= $(DATADIR)/bash-completion/completions
ZSHCOMPDIR ?= $(DATADIR)/zsh/site-functions
DOCDIR ?= $(DATADIR)/doc/quern
DEMODIR ?= $(DATADIR)/quern/demo
INSTALL ?= install
D = $(DESTDIR)
MAN1 := $(wildcard man/*.1)
DEMO_FILES = $(sort $(filter-out %.xz,$(wildcard models/demo/*)) $(filter models/demo/%,$(UNPACKED)))

.PHONY: install install-files uninstall
install: deps ## install command, libraries, headers, quern.pc, man pages, completion and the demo model
	@$(MAKE) --no-print-directory build $(if $(NO_CUDA),,$(wildcard $(LIB_CUDA)))
	@$(MAKE) --no-print-directory -s install-files
	@$(MAKE) --no-print-directory cuda-left-out

install-files:
	$(INSTALL) -d $(D)$(BINDIR) $(D)$(LIBDIR)/pkgconfig $(D)$(INCLUDEDIR)/quern $(D)$(MANDIR)/man1 $(D)$(DOCDIR) \
	    $(D)$(DEMODIR) $(D)$(BASHCOMPDIR) $(D)$(ZSHCOMPDIR)
	$(INSTALL) -m 755 $(QUERN) $(D)$(BINDIR)/quern
	$(INSTALL) -m 644 $(LIB_STATIC) $(D)$(LIBDIR)/libquern.a
	$(INSTALL) -m 755 $(LIB_SHARED) $(D)$(LIBDIR)/libquern.so.$(VERSION)
	ln -sf libquern.so.$(VERSION) $(D)$(LIBDIR)/libquern.so.$(SOVERSION)
	ln -sf libquern.so.$(SOVERSION) $(D)$(LIBDIR)/libquern.so
	$(if $(wildcard $(LIB_CUDA)),$(INSTALL) -m 755 $(LIB_CUDA) $(D)$(LIBDIR)/libquern-cuda.so)
	$(INSTALL) -m 644 include/quern/*.h $(D)$(INCLUDEDIR)/quern/
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' \
	    -e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
	    -e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' \
	    mk/quern.pc.in > $(D)$(LIBDIR)/pkgconfig/quern.pc
	chmod 644 $(D)$(LIBDIR)/pkgconfig/quern.pc
	$(if $(MAN1),$(INSTALL) -m 644 $(MAN1) $(D)$(MANDIR)/man1/)
	$(if $(wildcard completion/quern.bash),$(INSTALL) -m 644 completion/quern.bash $(D)$(BASHCOMPDIR)/quern)
	$(if $(wildcard completion/_quern),$(INSTALL) -m 644 completion/_quern $(D)$(ZSHCOMPDIR)/_quern)
	$(INSTALL) -m 644 $(DEMO_FILES) $(D)$(DEMODIR)/
	$(INSTALL) -m 644 LICENSE README.md CHANGELOG.md $(D)$(DOCDIR)/
	$(if $(D),,-ldconfig 2>/dev/null || true)

uninstall: ## remove what install put there
	rm -f $(D)$(BINDIR)/quern $(D)$(LIBDIR)/libquern.a $(D)$(LIBDIR)/libquern.so \
	    $(D)$(LIBDIR)/libquern.so.$(SOVERSION) $(D)$(LIBDIR)/libquern.so.$(VERSION) $(D)$(LIBDIR)/libquern-cuda.so \
	    $(D)$(LIBDIR)/pkgconfig/quern.pc $(MAN1:man/%=$(D)$(MANDIR)/man1/%) $(D)$(BASHCOMPDIR)/quern $(D)$(ZSHCOMPDIR)/_quern
	rm -rf $(D)$(INCLUDEDIR)/quern $(D)$(DEMODIR) $(D)$(DOCDIR)
	-rmdir $(D)$(DATADIR)/quern 2>/dev/null || true
