#!/usr/bin/env bash
# Runs the tests: whole runs with containers, and beside them all that need no container, the fast ones first, for a run
# keeps about one core busy; then those of the sandbox alone, as they bound how long things take. `$1` is the Python to
# use, `$2` the wall seconds after which all are ended. Each part is shown whole, and at the very end which tests
# failed. A model that several parts need is made once, in a folder that all are told.
set -uo pipefail
if [ $# -ne 2 ]; then
    echo "usage: $0 PYTHON SECONDS" >&2
    exit 2
fi
python="$1" seconds="$2" stopped="" sandbox=""
logs="$(mktemp -d)"
export CODEDANCE_TEST_FOLDER="$logs"
touch "$logs/runs" "$logs/without" "$logs/sandbox" # before a reader looks for them
trap 'rm -rf "$logs"' EXIT
trap 'stopped=yes; kill -INT $runs $without $sandbox 2>/dev/null' INT TERM

run() { # in the background, where bash has SIGINT ignored
    local pytest=("$python" -m pytest --durations=30 "$@")
    exec timeout --signal=INT --kill-after=60 "$((seconds - SECONDS))" env --default-signal=INT "${pytest[@]}"
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

show() { # a part while it goes on, until its process has ended
    tail --lines=+1 --follow --pid="$2" "$logs/$1" & # a file, not a pipe: what a test leaves running can't hold it up
    local shown=$! status
    await "$2"
    status=$?
    await "$shown"
    return "$status"
}

echo "whole runs with containers; tests without containers go on beside them:"
run -m "docker and e2e and not long" >"$logs/runs" 2>&1 &
runs=$!
run -m "not docker and not long" >"$logs/without" 2>&1 &
without=$!
show runs "$runs"
runs_status=$?
echo "tests without containers:"
show without "$without"
without_status=$?
sandbox_status=1
if [ -z "$stopped" ] && [ "$SECONDS" -lt "$seconds" ]; then
    echo "tests of the sandbox:"
    run -m "docker and not e2e and not long" >"$logs/sandbox" 2>&1 &
    sandbox=$!
    show sandbox "$sandbox"
    sandbox_status=$?
fi
echo "in short:"
grep --no-filename -E '^(FAILED|ERROR) |^=+ .* in [0-9.]+s' "$logs/runs" "$logs/without" "$logs/sandbox"
[ "$runs_status" -eq 0 ] && [ "$without_status" -eq 0 ] && [ "$sandbox_status" -eq 0 ]
