#!/usr/bin/env bash
# Runs the tests in two processes: those that start containers, Ray or models, and the fast ones beside them, in what
# the former leave of the machine. `$1` is the Python to use, `$2` the wall seconds after which both are ended. What the
# fast ones print comes after the others, and at the very end which tests failed.
set -uo pipefail
if [ $# -ne 2 ]; then
    echo "usage: $0 PYTHON SECONDS" >&2
    exit 2
fi
python="$1" seconds="$2"
logs="$(mktemp -d)"
touch "$logs/slow" "$logs/fast" # before a reader looks for them
trap 'rm -rf "$logs"' EXIT
trap 'kill -INT $slow $fast 2>/dev/null' INT TERM

run() { # in the background, where bash has SIGINT ignored
    exec timeout --signal=INT --kill-after=60 "$seconds" env --default-signal=INT "$python" -m pytest --durations=15 "$@"
}

await() { # until it has ended, also when a signal comes in between; its exit code
    local status
    wait "$1"
    status=$?
    while kill -0 "$1" 2>/dev/null; do
        wait "$1"
        status=$?
    done
    return "$status"
}

echo "tests with containers, Ray or models; the fast ones go on beside them:"
run -m "(docker or slow) and not long" >"$logs/slow" 2>&1 &
slow=$!
run -m "not docker and not slow" >"$logs/fast" 2>&1 &
fast=$!
tail --lines=+1 --follow --pid=$slow "$logs/slow" & # a file, not a pipe: what a test leaves running can't hold it up
shown=$!
await "$slow"
slow_status=$?
await "$fast"
fast_status=$?
await "$shown"
echo "fast tests:"
cat "$logs/fast"
echo "in short:"
grep --no-filename -E '^(FAILED|ERROR) |^=+ .* in [0-9.]+s' "$logs/slow" "$logs/fast"
[ "$slow_status" -eq 0 ] && [ "$fast_status" -eq 0 ]
