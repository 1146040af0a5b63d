"""The one exception whose message is meant for the person at the keyboard."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or a missing prerequisite.

    The message is one line that names the cause and the cure. Mains print it as ``error: <message>`` and exit with 2;
    no traceback is shown.
    """
