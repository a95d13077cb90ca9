# Rules that make objects, the libraries and the command.
$(B)/%_avx2.o: ISA_FLAGS := $(ISA_avx2)
$(B)/%_avx512.o: ISA_FLAGS := $(ISA_avx512)
$(B)/%_neon.o: ISA_FLAGS := $(ISA_neon)

# Objects depend on the flags that they were made with, so that a changed flag rebuilds.
$(B)/flags: FORCE
	@mkdir -p $(@D); echo '$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL)' | cmp -s - $@ || echo '$(CC) $(CFLAGS_ALL) $(LDFLAGS_ALL)' > $@
.PHONY: FORCE
FORCE:

$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

$(LIB_STATIC): $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(LIB_SHARED): $(LIB_OBJ)
	$(CC) -shared -Wl,-soname,libquern.so.$(SOVERSION) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) -lm
	@ln -sf $(@F) $(B)/libquern.so.$(SOVERSION); ln -sf $(@F) $(B)/libquern.so

$(QUERN): $(CLI_OBJ) $(LIB_STATIC)
	$(CC) -o $@ $^ $(LDFLAGS_ALL) $(PKG_LIBS) $(EDIT_LIBS) -lm

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d)
