#!/usr/bin/env bash
# Runs the tests: in two processes whole runs with containers and all that need no container, for a run keeps about one
# core busy; then those of the sandbox alone, as they bound how long things take. `$1` is the Python to use, `$2` the
# wall seconds after which all are ended. Each part is shown whole, and the failed tests at the very end. A model that
# several tests need is made once, in a folder that all of them share.
set -uo pipefail
if [ $# -ne 2 ]; then
    echo "usage: $0 PYTHON SECONDS" >&2
    exit 2
fi
python="$1" seconds="$2" stopped="" part=""
logs="$(mktemp -d)"
export CODEDANCE_TEST_FOLDER="$logs"
trap 'rm -rf "$logs"' EXIT
trap 'stopped=yes; kill -INT $part 2>/dev/null' INT TERM

run() { # in the background, where bash has SIGINT ignored
    exec timeout --signal=INT --kill-after=60 "$((seconds - SECONDS))" env --default-signal=INT \
        "$python" -m pytest --durations=30 "$@"
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

show() { # runs a part and shows its output, until its process has ended
    local name="$1" status shown
    shift
    if [ -n "$stopped" ] || [ "$SECONDS" -ge "$seconds" ]; then return 1; fi
    touch "$logs/$name" # before a reader looks for it
    run "$@" >"$logs/$name" 2>&1 &
    part=$!
    tail --lines=+1 --follow --pid="$part" "$logs/$name" & # a file: what a test leaves running can't hold it up
    shown=$!
    await "$part"
    status=$?
    await "$shown"
    return "$status"
}

show most --numprocesses=2 --dist=loadfile --no-loadscope-reorder -m "(e2e or not docker) and not long"
most=$?
echo "tests of the sandbox, alone:"
show sandbox -m "docker and not e2e and not long"
sandbox=$?
echo "in short:"
grep --no-filename -E '^(FAILED|ERROR) |^=+ .* in [0-9.]+s' "$logs"/{most,sandbox} 2>/dev/null
[ "$most" -eq 0 ] && [ "$sandbox" -eq 0 ]
