"""The one exception whose message is meant for the person at the keyboard."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or a missing prerequisite.

    The message is one line that names the cause and the cure; where several things are wrong, one line each. Mains
    print each as ``error: <line>`` and exit with 2; no traceback is shown.
    """
