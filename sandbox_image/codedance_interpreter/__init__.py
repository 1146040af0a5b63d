"""Interpreter that runs model-written Python inside a sandbox container (or, for development, a host process).

Processes, from the outside in:

``container_init``  PID 1 of the container, small: reaps, kills everything of a session, restarts the zygote.
``zygote``      has the scientific libraries imported; forks one session per trajectory under uids of its own.
``supervisor``  of a session: talks to the host, reports cells, never runs one.
``runner``      of a session: holds the variables and runs the cells; a sleeping checkpoint of itself beside each cell.
``decoder``     of an image: decodes it for all sessions that have it, and ends.

Nothing here imports `codedance_verl`; the two sides meet in the wire format only (`wire.py`).
"""
