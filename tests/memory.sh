#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Memory use is predicted: the peak resident set of a run is within 5 % and 50 MB of what `quern info` reports. The model is
# large enough that a second copy of its table (134 MB) would show.
# Usage: sh tests/memory.sh QUERN BUILD_DIR
set -u
case $2 in
build/release | build/debug) ;;
*) exit 77 ;; # sanitizers and coverage counters need extra memory
esac
quern=$1
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0
fail() { failed=$((failed + 1)); echo "FAILED: $*"; }

shape=layers=2,d_model=2048,d_ff=8192,heads=16,kv_heads=8,head_dim=128,vocab=32768
"$quern" synth $shape "$dir/model" >/dev/null 2>&1 || { echo "synth: exit status $?"; exit 1; }
ids=$(seq -s ' ' 1 250)
for options in "-c 256" "-c 2048 --kv f32"; do
    plan=$("$quern" info -m "$dir/model" --json $options | sed -n 's/.*"total_bytes": *\([0-9]*\).*/\1/p')
    "$quern" run -m "$dir/model" $options --ids "$ids" -n 4 --ignore-eos --temp 0 >"$dir/out" 2>"$dir/err"
    peak=$(sed -n 's/.*; memory \([0-9.]*\) \([MG]B\).*/\1 \2/p' "$dir/err" |
        awk '{ printf "%.0f", $1 * ($2 == "GB" ? 1e9 : 1e6) }')
    if [ -n "$plan" ] && [ -n "$peak" ] && awk -v plan="$plan" -v peak="$peak" \
        'BEGIN { exit !(peak <= 1.05 * plan + 50e6 && peak >= 0.5 * plan) }'; then
        passed=$((passed + 1))
    else
        fail "$options: a plan of ${plan:-?} bytes, a peak of ${peak:-?}"
        cat "$dir/err"
    fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
