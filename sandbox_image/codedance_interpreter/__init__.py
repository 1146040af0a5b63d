"""The interpreter that runs model-written Python inside a sandbox container (or, for development, a host process).

Processes, from the outside in:

``keeper``   PID 1 of the container, small: reaps, kills everything of a session, restarts the zygote.
``zygote``   has the scientific libraries imported; forks one session per trajectory under a uid of its own.
``session``  the head of a session holds the last good state; every cell runs in a forked copy of it. A copy that
             succeeds becomes the new head, a copy that fails is dropped.

Nothing here imports `codedance_verl`; the two sides meet in the wire format only (`wire.py`).
"""
