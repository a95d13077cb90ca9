#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An installed copy: its files, the program of README.md compiled against it with pkg-config (shared and static) and run on
# the demo model, the command without -m, a libquern-cuda.so that both find, and complete removal by uninstall.
# Usage: sh tests/install.sh QUERN BUILD_DIR
set -u
[ "$2" = build/release ] || exit 77
unset MAKEFLAGS MFLAGS MAKELEVEL
top=$(mktemp -d) || exit 1
trap 'rm -rf "$top"' EXIT
root=$top/root$top/prefix # PREFIX alone does not exist
prefix=$top/prefix
at=$root # the sysroot given to pkg-config
passed=0 failed=0

# check WHAT COMMAND…
check() {
    what=$1
    shift
    if "$@" >"$top/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $what"
        cat "$top/log"
    fi
}
there() { for f in "$@"; do [ -f "$root/$f" ] || { echo "$f is not there"; return 1; }; done; }
config() { PKG_CONFIG_PATH=$root/lib/pkgconfig pkg-config --define-variable=prefix="$at" "$@" quern; }
tells() { out=$("$@") && [ "${#out}" -gt 20 ] && echo "$out"; }

version=$(sed -n 's/.*QN_VERSION_STRING "\(.*\)"/\1/p' include/quern/version.h)
soname=libquern.so.${version%.*}
cc="${CC:-gcc} -std=c11 -Wall -Wextra -Werror"
# In place of the CUDA backend, a library that has no device, and says so.
cat >"$top/cuda.c" <<'END'
#include "src/backend/plugin.h"
#include <stdio.h>
static const qni_backend none;
qni_plugin_backend_fn qni_plugin_backend;
const qni_backend *qni_plugin_backend(int32_t abi, const qni_host *host, int32_t *n_device, qn_error *reason) {
    *n_device = 0;
    snprintf(reason->message, sizeof reason->message, "cuda: a library of ABI %d", (int)abi);
    return abi == QNI_PLUGIN_ABI && host->calloc != NULL ? &none : NULL;
}
END
check "a library in place of CUDA's" $cc -D_GNU_SOURCE -I. -Iinclude -shared -fPIC "$top/cuda.c" -o "$top/cuda.so"
check "make install" make -s install-files DESTDIR="$top/root" PREFIX="$prefix" LIB_CUDA="$top/cuda.so"
check "files" there bin/quern lib/libquern.a "lib/libquern.so.$version" "lib/$soname" lib/libquern.so lib/libquern-cuda.so \
    lib/pkgconfig/quern.pc include/quern/quern.h share/quern/demo/model.safetensors share/quern/demo/README.md \
    share/quern/demo/ATTRIBUTION.tsv share/doc/quern/LICENSE share/man/man1/quern.1 \
    share/bash-completion/completions/quern share/zsh/site-functions/_quern
check "nothing packed" sh -c "! find '$root' -name '*.xz' | grep ."
check "all headers" diff -r include/quern "$root/include/quern"
check "soname" sh -c "objdump -p '$root/lib/libquern.so' | grep -q 'SONAME *$soname\$'"
check "version in quern.pc" [ "$(config --modversion)" = "$version" ]
check "quern --version" sh -c "'$root/bin/quern' --version | grep -qF '$version'"

awk '/^```c$/ { on = 1; next } /^```/ { on = 0 } on' README.md >"$top/story.c"
check "README: a program of ten lines" [ "$(wc -l <"$top/story.c")" -eq 10 ]
check "README's program, shared" $cc "$top/story.c" -o "$top/shared" $(config --cflags --libs)
check "README's program runs" tells env LD_LIBRARY_PATH="$root/lib" "$top/shared" models/demo
cp -a "$root" "$top/static" && rm "$top/static/lib/"*.so* && at=$top/static
check "README's program, static" $cc "$top/story.c" -o "$top/alone" $(config --static --cflags --libs)
check "README's program runs alone" tells "$top/alone" models/demo
"$top/alone" models/none >"$top/out" 2>"$top/err"
check "README's program reports" [ "$? $(wc -l <"$top/err") $(wc -c <"$top/out")" = "1 1 0" ]
check "the installed command has its model" tells sh -c "cd / && '$root/bin/quern' run --temp 0 -n 40 -p 'Tell me a story.'"
ln -s "$root/bin/quern" "$top/link"
check "through a symbolic link too" tells "$top/link" run --temp 0 -n 40 -p 'Tell me a story.'

cat >"$top/open.c" <<'END'
#include <quern/quern.h>
#include <stdio.h>
int main(void) {
    qn_device *device = NULL;
    qn_error err = {0};
    if (qn_device_open(&device, "cuda", NULL, &err) == QN_OK) qn_device_close(device);
    puts(err.message);
}
END
says() { want=$1; shift; out=$(cd / && "$@") && echo "$out" && echo "$out" | grep -qF "$want"; }
here="a library of ABI $(sed -n 's/.*QNI_PLUGIN_ABI = \([0-9]*\).*/\1/p' src/backend/plugin.h)"
at=$root
check "a program that opens cuda" $cc "$top/open.c" -o "$top/open" $(config --cflags --libs) -Wl,-rpath,"$root/lib"
check "the installed libquern.so finds CUDA's library" says "$here" "$top/open"
check "the installed command finds it" says "$here" "$root/bin/quern" devices
check "through a symbolic link too" says "$here" "$top/link" devices
rm "$root/lib/libquern-cuda.so"
check "where it is missing, one says so" says "there is no libquern-cuda.so" "$root/bin/quern" devices
check "make install without it" make -s install-files DESTDIR="$top/root" PREFIX="$prefix" LIB_CUDA="$top/none.so"
check "which leaves it out" [ ! -e "$root/lib/libquern-cuda.so" ]
check "which is said" says "CUDA is left out" make -s -C "$PWD" cuda-left-out LIB_CUDA="$top/none.so"
check "make install with it again" make -s install-files DESTDIR="$top/root" PREFIX="$prefix" LIB_CUDA="$top/cuda.so"

check "make uninstall" make -s uninstall DESTDIR="$top/root" PREFIX="$prefix"
check "nothing is left" [ -z "$(find "$top/root" -type f -o -type l)" ]
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
