#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tests/signals.sh QUERN BUILD_DIR: what is left on disk, and the exit code, when a signal or a limit ends the
# command; and where new directories may be created.
set -u
quern=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
top=$(mktemp -d "${TMPDIR:-/tmp}/quern-signals.XXXXXX") || exit 1
trap 'rm -rf "$top"' EXIT
demo=$PWD/models/demo
passed=0 failed=0
cd "$top" || exit 1

# ok NAME COMMAND…: one test
ok() {
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $name; exit status $rc; left: $(ls -A . t 2>/dev/null | tr '\n' ' ')"
        [ ! -s err ] || sed 's/^/  stderr: /' err | head -3
    fi
}

# About 60 MB of weights, which take a while to write; and a small model.
large=layers=4,d_model=1024,heads=8,kv_heads=2,head_dim=64,d_ff=4096,vocab=60000
small=layers=1,d_model=64,heads=4,kv_heads=2,head_dim=16,d_ff=64,vocab=100
"$quern" synth $large in >err 2>&1 || { cat err; exit 1; }
mkdir t

# within SIGNALS COMMAND…: start it, wait until its temporary directory (out.* or t/*) is there, send the signals
within() {
    signals=$1
    shift
    TMPDIR=$top/t "$quern" "$@" >o 2>err &
    pid=$!
    i=0
    while [ -z "$(find . -maxdepth 2 -path './out*.*' -o -path './t/*')" ] && kill -0 $pid 2>/dev/null && [ $i -lt 600 ]; do
        sleep 0.02
        i=$((i + 1))
    done
    for signal in $signals; do kill "-$signal" $pid; done
    wait $pid
    rc=$?
}
nothing_left() { [ -z "$(find . -maxdepth 2 -path './out*' -o -path './t/*')" ]; }
for s in HUP:129 INT:130 QUIT:131 PIPE:141 TERM:143; do
    for c in "synth $large out" "quantize --to q8 in out" "bench --synthetic $large -r 100"; do
        # shellcheck disable=SC2086
        within ${s%:*} $c
        ok "SIG${s%:*}: ${c%% *} removes what it wrote" nothing_left
        ok "SIG${s%:*}: ${c%% *} exits with ${s#*:}" [ "$rc" -eq "${s#*:}" ]
        rm -rf out* t/*
    done
done
for s in XCPU:152 USR1:138 USR2:140 ALRM:142 VTALRM:154 PROF:155 IO:157 PWR:158; do
    within ${s%:*} synth $large out
    ok "SIG${s%:*}: synth removes what it wrote" nothing_left
    ok "SIG${s%:*}: synth exits with ${s#*:}" [ "$rc" -eq "${s#*:}" ]
    rm -rf out* t/*
done
# closing a terminal sends two signals; `timeout` and Ctrl-C twice do, too
for s in 'HUP HUP:129' 'INT INT:130' 'HUP TERM:' 'TERM TERM:143'; do
    # shellcheck disable=SC2086
    within "${s%:*}" synth $large out
    ok "SIG${s%:*}: nothing is left" nothing_left
    [ -z "${s#*:}" ] || ok "SIG${s%:*}: exit code" [ "$rc" -eq "${s#*:}" ]
    rm -rf out*
done
(trap '' HUP; exec "$quern" synth $large out >o 2>err) &
pid=$!
sleep 0.1
kill -HUP $pid
wait $pid
rc=$?
ok 'nohup: SIGHUP is ignored where it was' [ "$rc" -eq 0 -a -f out/config.json ]
rm -rf out
(trap '' USR1; exec "$quern" synth $large out >o 2>err) &
pid=$!
sleep 0.1
kill -USR1 $pid
wait $pid
rc=$?
ok 'SIGUSR1 is ignored where it was' [ "$rc" -eq 0 -a -f out/config.json ]
rm -rf out
(ulimit -S -t 1; exec "$quern" bench --synthetic $large -r 1000 >o 2>err)
rc=$?
ok 'a limit of processor time leaves nothing' nothing_left
ok 'a limit of processor time: exit 152' [ "$rc" -eq 152 ]

# --- a file size limit, and a full disk for the messages
(ulimit -f 1000; exec "$quern" synth $large out >o 2>err)
rc=$?
ok 'a limit of file size is told' grep -q '^quern: .*: File too large$' err
ok 'a limit of file size: exit 1, nothing is left' [ "$rc" -eq 1 -a -z "$(ls -d out* 2>/dev/null)" ]
(ulimit -f 1000; exec "$quern" quantize --to q8 in out >o 2>err)
rc=$?
ok 'quantize: a limit of file size is told' grep -q '^quern: .*: File too large$' err
ok 'quantize: exit 1, nothing is left' [ "$rc" -eq 1 -a -z "$(ls -d out* 2>/dev/null)" ]
rm -rf out*

# --- records and chat
mkfifo lines
"$quern" sample <lines >o 2>err &
pid=$!
exec 3>lines
sleep 0.2
kill -TERM $pid
wait $pid
rc=$?
exec 3>&-
ok 'SIGTERM ends the wait for a record' [ "$rc" -eq 143 ]
"$quern" chat -m "$demo" -n 3000 --ignore-eos <lines >o 2>err &
pid=$!
exec 3>lines
echo 'Hello' >&3
i=0
while [ ! -s o ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done
kill -TERM $pid
wait $pid
rc=$?
exec 3>&-
ok 'SIGTERM ends a chat within an answer' [ "$rc" -eq 143 -a -s o ]

# several at once: active requests are answered with their text so far
i=0
while [ $i -lt 200 ]; do echo '{"prompt":"Once upon a time","ignore_eos":true,"seed":'$i'}'; i=$((i + 1)); done >records
rm -f o
"$quern" run --jsonl -m "$demo" -np 4 <records >o 2>err &
pid=$!
i=0
while [ ! -s o ] && [ $i -lt 600 ]; do sleep 0.05; i=$((i + 1)); done
kill -TERM $pid
wait $pid
rc=$?
ok 'SIGTERM ends records within their answers' [ "$rc" -eq 143 -a "$(wc -l <o)" -lt 200 ]
ok 'SIGTERM: every line is an answer' [ "$(grep -c '^{"ids": \[.*}$' o)" -eq "$(wc -l <o)" ]
ok 'SIGTERM: what was under way is told as canceled' [ "$(grep -c '"finish_reason": "canceled"' o)" -le 4 ]
ok 'SIGTERM: and comes last' sh -c "tail -n 1 o | grep -q '\"finish_reason\": \"canceled\"'"

# --- out of memory for a line
line() { printf '{"text":"'; head -c 60000000 /dev/zero | tr '\0' a; printf '"}\n{"text":"b"}\n'; }
if (ulimit -v 100000 && "$quern" --version) >/dev/null 2>&1; then
    for c in 'tokenize --jsonl' 'run --jsonl' render sample chat; do
        # shellcheck disable=SC2086
        line | (ulimit -v 100000; timeout 20 "$quern" $c -m "$demo" >o 2>err || exit $?)
        rc=$?
        case $c in sample) line | (ulimit -v 100000; timeout 20 "$quern" sample >o 2>err || exit $?); rc=$? ;; esac
        ok "$c: a line without memory for it is told" sh -c "[ $rc -eq 1 ] && grep -q 'out of memory' o err"
    done
fi

# --- where a new directory may be created
rc=0
mkdir here && (cd here && "$quern" synth $small . >../o 2>../err)
ok 'the current directory' [ -f here/model.safetensors -a "$(ls -A here | wc -l)" -eq 3 ]
mkdir slash && "$quern" synth $small slash/ >o 2>err
ok 'a slash at the end of one that exists' [ -f slash/config.json ]
"$quern" synth $small new/ >o 2>err
ok 'a slash at the end of a new one' [ -f new/config.json ]
mkdir target && ln -s target link && "$quern" synth $small link >o 2>err
ok 'a link to an empty one' [ -L link -a -f target/config.json ]
ln -s nowhere dead && "$quern" synth $small dead >o 2>err
ok 'a link to nothing is refused' [ $? -eq 1 -a ! -e nowhere ]
"$quern" synth $small no/such/parent >o 2>err
ok 'a parent that does not exist is refused' [ $? -eq 1 -a ! -e no ]
mkdir 'lost' 'lost/lost+found' && "$quern" synth $small lost >o 2>err
ok "a fresh disk, with its lost+found" [ -f lost/config.json ]
mkdir used && : >used/.hidden && "$quern" synth $small used >o 2>err
ok 'one that is not empty is refused' [ $? -eq 1 -a "$(ls -A used)" = .hidden ]
mkdir full && (ulimit -f 1000; cd full && "$quern" synth $large . >../o 2>../err)
ok 'a failure leaves an existing one empty' [ -d full -a -z "$(ls -A full)" ]
mkdir out && within HUP synth $large out/
ok 'a signal leaves an existing one empty' [ -d out -a -z "$(ls -A out)" ]
mkdir q8 && (cd q8 && "$quern" quantize --to q8 "$demo" . >../o 2>../err) && "$quern" run -m q8 --ids 1 -n 1 >o 2>err
ok 'quantize into the current directory' [ $? -eq 0 -a -f q8/tokenizer.json ]
if mkdir mount && mount -t tmpfs -o size=50m tmpfs mount 2>/dev/null; then
    "$quern" synth $small mount >o 2>err
    ok 'a mount point' [ -f mount/config.json ]
    rm -f mount/*
    "$quern" synth 0.6B mount >o 2>err
    rc=$?
    ok 'the space is that of the mount point' sh -c "[ $rc -eq 1 ] && grep -q 'are free' err"
    umount mount
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
