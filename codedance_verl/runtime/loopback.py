"""Tests of addresses and Host headers: those of this machine alone."""

from __future__ import annotations

import ipaddress


def is_loopback(address: str) -> bool:
    """True when only this machine can reach an address that is listened on."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def names_loopback(host: str) -> bool:
    """True when a Host header is this machine's own. A page whose name was made to resolve to it sends another one."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return is_loopback(name.strip("[]").lower())
