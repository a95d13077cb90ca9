# Rules to build the objects, the libraries and the command. V=1 shows whole commands; `make -s` is silent.
COMMA := ,
QUIET := $(if $(V),,@)
say = $(if $(V)$(findstring s,$(firstword -$(MAKEFLAGS))),,@echo '  $(1)  $(2)')

$(B)/%_avx2.o: private ISA_FLAGS := $(ISA_avx2)
$(B)/%_avx512.o: private ISA_FLAGS := $(ISA_avx512)
$(B)/%_avx512bf16.o: private ISA_FLAGS := $(ISA_avx512bf16)
$(B)/%_neon.o: private ISA_FLAGS := $(ISA_neon)
$(B)/%_neondot.o: private ISA_FLAGS := $(ISA_neondot) $(ISA_neon)
$(B)/%_neonbf16.o: private ISA_FLAGS := $(ISA_neonbf16) $(ISA_neon)
$(B)/%_neoni8mm.o: private ISA_FLAGS := $(ISA_neoni8mm) $(ISA_neon)

# Objects depend on their compiler flags, including those of all ISA levels, so that a changed flag triggers a rebuild.
FLAGS_LINE = $(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL) $(foreach v,$(sort $(filter ISA_%,$(.VARIABLES))),$($v))
$(B)/flags: FORCE
	@mkdir -p $(@D); echo '$(FLAGS_LINE)' | cmp -s - $@ || echo '$(FLAGS_LINE)' > $@
.PHONY: FORCE
FORCE:

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(QUIET)$(CC) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

$(LIB_STATIC): $(LIB_OBJ)
	$(call say,AR,$@)
	@rm -f $@
	$(QUIET)$(AR) rcs $@ $^

$(LIB_SHARED): $(LIB_OBJ)
	$(call say,LD,$@)
	$(QUIET)$(CC) -shared -Wl,-soname,libquern.so.$(SOVERSION) $(if $(filter release debug,$(CONFIG)),-Wl$(COMMA)-z$(COMMA)defs) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lm
	@ln -sf $(@F) $(B)/libquern.so.$(SOVERSION); ln -sf $(@F) $(B)/libquern.so

$(QUERN): $(CLI_OBJ) $(LIB_STATIC)
	$(call say,LD,$@)
	$(QUIET)$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) $(EDIT_LIBS) -lm

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d)

.PHONY: compdb
compdb: ## compile_commands.json for editors: the commands of all objects
	@$(MAKE) --no-print-directory -Bn V=1 build $(TEST_BIN) | \
	    sed -n 's|^\(.* -c \([^ ]*\.c\) -o .*\)$$|{"directory": "$(CURDIR)", "file": "\2", "command": "\1"},|p' | \
	    sed -e '1s/^/[\n/' -e '$$s/,$$/\n]/' > compile_commands.json
