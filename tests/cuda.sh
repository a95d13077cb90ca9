#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The CUDA backend without a GPU: if libquern-cuda.so was built, it opens and says in one line what is missing.
# Usage: sh tests/cuda.sh QUERN BUILD_DIR
set -u
quern=$1
[ -e "$(dirname "$quern")/libquern-cuda.so" ] || exit 77
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
"$quern" run --device cuda --temp 0 -n 8 -p "Tell me a story." >"$dir/out" 2>"$dir/err"
rc=$?
[ "$rc" -ne 0 ] || exit 77 # there is a GPU: make check-gpu tests it
passed=0 failed=0
ok() {
    what=$1
    shift
    if "$@"; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $what"; cat "$dir/out" "$dir/err"; fi
}
ok "one line" [ "$(wc -l <"$dir/err") $(wc -c <"$dir/out")" = "1 0" ]
ok "it names the device" grep -q '^quern: cuda: ' "$dir/err"
ok "the library is there" sh -c "! grep -q 'there is no libquern-cuda.so\|another version' '$dir/err'"
reason=$(sed 's/^quern: //' "$dir/err")
ok "devices gives the same reason" sh -c "'$quern' devices | grep -qF \"not usable: \$1\"" sh "$reason"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
