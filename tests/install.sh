#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# An installed copy: its files, the program of README.md compiled against it with pkg-config (shared and static) and run on
# the demo model, the command without -m, and complete removal by uninstall.
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
check "make install" make -s install-files DESTDIR="$top/root" PREFIX="$prefix"
check "files" there bin/quern lib/libquern.a "lib/libquern.so.$version" "lib/$soname" lib/libquern.so \
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
cc="${CC:-gcc} -std=c11 -Wall -Wextra -Werror"
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

check "make uninstall" make -s uninstall DESTDIR="$top/root" PREFIX="$prefix"
check "nothing is left" [ -z "$(find "$top/root" -type f -o -type l)" ]
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
