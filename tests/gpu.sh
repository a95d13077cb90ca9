#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# `make check-gpu`: what only a machine with an NVIDIA GPU can test. The reference data on `cuda` in f32 and in bf16; equal
# digests in f32 however prompts are cut and batched; every test program that goes through the devices of the build, which
# finds libquern-cuda.so by the dynamic linker's path; choices in bf16 on the shape of 0.6B; the memory checker of
# compute-sanitizer, where it is installed.
# Usage: GPU=1 sh tests/gpu.sh QUERN BUILD_DIR; skipped without GPU=1, as by tests/run
set -u
[ "${GPU:-}" = 1 ] || exit 77
quern=$1 build=$2
passed=0 failed=0 skipped=0
data="tests/data/primitives tests/data/models tests/data/quantized"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# check WHAT COMMAND…
check() {
    what=$1
    shift
    if "$@" >"$dir/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $what"
        tail -n 40 "$dir/log"
    fi
}
# verify NAME OPTION…: keeps a line for each path in NAME.json
verify() {
    name=$1
    shift
    "$quern" verify --device cuda --json "$@" >"$dir/$name.json" 2>"$dir/err" && [ -s "$dir/$name.json" ] && return
    grep -v '"ok": true' "$dir/$name.json"
    cat "$dir/err"
    return 1
}
digests() { sed -n 's/.*"path": "\([^"]*\)".*"digest": "\([^"]*\)".*/\1 \2/p' "$dir/$1.json"; }
same_digests() { digests f32 >"$dir/a" && digests "$1" >"$dir/b" && [ -s "$dir/a" ] && diff "$dir/a" "$dir/b"; }

"$quern" devices | tee "$dir/devices"
if ! grep '^cuda' "$dir/devices" | grep -qv 'not usable'; then
    echo "check-gpu: needs a machine with an NVIDIA GPU"
    exit 1
fi

check "verify, f32" verify f32 --arith f32 $data
# Not mlx-mixed-2-6-8, whose logits in bf16 are beyond verify's bound for any backend (0.032 of 0.015 on cpu).
check "verify, bf16" verify bf16 --arith bf16 tests/data/primitives tests/data/models tests/data/quantized/fp8* \
    tests/data/quantized/mlx-[0-9]*
check "verify, f32, in chunks of 7" verify chunk --arith f32 --chunk 7 tests/data/models tests/data/quantized
check "verify, f32, in a batch of 9" verify batch --arith f32 --batch 9 tests/data/models tests/data/quantized
check "verify, f32, again" verify again --arith f32 $data
for name in chunk batch again; do
    check "digests, $name" same_digests $name
done

folder=$(cd "$(dirname "$quern")" && pwd)
export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
check "test programs find libquern-cuda.so" sh -c \
    "LD_DEBUG=files '$build/tests/test_api' 2>&1 | grep -q 'calling init: $folder/libquern-cuda.so'"
mkdir -p "$build/tests/log"
for source in $(grep -lE 'qn_backend_name|device_cases' tests/test_*.c); do
    name=$(basename "$source" .c)
    sh tests/run "$build" "$quern" "$name"
    set -- $(cat "$build/tests/log/$name.counts" || echo 0 1 0)
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
done

# The loop above has compared the choices of models/demo.
check "random weights of the shape of 0.6B" "$quern" synth 0.6B "$dir/0.6B"
check "choices, 0.6B" env CHOICES_MODEL="$dir/0.6B" "$build/tests/test_choices"
grep 'above the margin' "$dir/log"
rm -rf "$dir/0.6B"

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
    for arith in f32 bf16; do
        check "compute-sanitizer, $arith" "$sanitizer" --tool memcheck --error-exitcode 9 "$quern" verify --device cuda \
            --arith $arith tests/data/primitives/case0.safetensors tests/data/models/tied-f32
    done
else
    echo "compute-sanitizer is not installed"
    skipped=$((skipped + 1))
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
