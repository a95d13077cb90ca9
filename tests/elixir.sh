#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tests/elixir.sh QUERN BUILD_DIR: mix test of bindings/elixir with the library of that build, asan included. Skipped
# if elixir is not installed (except in CI, which installs it) and for builds that the VM cannot load.
set -u
build=$2 config=$(basename "$2")
case $config in
release | debug | asan) ;;
*) echo "no NIF of a build for $config"; exit 77 ;;
esac
if ! command -v mix >/dev/null 2>&1 || [ ! -e /usr/lib/erlang/usr/include/erl_nif.h ]; then
    echo "elixir or erlang-dev is not installed"
    [ -n "${CI:-}" ] && exit 1
    exit 77
fi
export CONFIG=$config MIX_ENV=test MIX_BUILD_PATH=$PWD/$build/bindings/elixir/mix
cd bindings/elixir || exit 1
if [ "$config" = asan ]; then
    # The VM does not free its memory at exit, and does not handle faults by signals itself.
    export LD_PRELOAD=$(gcc -print-file-name=libasan.so)
    export ERL_FLAGS="+Mea min" # the NIF allocates with malloc, which the sanitizer tracks
    export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=16
fi
mix compile --warnings-as-errors || exit 1
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
mix test --warnings-as-errors >"$log" 2>&1
rc=$?
cat "$log"
# "7 doctests, 56 tests, 1 failure"
line=$(sed -n 's/^\(.* \)\{0,1\}\([0-9][0-9]*\) tests\{0,1\}, \([0-9][0-9]*\) failures\{0,1\}.*/\2 \3/p' "$log" | tail -n 1)
set -- $line
[ $# -eq 2 ] || { echo "mix test did not end: $rc"; exit 1; }
[ "$rc" -eq 0 ] || [ "$2" -gt 0 ] || set -- "$1" 1
echo "$(($1 - $2)) passed, $2 failed"
[ "$2" -eq 0 ]
