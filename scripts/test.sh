#!/usr/bin/env bash
# Runs the tests in two processes: those that start containers, Ray or models, and the fast ones beside them, in what
# the former leave of the machine. `$1` is the Python to use, `$2` the wall seconds after which both are ended. What the
# second one prints comes at the end.
set -uo pipefail
if [ $# -ne 2 ]; then
    echo "usage: $0 PYTHON SECONDS" >&2
    exit 2
fi
python="$1" seconds="$2"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
trap 'kill -INT $(jobs -p) 2>/dev/null' INT TERM

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

run -m "not docker and not slow" >"$log" 2>&1 &
fast=$!
echo "tests with containers, Ray or models; the fast ones go on beside them:"
run -m "(docker or slow) and not long" &
slow=$!
await "$slow"
slow_status=$?
await "$fast"
fast_status=$?
echo "fast tests:"
cat "$log"
[ "$slow_status" -eq 0 ] && [ "$fast_status" -eq 0 ]
