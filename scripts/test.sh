#!/usr/bin/env bash
# Runs the tests in two processes, for what starts containers, Ray or models keeps about one core busy: those with
# containers, which share the engine, and those without, the fast ones first. `$1` is the Python to use, `$2` the wall
# seconds after which both are ended. What the latter print comes after the former, and at the very end which tests
# failed. A model that both need is made once, in a folder that both are told.
set -uo pipefail
if [ $# -ne 2 ]; then
    echo "usage: $0 PYTHON SECONDS" >&2
    exit 2
fi
python="$1" seconds="$2"
logs="$(mktemp -d)"
export CODEDANCE_TEST_FOLDER="$logs"
touch "$logs/with" "$logs/without" # before a reader looks for them
trap 'rm -rf "$logs"' EXIT
trap 'kill -INT $with $without 2>/dev/null' INT TERM

run() { # in the background, where bash has SIGINT ignored
    exec timeout --signal=INT --kill-after=60 "$seconds" env --default-signal=INT "$python" -m pytest --durations=30 "$@"
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

echo "tests with containers; those without go on beside them:"
run -m "docker and not long" >"$logs/with" 2>&1 &
with=$!
run -m "not docker and not long" >"$logs/without" 2>&1 &
without=$!
tail --lines=+1 --follow --pid=$with "$logs/with" & # a file, not a pipe: what a test leaves running can't hold it up
shown=$!
await "$with"
with_status=$?
await "$without"
without_status=$?
await "$shown"
echo "tests without containers:"
cat "$logs/without"
echo "in short:"
grep --no-filename -E '^(FAILED|ERROR) |^=+ .* in [0-9.]+s' "$logs/with" "$logs/without"
[ "$with_status" -eq 0 ] && [ "$without_status" -eq 0 ]
